"""Several nodes of Ray on this machine, one of which is killed under load. Prints what became."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any

import numpy as np

from faiss_dmih import IndexDMIH
from faiss_dmih.distributed import ShardedIndexDMIH

# Ray shall notice within seconds, not in a quarter of a minute.
NOTICE = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
NODE: dict[str, Any] = {"num_cpus": 2, "object_store_memory": 80 << 20}


def main(folder: str) -> None:
    import ray
    from ray.cluster_utils import Cluster

    head = {**NODE, "include_dashboard": False, "_system_config": NOTICE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = {node.node_id: node for node in (cluster.add_node(**NODE), cluster.add_node(**NODE))}
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    xb = np.random.default_rng(0).integers(0, 256, (5000, 8), dtype=np.uint8)
    expected_of, xq = IndexDMIH(64), xb[::97]
    expected_of.add(xb)
    expected = expected_of.search(xq, 5)
    ShardedIndexDMIH.build(xb, 3, folder)
    index = ShardedIndexDMIH.open(folder, timeout=120)

    def place(self: Any) -> tuple[str, int]:
        return str(ray.get_runtime_context().get_node_id()), os.getpid()

    def places() -> list[tuple[str, int]]:
        return ray.get([shard.actors[0].__ray_call__.remote(place) for shard in index._shards])

    before = places()
    chosen = next(node for node, _ in before if node in nodes)
    searched, wrong, over = [0], list[str](), threading.Event()

    def search() -> None:
        try:
            while not over.is_set():
                got = index.search(xq, 5)
                assert all((a == b).all() for a, b in zip(got, expected, strict=True))
                searched[0] += 1
        except BaseException as error:
            wrong.append(repr(error))

    thread = threading.Thread(target=search)
    thread.start()
    time.sleep(0.5)
    start = time.monotonic()
    cluster.remove_node(nodes[chosen], allow_graceful=False)
    for node, pid in before:  # which outlive their node by a moment: a machine takes them along
        if node == chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    index.search(xq, 5)
    seconds = time.monotonic() - start
    over.set()
    thread.join()
    said: dict[str, Any] = {
        name: sum(node == chosen for node, _ in where)
        for name, where in (("on it", before), ("still on it", places()))
    }
    said |= {"searched": searched[0], "wrong": wrong, "seconds": seconds}
    print(json.dumps(said), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
