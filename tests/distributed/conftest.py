"""One Ray for all tests of this folder: on one machine, of more processors than it has."""

from __future__ import annotations

import sys
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Other tests fork, and measure: they shall have the process and the machine to themselves."""
    yield
    if "ray" in sys.modules and (nextitem is None or nextitem.path.parent != item.path.parent):
        sys.modules["ray"].shutdown()
