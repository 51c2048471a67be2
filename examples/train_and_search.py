"""Train DeepHash and DMIH, put their codes behind an index, and see what balance is worth.

    python examples/train_and_search.py                          # digits, a few seconds of training
    FAISS_DMIH_DATA=~/data python examples/train_and_search.py --data cifar10-features --epochs 20

Needs the extras train and bench. Both encoders see the same images and the same seed; DMIH's loss
has two terms more, which spread codes over the hash tables of multi-index hashing. Reported are
mAP (as many orders among ties as there are, averaged), how evenly buckets are filled, how many
codes plain multi-index hashing looks at, and how long searches take: plain multi-index hashing
against FAISS's exact index and against our own scan, which is faster than FAISS's, and the index as
it is by default.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from faiss_dmih import IndexDMIH
from faiss_dmih.data import Features, labelled, paper_split, split
from faiss_dmih.encoders import DMIH, DeepHash, Training
from faiss_dmih.metrics.evaluation import evaluate


def load(name: str, seed: int) -> tuple[Any, Any, Any]:
    """Vectors float32 (n, dim), labels (n,), and which are database, queries, training set."""
    items = labelled(name)
    if isinstance(items, Features):
        return items.vectors, items.known_labels, paper_split(items, seed=seed)
    x = np.stack(list(items)).astype(np.float32).mean(3).reshape(len(items), -1)
    parts = split(items.known_labels, queries_per_class=20, train_per_class=80, seed=seed)
    return (x - x.mean()) / x.std(), items.known_labels, parts


def seconds(search: Callable[[], Any]) -> float:
    """Median of seven, after one to warm up."""
    taken = []
    for _ in range(8):
        start = time.perf_counter()
        search()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken[1:]))


def views(codes: Any, n: int, rng: Any) -> Any:
    """n codes, each of an image with 1 in 32 bits flipped, as those of views of it would be."""
    noise = rng.random((n, 8 * codes.shape[1])) < 1 / 32
    return codes[rng.integers(0, len(codes), n)] ^ np.packbits(noise, axis=1, bitorder="little")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits", help="digits, or cifar10-features")
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--views", type=int, default=0, help="also search so many views of images")
    options = parser.parse_args()
    x, labels, parts = load(options.data, options.seed)
    training = Training(epochs=options.epochs, seed=options.seed, progress=False)
    for kind in (DeepHash, DMIH):
        encoder = kind(options.bits, n=len(parts.database), backbone="features", training=training)
        start = time.perf_counter()
        encoder.fit(x[parts.train], labels[parts.train])
        print(f"\n{kind.__name__}: trained in {time.perf_counter() - start:.0f} s")
        xb, xq = encoder.encode(x[parts.database]), encoder.encode(x[parts.queries])
        found = evaluate(xb, xq, labels[parts.database], labels[parts.queries], encoder.cuts)
        ap = found.mean_average_precision
        print(f"  mAP {ap.value:.4f} (ties at their worst {ap.lowest:.4f}, best {ap.highest:.4f})")
        print(f"  distinct codes {found.distinct} of {len(xb)}")
        print(f"  bucket entropy {found.entropy:.2f} nats, tables of {encoder.cuts} bits")
        looked_at = dict(zip(found.ks, found.candidates, strict=True))
        print(f"  codes that plain multi-index hashing looks at for 1-NN: {looked_at[1]:.0f}")
        compare(f"{len(xb)} images", xb, xq, encoder.cuts)
        if options.views:
            many = views(xb, options.views, np.random.default_rng(options.seed))
            compare(f"{options.views} views", many, xq, None)


def compare(what: str, xb: Any, xq: Any, cuts: Any) -> None:
    """Times of the nearest neighbour on one thread, over FAISS's exact index and our scan.

    (Where other work keeps a core busy, two threads of OpenMP's are slower than one.)
    """
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexBinaryFlat(8 * xb.shape[1])
    indexes = {
        "scan": IndexDMIH(flat.d, mode="scan"),
        "mih": IndexDMIH(flat.d, mode="mih", cuts=cuts),
        "auto": IndexDMIH(flat.d, cuts=cuts),
    }
    for index in (flat, *indexes.values()):
        index.add(xb)
    expected = flat.search(xq, 10)
    slow = seconds(lambda: flat.search(xq, 1))
    ours = {}
    for name, index in indexes.items():
        for got, want in zip(index.search(xq, 10), expected, strict=True):
            assert np.array_equal(got, want)
        ours[name] = seconds(lambda index=index: index.search(xq, 1))
    for name in ("mih", "auto"):
        print(
            f"  {what}, 1-NN, {name}: {slow / ours[name]:.1f}x IndexBinaryFlat, "
            f"{ours['scan'] / ours[name]:.1f}x our scan"
        )


if __name__ == "__main__":
    main()
