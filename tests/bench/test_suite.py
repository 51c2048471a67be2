from __future__ import annotations

import os
from pathlib import Path

import pytest

from faiss_dmih.bench import Cell, read_suite, suites
from faiss_dmih.bench.approximate import ApproximateTrial
from faiss_dmih.bench.goals import REGRET
from faiss_dmih.bench.memory import MemoryTrial
from faiss_dmih.bench.partitions import PartitionTrial
from faiss_dmih.bench.protocol import Protocol
from faiss_dmih.bench.scaling import ScalingTrial
from faiss_dmih.bench.sources import Source
from faiss_dmih.bench.suite import FOLDER
from faiss_dmih.data import DATASETS, InputError

GOOD = """
seed = 3
threads = 2
competitors = ["dmih-auto", "dmih-engines"]
max_regret = 1.2

[protocol]
cell_seconds = 0.5
max_rounds = 4

[[group]]
dataset = "uniform"
bits = 64
n = 500
nq = 32
options = { flips = 3 }
cells = [
    { k = [1, 5], batch = [1, 32], goal = { dmih-auto = 2 }, stretch = { dmih-auto = 4 } },
    { queries = "planted", k = 1, batch = 8, threads = 1, competitors = ["dmih-auto"] },
]

[[group]]
name = "hashes"
dataset = "perceptual"
bits = 256
n = 600
seed = 9
cell_seconds = 2
max_regret = 1.5
cells = [{ queries = ["held-out", "near-duplicate"], radius = 31, batch = 1024 }]

[[build]]
dataset = "uniform"
bits = 64
n = 500
goal = { tables = 5 }

[[growth]]
dataset = "uniform"
bits = 64
n = 500
adds = 10
further = [1, 2]
calls = 2

[[kernel]]
bits = [64, 256]
goal = { fold = 0.7 }
"""
CHARTED = """
threads = 2
seed = 5

[[memory]]
dataset = "learned"
bits = 64
n = 500
budgets = [0, 8]
goal = { bytes = 1 }

[[scaling]]
bits = 64
n = [100, 200]
batch = [1, 16]

[[approximate]]
dataset = "uniform"
bits = 64
n = 500
nq = 32
queries = "planted"
k = 10
recall = 0.9
competitors = ["hnsw", "ivf"]
goal = { ahead = 1 }

[[partition]]
dataset = "cifar10-features"
binarize = "lsh"
bits = 64
n = 500
k = 10
strategies = ["data-driven", "cost"]
goal = { candidates = 0.95 }
"""


@pytest.fixture
def file(tmp_path):
    """Writes a suite; by default a good one with some text replaced."""

    def write(old="", new="", text=GOOD):
        assert old in text
        path = tmp_path / "mine.toml"
        path.write_text(text.replace(old, new, 1))
        return str(path)

    return write


def test_a_suite_is_what_its_file_says(file):
    suite = read_suite(file())
    assert (suite.name, suite.seed, suite.threads) == ("mine", 3, 2)
    assert suite.protocol == Protocol(cell_seconds=0.5, max_rounds=4)
    first, second = suite.groups
    assert list(first.cells) == [
        *(Cell("uniform", "held-out", 64, 500, 32, k, b, 2) for b in (1, 32) for k in (1, 5)),
        Cell("uniform", "planted", 64, 500, 32, 1, 8, 1),
    ]
    assert [list(families) for families in first.cells.values()] == [
        *[["dmih-auto", "dmih-engines"]] * 4,
        ["dmih-auto"],
    ]
    assert list(second.cells) == [
        Cell("hashes", kind, 256, 600, 1024, 0, 1024, 2, radius=31)
        for kind in ("held-out", "near-duplicate")
    ]
    assert (first.protocol.cell_seconds, second.protocol.cell_seconds) == (0.5, 2)
    assert (first.key["seed"], second.key["seed"]) == (3, 9)
    codes = first.load(lambda *step: None)
    assert codes.xb.shape == (500, 8)
    assert codes.info == {"seed": 3, "flips": 3}
    assert [trial.name.split("_")[0] for trial in suite.trials] == ["build", "growth", "kernels"]


