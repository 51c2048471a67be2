"""Scripts that run in a process of their own, which holds no threads but theirs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

# What the scripts share.
PRELUDE = '''
import os, signal, sys, threading, time
import faiss
import numpy as np
import faiss_dmih
from faiss_dmih import reference

def threads():
    return len(os.listdir("/proc/self/task"))

def codes(n, d=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, d // 8), dtype=np.uint8)

def after_ctrl_c(call, delay):
    """Seconds that a call goes on after Ctrl-C. It ends by KeyboardInterrupt, or by the error that
    FAISS raises for its own interrupted searches."""
    sent = []

    def send():
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(delay, send)
    timer.start()
    try:
        call()
    except (KeyboardInterrupt, RuntimeError) as error:
        late = time.monotonic() - sent[0]
        assert isinstance(error, KeyboardInterrupt) or "interrupt" in str(error), error
    else:
        sys.exit("it ended before it was interrupted")
    timer.join()
    return late

def assert_ctrl_c_ends(call, delay=0.3, within=0.3):
    """At once; a machine that pauses gets three tries."""
    late = []
    while len(late) < 3:
        late.append(after_ctrl_c(call, delay))
        if late[-1] < within:
            return
    sys.exit(f"it went on for {late} s after Ctrl-C")

def assert_exact(index, xb, xq):
    for got, expected in zip(index.search(xq, 5), reference.knn(xb, xq, 5)):
        np.testing.assert_array_equal(got, expected)
    for got, expected in zip(index.range_search(xq, 20), reference.range_search(xb, xq, 20)):
        np.testing.assert_array_equal(got, expected)
'''


def run(script: str, timeout: float = 60, **environment: str) -> str:
    """The script's output; fails where the script does, or where it takes too long. In this
    process's environment and the one given."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
