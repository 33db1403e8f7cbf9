"""The quantizer against the reference's numbers, and the rules that tie its two algorithms together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.golden_models import relative_error, to_nhwc, weights
from var_jax.errors import InputError
from var_jax.interop.names import to_params
from var_jax.interop.tokenizer import CODE_COUNTS, quantizer_table
from var_jax.models import quantizer as quantizer_module
from var_jax.models.quantizer import (
    Quantizer,
    QuantizerConfig,
    area_downsample,
    bicubic_upsample,
    code_counts,
    codebook_perplexity,
    codebook_usage,
    nearest_codes,
    phi_index,
)
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid

FILES = {
    "quantizer_256_phi4": (4, "l2"),
    "quantizer_256_phi1": (1, "l2"),
    "quantizer_256_phi0": (None, "l2"),
    "quantizer_512_phi4": (4, "l2"),
    "quantizer_cosine": (4, "cosine"),
}


def build(stored: dict[str, np.ndarray], num_phis: int | None, lookup: str) -> tuple[Quantizer, dict]:
    pyramid = Pyramid(tuple(int(side) for side in stored["scales"]))
    codes, width = stored["weights/embedding.weight"].shape
    config = QuantizerConfig(pyramid, codes, width, num_phis, lookup=lookup)
    module = Quantizer(config)
    features = jnp.zeros((1, pyramid.final_side, pyramid.final_side, width))
    abstract = jax.eval_shape(module.init, jax.random.key(0), features)["params"]
    skipped = [CODE_COUNTS.removeprefix("quantize.")]
    return module, to_params(quantizer_table(config, "", ()), weights(stored), abstract, skipped, "golden")


def tie_margins(codebook: np.ndarray, z: np.ndarray, ours: np.ndarray, theirs: np.ndarray, lookup: str) -> np.ndarray:
    """How much worse than the reference's choice ours is, over the size of the terms that were subtracted."""
    z, codebook = z.astype(np.float64), codebook.astype(np.float64)
    if lookup == "cosine":
        z = z / np.linalg.norm(z, axis=-1, keepdims=True)
        codebook = codebook / np.linalg.norm(codebook, axis=-1, keepdims=True)
    ours_distance = np.sum((z - codebook[ours]) ** 2, axis=-1)
    theirs_distance = np.sum((z - codebook[theirs]) ** 2, axis=-1)
    scale = np.sum(z**2, axis=-1) + np.sum(codebook[theirs] ** 2, axis=-1)
    return np.abs(ours_distance - theirs_distance) / scale


@pytest.mark.parametrize("name", FILES)
def test_golden_tokens_scale_by_scale(golden, name):
    """Given the reference's own residual at each scale, tokens are equal but where two codes tie."""
    stored = golden(name)
    module, params = build(stored, *FILES[name])
    pyramid, features = module.pyramid, jnp.asarray(to_nhwc(stored["features"]))
    tokens = stored["tokens"].astype(np.int32)
    contribution = jax.jit(
        lambda part, k: module.apply({"params": params}, part, k, method=lambda m, t, k: m.contribution(m.embed(t), k)),
        static_argnums=1,
    )
    residual, flips = features, 0
    for k, theirs in enumerate(pyramid.split(tokens)):
        z = np.asarray(area_downsample(residual, pyramid.sides[k])).reshape(-1, module.config.code_width)
        ours = np.asarray(nearest_codes(jnp.asarray(z), jnp.asarray(params["codebook"]), module.config.lookup))
        margins = tie_margins(params["codebook"], z, ours, theirs.ravel(), module.config.lookup)
        assert margins.max() < 1e-5, f"scale {k}: a token differs that is no tie"
        flips += int(np.sum(ours != theirs.ravel()))
        residual = residual - contribution(theirs, k)
    assert flips <= 0.005 * tokens.size


@pytest.mark.parametrize("name", FILES)
def test_golden_sums_and_inputs(golden, name):
    """On the stored tokens, f_hat and the transformer's inputs are the reference's."""
    stored = golden(name)
    module, params = build(stored, *FILES[name])
    variables, tokens = {"params": params}, stored["tokens"].astype(np.int32)
    f_hat = jax.jit(lambda t: module.apply(variables, t, method="decode"))(tokens)
    assert relative_error(f_hat, to_nhwc(stored["f_hat"])) < 1e-4
    if "var_input" in stored:
        inputs = jax.jit(lambda t: module.apply(variables, t, method="transformer_input"))(tokens)
        assert relative_error(inputs, stored["var_input"]) < 1e-4
    ours = np.asarray(jax.jit(lambda f: module.apply(variables, f, method="encode"))(to_nhwc(stored["features"])))
    assert np.mean(ours != tokens) < 0.05  # a flip at a coarse tie moves what follows; nothing else may


