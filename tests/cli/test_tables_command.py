"""`faiss-dmih tables`, on small sets."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
import toys
from commands import done, invoke, refused

from faiss_dmih.tables import jobs

QUICK = ["tables", "--table", "dmih-2", "--data", toys.VECTORS, "--epochs", 1, "--cache", "cache"]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    toys.make_known(monkeypatch)


def test_a_second_run_takes_what_there_is(here: Path) -> None:
    said = done(*QUICK)
    assert "1/6 train DMIH, 64 bits, toy-features, seed 0" in said
    report = (here / "report/tables.md").read_text()
    assert "Not complete" not in report
    again = done(*QUICK)
    assert "train" not in again
    assert "0 pieces of work" in done(*QUICK, "--dry-run")
    first, second = (
        [line for line in text.splitlines() if line.startswith("|")]
        for text in (report, (here / "report/tables.md").read_text())
    )
    assert first == second


def test_a_run_that_was_stopped_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(jobs.Evaluated, "do", _interrupt)
        stopped = invoke(*QUICK)
    assert stopped.exit_code == 130
    assert "stopped, 4 pieces of work are left: the same command goes on" in stopped.stderr
    assert "**Not complete**: 4 pieces" in (here / "report/tables.md").read_text()
    said = done(*QUICK)
    assert "1/4 evaluate DMIH" in said
    assert "Not complete" not in (here / "report/tables.md").read_text()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_failure_is_said_and_the_rest_is_done(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = jobs.Fit.do

    def faulty(fit: jobs.Fit, *rest: object) -> None:
        if fit.model.method == "DMIH":
            raise FloatingPointError("the loss is nan")
        usual(fit, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(jobs.Fit, "do", faulty)
    result = invoke(*QUICK)
    assert result.exit_code == 1
    assert "note: not run, 3 pieces of work: failed: FloatingPointError: the loss is nan" in (
        result.stderr
    )
    report = (here / "report/tables.md").read_text()
    assert "failed: FloatingPointError" in report
    assert "| toy-features | DeepHash | natural | " in report


def test_a_dry_run_does_nothing(here: Path) -> None:
    assert "train DMIH" in done(*QUICK, "--dry-run")
    assert not (here / "cache").exists()
    assert not (here / "report").exists()


def test_a_dry_run_of_the_full_schedule_downloads_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It plans what has a download, and names what has to be got by hand."""
    monkeypatch.setenv("FAISS_DMIH_DATA", str(here))
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "home"))
    monkeypatch.setattr(urllib.request, "urlopen", _interrupt)
    result = invoke("tables", "--schedule", "full", "--dry-run", "--cache", "cache")
    assert result.exit_code == 0, result.output
    for line in ("activations, svhn-fc7: 1 ", "encoders, svhn: ", "times, cifar10: "):
        assert line in result.stdout
    assert " pieces of work, about " in result.stdout
    for name in ("nus-wide", "awa2", "imagenet-100", "cifar10-features"):
        assert f" pieces of work: {name}: " in result.stderr
    assert "svhn" not in result.stderr
    assert not (here / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "mnist"], "--data mnist: expected one of cifar10, "),
        (["--bits", 12], "--bits 12: expected a multiple of 8, at least 8"),
        (["--seeds", 0], "--seeds 0: expected at least 1"),
        (["--table", "dmih-9"], "got 'dmih-9', expected one of dmih-1, "),
        (["--paper", "other"], "got 'other', expected one of dmih, edsh, beyond"),
        (["--out", "mine"], "--out mine holds other things"),
    ],
)
def test_refusals(here: Path, arguments: list[object], said: str) -> None:
    (here / "mine").mkdir()
    (here / "mine/work.txt").write_text("mine")
    assert said in refused("tables", "--cache", "cache", *arguments)
