"""The study of batch sizes: on a small model all draw the same, and a difference would be counted."""

from __future__ import annotations

import numpy as np
import pytest

from studies import batch_sizes
from tests.interop.checkpoints import drawn_model, tokenizer_config, transformer_config
from var_jax.bundle import load
from var_jax.model_directory import save_model
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid((1, 2, 4))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches") / "model"
    tokenizer = tokenizer_config(pyramid=PYRAMID, base_channels=8, norm_groups=4)
    save_model(folder, drawn_model(tokenizer, transformer_config(pyramid=PYRAMID, depth=1)))
    return load(folder)


def test_batches_of_7_and_64_draw_the_same(bundle):
    tokens = batch_sizes.drawn_tokens(bundle, 40, 7)
    assert tokens.shape == (40, PYRAMID.length)
    assert len(np.unique(tokens, axis=0)) > 30  # another key, another picture
    assert batch_sizes.same_share(bundle, 40, (7, 64)) >= 0.995


def test_a_difference_is_counted(bundle, monkeypatch):
    def drawn(bundle, count, batch, seed):
        tokens = np.zeros((count, 3), int)
        tokens[0, 2] = batch == 64
        return tokens

    monkeypatch.setattr(batch_sizes, "drawn_tokens", drawn)
    assert batch_sizes.same_share(bundle, 4, (7, 64)) == 0.75


def test_the_command_prints_the_share(bundle, monkeypatch, capsys):
    monkeypatch.setattr(batch_sizes, "load", lambda path: bundle)
    batch_sizes.main(["--pictures", "14", "--batches", "7,64"])
    assert capsys.readouterr().out == "14 pictures, batches of 7,64: all tokens equal in 100.00% of them\n"
