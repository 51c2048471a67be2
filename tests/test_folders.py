"""A folder is replaced as a whole, or stays."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from faiss_dmih import folders
from faiss_dmih.folders import atomic_folder


def write(target: Path, text: str) -> None:
    with atomic_folder(target) as scratch:
        (scratch / "one").write_text(text)
        (scratch / "two").write_text(text)


def test_there_at_any_time(tmp_path: Path) -> None:
    target, missing, done = tmp_path / "folder", [], threading.Event()
    write(target, "0")

    def look() -> None:
        while not done.is_set():
            if not (target / "one").exists():
                missing.append(1)

    watcher = threading.Thread(target=look)
    watcher.start()
    for i in range(300):
        write(target, str(i))
    done.set()
    watcher.join()
    assert not missing
    assert (target / "two").read_text() == "299"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("exchanged", [True, False])
def test_what_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanged: bool
) -> None:
    if not exchanged:
        monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    target = tmp_path / "some" / "folder"
    write(target, "old")

    def stop() -> None:
        with atomic_folder(target) as scratch:
            (scratch / "one").write_text("new")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        stop()
    assert (target / "one").read_text() == "old"
    write(target, "new")
    assert (target / "one").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_without_exchange_the_old_folder_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)
    write(tmp_path / "folder", "old")
    rename = Path.rename

    def no_room(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("no room")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", no_room)
    with pytest.raises(OSError, match="no room"):
        write(tmp_path / "folder", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (tmp_path / "folder" / "one").read_text() == "old"
