"""Scans on tensor cores, over the CPU executor: every length of code, edges of tiles, fallbacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks import assert_knn, assert_range, assert_same
from devices import UNSANITIZED, StrictDevice, examples
from hypothesis import given
from hypothesis import strategies as st
from strategies import CODES, Case, ks, radii

from faiss_dmih import reference
from faiss_dmih.gpu import GpuIndexDMIH, tensor
from faiss_dmih.gpu.tensor import Scanner

SIZES = (1, 7, 9, 127, 129, 255, 257, 300)
BATCHES = (1, 17, 63, 65, 127, 129)


def with_tensor_cores(device: Any, scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device as one whose best scan this is."""
    monkeypatch.setattr(tensor, "TENSOR", (scanner,))
    if isinstance(device, StrictDevice):
        device.compute_capability = 90
        device.shared_memory = 227 * 1024
        # That it is right is what these tests are about.
        monkeypatch.setattr(tensor, "_found_wrong", lambda *_: "")
    return device


@pytest.fixture(params=tensor.TENSOR, ids=lambda scanner: scanner.name)
def scanner(request: pytest.FixtureRequest) -> Scanner:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def cores(gpu: Any, scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> Any:
    return with_tensor_cores(gpu, scanner, monkeypatch)


def filled(case: Case, *, lists: bool) -> GpuIndexDMIH:
    index = GpuIndexDMIH(case.d, mode="auto" if lists else "scan")
    index.add(case.xb[: case.n // 2])
    if lists:
        index.compact()
    index.add(case.xb[case.n // 2 :])
    index.force_engine("tensor")
    return index


@st.composite
def problems(draw: st.DrawFn) -> Case:
    d = draw(st.sampled_from([8, 64, 72, 128, 136, 256, 512, 1024]))
    n, nq = draw(st.sampled_from(SIZES)), draw(st.sampled_from(BATCHES))
    return Case(
        d, n, min(nq, max(1, (1 << 22) // (n * d))), draw(st.sampled_from(sorted(CODES))), 0
    )


@UNSANITIZED
@examples(1)
@given(case=problems(), lists=st.booleans(), data=st.data())
def test_exact(cores: Any, case: Case, lists: bool, data: st.DataObject) -> None:
    index = filled(case, lists=lists)
    k, radius = data.draw(ks(case.n)), data.draw(radii(case.d))
    assert_knn(index, case.xb, case.xq, k)
    assert_range(index, case.xb, case.xq, radius)
    mask = np.random.default_rng(1).random(case.n) < 0.4
    expected = reference.knn(case.xb, case.xq, k, mask=mask)
    assert_same(index.search(case.xq, k, mask=mask), expected)
