"""Attention kinds give what plain attention gives, and its gradients; the mask is exact, padding included."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.models.attention import _runs, cudnn_attention, plain_attention, xla_attention
from var_jax.models.backend import XLA
from var_jax.models.recompute import policies, policy
from var_jax.models.splash import PrefixMask, Splash
from var_jax.models.transformer import Transformer, TransformerConfig
from var_jax.parallel.mesh import make_mesh
from var_jax.parallel.rules import PerDevice
from var_jax.pyramid import Pyramid

FIFTY_FIVE = Pyramid((1, 2, 3, 4, 5))  # one block of 128, most of it padding
TWO_BLOCKS = Pyramid((1, 3, 6, 11))  # 167 positions in 256
EXACT = Pyramid((8, 8))  # no padding at all


def inputs(pyramid, batch=2, heads=2, width=64, dtype=jnp.float32, scale=8.0):
    """q, k, v and the weights of a scalar made of the result; like the model's, q has length `scale` and k 1."""
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, weight = (jax.random.normal(key, (batch, pyramid.length, heads, width)) for key in keys)
    unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    return tuple(x.astype(dtype) for x in (scale * unit(q), unit(k), v, weight))


def result_and_gradients(attention, mask, q, k, v, weight):
    def total(q, k, v):
        out = attention(q, k, v, mask)
        return jnp.sum(out * weight), out

    (_, out), grads = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)
    return out, *grads


def close(ours, expected, atol):
    for name, a, b in zip(("result", "dq", "dk", "dv"), ours, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=atol * np.abs(b).max(), rtol=0, err_msg=name)


@pytest.mark.parametrize(
    ("pyramid", "blocks"), [(FIFTY_FIVE, (256, 768)), (TWO_BLOCKS, (256, 768)), (TWO_BLOCKS, (128, 128)), (EXACT, ())]
)
def test_splash_is_plain_attention(pyramid, blocks):
    mask, arguments = pyramid.block_causal_mask, inputs(pyramid)
    splash = Splash(*blocks, interpret=True)
    ours, plain = (result_and_gradients(kind, mask, *arguments) for kind in (splash, plain_attention))
    close(ours, plain, 2e-6)


def test_splash_with_the_largest_scale_a_head_may_learn():
    arguments = inputs(TWO_BLOCKS, scale=100.0)
    mask = TWO_BLOCKS.block_causal_mask
    ours, plain = (result_and_gradients(kind, mask, *arguments) for kind in (Splash(interpret=True), plain_attention))
    close(ours, plain, 1e-5)


def test_splash_in_bfloat16_keeps_scores_in_float32():
    arguments, mask = inputs(TWO_BLOCKS, dtype=jnp.bfloat16), TWO_BLOCKS.block_causal_mask
    exact = plain_attention(*(x.astype(jnp.float32) for x in arguments[:3]), mask)
    ours = Splash(interpret=True)(*arguments[:3], mask)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(np.float32), exact, atol=2**-8 * np.abs(exact).max(), rtol=0)


@pytest.mark.parametrize("blocks", [(128, 128), (256, 256)])
def test_splash_mixes_in_nothing_that_the_mask_hides(blocks):
    """By values that would show: what is hidden from a query is enormous, and changes it by not one bit."""
    splash, pyramid = Splash(*blocks, interpret=True), TWO_BLOCKS
    q, k, v, _ = inputs(pyramid, batch=1, heads=1)
    mask, run = pyramid.block_causal_mask, jax.jit(lambda k, v: splash(q, k, v, pyramid.block_causal_mask))
    calm = run(k, v)
    for scale in range(len(pyramid) - 1):
        end = pyramid.slice(scale).stop
        loud = run(k.at[:, end:].multiply(50.0), v.at[:, end:].set(1e30))
        np.testing.assert_array_equal(loud[:, :end], calm[:, :end])
        assert np.all(np.abs(loud[:, end:]).max(axis=(0, 2, 3)) > 1e20)
    assert mask[pyramid.slice(1).start, pyramid.slice(1).stop - 1]  # its own scale it sees whole


