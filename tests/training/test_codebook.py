"""What keeps a codebook alive, against loops in numpy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.training import tiny
from tests.training.programs import adamw, on_one_device
from tests.training.programs import stepped as one_step
from tests.training.runs import StopAt, equal, last_state
from var_jax.errors import InputError
from var_jax.models.pictures import to_signed
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.pyramid import Pyramid
from var_jax.training.codebook import (
    CodebookOptions,
    code_sums,
    codebook_of,
    fair_weights,
    kept_scales,
    mean_codes,
    revived,
    warm_start,
)
from var_jax.training.loop import FINISHED, PREEMPTED, train
from var_jax.training.tokenizer import TokenizerTask

PYRAMID = Pyramid((1, 2, 4))
CODES = jax.random.normal(jax.random.key(0), (6, 3))
ASKED = jax.random.normal(jax.random.key(1), (42, 3))


def test_every_scale_gets_the_same_share():
    weights = fair_weights(PYRAMID, 2).reshape(2, 21)
    for k in range(3):
        np.testing.assert_allclose(weights[:, PYRAMID.slice(k)].sum(), 1 / 3, rtol=1e-6)
    assert len(np.unique(weights[0])) == 3


def test_kept_scales():
    kept = np.asarray(kept_scales(jax.random.key(0), 20_000, Pyramid((1, 2, 3, 4, 5)), 0.4, 3))
    for number, share in ((3, 0.2), (4, 0.2), (5, 0.6)):
        assert abs(np.mean(kept == number) - share) < 0.02
    assert set(kept) == {3, 4, 5}
    np.testing.assert_array_equal(kept_scales(jax.random.key(0), 4, PYRAMID, 0.0, 1), 3)
    with pytest.raises(InputError, match="quantizer dropout of 0.1 down to 3 scales: expected a share, and 1 to 2"):
        kept_scales(jax.random.key(0), 4, PYRAMID, 0.1, 3)


def test_dead_codes_move_to_queries_and_others_stay():
    uses = jnp.array([10.0, 0.0, 3.0, 0.4, 50.0, 0.0])  # a tenth of the mean is 1.06
    weights = np.zeros(42, np.float32)
    weights[[5, 7]] = 0.5
    codes, dead = revived(CODES, uses, ASKED, jnp.asarray(weights), jax.random.key(2), share=0.1)
    np.testing.assert_array_equal(dead, [False, True, False, True, False, True])
    np.testing.assert_array_equal(codes[~dead], CODES[~dead])
    for code in np.asarray(codes)[np.asarray(dead)]:
        assert any(np.array_equal(code, ASKED[row]) for row in (5, 7))


def test_codes_as_means_by_hand():
    tokens, asked = jnp.array([0, 0, 1, 3]), jnp.array([[4.0, 0.0], [0.0, 4.0], [1.0, 1.0], [9.0, 9.0]])
    sums = code_sums(tokens, asked, 3)
    np.testing.assert_array_equal(sums, [[4.0, 4.0], [1.0, 1.0], [0.0, 0.0]])  # the last token stands for none
    codes = mean_codes(jnp.full((3, 2), 7.0), jnp.array([2.0, 1.0, 0.0]), sums)
    np.testing.assert_allclose(codes, [[2.0, 2.0], [1.0, 1.0], [7.0, 7.0]])  # nobody's code stays


def test_warm_start_finds_separate_heaps():
    """Two heaps of very different size and, by weight, the same importance."""
    rng = np.random.default_rng(0)
    heaps = np.concatenate([rng.normal(5, 0.1, (200, 3)), rng.normal(-5, 0.1, (4, 3))]).astype(np.float32)
    weights = np.concatenate([np.full(200, 0.5 / 200), np.full(4, 0.5 / 4)]).astype(np.float32)
    codes = np.asarray(warm_start(jnp.asarray(heaps), jnp.asarray(weights), 8, jax.random.key(0), rounds=5))
    assert np.all(np.abs(np.abs(codes) - 5) < 0.5)
    assert 2 <= np.sum(codes[:, 0] < 0) <= 6
    one = warm_start(jnp.asarray(heaps), jnp.asarray(weights), 1, jax.random.key(0), rounds=1)
    np.testing.assert_allclose(one[0], weights @ heaps, atol=1e-4)  # the weighted mean of all
    many = warm_start(jnp.asarray(heaps[:5]), jnp.full(5, 0.2), 9, jax.random.key(1), rounds=2)
    assert many.shape == (9, 3)
    assert np.all(np.isfinite(many))


FLAT = {"pyramid": "1,2,8", "channel_multipliers": (1,), "codebook_size": 64}  # one resolution compiles sooner


def stepped(options, steps=1, accumulate=1):
    """The states before and after some steps on one batch, without weight of the other losses on the codebook.

    Equal options and `accumulate` are one program.
    """
    config = tiny.tokenizer(model=FLAT)
    task = TokenizerTask(TokenizerConfig.from_fields(**config.model), config.loss, codebook=options)
    program = on_one_device(task, adamw(decay=0.1, decayed=task.decayed), accumulate=accumulate, ema_decay=0.5)
    states = [program.first_state()]
    images = jax.random.randint(jax.random.key(7), (8, 8, 8, 3), 0, 256).astype(jnp.uint8)
    for _ in range(steps):
        states.append(one_step(program, states[-1], {"images": images})[0])
    return task, images, states


def test_codes_that_are_means_take_no_gradient():
    task, images, (before, after) = stepped(CodebookOptions(means=True))
    queries = np.asarray(jax.jit(task._queries)(before.params, images))
    encode = jax.jit(functools.partial(task.module.apply, method="encode"))
    tokens = np.asarray(encode({"params": before.params}, to_signed(images))).reshape(-1)
    expected = np.asarray(codebook_of(before.params)).copy()
    for code in np.unique(tokens):
        expected[code] = queries[tokens == code].mean(0)
    np.testing.assert_allclose(codebook_of(after.params), expected, rtol=1e-5, atol=1e-6)
    assert len(np.unique(tokens)) < 64  # some are nobody's and stayed
    # The average of parameters follows the codes that are kept.
    kept = np.asarray(codebook_of(before.params))
    np.testing.assert_allclose(codebook_of(after.ema), kept + 0.9 * (expected - kept), rtol=1e-4, atol=1e-6)


def test_means_are_over_all_micro_batches():
    whole, parts = (stepped(CodebookOptions(means=True), accumulate=n)[2][1] for n in (1, 2))
    np.testing.assert_allclose(codebook_of(parts.params), codebook_of(whole.params), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("means", [False, True])
def test_dead_codes_move_when_it_is_time(means):
    options = CodebookOptions(reset_every=2, reset_share=0.2, means=means)
    plain = CodebookOptions(means=means)
    task, images, states = stepped(options, steps=2)
    first, second = (states[n] for n in (1, 2))
    _, _, (_, first_plain, second_plain) = stepped(plain, steps=2)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)  # two programs: bits may differ
    close(codebook_of(first.params), codebook_of(first_plain.params))
    uses = np.sum(second.counts["codes"] if means else second.counts, axis=0)
    dead = uses < 0.2 * uses.mean()
    assert 0 < dead.sum() < 64
    close(codebook_of(second.params)[~dead], codebook_of(second_plain.params)[~dead])
    queries = np.asarray(jax.jit(task._queries)(second_plain.params, images))
    for code in np.asarray(codebook_of(second.params))[dead]:
        assert np.min(np.abs(queries - code).max(axis=1)) < 1e-5
    if means:  # what is kept of it says the same, where it was ever used
        moved = np.asarray(second.counts["sums"])[dead]
        np.testing.assert_allclose(moved, np.asarray(codebook_of(second.params))[dead] * uses[dead][:, None], rtol=1e-5)


def test_fewer_scales_in_training_change_the_loss_and_not_validation():
    task, images, (state, _) = stepped(CodebookOptions())
    options = CodebookOptions(dropout=1.0, fewest_scales=1)
    fewer = TokenizerTask(task.config, task.weights, codebook=options)
    batch = {"images": images}
    losses = [float(jax.jit(t.loss)(state.params, {}, batch, jax.random.key(0), 0)[0]) for t in (task, fewer)]
    assert losses[0] != losses[1]
    equal(*(jax.jit(t.evaluate)(state.params, {}, batch | {"mask": jnp.ones(8)}) for t in (task, fewer)))


@pytest.mark.usefixtures("one_device")
def test_a_run_with_all_of_it_resumes_exactly(tmp_path, monkeypatch, capsys):
    options = {"dropout": 0.5, "fewest_scales": 1, "means": True, "reset_every": 2, "warm_start": 2}
    config = tiny.tokenizer(codebook=options, model=FLAT)
    assert train(config, tmp_path / "whole") == FINISHED
    assert "the first codebook is made of 16 pictures" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        StopAt(patch, 3)
        assert train(config, tmp_path / "stopped") == PREEMPTED
    assert train(config, tmp_path / "stopped") == FINISHED
    assert "the first codebook" not in capsys.readouterr().out.split("resumed")[-1]
    equal(last_state(tmp_path / "whole"), last_state(tmp_path / "stopped"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 0.1}, "quantizer dropout of 0.1 down to 3 scales: expected a share, and 1 to 2"),
        ({"reset_every": -1}, "config codebook.reset_every is -1: expected a whole number from 0"),
        ({"warm_start": -2}, "config codebook.warm_start is -2: expected a whole number from 0"),
        ({"reset_share": 2.0}, "config codebook.reset_share is 2.0: expected a number from 0 to 1"),
    ],
)
def test_codebook_options_that_cannot_be(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        train(tiny.tokenizer(codebook=options), tmp_path / "run")
    assert not (tmp_path / "run").exists()
