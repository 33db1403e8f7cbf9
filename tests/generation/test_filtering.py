"""Top-k and top-p against the reference's masks and a plain sort; the draw against its distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from var_jax.generation.filtering import draw, filter_logits


def by_sorting(logits: np.ndarray, top_k: int, top_p: float) -> np.ndarray:
    """The plain form: full sorts in float64, ties at a threshold kept."""
    logits = logits.astype(np.float64)
    if 0 < top_k < logits.shape[-1]:
        logits = np.where(logits >= np.sort(logits)[..., -top_k, None], logits, -np.inf)
    if 0 < top_p < 1:
        p = np.exp(logits - logits.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        up_to = np.sum(np.where(logits[..., None, :] <= logits[..., :, None], p[..., None, :], 0.0), axis=-1)
        keep = (up_to > 1 - top_p) | (logits == logits.max(-1, keepdims=True))
        logits = np.where(keep, logits, -np.inf)
    return np.isfinite(logits)


def test_golden_masks(golden):
    stored = golden("filtering")
    cases = [name for name in stored if name.startswith("kept/")]
    assert len(cases) == 7
    run = jax.jit(filter_logits)
    for name in cases:
        top_k, top_p = (float(part.split("=")[1]) for part in name.split("/")[1:])
        kept = np.isfinite(run(stored["logits"], int(top_k), top_p))
        np.testing.assert_array_equal(kept, stored[name], err_msg=name)
    assert run._cache_size() == 1  # k and p are traced


@pytest.mark.parametrize("seed", range(3))
def test_equals_full_sorts_with_ties_and_extremes(seed):
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((6, 50)).astype(np.float32) * 3
    logits[1] = np.round(logits[1])  # many ties
    logits[2, ::2] = -np.inf  # already filtered
    logits[3] = 1e30 * logits[3]
    logits[4] = 0.0
    logits[5, :2] = 0.0, -0.0
    run = jax.jit(filter_logits)
    for top_k in (0, 1, 2, 10, 49, 50, 99):
        for top_p in (0.0, 0.05, 0.5, 0.93, 1.0):
            out = np.asarray(run(logits, top_k, top_p))
            expected = by_sorting(logits, top_k, top_p) & np.isfinite(logits)
            np.testing.assert_array_equal(np.isfinite(out), expected, err_msg=f"{top_k=} {top_p=}")
            np.testing.assert_array_equal(out[expected], logits[expected])
            assert np.all(expected.any(axis=-1))


@pytest.mark.parametrize("vocabulary", [1, 2, 7, 100, 257])
def test_draw_follows_the_filtered_softmax(vocabulary):
    """Chi-square of the frequencies over many keys, and nothing filtered is ever drawn."""
    rng = np.random.default_rng(vocabulary)
    logits = filter_logits(jnp.asarray(2 * rng.standard_normal((3, vocabulary)), jnp.float32), 20, 0.9)
    p = np.asarray(jax.nn.softmax(logits, axis=-1), np.float64)
    draws = 20_000
    keys = jax.random.split(jax.random.key(vocabulary), draws)
    tokens = np.asarray(draw(keys, jnp.broadcast_to(logits, (draws, *logits.shape))))
    for position in range(3):
        counts = np.bincount(tokens[:, position], minlength=vocabulary)
        assert np.all(counts[p[position] == 0] == 0)
        allowed = p[position] > 0
        expected = draws * p[position][allowed]
        statistic = np.sum((counts[allowed] - expected) ** 2 / expected)
        freedom = allowed.sum() - 1
        assert statistic <= freedom + 5 * np.sqrt(2 * freedom) + 1e-9  # five standard deviations


def test_draw_of_a_row_depends_on_its_own_key_alone():
    logits = jax.random.normal(jax.random.key(0), (4, 5, 30))
    keys = jax.random.split(jax.random.key(1), 4)
    together = draw(keys, logits)
    for row in range(4):
        np.testing.assert_array_equal(draw(keys[row : row + 1], logits[row : row + 1])[0], together[row])


def test_draw_at_the_edges():
    """A single possible token is drawn wherever it stands, with huge and tiny logits beside it."""
    for position in (0, 1, 8, 9, 16):
        logits = np.full((1, 200, 17), -np.inf, np.float32)
        logits[..., position] = -1e30
        assert np.all(draw(jax.random.split(jax.random.key(0), 1), jnp.asarray(logits)) == position)
