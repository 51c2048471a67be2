"""Builds and searches an index in a process of its own, and prints what that took at most.

Reads a source, threads and k from standard input, as JSON; prints bytes, as JSON: what is `held`
after building, and the peaks of `build` and `search`, beyond what the process had when the codes
were there; and the peak of the `process` from then on.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from pathlib import Path

import faiss

from faiss_dmih import IndexDMIH
from faiss_dmih.bench.sources import Source

_PROC = Path("/proc/self")


def main() -> None:
    asked = json.load(sys.stdin)
    faiss.omp_set_num_threads(asked["threads"])
    codes = Source(**asked["source"]).load()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    _forget_peak()
    index = IndexDMIH(codes.d)
    index.add(codes.xb)
    held, build = _status("VmRSS"), _status("VmHWM")
    _forget_peak()
    for xq in codes.queries.values():
        index.search(xq, asked["k"])
    search = _status("VmHWM")
    sizes = {"held": held - before, "build": build - before, "search": search - before}
    print(json.dumps({**sizes, "process": max(build, search)}))


def _status(name: str) -> int:
    """Bytes, from /proc/self/status."""
    for line in (_PROC / "status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status does not say {name}")


def _forget_peak() -> None:
    """The peak is from now on: see proc(5), clear_refs."""
    (_PROC / "clear_refs").write_text("5")


if __name__ == "__main__":
    main()
