from __future__ import annotations

import json
from dataclasses import replace

import pytest

from faiss_dmih.bench import archive as archive_module
from faiss_dmih.bench.archive import Archive, fingerprint, identity
from faiss_dmih.bench.machine import describe
from faiss_dmih.bench.results import Figure, Spread, TrialResult

RESULT = TrialResult("t", "a trial", [Figure("speed", Spread(2, 1, 3), "x", "speed")], 1.5)
HERE = {"cpu": "one", "build": "abc"}
KEY = {"data": {"n": 10}, "threads": (1, 2)}


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path, HERE, reuse=True)


def test_what_was_saved_is_found_again(archive):
    archive.save("t", KEY, RESULT)
    assert TrialResult.read(archive.find("t", KEY)) == RESULT


@pytest.mark.parametrize(
    "change",
    [
        {"key": {**KEY, "threads": (1, 4)}},
        {"key": {**KEY, "data": {"n": 11}}},
        {"key": {**KEY, "more": 1}},
        {"identity": {**HERE, "build": "abd"}},
        {"identity": {**HERE, "cpu": "two"}},
        {"name": "other"},
        {"reuse": False},
    ],
)
def test_nothing_is_taken_that_depends_on_something_else(archive, change):
    archive.save("t", KEY, RESULT)
    key, name = change.pop("key", KEY), change.pop("name", "t")
    assert replace(archive, **change).find(name, key) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 0, "key": {}}', "1"])
def test_damaged_files_are_measured_again(archive, text):
    (archive.folder / "t.json").write_text(text)
    assert archive.find("t", KEY) is None


def test_another_format_is_measured_again(archive):
    archive.save("t", KEY, RESULT)
    path = archive.folder / "t.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))
    assert archive.find("t", KEY) is None


def test_the_key_can_be_read_in_the_file(archive):
    archive.save("t", KEY, RESULT)
    raw = json.loads((archive.folder / "t.json").read_text())
    assert raw["key"] == {"data": {"n": 10}, "threads": [1, 2], **HERE}


def test_the_identity_is_that_of_the_machine_and_of_the_module(monkeypatch):
    here = identity(describe())
    assert {"cpu", "cores", "simd", "faiss", "faiss_dmih", "build"} == set(here)
    assert here == identity(describe())
    assert identity(replace(describe(), simd="none")) != here
    monkeypatch.setattr(archive_module, "_BUILD", "another")
    assert identity(describe()) != here


def test_every_byte_of_the_module_counts(tmp_path):
    first, second = tmp_path / "first.so", tmp_path / "second.so"
    first.write_bytes(b"0" * 100_000)
    second.write_bytes(b"0" * 99_999 + b"1")
    assert fingerprint(first) != fingerprint(second)
    second.write_bytes(first.read_bytes())
    assert fingerprint(first) == fingerprint(second)
