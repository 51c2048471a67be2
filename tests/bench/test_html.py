from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from faiss_dmih.bench import Cell, Measurement, Run
from faiss_dmih.bench.goals import Goal, judge, over
from faiss_dmih.bench.html import html
from faiss_dmih.bench.machine import describe
from faiss_dmih.bench.plots import trial_of, write_plots
from faiss_dmih.bench.protocol import Protocol
from faiss_dmih.bench.report import markdown
from faiss_dmih.bench.results import CellResult, Chart, Curve, Figure, Spread, TrialResult
from faiss_dmih.bench.standings import rivals, standings

CELL = Cell("uniform", "held-out", 64, 1000, 40, 10, 40, 2)


def exactly(value):
    return Spread(value, value, value)


def measured(family, seconds, auto, *, exact=True, recall=1.0, **settings):
    name = "".join([family, *(f"-{key}{value}" for key, value in settings.items())])
    times = exactly(seconds)
    ratios = {"speedup": exactly(10 / seconds), "behind": exactly(seconds / auto)}
    recalls = {"recall": recall, "distance_recall": recall}
    timed = {"nq": 40, "rounds": 3, "seconds_per_query": times}
    asked = (name, family, family, exact, settings, 2, True)
    return Measurement(*asked, **timed, **ratios, **recalls)


def a_cell(cell, auto, *others):
    own = measured("flat", 10, auto), measured("dmih-auto", auto, auto)
    engine = measured("dmih-engines", auto / 2, auto, engine="scan")
    return CellResult(cell, {}, [], [*own, engine, *others], 1.0, 0.0, exactly(2.0))


@pytest.fixture
def run():
    lone, ranged = replace(CELL, batch=1), replace(CELL, k=0, radius=31)
    cells = [
        a_cell(CELL, 2, measured("ivf", 1, 2, exact=False, recall=0.5, nprobe=1)),
        a_cell(
            lone,
            5,
            measured("numkong", 4, 5),
            measured("ivf", 6, 5, exact=False, nprobe=1),
        ),
        a_cell(
            ranged,
            1,
            measured("multihash", 0.5, 1, exact=False, nflip=0),
            measured("multihash", 12, 1, nflip=1),
            measured("multihash", 20, 1, nflip=2),
        ),
    ]
    speeds = [exactly(y) for y in (3e5, 1e5, 2e4)]
    curves = [Curve("some <curve>", [0.3, 0.95, 1.0], speeds, list("abc"))]
    charts = [
        Chart("a chart", "recall", "queries/s", curves, scale, "/s") for scale in ("recall", "log")
    ]
    figures = [Figure("x", exactly(2.0), "s")]
    trial = TrialResult(
        *("growing", "How <it> grows", figures, 1.0, 0.0), charts=charts, notes=["left out"]
    )
    result = Run(describe(), Protocol(), 2, 0, cells, suite="mine", trials=[trial])
    goals = [
        Goal(CELL.id, CELL.codes, CELL.task, "dmih-auto", 3),
        Goal(lone.id, lone.codes, lone.task, "dmih-auto", 1),
        Goal(ranged.id, ranged.codes, ranged.task, over("multihash"), 10),
        Goal(ranged.id, ranged.codes, ranged.task, over("numkong"), 10),
        *(Goal(cell.cell.id, "", "", "regret", 1.15) for cell in cells),
    ]
    return replace(result, outcomes=judge(goals, result), absent={"usearch": "not <here>"})


def test_the_worst_cell_is_the_first_and_rivals_are_equals(run):
    ranked = standings(run)
    assert [(s.result.cell.batch, s.margin) for s in ranked] == [(40, 5 / 3), (1, 2), (40, 10)]
    # An approximate one counts where it found everything, but not where there was nothing to find.
    assert [s.rival and s.rival.competitor for s in ranked] == [None, "numkong", "multihash-nflip1"]
    assert [s.beaten for s in ranked] == [False, True, False]


def test_rivals_are_summed_up(run):
    table = {r.name: r for r in rivals(run)}
    assert next(iter(table)) == "IndexBinaryFlat"
    assert not [name for name in table if name.startswith("dmih")]
    ivf = table["ivf, nprobe 1"]
    assert (ivf.cells, ivf.faster, ivf.exact) == (2, 1, 0)
    assert (ivf.behind, ivf.recall) == (Spread(0.85, 0.5, 1.2), Spread(0.75, 0.5, 1.0))


def test_only_who_is_certain_is_run_against(run):
    outcomes = {o.figure: o for o in run.outcomes}
    ahead = outcomes["over multihash"]
    assert (ahead.measured, ahead.met) == (exactly(12.0), True)
    assert ahead.what.endswith("dmih-auto over multihash")
    assert outcomes["over numkong"].met is None
    assert "certain" in outcomes["over numkong"].note


class Checker(HTMLParser):
    """Every element is closed, and nothing comes from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.images, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        for name, value in attrs:
            if name == "src":
                self.images.append(value)
            if name == "href":
                self.links.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_is_one_sound_file(run, tmp_path):
    images = write_plots(run, tmp_path)
    assert [p.name for p in images] == ["ranked.png", "suite.png", "growing_0.png", "growing_1.png"]
    assert [trial_of(run, p) for p in images] == [None, None, "growing", "growing"]
    text = html(run, images)
    checker = Checker()
    checker.feed(text)
    assert checker.open == checker.links == []
    assert len(checker.images) == 4
    assert all(src.startswith("data:image/png;base64,") for src in checker.images)
    assert "http" not in re.sub('base64,[^"]*', "", text)
    for said in ("How &lt;it&gt; grows", "not &lt;here&gt;", "some &lt;curve&gt;", "left out"):
        assert said in text
    # The worst of each kind, at the top; what was beaten, and what was missed.
    top = text[: text.index("Cells, the worst first")]
    assert "5.00x" in top
    assert "2.00x" in top
    assert text.count('class="bad">0.80x') == 1
    assert "Goals not met" in text


def test_a_run_without_cells_has_a_report(run):
    bare = replace(run, cells=[], trials=[], outcomes=[])
    checker = Checker()
    checker.feed(html(bare, []))
    assert checker.open == []


def test_the_markdown_says_where_others_are_ahead(run):
    text = markdown(run, [])
    ahead = text[text.index("## Where others were faster") : text.index("## Competitors")]
    assert ahead.count("numkong | 0.80x |") == 1
    assert "multihash" not in ahead
    rows = [line for line in text.splitlines() if line.startswith("| ivf, nprobe 1 |")]
    assert rows == ["| ivf, nprobe 1 | 2 | 0.85x | 0.50x to 1.20x | 0.750 | 0.500 | 0 |"]
    assert "usearch: not <here>" in text
