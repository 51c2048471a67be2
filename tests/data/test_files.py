from __future__ import annotations

import functools
import hashlib
import http.server
import os
import threading

import pytest

from faiss_dmih.data import DataUnavailable
from faiss_dmih.data.errors import NotDownloaded
from faiss_dmih.data.files import (
    Remote,
    atomic_write,
    cache_dir,
    fetch,
    find,
    no_downloads,
    search_dirs,
)

CONTENT = bytes(range(256)) * 3000
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, no data folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FAISS_DMIH_DATA", raising=False)
    return tmp_path


@pytest.fixture
def served(tmp_path):
    """A folder and the address under which a server on this machine offers it."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def leftovers(folder):
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_nothing_is_downloaded_where_that_is_not_allowed(home, served):
    folder, url = served
    (folder / "a.bin").write_bytes(CONTENT)
    remote = Remote("a.bin", f"{url}/a.bin", MD5)
    with no_downloads():
        with pytest.raises(NotDownloaded, match=r"a\.bin: not here, would be downloaded from http"):
            fetch(remote)
        assert leftovers(home / "cache") == []
    path = fetch(remote)
    with no_downloads():
        assert fetch(remote) == path


def test_a_download_is_kept_and_not_repeated(home, served):
    folder, url = served
    (folder / "a.bin").write_bytes(CONTENT)
    seen = []
    remote = Remote("a.bin", f"{url}/a.bin", MD5)
    path = fetch(remote, lambda what, done, total: seen.append((what, done, total)))
    assert path == home / "cache" / "faiss_dmih" / "data" / "a.bin"
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("downloading a.bin", len(CONTENT), len(CONTENT))
    (folder / "a.bin").unlink()
    assert fetch(remote) == path
    assert leftovers(home / "cache") == ["a.bin"]


def test_file_urls_work(home, tmp_path):
    (tmp_path / "b.bin").write_bytes(CONTENT)
    path = fetch(Remote("b.bin", (tmp_path / "b.bin").as_uri(), MD5))
    assert path.read_bytes() == CONTENT


def test_a_damaged_download_is_not_kept(home, served):
    folder, url = served
    (folder / "a.bin").write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(DataUnavailable, match="expected " + MD5):
        fetch(Remote("a.bin", f"{url}/a.bin", MD5))
    assert leftovers(home / "cache") == []


def test_a_missing_file_on_the_server_is_one_clear_line(home, served):
    _, url = served
    with pytest.raises(DataUnavailable) as caught:
        fetch(Remote("a.bin", f"{url}/a.bin", MD5))
    message = str(caught.value)
    assert "\n" not in message
    assert f"{url}/a.bin" in message
    assert str(cache_dir()) in message
    assert "$FAISS_DMIH_DATA" in message
    assert leftovers(home) == []


def test_no_server_is_one_clear_line(home):
    with pytest.raises(DataUnavailable, match=r"downloading .* failed \(.*refused\)"):
        fetch(Remote("a.bin", "http://127.0.0.1:9/a.bin", MD5))


def test_a_damaged_local_file_is_named(home, monkeypatch):
    monkeypatch.setenv("FAISS_DMIH_DATA", str(home))
    (home / "a.bin").write_bytes(b"something else")
    with pytest.raises(DataUnavailable, match=r"a\.bin: MD5 is .*delete the file"):
        fetch(Remote("a.bin", "http://127.0.0.1:9/a.bin", MD5))


def test_the_data_folder_comes_before_the_cache(home, monkeypatch):
    data = home / "data"
    monkeypatch.setenv("FAISS_DMIH_DATA", str(data))
    cached = cache_dir() / "data"
    assert search_dirs() == [data, cached]
    assert find("x") is None
    for folder in (cached, data):
        folder.mkdir(parents=True)
        (folder / "x").write_text("")
        assert find("x") == folder / "x"


def test_without_xdg_the_cache_lies_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "faiss_dmih"


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "sub" / "x"
    with atomic_write(path) as file:
        file.write(b"old")

    def interrupted():
        with atomic_write(path) as file:
            file.write(b"half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert leftovers(tmp_path) == ["x"]


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_written_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "x") as file:
            file.write(b"")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
