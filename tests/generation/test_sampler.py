"""The sampler: the reference's greedy run, its own teacher-forced logits, keys, batches, and one program."""

from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.golden_models import random_params, relative_error, small_tokenizer, to_nhwc, weights
from var_jax.generation import sampler
from var_jax.generation.batching import picture_keys
from var_jax.generation.settings import PLAIN, Settings
from var_jax.interop import transformer as transformer_interop
from var_jax.models.net import Net, Nets
from var_jax.models.quantizer import Quantizer, QuantizerConfig
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import Transformer, TransformerConfig
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid

FILES = ["transformer_small", "transformer_small_shared_adaln", "transformer_small_no_qk_norm"]


def golden_case(golden, name: str, dtype=jnp.float32) -> Nets:
    imported = small_tokenizer(golden("tokenizer_small"))
    config, params = transformer_interop.import_transformer(weights(golden(name)), imported.config, num_heads=2)
    return Nets(Net(Tokenizer(imported.config, dtype), imported.params), Net(Transformer(config, dtype), params))


@pytest.fixture(scope="module")
def case(golden):
    return golden_case(golden, FILES[0])


def settings_for(case: Nets, guided=True, **options) -> Settings:
    """Settings that limit nothing unless `options` do; guided even at strength 0 unless `guided` says otherwise."""
    return dataclasses.replace(Settings.create(case.tokenizer.config.pyramid, **PLAIN | options), guided=guided)


def loop(case: Nets, labels, key, **options) -> sampler.Sampled:
    """The loop under jit, with its logits."""
    return jax.jit(sampler.sample)(case, jnp.asarray(labels), key, settings_for(case, **options))


def pictures(case: Nets, labels, key, **options) -> sampler.Generated:
    return sampler.generate(case, jnp.asarray(labels), key, settings_for(case, **options))


@pytest.mark.parametrize("name", FILES)
def test_greedy_run_of_the_reference(golden, name):
    stored, case = golden(name), golden_case(golden, name)
    numbers = {"guidance": float(stored["greedy/cfg"]), "top_k": 1}
    sampled = loop(case, stored["labels"], jax.random.key(0), **numbers)
    np.testing.assert_array_equal(sampled.tokens_BxL, stored["greedy/tokens"])
    assert relative_error(sampled.logits_BxLxV, stored["greedy/guided_logits"]) < 1e-4
    if name == FILES[0]:
        image = pictures(case, stored["labels"], jax.random.key(1), **numbers).images
    else:  # the decoder is the same one
        image = jax.jit(sampler.decoded)(case.tokenizer, sampled.f_hat_BxhxwxC)
    assert np.max(np.abs(image - to_nhwc(stored["greedy/image"]))) < 2e-3


def test_bfloat16_guided_logits_stay_close(golden):
    """On the tokens of its own greedy run the narrow sampler's logits are the wide teacher-forced ones."""
    stored = golden(FILES[0])
    narrow, wide = (golden_case(golden, FILES[0], dtype) for dtype in (jnp.bfloat16, jnp.float32))
    sampled = loop(narrow, stored["labels"], jax.random.key(0), guided=False, top_k=1)
    assert relative_error(sampled.logits_BxLxV, teacher_forced(wide, stored["labels"], sampled.tokens_BxL)) < 2e-2


def teacher_forced(case: Nets, labels, tokens) -> jax.Array:
    run = jax.jit(lambda case, labels, tokens: case.transformer.apply(labels, case.teacher_inputs(tokens)))
    return run(case, jnp.asarray(labels), tokens)


def test_logits_are_the_teacher_forced_ones_on_its_own_tokens(case):
    labels = jnp.array([1, 7])
    sampled = loop(case, labels, jax.random.key(5), guidance=2.0, temperature=1.3)
    no_class = jnp.full_like(labels, case.transformer.config.no_class)
    pyramid = case.tokenizer.config.pyramid
    t = np.repeat([2.0 * pyramid.ratio(k) for k in range(len(pyramid))], pyramid.lengths)[None, :, None]
    with_class, without = (teacher_forced(case, y, sampled.tokens_BxL) for y in (labels, no_class))
    assert relative_error(sampled.logits_BxLxV, (1 + t) * with_class - t * without) < 1e-4


