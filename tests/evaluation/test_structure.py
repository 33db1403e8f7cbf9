"""The unigram model by hand, what shuffling moves, and the losses beside those that training reports."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.golden_models import random_params
from tests.training import tiny
from var_jax.bundle import Bundle
from var_jax.data.sources import make_source
from var_jax.errors import InputError
from var_jax.evaluation.structure import other_rows, permuted_inputs, structure, transformer_losses, unigram_loss
from var_jax.models.net import Net
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import Transformer, TransformerConfig
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid.parse("1,2,4")


def test_unigram_model_by_hand():
    """Three training pictures of class 0 and one of class 1, a single position, four codes."""
    seen, classes = np.array([[0], [0], [1], [2]]), np.array([0, 0, 0, 1])
    one = Pyramid.parse("1")

    def loss(token, label, strength, share):
        return unigram_loss(seen, classes, np.array([[token]]), np.array([label]), one, 4, (strength,), (share,))

    # Additive smoothing by 2 / 4 a code: (2 + 0.5) / (3 + 2), and (0 + 0.5) / (1 + 2) in a class that never had it.
    np.testing.assert_allclose(loss(0, 0, 2.0, 0.0), -math.log(2.5 / 5))
    np.testing.assert_allclose(loss(0, 1, 2.0, 0.0), -math.log(0.5 / 3))
    # Backed off: q = 0.5 x 2/4 + 0.5 / 4 = 0.375 for code 0, so (0 + 2 x 0.375) / (1 + 2).
    np.testing.assert_allclose(loss(0, 1, 2.0, 0.5), -math.log(0.25))
    # A class without a training picture has the back-off alone.
    np.testing.assert_allclose(loss(0, 2, 2.0, 0.5), -math.log(0.375))


def test_the_unigram_model_is_the_best_one_of_each_scale():
    seen, held_out = np.array([[0, 1, 1, 1, 1]] * 9 + [[1, 0, 1, 0, 1]]), np.array([[0, 2, 2, 2, 2]])
    labels, two = np.zeros(10, int), Pyramid.parse("1,2")
    best = unigram_loss(seen, labels, held_out, labels[:1], two, 4, (1.0, 100.0), (0.0,))
    # The first scale is as counted: little smoothing, (9 + 1/4) / 11. The second is all new: much, 25 / 110.
    np.testing.assert_allclose(best, (-math.log(9.25 / 11) - 4 * math.log(25 / 110)) / 5)


def test_unigram_counts_by_class_and_position():
    rng = np.random.default_rng(0)
    seen, classes = rng.integers(0, 5, (40, 21)), rng.integers(0, 3, 40)
    held_out, labels = rng.integers(0, 5, (7, 21)), rng.integers(0, 3, 7)
    total = 0.0
    for tokens, label in zip(held_out, labels, strict=True):
        for place, token in enumerate(tokens):
            n = sum(seen[i, place] == token for i in range(40) if classes[i] == label)
            q = 0.9 * sum(seen[:, place] == token) / 40 + 0.1 / 5
            total -= math.log((n + 3 * q) / (sum(classes == label) + 3))
    found = unigram_loss(seen, classes, held_out, labels, PYRAMID, 5, (3.0,), (0.9,))
    np.testing.assert_allclose(found, total / (7 * 21))


def test_shuffling_moves_every_picture_s_inputs_and_keeps_scales_together():
    rng = np.random.default_rng(0)
    for count in (2, 3, 50):
        order = other_rows(count, rng)
        assert sorted(order) == list(range(count))
        assert np.all(order != np.arange(count))
    inputs = jnp.arange(3 * 20, dtype=jnp.float32).reshape(3, 20, 1)
    moved = permuted_inputs(inputs, np.array([[1, 0, 2], [1, 2, 0], [2, 0, 1]]), PYRAMID.level_ids[1:])
    np.testing.assert_array_equal(moved[:, :4], inputs[np.array([1, 2, 0]), :4])
    np.testing.assert_array_equal(moved[:, 4:], inputs[np.array([2, 0, 1]), 4:])
    single = permuted_inputs(inputs[:, :0], np.array([[1, 2, 0]]), Pyramid.parse("8").level_ids[64:])
    assert single.shape == (3, 0, 1)


@pytest.fixture(scope="module")
def bundle():
    config = TokenizerConfig.from_fields(**tiny.tokenizer().model)
    tokenizer, transformer = Tokenizer(config), Transformer(TransformerConfig(PYRAMID, 16, 4, 10, 2, 16, 2))
    params, own = random_params(tokenizer_shapes(config)), random_params(transformer_shapes(transformer.config), 1)
    params["quantizer"]["codebook"] = np.random.default_rng(2).standard_normal((16, 4), np.float32)
    return Bundle(Net(tokenizer, params), Net(transformer, own))


def test_shuffled_inputs_leave_the_first_scale_alone(bundle):
    rng = np.random.default_rng(0)
    tokens, labels = rng.integers(0, 16, (57, 21)), np.arange(57) % 10
    own = transformer_losses(bundle, tokens, labels)
    log_p = jax.nn.log_softmax(bundle.logits(labels, tokens))
    by_hand = -np.take_along_axis(np.asarray(log_p), tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(own, by_hand, rtol=1e-4, atol=1e-5)
    shuffled = transformer_losses(bundle, tokens, labels, np.random.default_rng(1))
    np.testing.assert_allclose(shuffled[:, 0], own[:, 0], rtol=1e-4, atol=1e-5)
    assert np.all(np.abs(shuffled[:, 1:] - own[:, 1:]).max(axis=1) > 1e-2)


def test_structure_of_real_pictures(bundle):
    source, validation = (make_source("shapes", split, size=8, count=120) for split in ("train", "validation"))
    images, labels = (np.stack(part) for part in zip(*(validation[i] for i in range(60)), strict=True))
    said = []
    figures = structure(bundle, source, images, labels, counted=70, say=said.append)
    tokens = np.asarray(bundle.encode(images))
    np.testing.assert_allclose(figures["held_out_loss"], transformer_losses(bundle, tokens, labels).mean(), rtol=1e-5)
    assert set(figures) == {"held_out_loss", "unigram_loss", "shuffled_input_loss"}
    assert 0 < figures["unigram_loss"] < math.log(16)  # even this knows more than nothing
    assert said == ["unigram model: tokens of 70/70 training pictures"]
    with pytest.raises(InputError, match="counted 0: the unigram model needs at least one"):
        structure(bundle, source, images, labels, counted=0)