def test_goals_are_those_of_the_file(file):
    suite = read_suite(file())
    cells = {cell.id: cell for group in suite.groups for cell in group.cells}
    told = [(goal.figure, goal.bound, goal.stretch) for goal in suite.goals if goal.where in cells]
    # The planner's goal is for cells with its engines only; a group may have its own.
    assert told == [
        *[("dmih-auto", 2, False), ("dmih-auto", 4, True), (REGRET, 1.2, False)] * 4,
        *[(REGRET, 1.5, False)] * 2,
    ]
    assert [(g.where, g.figure, g.bound) for g in suite.goals if g.where not in cells] == [
        ("build_uniform_d64_n500", "tables", 5),
        ("kernels", "fold", 0.7),
    ]


def test_cells_are_ordered_by_kind_batch_and_k(file):
    listed = """cells = [
        { queries = "planted", k = 3, batch = 1, goal = { dmih-auto = 5 } },
        { k = [9, 2], batch = [4, 1], goal = { dmih-auto = 6 } },
        { k = 5, batch = 4 },
    ]"""
    text = GOOD[: GOOD.index("cells = ")] + listed
    suite = read_suite(file(text=text))
    (group,) = suite.groups
    cells = [(cell.queries, cell.batch, cell.k) for cell in group.cells]
    held_out = [("held-out", batch, k) for batch, k in ((1, 2), (1, 9), (4, 2), (4, 5), (4, 9))]
    assert cells == [*held_out, ("planted", 1, 3)]
    where = [goal.where for goal in suite.goals]
    assert list(dict.fromkeys(where)) == [cell.id for cell in group.cells]


