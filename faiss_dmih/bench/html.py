"""The report as one HTML file, which needs nothing else and no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from faiss_dmih.bench.cells import short
from faiss_dmih.bench.goals import REGRET
from faiss_dmih.bench.plots import SUITE_PLOTS, trial_of
from faiss_dmih.bench.report import (
    bound,
    disturbance,
    duration,
    fate,
    legend,
    quantity,
    ratio,
    setting,
    shown,
    skipped,
    tally,
    verdict,
)
from faiss_dmih.bench.results import Run
from faiss_dmih.bench.standings import rivals, standings
from faiss_dmih.data.errors import require

_TEMPLATE = Path(__file__).parent / "templates" / "report.html"


def html(run: Run, images: Sequence[Path]) -> str:
    """The whole report, with the images in it."""
    jinja2 = require("jinja2", "the report as HTML")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(
        bound=bound,
        duration=duration,
        fate=fate,
        quantity=quantity,
        ratio=ratio,
        short=short,
        shown=shown,
        verdict=verdict,
    )
    ranked = standings(run)
    regrets = [(r.regret.median, r) for r in run.cells if r.regret is not None]
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    text: str = template.render(
        run=run,
        setting=setting(run),
        disturbance=disturbance(run),
        failures=run.failures(),
        skipped=skipped(run),
        tally=tally(run.outcomes),
        missed=[o for o in run.outcomes if not o.met],
        standings=ranked,
        lone=[s for s in ranked if s.result.cell.batch == 1],
        batched=[s for s in ranked if s.result.cell.batch > 1],
        worst_regret=max(regrets, key=lambda pair: pair[0], default=None),
        max_regret=next((o.bound for o in run.outcomes if o.figure == REGRET), None),
        rivals=rivals(run),
        overview=[_picture(path) for path in images if path.name in SUITE_PLOTS],
        others=[
            _picture(path)
            for path in images
            if path.name not in SUITE_PLOTS and trial_of(run, path) is None
        ],
        charts={
            trial.name: [_picture(path) for path in images if trial_of(run, path) == trial.name]
            for trial in run.trials
        },
        legend=[line.removeprefix("- ") for line in legend(run)],
    )
    return text


def _picture(path: Path) -> dict[str, str]:
    """Name and contents of an image, for its element."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return {"name": path.stem, "src": f"data:image/png;base64,{encoded}"}
