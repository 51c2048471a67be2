"""Build an index, search it, and compare answers and times with faiss.IndexBinaryFlat."""

from __future__ import annotations

import time

import faiss
import numpy as np

import faiss_dmih

d, n, nq, k = 64, 200_000, 256, 10

# Codes that cluster, as those of real data do: random centres with a few bits inverted.
rng = np.random.default_rng(0)
centres = rng.integers(0, 256, (500, d // 8), dtype=np.uint8)
flips = np.packbits(rng.random((n + nq, d), dtype=np.float32) < 0.1, axis=1, bitorder="little")
codes = centres[rng.integers(0, len(centres), n + nq)] ^ flips
xb, xq = codes[:n], codes[n:]

flat = faiss.IndexBinaryFlat(d)
index = faiss_dmih.IndexDMIH(d)
for name, each in (("IndexBinaryFlat", flat), ("IndexDMIH", index)):
    each.add(xb)
    each.search(xq, k)  # warm up
    start = time.perf_counter()
    each.search(xq, k)
    seconds = time.perf_counter() - start
    print(f"{name:16} {1e6 * seconds / nq:8.1f} µs per query, k = {k}")

# The same distances and the same ids, ties included.
D, I = index.search(xq, k)
D_flat, I_flat = flat.search(xq, k)
np.testing.assert_array_equal(D, D_flat)
np.testing.assert_array_equal(I, I_flat)
print("nearest of query 0:", list(zip(I[0, :3].tolist(), D[0, :3].tolist(), strict=True)))

# Everything strictly closer than a radius.
lims, D, I = index.range_search(xq, 8)
print(f"{len(I)} codes at distance < 8 of {nq} queries; query 0 has {lims[1] - lims[0]}")
