"""Work is done once, as a whole, and again when anything that it depends on has changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faiss_dmih.data import DataUnavailable
from faiss_dmih.data.errors import NotDownloaded
from faiss_dmih.tables import sets as sets_module
from faiss_dmih.tables import work
from faiss_dmih.tables.sets import Sets
from faiss_dmih.tables.work import Absent, NotRun, Work, Workshop

LOG: list[str] = []
SALT = {"value": 0}
FAULTS: dict[str, BaseException] = {}


@dataclass(frozen=True)
class Step(Work):
    """Writes down its name; needs the steps before it."""

    name: str
    before: tuple[Step, ...] = ()
    kind = "steps"

    @property
    def title(self) -> str:
        return self.name

    @property
    def needs(self) -> tuple[Step, ...]:
        return self.before

    def key(self, shop: Workshop) -> dict[str, Any]:
        return {"name": self.name, "salt": SALT["value"] if self.name == "a" else 0}

    def do(self, shop: Workshop, folder: Path) -> None:
        (folder / "half").write_text("half")
        LOG.append(self.name)
        if self.name in FAULTS:
            raise FAULTS[self.name]
        (folder / "whole").write_text("".join(str(shop.folder(n).name) for n in self.needs))


A = Step("a")
B = Step("b", (A,))
C = Step("c", (B,))
D = Step("d")


@pytest.fixture(autouse=True)
def fresh() -> None:
    LOG.clear()
    FAULTS.clear()
    SALT["value"] = 0


def run(root: Path, *wanted: Work) -> Workshop:
    shop = Workshop(root, Sets())
    shop.run(wanted, lambda piece, share: None)
    return shop


def test_what_is_needed_is_done_first_and_once(tmp_path):
    shop = run(tmp_path, C, D, B)
    assert LOG == ["a", "b", "c", "d"]
    found = shop.find(C)
    assert isinstance(found, Path)
    assert (found / "whole").read_text() == shop.folder(B).name
    run(tmp_path, C, D, B)
    assert LOG == ["a", "b", "c", "d"]


def test_a_change_is_a_change_for_all_that_need_it(tmp_path):
    before = run(tmp_path, C, D).folder(C)
    SALT["value"] = 1
    after = run(tmp_path, C, D).folder(C)
    assert LOG == ["a", "b", "c", "d", "a", "b", "c"]
    assert before != after
    SALT["value"] = 0  # who changes back finds what there was
    run(tmp_path, C, D)
    assert len(LOG) == 7


def test_edited_sources_are_a_change(tmp_path, monkeypatch):
    run(tmp_path, D)
    monkeypatch.setattr(work, "_own_digest", lambda kind: "another text")
    run(tmp_path, D)
    assert LOG == ["d", "d"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(1)])
def test_a_run_that_was_killed_goes_on(tmp_path, end):
    FAULTS["b"] = end
    with pytest.raises(type(end)):
        run(tmp_path, C)
    assert LOG == ["a", "b"]
    FAULTS.clear()
    shop = Workshop(tmp_path, Sets())
    assert shop.missing([C]) == [B, C]  # half a result is none
    run(tmp_path, C)
    assert LOG == ["a", "b", "b", "c"]


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (DataUnavailable("no such file"), "no such file"),
        (NotRun("takes vectors"), "takes vectors"),
        (ZeroDivisionError("by\nzero"), "failed: ZeroDivisionError: by zero"),
    ],
)
def test_what_fails_takes_along_who_needs_it_and_nobody_else(tmp_path, fault, why):
    FAULTS["b"] = fault
    shop = run(tmp_path, C, D)
    assert LOG == ["a", "b", "d"]
    assert shop.failures == {B: why, C: why}
    assert shop.find(C) == Absent(why)
    assert isinstance(shop.find(D), Path)
    assert not shop.folder(B).exists()


def test_what_waits_for_a_download_is_to_be_done(tmp_path, monkeypatch):
    def waiting(step: Step, shop: Workshop) -> dict[str, Any]:
        raise NotDownloaded("not here, would be downloaded")

    monkeypatch.setattr(Step, "key", waiting)
    shop = Workshop(tmp_path, Sets())
    assert shop.missing([C, D]) == [A, B, C, D]
    assert not shop.failures


def test_a_set_that_cannot_be_had_is_looked_for_once(monkeypatch):
    looked = []

    def nowhere(name: str, progress: Any) -> Any:
        looked.append(name)
        raise DataUnavailable(f"{name}: nowhere")

    monkeypatch.setattr(sets_module, "labelled", nowhere)
    sets = Sets()
    for _ in range(3):
        with pytest.raises(DataUnavailable, match="svhn: nowhere"):
            sets.identity("svhn")
    assert looked == ["svhn"]


def test_data_that_are_missing_are_known_beforehand(tmp_path, monkeypatch):
    def unavailable(step: Step, shop: Workshop) -> dict[str, Any]:
        raise DataUnavailable("not here")

    monkeypatch.setattr(Step, "key", unavailable)
    shop = Workshop(tmp_path, Sets())
    assert shop.missing([C]) == []
    assert shop.failures[C] == "not here"
    assert shop.find(C) == Absent("not here")
