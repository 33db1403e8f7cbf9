"""What the tests of the commands share: a small pair as files and as a model directory, and what a refusal is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.formats.samples import only_files_in
from tests.interop.checkpoints import drawn_model, tokenizer_tensors, transformer_tensors
from var_jax.cli.main import main
from var_jax.formats.tensors import write_tensors


class Pair(NamedTuple):
    """A small pair: its files under the reference's names, the directory imported from them, and a picture."""

    tokenizer: Path
    transformer: Path
    model: Path
    tokenizer_only: Path
    picture: Path


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("pair")
    pair = Pair(*(folder / name for name in ("vae.pth", "var.safetensors", "model", "tokenizer_only", "a.png")))
    model = drawn_model()
    write_tensors(pair.tokenizer, tokenizer_tensors(model), {})
    write_tensors(pair.transformer, transformer_tensors(model), {})
    arguments = ["import", "--tokenizer", pair.tokenizer, "--pyramid", "1,2,3"]
    assert run(*arguments, "--transformer", pair.transformer, "--out", pair.model) == 0
    assert run(*arguments, "--out", pair.tokenizer_only) == 0
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(noise).save(pair.picture)
    return pair


def run(*arguments: object) -> int:
    """The exit code of `var-jax` with these arguments."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stopped:  # how the argument parser refuses
        return stopped.code


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """`refused(*arguments)`: the one line of a command that fails with code 2 and leaves `tmp_path` as it was."""

    def refuse(*arguments: object) -> str:
        before = {name: _stamp(tmp_path / name) for name in only_files_in(tmp_path)}
        capsys.readouterr()
        code = run(*arguments)
        printed = capsys.readouterr()
        assert code == 2, printed
        assert printed.err.count("\n") == 1, printed.err
        assert printed.err.startswith((f"var-jax {arguments[0]}: ", "var-jax: "))
        assert "Traceback" not in printed.err
        assert "wrote" not in printed.out
        assert {name: _stamp(tmp_path / name) for name in only_files_in(tmp_path)} == before
        return printed.err

    return refuse


def _stamp(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_mtime_ns, status.st_size if path.is_file() else 0
