"""What `make gpu-check` profiles: a batch by each scan, of a large database.

    ncu --profile-from-start off --kernel-name regex:scan python tests/gpu/scans_to_profile.py

Only the second search of each kind is between the profiler's marks: the first one compiles.
"""

from __future__ import annotations

from faiss_dmih.bench.cuda.device import CudaDevice
from faiss_dmih.bench.cuda.limits import random_codes
from faiss_dmih.gpu import GpuIndexDMIH
from faiss_dmih.gpu.kernels import cupy

N, NQ, K, BITS = 10_000_000, 10_000, 10, (64, 256)


def main() -> None:
    device, runtime = CudaDevice(), cupy().cuda.runtime
    for d in BITS:
        index = GpuIndexDMIH(d, mode="scan")
        index.add(random_codes(device, N, d, seed=0))
        xq = random_codes(device, NQ, d, seed=1)
        for engine in ("tensor", "scan"):
            index.force_engine(engine)
            try:
                index.search(xq, K)
            except RuntimeError as error:  # no tensor cores for it
                print(f"{d} bits: {error}", flush=True)
                continue
            device.wait()
            runtime.profilerStart()
            index.search(xq, K)
            device.wait()
            runtime.profilerStop()


if __name__ == "__main__":
    main()
