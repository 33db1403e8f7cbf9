"""A fixture of the formats' tests: a disk that refuses to take more."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest


@pytest.fixture
def file_size_limit() -> Iterator[int]:
    """Bytes beyond which the system refuses to write a file: as close to a full disk as a test can safely get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield 4096
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