@pytest.mark.parametrize("pyramid", [FIFTY_FIVE, TWO_BLOCKS, EXACT, Pyramid.parse("256"), Pyramid.parse("512")])
def test_the_padded_mask(pyramid):
    mask = PrefixMask.padded(pyramid.block_causal_mask)
    whole, hidden = mask[:, :], mask.hidden
    assert whole.shape == mask.shape and mask.shape[0] % 128 == 0 and 0 <= hidden < 128
    np.testing.assert_array_equal(whole[hidden:, hidden:], pyramid.block_causal_mask)
    assert not whole[:, :hidden].any(), "somebody sees padding"
    assert whole.any(axis=1).all(), "a row without any key has no softmax"
    np.testing.assert_array_equal(mask[128:, :64], whole[128:, :64])
    assert mask == PrefixMask.padded(pyramid.block_causal_mask) and hash(mask) == hash(
        PrefixMask(hidden, mask.q_sequence)
    )
    assert mask != PrefixMask(hidden, mask.q_sequence[::-1])


def test_blocks_that_are_never_computed():
    """By hand: of 167 positions, 89 are padding; the first 128 rows see up to 46 + 89 = 135, the others all 256."""
    assert Splash(128, 128).visited(TWO_BLOCKS.block_causal_mask) == (4, 4)
    halves = np.arange(256) < np.repeat([128, 256], 128)[:, None]
    assert Splash(128, 128).visited(halves) == (3, 4)
    assert Splash(256, 128).visited(halves) == (2, 2)
    assert Splash(128, 128).visited(Pyramid.parse("256").block_causal_mask) == (25, 36)
    assert Splash(256, 256).visited(Pyramid.parse("512").block_causal_mask) == (56, 81)


def test_splash_errors():
    for blocks in ((100, 768), (256, 0), (64, 128)):
        with pytest.raises(InputError, match="expected a positive multiple of 128"):
            Splash(*blocks)
    for mask in (np.tri(128, dtype=bool).T, np.eye(128, dtype=bool), np.zeros((128, 128), bool)):
        with pytest.raises(InputError, match="every query sees the first keys"):
            PrefixMask.padded(mask)


RUNS = {
    "256 pixels": (Pyramid.parse("256").block_causal_mask, [(155, 155), (255, 255), (424, 424), (680, 680)]),
    "short scales join": (TWO_BLOCKS.block_causal_mask, [(167, 167)]),
    "one key more each row": (np.tri(250, dtype=bool), [(100, 100), (200, 200), (250, 250)]),
    "not from the first key on": (
        np.tri(230, dtype=bool) & ~np.tri(230, k=-40, dtype=bool),
        [(100, 100), (200, 200), (230, 230)],
    ),
    "fewer keys than queries": (np.tri(300, 150, dtype=bool), [(100, 100), (300, 150)]),
}


@pytest.mark.parametrize("kind", RUNS)
def test_xla_attention_by_runs_of_queries(kind):
    """As in the book, gradients too, with products of the pairs that the mask leaves and few others."""
    mask, runs = RUNS[kind]
    draw = lambda seed, length: jax.random.normal(jax.random.key(seed), (1, length, 2, 64))
    q, k, v, weight = draw(0, len(mask)), draw(1, mask.shape[1]) / 8, draw(2, mask.shape[1]), draw(3, len(mask))
    arguments = mask, q, k, v, weight
    assert [(run.stop, run.seen) for run in _runs(*mask.shape, mask)] == runs
    close(result_and_gradients(xla_attention, *arguments), result_and_gradients(plain_attention, *arguments), 2e-6)


