"""Profiles and fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import faiss
import hypothesis
import pytest

import faiss_dmih

# The fixtures below hold a process-wide setting for all examples of a test, as they should.
_shared_fixtures = [hypothesis.HealthCheck.function_scoped_fixture]
_slow_data = [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large]
_common = {"deadline": None, "suppress_health_check": [*_shared_fixtures, *_slow_data]}
hypothesis.settings.register_profile("default", max_examples=30, **_common)
hypothesis.settings.register_profile("ci", max_examples=30, derandomize=True, **_common)
hypothesis.settings.register_profile("few", max_examples=3, **_common)  # under a sanitizer
hypothesis.settings.register_profile("thorough", max_examples=1000, **_common)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(params=faiss_dmih.available_simd_levels())
def simd_level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once at every SIMD level of this machine."""
    before = faiss_dmih.simd_level()
    faiss_dmih.set_simd_level(request.param)
    yield request.param
    faiss_dmih.set_simd_level(before)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Runs the test with one thread and with several, whatever the machine has."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(request.param)
    yield request.param
    faiss.omp_set_num_threads(before)
