"""The transformer against the reference's numbers, its initial state, its mask and its sizes."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.golden_models import random_params, relative_error, small_tokenizer, weights
from var_jax.errors import InputError
from var_jax.interop.names import to_reference
from var_jax.interop.transformer import import_transformer, transformer_table
from var_jax.models.presets import transformer_preset
from var_jax.models.quantizer import QuantizerConfig
from var_jax.models.shapes import transformer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer import Transformer, TransformerConfig, new_cache
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid

FILES = ["transformer_small", "transformer_small_shared_adaln", "transformer_small_no_qk_norm"]
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module", params=FILES)
def case(request, golden):
    """(golden arrays, config, params) of one small transformer."""
    stored = golden(request.param)
    tokenizer = small_tokenizer(golden("tokenizer_small"))
    return stored, *import_transformer(weights(stored), tokenizer.config, num_heads=2)


def cross_entropy(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.mean(jnp.take_along_axis(log_p, tokens[..., None], axis=-1))


def test_logits_loss_and_gradients(case):
    stored, config, params = case
    module = Transformer(config)

    def loss_fn(params):
        logits = module.apply({"params": params}, stored["labels"], stored["var_input"])
        return cross_entropy(logits, stored["tokens"]), logits

    (loss, logits), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)
    assert logits.dtype == jnp.float32
    assert relative_error(logits, stored["logits"]) < 1e-4
    np.testing.assert_allclose(loss, stored["loss"], rtol=1e-4)
    by_name = to_reference(transformer_table(config), grads)
    expected = {name.removeprefix("grad/"): g for name, g in stored.items() if name.startswith("grad/")}
    assert len(expected) >= 5
    for name, gradient in expected.items():
        assert relative_error(by_name[name], gradient) < 1e-3, name


def test_bfloat16_stays_close(case):
    stored, config, params = case
    logits = jax.jit(Transformer(config, jnp.bfloat16).apply)({"params": params}, stored["labels"], stored["var_input"])
    assert logits.dtype == jnp.float32
    assert relative_error(logits, stored["logits"]) < 2e-2


@pytest.mark.parametrize("remat", ["nothing_saveable", "dots_saveable"])
def test_recomputing_changes_nothing(case, remat):
    stored, config, params = case

    def loss_fn(params, module):
        key = jax.random.key(3)
        logits = module.apply({"params": params}, stored["labels"], stored["var_input"], key)
        return cross_entropy(logits, stored["tokens"])

    grads = [jax.jit(jax.grad(loss_fn), static_argnums=1)(params, Transformer(config, remat=r)) for r in (None, remat)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *grads)


def test_no_position_sees_a_finer_scale(case):
    """By gradients: the logits of a scale do not move with the input of any finer one, and do with its own."""
    _, config, params = case
    pyramid, module = config.pyramid, Transformer(config)
    inputs = jax.random.normal(jax.random.key(0), (1, pyramid.length - 1, config.code_width))

    def scale_sum(inputs, level):
        logits = module.apply({"params": params}, jnp.array([1]), inputs)
        return jnp.sum(jnp.square(logits) * (pyramid.level_ids == level)[:, None])

    gradient = jax.jit(jax.grad(scale_sum))
    for k in range(len(pyramid)):
        grad = np.asarray(gradient(inputs, k))[0]
        influence = np.concatenate([[1.0], np.abs(grad).sum(axis=-1)])  # the first position has no input
        end = pyramid.slice(k).stop
        assert np.all(influence[:end] > 0), f"scale {k} ignores something it may see"
        assert np.all(influence[end:] == 0), f"scale {k} sees a finer scale"


def test_steps_with_a_cache_equal_teacher_forcing(case):
    stored, config, params = case
    pyramid, module, variables = config.pyramid, Transformer(config), {"params": params}
    inputs = jnp.asarray(stored["var_input"])

    @jax.jit
    def by_steps(labels, inputs):
        bound = module.bind(variables)
        conditioning = bound.condition(labels)
        cache, logits = new_cache(config, inputs.shape[0], jnp.float32), []
        for k in range(len(pyramid)):
            where = pyramid.slice(k)
            x = bound.embed_codes(inputs[:, where.start - 1 : where.stop - 1], where) if k else None
            step, cache = bound.sample_step(bound.first_inputs(conditioning) if k == 0 else x, k, conditioning, cache)
            logits.append(step)
        return jnp.concatenate(logits, axis=1)

    assert relative_error(by_steps(stored["labels"], inputs), stored["logits"]) < 1e-4


def test_class_drop_and_drop_path(case):
    """Dropping every class gives the no-class logits; drop path keeps the mean and is off without a key."""
    stored, config, params = case
    fields = config.to_dict() | {"drop_path": 0.0}
    labels, inputs = stored["labels"], stored["var_input"]
    always = Transformer(TransformerConfig.from_dict(fields | {"class_drop": 1 - 1e-9}))
    never = Transformer(TransformerConfig.from_dict(fields | {"class_drop": 0.0}))
    no_class = np.full_like(labels, config.no_class)
    key = jax.random.key(0)
    apply = lambda module: jax.jit(functools.partial(module.apply, {"params": params}))
    never, dropped = apply(never), apply(always)(labels, inputs, key)
    plain = never(labels, inputs)
    np.testing.assert_allclose(dropped, never(no_class, inputs), atol=1e-6)
    np.testing.assert_allclose(never(labels, inputs, key), plain, atol=1e-6)

    drops = Transformer(TransformerConfig.from_dict(fields | {"class_drop": 0.0, "drop_path": 0.5}))
    np.testing.assert_allclose(apply(drops)(labels, inputs), plain, atol=1e-6)
    run = functools.partial(apply(drops), labels, inputs)
    several = np.stack([run(jax.random.key(seed)) for seed in range(12)])
    distinct = {tuple(np.round(row[0, 0, :4], 4).tolist()) for row in several}
    assert 2 <= len(distinct) <= 4  # the last of two blocks: each branch of a sample is there or not


@pytest.mark.parametrize("shared", [False, True])
def test_initial_statistics(shared):
    """Mean and spread of every parameter at initialisation, beside the reference's at depth 8."""
    stored = json.loads((GOLDEN / f"initial_statistics_d8{'_shared' if shared else ''}.json").read_text())
    preset = transformer_preset("d8", num_classes=1000)
    config = TransformerConfig.from_dict(preset.to_dict() | {"shared_adaln": shared, "gate_init": 1e-3})
    params = jax.device_get(_init_only(Transformer(config)))
    ours = _adaln_parts(to_reference(transformer_table(config), params))
    assert set(ours) == set(stored)
    for name, (shape, mean, spread) in stored.items():
        array, size = ours[name], ours[name].size
        assert list(array.shape) == shape, name
        if spread:
            # Two samples of one distribution: their spreads stray by about 1/sqrt(n), their means by spread sqrt(2/n).
            assert abs(array.std() / spread - 1) < 6 / np.sqrt(size), name
            assert abs(array.mean() - mean) < 6 * spread * np.sqrt(2 / size), name
        else:
            assert not array.std(), name
            np.testing.assert_allclose(array.mean(), mean, rtol=1e-6, atol=1e-9)


