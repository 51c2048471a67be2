"""A type checker knows IndexDMIH's methods, though FAISS is not typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".mypy_cache"  # knows numpy, where mypy has run before

GOOD = """
import numpy as np
from numpy.typing import NDArray
from faiss_dmih import IndexDMIH, SearchParametersDMIH, stats

xb = np.zeros((9, 8), dtype=np.uint8)
index = IndexDMIH(64, mode="auto", cuts=(32, 32))
index.add(xb)
D: NDArray[np.int32]
I: NDArray[np.int64]
D, I = index.search(xb, 3, params=SearchParametersDMIH(max_codes=100))
lims, distances, ids = index.range_search(xb, 3)
R: NDArray[np.uint8] = index.search_and_reconstruct(xb, 2)[2]
removed: int = index.remove_ids([1, 2])
n: int = index.ntotal + index.d
index.merge_from(IndexDMIH(64))
codes: NDArray[np.uint8] = index.reconstruct_batch([0, 1])
seconds = stats()["scan_ns"] * 1e-9
"""

# Each of these lines is an error.
BAD = """
index.nprobe = 3
index.search(xb)
index.search(xb, "3")
index.ntotal = 5
IndexDMIH("64")
IndexDMIH(64, nflip=1)
text: str = index.remove_ids([1])
index.merge_from(3)
SearchParametersDMIH(max_codes="all")
index.reconstruct_n(first=3)
"""


def test_good_use_passes_and_wrong_use_does_not(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n"
        "[mypy-faiss.*]\nfollow_imports = skip\nignore_missing_imports = true\n"
    )
    (tmp_path / "user.py").write_text(GOOD + BAD)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(CACHE), "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    first = GOOD.count("\n") + 1
    wrong = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert wrong == set(range(first + 1, first + BAD.count("\n"))), done.stdout + done.stderr
