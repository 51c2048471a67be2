"""IndexDMIH inside FAISS's own composites: ids of your choice, and shards searched in parallel."""

from __future__ import annotations

import faiss
import numpy as np

import faiss_dmih

d, n, nq, k = 128, 20_000, 5, 3
rng = np.random.default_rng(0)
xb = rng.integers(0, 256, (n, d // 8), dtype=np.uint8)
xq = xb[:nq].copy()
xq[:, 0] ^= 0b101  # two bits away from the first codes

# IDMap2 keeps any 64-bit ids, and gives a code back for its id.
named = faiss.IndexBinaryIDMap2(faiss_dmih.IndexDMIH(d))
ids = np.arange(n, dtype=np.int64) + 1_000_000
named.add_with_ids(xb, ids)
D, I = named.search(xq, k)
assert I[:, 0].tolist() == ids[:nq].tolist()
assert D[:, 0].tolist() == [2] * nq
assert np.array_equal(named.reconstruct(int(I[0, 0])), xb[0])
print("IDMap2: nearest ids", I[:, 0].tolist())

# Shards hold a part of the codes each; a search asks all and merges.
shards = faiss.IndexBinaryShards(d, True, True)  # threaded, successive ids
for part in np.array_split(xb, 2):
    shard = faiss_dmih.IndexDMIH(d)
    shard.add(part)
    shards.add_shard(shard)
D, I = shards.search(xq, k)

flat = faiss.IndexBinaryFlat(d)
flat.add(xb)
D_flat, I_flat = flat.search(xq, k)
assert np.array_equal(D, D_flat)
assert np.array_equal(I[:, 0], I_flat[:, 0])
print("Shards: same distances as one flat index over all", shards.ntotal, "codes")