def test_threads_are_all_cores_unless_given(file):
    suite = read_suite(file("threads = 2\n", ""))
    assert suite.threads == len(os.sched_getaffinity(0))
    assert {cell.threads for cell in suite.groups[1].cells} == {suite.threads}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "sede = 3", "mine.toml: unknown key 'sede'; expected some of seed, threads"),
        ("seed = 3", "seed = -1", "mine.toml, seed: expected a whole number of at least 0; got -1"),
        (
            "threads = 2",
            "threads = true",
            "threads: expected a whole number of at least 1; got True",
        ),
        (
            "max_rounds",
            "rounds",
            "mine.toml, [protocol]: unknown key 'rounds'; expected some of cell_seconds, min_",
        ),
        ("max_rounds = 4", "max_rounds = 1.5", "[protocol], max_rounds: expected a whole number"),
        (
            "n = 600",
            "m = 600",
            "mine.toml, [[group]] 2: unknown key 'm'; expected some of dataset, bits, n, nq, seed",
        ),
        ("n = 600\n", "", "[[group]] 2: the key 'n' is missing; dataset, bits, n, cells must be"),
        ("bits = 256", "bits = 63", "[[group]] 2, bits: bits must be a multiple of 8 from 8"),
        (
            '"perceptual"',
            '"perzeptual"',
            "[[group]] 2, dataset: expected one of fashion-mnist, cifar10",
        ),
        (
            "flips = 3",
            "flip = 3",
            "[[group]] 1 (uniform), options: uniform has no 'flip'; expected some of flips",
        ),
        ("flips = 3", 'flips = "3"', "[[group]] 1, options: expected a table of numbers"),
        (
            "seed = 9",
            'binarize = "itq"',
            "[[group]] 2 (perceptual), binarize: perceptual is made of",
        ),
        (
            "batch = [1, 32]",
            "batches = [1, 32]",
            "[[group]] 1 (uniform), cell 1: unknown key 'batches'; expected some of queries, k,",
        ),
        (
            "batch = [1, 32]",
            "batch = [1, 33]",
            "[[group]] 1 (uniform), cell 1, batch: expected at most nq = 32; got 33",
        ),
        ("k = [1, 5]", "k = [1, 1]", "cell 1, k: expected a value, or a list of different ones"),
        ("k = [1, 5]", "k = []", "cell 1, k: expected a value, or a list of different ones"),
        ("k = [1, 5], ", "", "[[group]] 1 (uniform), cell 1: expected either k or radius"),
        ("k = [1, 5]", "radius = 1, k = 1", "cell 1: expected either k or radius"),
        (
            '"planted"',
            '"near-duplicate"',
            "cell 2, queries: expected some of held-out, planted; got 'near-duplicate'",
        ),
        (
            "goal = { dmih-auto = 2 }",
            "goal = { dmih-scan = 2 }",
            "cell 1, goal: dmih-scan is not among the competitors",
        ),
        (
            "goal = { dmih-auto = 2 }",
            "goal = { multihash = 2 }",
            "cell 1, goal: expected a table with some of the keys dmih-auto, dmih-scan, dmih-mih",
        ),
        ("dmih-auto = 4", 'dmih-auto = "4"', "cell 1, stretch: expected a number of at least 0"),
        ('["dmih-auto"]', '["dmih"]', "cell 2, competitors: expected one of flat, dmih-auto"),
        (
            'queries = "planted", k = 1, batch = 8, threads = 1',
            "k = 5, batch = 32",
            "cell 2: k = 5, batch 32 is asked for twice",
        ),
        (
            "tables = 5",
            "table = 5",
            "[[build]] 1, goal: expected a table with some of the keys auto",
        ),
        ("adds = 10\n", "", "[[growth]] 1: the key 'adds' is missing"),
        ('name = "hashes"', 'name = "a/b"', "[[group]] 2, name: expected a word of letters"),
        ("seed = 3", "seed = ", "mine.toml: not TOML: Invalid value (at line 2, column 8)"),
        ("[[kernel]]\nbits", "[[kernel]]\nbits = 64\n[[kernel]]\nbits", "kernels is there twice"),
    ],
)
def test_a_typo_is_one_clear_error(file, old, new, message):
    with pytest.raises(InputError) as caught:
        read_suite(file(old, new))
    text = str(caught.value)
    assert message in text
    assert text.startswith("mine.toml")
    assert "\n" not in text


def test_other_data_files_make_another_key(file, tmp_path, monkeypatch):
    text = GOOD.replace('"perceptual"', '"cifar10-features"').replace("radius = 31", "k = 1")
    monkeypatch.setenv("FAISS_DMIH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keys = []
    for content in (None, "one", "three"):
        if content is not None:
            (tmp_path / "cifar10_squeezenet_gap512_u8.npz").write_text(content)
        keys.append(read_suite(file(text=text)).groups[1].key)
    assert keys[0] != keys[1] != keys[2] != keys[0]
    synthetic = read_suite(file(text=text)).groups[0].key
    assert synthetic == read_suite(file()).groups[0].key


def test_growth_needs_planted_queries(file):
    text = GOOD[: GOOD.index("[[growth]]")] + GOOD[GOOD.index("[[growth]]") :].replace(
        "uniform", "learned", 1
    )
    with pytest.raises(InputError, match=r"\[\[growth\]\] 1, dataset: learned has no planted"):
        read_suite(file(text=text))


def test_trials_with_charts_are_what_their_tables_say(file):
    suite = read_suite(file(text=CHARTED))
    codes = Source("uniform", bits=64, n=500, nq=32, seed=5)
    assert suite.trials == [
        MemoryTrial(Source("learned", bits=64, n=500, nq=256, seed=5), 2, 3, 10, (0, 8)),
        ScalingTrial(64, (100, 200), (1, 16), 2, 3, seed=5),
        ApproximateTrial(codes, "planted", 10, (1, 32), 0.9, ("hnsw", "ivf"), 2, 3),
        PartitionTrial(
            Source("cifar10-features", 64, 500, nq=512, seed=5, method="lsh"),
            10,
            ("data-driven", "cost"),
            1,
            3,
        ),
    ]
    assert [(goal.figure, goal.bound) for goal in suite.goals] == [
        ("bytes", 1),
        ("ahead", 1),
        ("candidates", 0.95),
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("budgets = [0, 8]\n", "", "[[memory]] 1: the key 'budgets' is missing"),
        ("budgets = [0, 8]", "budgets = -1", "[[memory]] 1, budgets: expected a whole number of"),
        ('"planted"', '"new"', "[[approximate]] 1, queries: expected one of held-out, planted;"),
        ('"hnsw"', '"multihash"', "[[approximate]] 1, competitors: expected one of hnsw, ivf, use"),
        ("batch = [1, 16]", "k = 1", "[[scaling]] 1: unknown key 'k'"),
        ('"cost"', '"contiguous"', "[[partition]] 1, strategies: expected one of data-driven, ent"),
    ],
)
def test_a_typo_in_their_tables_is_one_clear_error(file, old, new, message):
    with pytest.raises(InputError) as caught:
        read_suite(file(old, new, text=CHARTED))
    assert message in str(caught.value)