def test_xla_attention_in_bfloat16():
    mask, (q, k, v, weight) = TWO_BLOCKS.block_causal_mask, inputs(TWO_BLOCKS)
    exact = result_and_gradients(plain_attention, mask, q, k, v, weight)
    ours = result_and_gradients(xla_attention, mask, *(x.astype(jnp.bfloat16) for x in (q, k, v)), weight)
    assert {x.dtype for x in ours} == {jnp.dtype(jnp.bfloat16)}
    for a, b in zip(ours, exact, strict=True):
        np.testing.assert_allclose(a.astype(np.float32), b, atol=2e-2 * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize("name", [None, "dots_saveable", "products"])
def test_xla_attention_keeps_no_scores_and_gives_the_same_gradients(name):
    """Four layers, scanned like a transformer's; bytes by the compiler's own account."""
    q, k, v, weight = inputs(TWO_BLOCKS)
    layers, mask = 4, TWO_BLOCKS.block_causal_mask
    found = []
    for attention in (xla_attention, plain_attention):

        def total(q, k, v, attention=attention):
            layer = lambda x, _: (x + attention(q * x, k, v, mask), None)
            if name:
                layer = jax.checkpoint(layer, prevent_cse=False, policy=policy(name))
            return jnp.sum(weight * jax.lax.scan(layer, v, length=layers)[0])

        compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2))).lower(q, k, v).compile()
        found.append((compiled.memory_analysis().temp_size_in_bytes, compiled(q, k, v)))
    (ours, our_grads), (books, grads) = found
    batch, length, heads, _ = q.shape
    assert books - ours > 0.8 * layers * batch * heads * length**2 * 4
    for a, b in zip(our_grads, grads, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize("kind", [xla_attention, Splash(interpret=True)])
def test_keeping_products_computes_no_attention_twice(kind):
    """By the compiler's count of operations in a layer and its gradient, beside keeping everything."""
    q, k, v, _ = inputs(TWO_BLOCKS, batch=1)
    mask, counts = TWO_BLOCKS.block_causal_mask, {}
    for name in ("products", "everything_saveable"):
        layer = jax.checkpoint(lambda q, k, v: jnp.sin(kind(jnp.sin(q), k, v, mask)).sum(), policy=policy(name))
        compiled = jax.jit(jax.value_and_grad(layer)).lower(q, k, v).compile()
        counts[name] = compiled.cost_analysis()["flops"]
    assert counts["products"] < 1.01 * counts["everything_saveable"]


def test_policies():
    assert policies()[0] == "products" and {"dots_saveable", "nothing_saveable"} <= set(policies())
    assert policy("nothing_saveable") is jax.checkpoint_policies.nothing_saveable
    for name in ("everything", "__dict__", "Any"):
        with pytest.raises(KeyError):
            policy(name)


def tiny_transformer(attention_fn, remat=None):
    shape = TransformerConfig(Pyramid((1, 3, 6)), 16, 4, 5, depth=2, width=16, num_heads=2, drop_path=0.3)
    return Transformer(shape, backend=dataclasses.replace(XLA, attention=attention_fn), remat=remat)


def loss_and_gradients(module, params):
    config = module.config
    labels, key = jnp.arange(8) % config.num_classes, jax.random.key(5)
    codes = jax.random.normal(key, (8, config.pyramid.length - 1, config.code_width))

    def loss(params):
        return jnp.mean(jnp.square(module.apply({"params": params}, labels, codes, key)))

    return jax.jit(jax.value_and_grad(loss))(params)


def test_a_transformer_learns_the_same_with_splash_over_a_mesh():
    """Batch over data and fsdp, heads over tensor; layers scanned and recomputed."""
    module, rng = tiny_transformer(plain_attention), np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(1), jnp.zeros(1, int), jnp.zeros((1, 45, 4)))["params"]
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    loss, grads = loss_and_gradients(module, params)
    attention = PerDevice(make_mesh(2, 2, 2, jax.devices()[:8]), Splash(interpret=True))
    ours, our_grads = loss_and_gradients(tiny_transformer(attention, "nothing_saveable"), params)
    np.testing.assert_allclose(ours, loss, rtol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * max(np.abs(b).max(), 1e-6), rtol=0), our_grads, grads
    )


# No GPU, no such test, and no skip either.
if jax.default_backend() == "gpu":

    @pytest.mark.parametrize("pyramid", [FIFTY_FIVE, TWO_BLOCKS, Pyramid.parse("256")])
    def test_cudnn_is_plain_attention(pyramid):
        arguments, mask = inputs(pyramid, dtype=jnp.bfloat16), pyramid.block_causal_mask
        wide = [x.astype(jnp.float32) for x in arguments]
        kind = PerDevice(make_mesh(devices=jax.devices()[:1]), cudnn_attention)
        plain = result_and_gradients(plain_attention, mask, *wide)
        ours = [x.astype(jnp.float32) for x in result_and_gradients(kind, mask, *arguments)]
        close(ours, plain, 2e-2)
        lowered = jax.jit(lambda q, k, v: kind(q, k, v, mask)).lower(*arguments[:3])
        assert "cudnn$fmha" in lowered.compile().as_text()