def test_one_executable_for_everything_a_user_turns(case):
    sampler.generate.clear_cache()
    key = jax.random.key(0)
    for labels, seed, guidance, top_k, top_p, temperature in [
        ([1, 2], 0, 1.5, 900, 0.96, 1.0),
        ([3, 4], 1, 4.0, 0, 0.0, 0.7),
        ([9, 10], 2, -0.5, 1, 1.0, 3.0),
    ]:
        key = jax.random.key(seed)
        numbers = {"guidance": guidance, "top_k": top_k, "top_p": top_p, "temperature": temperature}
        pictures(case, labels, key, **numbers)
    assert sampler.generate._cache_size() == 1
    lowered = sampler.generate.lower(case, jnp.array([1, 2]), key, settings_for(case, guidance=1.5))
    assert len(lowered.compile().runtime_executable().hlo_modules()) == 1  # decoder and all


def test_a_picture_depends_on_its_own_key_and_label_alone(case):
    """Batch 1 against batch 8: tokens equal in nearly all pictures, and those pictures within 1/255."""
    labels = np.arange(64) % 10
    keys = picture_keys(jax.random.key(3), 64)
    numbers = {"guidance": 1.5, "top_k": 100, "top_p": 0.96}
    singles = [pictures(case, labels[i : i + 1], keys[i : i + 1], **numbers) for i in range(64)]
    eights = [pictures(case, labels[i : i + 8], keys[i : i + 8], **numbers) for i in range(0, 64, 8)]
    one = [np.concatenate(part) for part in zip(*singles, strict=True)]
    eight = [np.concatenate(part) for part in zip(*eights, strict=True)]
    equal = np.all(one[1] == eight[1], axis=1)
    assert equal.mean() >= 0.995
    assert np.max(np.abs(one[0] - eight[0])[equal]) <= 1 / 255


def test_scalar_key_is_folded_with_the_row(case):
    labels, key = jnp.array([1, 1]), jax.random.key(8)
    keys = jnp.stack([jax.random.fold_in(key, row) for row in range(2)])
    by_scalar, by_array = pictures(case, labels, key), pictures(case, labels, keys)
    np.testing.assert_array_equal(by_scalar.tokens, by_array.tokens)
    assert len({tuple(row) for row in np.asarray(by_scalar.tokens).tolist()}) == 2


def test_no_guidance_is_strength_zero_and_no_class_needs_none(case):
    labels, key = jnp.array([2, 5]), jax.random.key(1)
    plain = pictures(case, labels, key, guided=False)
    np.testing.assert_array_equal(plain.tokens, pictures(case, labels, key, guidance=0.0).tokens)
    no_class = jnp.full((2,), case.transformer.config.no_class)
    unguided = pictures(case, no_class, key, guided=False)
    np.testing.assert_array_equal(unguided.tokens, pictures(case, no_class, key, guidance=3.0).tokens)


def test_smooth_variant_uses_the_filtered_logits(case):
    """With one token left to mix, the mixture is that token's code; with all of them, it is none."""
    labels, key = jnp.array([2, 5]), jax.random.key(1)
    plain = pictures(case, labels, key, top_k=1, guidance=1.5)
    smooth = pictures(case, labels, key, top_k=1, guidance=1.5, smooth=True)
    np.testing.assert_allclose(smooth.images, plain.images, atol=1e-4)
    mixed = loop(case, labels, key, smooth=True)
    codes = case.tokenizer.params["quantizer"]["codebook"]
    decode = jax.jit(case.tokenizer.bound().quantizer.decode)
    assert relative_error(mixed.f_hat_BxhxwxC, decode(mixed.tokens_BxL)) > 0.05
    assert np.max(np.abs(mixed.f_hat_BxhxwxC)) < 50 * np.max(np.abs(codes))