def _adaln_parts(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The AdaLN tables also split into gates and the rest, which start with different spreads."""
    parts = dict(tensors)
    for name in [name for name in tensors if "ada_gss" in name]:
        parts |= {f"{name} gates": tensors[name][0, 0, :2], f"{name} rest": tensors[name][0, 0, 2:]}
    return parts


def _init_only(module: Transformer) -> dict:
    """Parameters from the initialisers alone: declares them and computes nothing."""
    return module.init(jax.random.key(0), method=lambda m: m.blocks())["params"]


@pytest.mark.parametrize(
    ("name", "millions"),
    [("d16", 310.284), ("d20", 600.917), ("d24", 1033.399), ("d30", 2010.020), ("d36-s", 2353.894)],
)
def test_published_sizes(name, millions):
    config = transformer_preset(name)
    total = sum(leaf.size for leaf in jax.tree.leaves(transformer_shapes(config)))
    assert round(total / 1e6, 3) == millions
    assert (config.width, config.num_heads, config.head_width) == (64 * config.depth, config.depth, 64)


SIDES = [*PUBLISHED_SIDES.values(), (16,), (1, 1, 2, 3, 3), (2, 5)]
SIZES = [(1, 16), (10, 1024), (1000, 4096)]


@pytest.mark.parametrize(  # every pair of values
    ("sides", "classes", "codes", "shared"),
    [(sides, *sizes, bool((i + j) % 2)) for i, sides in enumerate(SIDES) for j, sizes in enumerate(SIZES)],
)
def test_shapes_of_many(sides, classes, codes, shared):
    pyramid = Pyramid(sides)
    config = TransformerConfig(pyramid, codes, 8, classes, 3, 32, 4, shared_adaln=shared, drop_path=0.1)
    params = transformer_shapes(config)
    inputs = jax.ShapeDtypeStruct((2, pyramid.length - pyramid.lengths[0], 8), jnp.float32)
    labels, key = jax.ShapeDtypeStruct((2,), jnp.int32), jax.random.key(0)
    logits = jax.eval_shape(lambda p, y, x: Transformer(config).apply({"params": p}, y, x, key), params, labels, inputs)
    assert logits.shape == (2, pyramid.length, codes)
    assert params["class_embedding"].shape == (classes + 1, 32)


def test_config_errors_are_one_clear_line():
    fields = transformer_preset("d6").to_dict()
    for change, message in [
        ({"num_heads": 5}, "width 384 does not divide into num_heads 5"),
        ({"depth": 0}, "depth is 0"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0"),
        ({"num_classes": -1}, "num_classes is -1"),
    ]:
        with pytest.raises(InputError, match=message):
            TransformerConfig.from_dict(fields | change)
    for name in ("16", "d0", "d16s", "large", "d100"):
        with pytest.raises(InputError, match="expected d and a depth"):
            transformer_preset(name)


def test_random_params_make_every_branch_count():
    """The helper that other tests lean on: no parameter of the tiny model is without influence."""
    config = TransformerConfig(Pyramid((1, 2)), 16, 4, 3, 2, 16, 2, shared_adaln=True)
    params = random_params(transformer_shapes(config))
    inputs = jax.random.normal(jax.random.key(0), (2, 4, 4))
    loss = lambda p: jnp.sum(jnp.square(Transformer(config).apply({"params": p}, jnp.array([0, 2]), inputs)))
    grads = jax.jit(jax.grad(loss))(params)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_the_first_code_embedding_is_as_large_as_asked():
    """Ten times as large a start, from the same draw; models written before the field have 1."""
    plain = dict(transformer_preset("d2", TokenizerConfig(QuantizerConfig(Pyramid((1, 2)), 8, 4)), 3).to_dict())
    configs = [TransformerConfig.from_dict(plain | {"input_init": factor}) for factor in (1.0, 10.0)]
    inputs = jnp.zeros((1, 4, 4))
    small, large = (
        Transformer(config).init(jax.random.key(0), jnp.zeros((1,), jnp.int32), inputs)["params"]["word_kernel"]
        for config in configs
    )
    np.testing.assert_allclose(large, 10.0 * small, rtol=1e-6)
    del plain["input_init"]
    assert TransformerConfig.from_dict(plain) == configs[0]
