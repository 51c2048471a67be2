"""Scripts that run in a process of their own, which holds no threads but theirs."""

from __future__ import annotations

import subprocess
import sys
import textwrap

# What the scripts share.
PRELUDE = """
import os, signal, sys, threading, time
import faiss
import numpy as np
import faiss_dmih
from faiss_dmih import reference

def threads():
    return len(os.listdir("/proc/self/task"))

def codes(n, d=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, d // 8), dtype=np.uint8)

def assert_exact(index, xb, xq):
    for got, expected in zip(index.search(xq, 5), reference.knn(xb, xq, 5)):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(index.range_search(xq, 20), reference.range_search(xb, xq, 20)):
        np.testing.assert_array_equal(got, expected)
"""


def run(script: str, timeout: float = 60) -> str:
    """The script's output; fails where the script does, or where it takes too long."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
