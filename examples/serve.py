"""A search service: Ray Serve in front of shards, and a load test of it from a second process.

    pip install 'faiss-dmih[cpu,ray]' 'ray[serve]'
    python examples/serve.py                    # builds an index, serves it, tests it, ends
    python examples/serve.py --index FOLDER --port 8000 --seconds 0    # serves until Ctrl-C

It listens on the loopback interface only. A request is `POST /?k=10` with the bytes of packed
codes; the answer is the bytes of D (nq, k) int32, then of I (nq, k) int64. Requests that come
together are searched together: a batch costs far less than its queries one by one.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from faiss_dmih.distributed import ShardedIndexDMIH

HOST = "127.0.0.1"
MAX_K, MAX_BYTES = 1000, 1 << 20  # of one request


@serve.deployment(max_ongoing_requests=1000)
class Search:
    """Opens the index once; Serve's replicas of it would each have actors of their own."""

    def __init__(self, folder: str, replicas: int) -> None:
        self.index = ShardedIndexDMIH.open(folder, replicas=replicas)

    @serve.batch(max_batch_size=256, batch_wait_timeout_s=0.002)
    async def together(self, requests: Sequence[tuple[np.ndarray, int]]) -> list[bytes]:
        x = np.concatenate([codes for codes, _ in requests])
        k = max(k for _, k in requests)  # what a smaller one asks for begins the same list
        D, I = await asyncio.to_thread(self.index.search, x, k)
        out, at = [], 0
        for codes, k in requests:
            rows = slice(at, at := at + len(codes))
            out.append(D[rows, :k].tobytes() + I[rows, :k].tobytes())
        return out

    def bits(self) -> int:
        return self.index.d

    async def __call__(self, request: Request) -> Response:
        body, k = await request.body(), request.query_params.get("k", "10")
        if not k.isdecimal() or not 1 <= int(k) <= MAX_K:
            return Response(f"got k = {k!r}, expected 1 to {MAX_K}", 400)
        size = self.index.code_size
        if not 0 < len(body) <= MAX_BYTES or len(body) % size:
            said = f"got {len(body)} bytes, expected codes of {size}, {MAX_BYTES} bytes at most"
            return Response(said, 400)
        codes = np.frombuffer(body, np.uint8).reshape(-1, size)
        return Response(await self.together((codes, int(k))))


def load(port: int, clients: int, seconds: float, d: int) -> dict[str, float]:
    """Lone queries of so many clients, one after another each, for a while."""
    times: list[float] = []
    until = time.perf_counter() + seconds

    def client(seed: int) -> None:
        rng, connection = np.random.default_rng(seed), http.client.HTTPConnection(HOST, port)
        while time.perf_counter() < until:
            start = time.perf_counter()
            connection.request("POST", "/?k=10", rng.bytes(d // 8))
            answer = connection.getresponse()
            data = answer.read()
            if answer.status != 200 or len(data) != 120:
                raise RuntimeError(f"got status {answer.status}: {data!r}")
            times.append(1e3 * (time.perf_counter() - start))

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return {"clients": clients, "requests/s": len(times) / seconds, "p50 ms": p50, "p99 ms": p99}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--index", help="a folder of shards; by default one of random codes")
    parser.add_argument("--n", type=int, default=200_000, help="codes of that one")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--replicas", type=int, default=1, help="of each shard")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5, help="of load; 0: serve until Ctrl-C")
    parser.add_argument("--load", type=int, metavar="D", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.load:
        print(json.dumps(load(given.port, given.clients, given.seconds, given.load)))
        return
    if given.port == 0:
        with socket.create_server((HOST, 0)) as free:
            given.port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        if given.index is None:
            xb = np.random.default_rng(0).integers(0, 256, (given.n, 8), dtype=np.uint8)
            given.index = f"{scratch}/index"
            ShardedIndexDMIH.build(xb, 2, given.index)
        serve.start(http_options={"host": HOST, "port": given.port})
        handle = serve.run(Search.bind(given.index, given.replicas))
        print(f"serving {given.index} at http://{HOST}:{given.port}/", flush=True)
        try:
            while given.seconds == 0:
                time.sleep(1)
            d = handle.bits.remote().result()
            script = [sys.executable, __file__, "--load", str(d), "--port", str(given.port)]
            script += ["--clients", str(given.clients), "--seconds", str(given.seconds)]
            subprocess.run(script, check=True)
        except KeyboardInterrupt:
            pass
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