def test_loop_with_a_fake_transformer():
    """The loop hands over the running sum at the next scale, and draws what the logits say."""
    pyramid = Pyramid((1, 2, 3))
    quantizer = Quantizer(QuantizerConfig(pyramid, 11, 4))
    features = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    variables = {"params": random_params(jax.eval_shape(quantizer.init, jax.random.key(0), features)["params"])}
    wanted = np.random.default_rng(0).integers(0, 11, (2, pyramid.length))
    seen = []

    def next_logits(cache, k, codes):
        assert cache == (k or None)  # carried from scale to scale, and None at the first
        seen.append(codes)
        logits = jnp.where(jnp.arange(11) == wanted[:, pyramid.slice(k), None], 30.0, -30.0)
        return logits, k + 1

    keys = picture_keys(jax.random.key(1), 2)
    bound = quantizer.bind(variables)
    out = sampler.sample_scales(next_logits, bound, keys, Settings.create(pyramid, **PLAIN))
    np.testing.assert_array_equal(out.tokens_BxL, wanted)
    np.testing.assert_allclose(out.f_hat_BxhxwxC, bound.decode(wanted), atol=1e-5)
    assert seen[0] is None
    np.testing.assert_allclose(jnp.concatenate(seen[1:], axis=1), bound.transformer_input(wanted), atol=1e-5)


SHAPES = [*PUBLISHED_SIDES.values(), (16,), (1, 1, 2, 3, 3), (4, 7)]


@pytest.mark.parametrize(  # every pair of values
    ("sides", "guided", "smooth"),
    [(sides, guided, guided ^ bool(n % 2)) for n, sides in enumerate(SHAPES) for guided in (False, True)],
)
def test_shapes_of_many(sides, guided, smooth):
    pyramid = Pyramid(sides)
    tokenizer_config = TokenizerConfig(QuantizerConfig(pyramid, 64, 8), 32, (1, 1), 1, 1)
    config = TransformerConfig(pyramid, 64, 8, 3, 2, 32, 2, shared_adaln=guided)
    case = Nets(
        Net(Tokenizer(tokenizer_config), tokenizer_shapes(tokenizer_config)),
        Net(Transformer(config), transformer_shapes(config)),
    )
    run = lambda case: pictures(case, [0, 3], jax.random.key(0), guided=guided, smooth=smooth)
    images, tokens = jax.eval_shape(run, case)
    size = tokenizer_config.image_size
    assert (images.shape, images.dtype) == ((2, size, size, 3), jnp.float32)
    assert tokens.shape == (2, pyramid.length)


@pytest.mark.parametrize(("sides", "classes", "codes"), [((3,), 1, 7), ((1, 1, 2), 4, 300)])
def test_a_few_really_run(sides, classes, codes):
    pyramid = Pyramid(sides)
    tokenizer_config = TokenizerConfig(QuantizerConfig(pyramid, codes, 4), 8, (1,), 1, 1, norm_groups=4)
    config = TransformerConfig(pyramid, codes, 4, classes, 2, 16, 2)
    made = Nets(
        Net(Tokenizer(tokenizer_config), random_params(tokenizer_shapes(tokenizer_config))),
        Net(Transformer(config), random_params(transformer_shapes(config))),
    )
    out = pictures(made, [0, classes], jax.random.key(0), guidance=2.0, top_k=5, top_p=0.9)
    assert np.all((out.images >= 0) & (out.images <= 1))
    assert np.all((out.tokens >= 0) & (out.tokens < codes))
    np.testing.assert_array_equal(
        out.tokens, pictures(made, [0, classes], jax.random.key(0), guidance=2.0, top_k=5, top_p=0.9).tokens
    )


def test_the_cache_is_written_in_place():
    """No loop over the layers copies the whole cache: in the compiled program only its first filling may."""
    pyramid = Pyramid((1, 2, 3, 4))
    tokenizer_config = TokenizerConfig(QuantizerConfig(pyramid, 16, 4), 8, (1,), 1, 1, norm_groups=4)
    config = TransformerConfig(pyramid, 16, 4, 3, 5, 32, 2)
    case = Nets(
        Net(Tokenizer(tokenizer_config), tokenizer_shapes(tokenizer_config)),
        Net(Transformer(config), transformer_shapes(config)),
    )
    labels, settings = jax.ShapeDtypeStruct((2,), jnp.int32), Settings.create(pyramid, guidance=1.5, top_k=9, top_p=0.9)
    run = lambda case, labels: sampler.sample(case, labels, jax.random.key(0), settings).f_hat_BxhxwxC
    text = jax.jit(run).lower(case, labels).compile().as_text()
    shape = r"f32\[5,4,14,2,16\]"  # depth, pictures twice, positions but the finest scale's, heads, head width
    assert len(re.findall(rf"= {shape}\S* dynamic-update-slice\(", text)) == 6  # k and v of three scales
    assert len(re.findall(rf"= {shape}\S* copy\(", text)) <= 2