def test_phi_assignment_of_the_published_pyramids():
    assert [phi_index(k, 10, 4) for k in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert [phi_index(k, 14, 4) for k in range(14)] == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("scales", range(1, 20))
def test_as_many_phis_as_scales_gives_each_its_own(scales):
    assert [phi_index(k, scales, scales) for k in range(scales)] == list(range(scales))


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_lookup_is_the_same_in_any_blocks(monkeypatch, block):
    keys = jax.random.split(jax.random.key(0))
    codes, z = jax.random.normal(keys[0], (73, 4)), jax.random.normal(keys[1], (200, 4))
    nearest = np.argmin(np.sum((np.asarray(z)[:, None] - np.asarray(codes)[None]) ** 2, axis=-1), axis=1)
    cosines = np.asarray(z) @ (np.asarray(codes) / np.linalg.norm(codes, axis=-1, keepdims=True)).T
    monkeypatch.setattr(quantizer_module, "_CODES_PER_BLOCK", block)
    np.testing.assert_array_equal(nearest_codes(z, codes, "l2"), nearest)
    np.testing.assert_array_equal(nearest_codes(z, codes, "cosine"), np.argmax(cosines, axis=1))


@pytest.mark.parametrize("block", [2, 4, 8])
def test_lookup_takes_the_first_of_equals(monkeypatch, block):
    monkeypatch.setattr(quantizer_module, "_CODES_PER_BLOCK", block)
    codes = jnp.tile(jnp.array([[1.0, 0.0], [0.0, 2.0]]), (4, 1))  # exact in float32: ties by construction
    z = jnp.array([[0.0, 3.0], [1.0, 0.0]])
    for lookup in ("l2", "cosine"):
        assert nearest_codes(z, codes, lookup).tolist() == [1, 0]


def test_sums_telescope_and_single_scale_is_a_plain_vq():
    """Encoding then decoding by scales is one running sum; with one scale it is nearest-code lookup."""
    pyramid = Pyramid((1, 2, 5))
    module = Quantizer(QuantizerConfig(pyramid, 40, 6))
    features = jax.random.normal(jax.random.key(1), (2, 5, 5, 6))
    variables = module.init(jax.random.key(2), features)
    variables["params"]["codebook"] = jax.random.normal(jax.random.key(3), (40, 6))
    out = module.apply(variables, features)
    tokens = module.apply(variables, features, method="encode")
    np.testing.assert_array_equal(out.tokens, tokens)
    np.testing.assert_allclose(out.f_hat, module.apply(variables, tokens, method="decode"), atol=1e-5)
    np.testing.assert_allclose(out.decoder_input, out.f_hat, atol=1e-5)
    inputs = module.apply(variables, tokens, method="transformer_input")
    first_two = module.apply(variables, tokens, 2, method="decode")
    np.testing.assert_allclose(inputs[:, 4:], area_downsample(first_two, 5).reshape(2, 25, 6), atol=1e-5)

    plain = Quantizer(QuantizerConfig(Pyramid((4,)), 40, 6, num_phis=1, phi_ratio=0.0))
    features = jax.random.normal(jax.random.key(4), (2, 4, 4, 6))
    codebook = variables["params"]["codebook"]
    tokens = plain.apply({"params": {"codebook": codebook}}, features, method="encode")
    np.testing.assert_array_equal(tokens.ravel(), nearest_codes(features.reshape(-1, 6), codebook))
    decoded = plain.apply({"params": {"codebook": codebook}}, tokens, method="decode")
    np.testing.assert_array_equal(decoded, codebook[tokens].reshape(2, 4, 4, 6))
    assert plain.apply({"params": {"codebook": codebook}}, tokens, method="transformer_input").shape == (2, 0, 6)


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


def test_what_is_not_returned_is_not_computed():
    """Encoding and the transformer's inputs cost no more than the algorithms written out, and give the same bits."""
    quantizer = Quantizer(QuantizerConfig(Pyramid((1, 2, 3, 5)), 40, 6))
    features = jax.random.normal(jax.random.key(0), (2, 5, 5, 6))
    variables = quantizer.init(jax.random.key(1), features)

    def encode(variables, residual):
        module, tokens = quantizer.bind(variables), []
        for k in range(4):
            tokens.append(module.nearest(module.next_scale_input(residual, k)))
            residual = residual - module.contribution(module.embed(tokens[k]), k)
        return jnp.concatenate(tokens, axis=1)

    def inputs(variables, tokens):
        module, f_hat, parts = quantizer.bind(variables), 0.0, []
        for k in range(3):
            f_hat = f_hat + module.contribution(module.embed(tokens[:, quantizer.pyramid.slice(k)]), k)
            parts.append(module.next_scale_input(f_hat, k + 1))
        return jnp.concatenate(parts, axis=1)

    tokens = jax.jit(encode)(variables, features)
    cases = ((encode, "encode", features), (inputs, "transformer_input", tokens))
    for written_out, method, x in cases:
        ours = lambda variables, x, method=method: quantizer.apply(variables, x, method=method)
        np.testing.assert_array_equal(jax.jit(ours)(variables, x), jax.jit(written_out)(variables, x))
        assert flops(ours, variables, x) == flops(written_out, variables, x)


def test_teaching_is_encoding_and_all_that_follows_from_the_tokens():
    quantizer = Quantizer(QuantizerConfig(Pyramid((1, 2, 4)), 40, 6))
    features = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
    module = quantizer.bind(quantizer.init(jax.random.key(1), features))
    taught = module.teach(features)
    np.testing.assert_array_equal(taught.tokens, module.encode(features))
    np.testing.assert_array_equal(taught.tokens, module.nearest(taught.queries))
    np.testing.assert_allclose(taught.inputs, module.transformer_input(taught.tokens), atol=1e-6)
    np.testing.assert_allclose(taught.f_hat, module.decode(taught.tokens), atol=1e-6)
    np.testing.assert_allclose(sum(taught.contributions), taught.f_hat, atol=1e-6)
    forward = module(features)
    for name in ("tokens", "queries", "f_hat"):
        np.testing.assert_array_equal(getattr(forward, name), getattr(taught, name))


def test_mistakes_are_fed_on_and_the_targets_after_them_correct_them():
    quantizer = Quantizer(QuantizerConfig(Pyramid((1, 2, 4)), 40, 6))
    features = jax.random.normal(jax.random.key(0), (2, 4, 4, 6))
    module = quantizer.bind(quantizer.init(jax.random.key(1), features))
    right, wrong = module.teach(features), module.teach(features, lambda k, tokens: (tokens + (k == 0)) % 40)
    first, after = slice(0, 1), slice(1, None)
    np.testing.assert_array_equal(wrong.tokens[:, first], right.tokens[:, first])  # to be predicted even so
    mistaken = (right.tokens[:, first] + 1) % 40
    fed = jnp.concatenate([mistaken, wrong.tokens[:, after]], axis=1)
    np.testing.assert_allclose(wrong.inputs, module.transformer_input(fed), atol=1e-6)
    np.testing.assert_allclose(wrong.f_hat, module.decode(fed), atol=1e-6)
    residual = features - module.contribution(module.embed(mistaken), 0)
    queries = module.next_scale_input(residual, 1)
    np.testing.assert_allclose(wrong.queries[:, quantizer.pyramid.slice(1)], queries, atol=1e-6)
    assert np.any(wrong.queries[:, after] != right.queries[:, after])


def test_usage_and_perplexity_by_hand():
    pyramid = Pyramid((1, 2))
    tokens = jnp.array([[3, 0, 0, 1, 1], [3, 0, 0, 1, 1]])
    counts = code_counts(tokens, pyramid, 4)
    np.testing.assert_array_equal(counts, [[0, 0, 0, 2], [4, 4, 0, 0]])
    np.testing.assert_allclose(codebook_usage(counts), [0.25, 0.5])
    np.testing.assert_allclose(codebook_perplexity(counts), [1.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize(("source", "target"), [(16, 1), (16, 13), (13, 10), (32, 24), (5, 5)])
def test_resizes_keep_constants(source, target):
    ones = jnp.ones((1, source, source, 2))
    np.testing.assert_allclose(area_downsample(ones, target), 1.0, rtol=1e-5)
    np.testing.assert_allclose(bicubic_upsample(jnp.ones((1, target, target, 2)), source), 1.0, rtol=1e-5)


def test_features_of_another_size_are_refused():
    module = Quantizer(QuantizerConfig(Pyramid((1, 2)), 8, 4))
    with pytest.raises(InputError, match=r"\(3, 3, 4\).*needs \(2, 2, 4\)"):
        jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 3, 3, 4)))


@pytest.mark.parametrize("num_phis", [1, 4, 10, None])
@pytest.mark.parametrize("sides", [*PUBLISHED_SIDES.values(), (16,), (1, 1, 2, 3, 3, 7)])
def test_shapes_on_any_pyramid(sides, num_phis):
    pyramid = Pyramid(sides)
    module = Quantizer(QuantizerConfig(pyramid, 64, 8, num_phis))
    features = jax.ShapeDtypeStruct((3, pyramid.final_side, pyramid.final_side, 8), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), features)
    out = jax.eval_shape(module.apply, variables, features)
    assert out.tokens.shape == (3, pyramid.length)
    assert out.f_hat.shape == features.shape
    assert variables["params"]["phi_kernel"].shape == (num_phis or len(pyramid), 3, 3, 8, 8)
