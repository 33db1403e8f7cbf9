"""A tiny run of both stages that several files of tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training import tiny
from var_jax.training.loop import train


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Path:
    """A folder with the training directories `tokenizer` and `transformer`, six steps each, of drawn shapes at 8 px."""
    folder = tmp_path_factory.mktemp("tiny_run")
    train(tiny.tokenizer(), str(folder / "tokenizer"))
    train(tiny.transformer(folder / "tokenizer"), str(folder / "transformer"))
    return folder
