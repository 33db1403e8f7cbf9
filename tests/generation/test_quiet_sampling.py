"""After the first picture nothing that a user turns compiles anything, and the program asks for no transfer."""

from __future__ import annotations

import jax
import pytest

from tests.interop.checkpoints import drawn_model, tokenizer_config, transformer_config
from var_jax.benchmark.timing import compilations
from var_jax.bundle import load
from var_jax.generation import sampler
from var_jax.model_directory import save_model
from var_jax.pyramid import Pyramid


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder, pyramid = tmp_path_factory.mktemp("quiet") / "model", Pyramid((1, 2, 4))
    tokenizer = tokenizer_config(pyramid=pyramid, base_channels=8, norm_groups=4)
    save_model(folder, drawn_model(tokenizer, transformer_config(pyramid=pyramid, depth=1)))
    return load(folder)


def test_later_pictures_compile_nothing(bundle):
    bundle.generate([1, 2], jax.random.key(0), guidance=1.5, top_k=8, top_p=0.9)
    with compilations() as compiled:
        bundle.generate([2, 0], jax.random.key(7), guidance=4.0, top_k=3, top_p=0.5, temperature=0.7)
        bundle.generate([0, 0], jax.random.key(8), guidance=-1.0, top_k=0, top_p=0.0)
    assert compiled == []
    with compilations() as compiled:
        bundle.generate([1], jax.random.key(0))  # another batch is another program
    assert compiled


def test_the_program_asks_for_no_transfer(bundle):
    arguments = bundle.sampler_arguments([1, 2], jax.random.key(0), guidance=1.5, top_k=8, top_p=0.9)
    draw = lambda: sampler.generate(*arguments)
    draw()
    with jax.transfer_guard("disallow"), compilations() as compiled:
        draw()
    assert compiled == []
