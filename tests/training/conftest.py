"""What tests of training share beside `tiny_run`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.training import runs


@pytest.fixture
def one_device() -> Iterator[None]:
    """Runs whose config names no mesh take the first device alone, as `tiny_run` did."""
    with runs.on_one_device():
        yield
