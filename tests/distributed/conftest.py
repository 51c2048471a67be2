"""One Ray for all tests of this folder: on one machine, of more processors than it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """The module, connected; tests that ask for it are skipped where it is not installed."""
    ray = pytest.importorskip("ray")
    ray.init(
        num_cpus=16,
        include_dashboard=False,
        object_store_memory=100 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray
    ray.shutdown()