def test_who_is_to_be_left_behind_takes_part(file):
    with_rival = 'radius = 31, batch = 1024, competitors = ["dmih-auto", "multihash"]'
    ahead = f"{with_rival}, ahead = {{ multihash = 10 }}"
    goals = read_suite(file("radius = 31, batch = 1024", ahead)).goals
    assert [g.bound for g in goals if g.figure == "over multihash"] == [10, 10]
    with pytest.raises(InputError, match="cell 1, ahead: numkong or dmih-auto is not among"):
        read_suite(file("radius = 31, batch = 1024", ahead.replace("{ multihash", "{ numkong")))
    with pytest.raises(InputError, match="cell 1: hnsw has no range search; leave it out"):
        read_suite(file("radius = 31, batch = 1024", with_rival.replace("multihash", "hnsw")))


def test_an_empty_suite_is_refused(file):
    with pytest.raises(InputError, match="measures nothing"):
        read_suite(file(text="seed = 1"))


def test_names_and_paths():
    assert "core" in suites()
    with pytest.raises(InputError, match="unknown suite 'cor'; known are core, full"):
        read_suite("cor")
    with pytest.raises(InputError, match=r"nowhere\.toml: cannot be read"):
        read_suite("nowhere.toml")


def test_packaged_suites_are_sound():
    for name in suites():
        suite = read_suite(name)
        assert suite.name == name
        assert suite.groups
    assert Path(read_suite.__code__.co_filename).parent / "suites" == FOLDER


def test_core_measures_what_it_is_for():
    suite = read_suite("core")
    cells = [cell for group in suite.groups for cell in group.cells]
    assert {cell.dataset for cell in cells} == {
        "uniform",
        "cifar10-features",
        "perceptual",
        "learned",
        "equal",
        "constant-bit",
        "far",
        "one-bucket",
    }
    for families in (f for group in suite.groups for f in group.cells.values()):
        assert {"dmih-auto", "dmih-engines", "dmih-mih"} <= set(families)
    goals = {(g.where, g.figure, g.stretch): g.bound for g in suite.goals}
    assert all(goals[cell.id, REGRET, False] == 1.15 for cell in cells)
    # A cell of every workload has a goal of its own.
    with_goal = {g.where for g in suite.goals if g.figure != REGRET}
    for group in suite.groups:
        assert with_goal & {cell.id for cell in group.cells}
    assert {cell.dataset for cell in cells if cell.dataset in DATASETS} == {"cifar10-features"}
    batches = {(cell.dataset, cell.batch) for cell in cells}
    assert batches == {(cell.dataset, batch) for cell in cells for batch in (1, 1024)}
