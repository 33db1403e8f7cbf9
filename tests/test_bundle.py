"""The object that notebooks hold: what it computes, and one line for everything it cannot."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import var_jax
from tests.interop.checkpoints import drawn_model, tokenizer_config, transformer_config
from var_jax.errors import InputError
from var_jax.model_directory import save_model
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid((1, 2))
TOKENIZER = tokenizer_config(pyramid=PYRAMID, base_channels=8, norm_groups=4)
TRANSFORMER = transformer_config(pyramid=PYRAMID, depth=1)
SIZE, LENGTH, CODES, CLASSES = 4, 5, 16, TRANSFORMER.num_classes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "model"
    save_model(path, drawn_model(TOKENIZER, TRANSFORMER))
    return path


@pytest.fixture(scope="module")
def bundle(folder):
    return var_jax.load(folder)


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def tokens(bundle, pictures):
    return bundle.encode(pictures)


def test_encode_takes_bytes_and_unit_floats(bundle, pictures, tokens):
    assert tokens.dtype == jnp.int32
    assert tokens.shape == (2, LENGTH)
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < CODES
    assert len(np.unique(tokens)) > 2
    floats = pictures.astype(np.float32) / 255
    for same in (floats, jnp.asarray(floats), floats.tolist()):
        assert np.mean(np.asarray(bundle.encode(same)) != tokens) <= 1 / tokens.size


def test_decode_by_number_of_scales(bundle, tokens):
    whole = bundle.decode(tokens)
    assert whole.shape == (2, SIZE, SIZE, 3)
    assert whole.dtype == jnp.float32
    assert 0.0 <= float(whole.min()) < float(whole.max()) <= 1.0
    np.testing.assert_array_equal(bundle.decode(np.asarray(tokens, np.int64), 2), whole)
    first = bundle.decode(tokens, 1)
    np.testing.assert_array_equal(bundle.decode(tokens.at[:, 1:].set(0), np.int64(1)), first)
    assert np.any(np.asarray(whole) != first)


def test_logits(bundle, tokens):
    logits = bundle.logits([0, CLASSES], tokens)
    assert logits.shape == (2, LENGTH, CODES)
    assert logits.dtype == jnp.float32
    assert np.all(np.isfinite(logits))
    swapped = bundle.logits(np.array([CLASSES, 0]), tokens[::-1])
    np.testing.assert_allclose(swapped[::-1], logits, atol=1e-5)


def test_pictures_follow_from_the_key_alone(bundle):
    key = jax.random.key(3)
    drawn = bundle.generate([1, 4], key)
    assert drawn.shape == (2, SIZE, SIZE, 3)
    assert drawn.dtype == jnp.float32
    assert 0.0 <= float(drawn.min()) < float(drawn.max()) <= 1.0
    np.testing.assert_array_equal(bundle.generate([1, 4], key), drawn)
    assert np.any(np.asarray(bundle.generate([1, 4], jax.random.key(4))) != drawn)
    folded = jnp.stack([jax.random.fold_in(key, row) for row in range(2)])
    np.testing.assert_allclose(bundle.generate([1, 4], folded), drawn, atol=1e-4)
    np.testing.assert_allclose(bundle.generate([4, 1], folded[::-1])[::-1], drawn, atol=1e-4)


def test_settings_at_their_limits(bundle):
    key = jax.random.key(0)
    plain = bundle.generate([1, 4], key, top_k=0, top_p=0.0)
    for same in ({"top_k": CODES, "top_p": 1.0}, {"top_k": 2**40, "top_p": 0}, {"top_k": 16.0, "top_p": 1}):
        np.testing.assert_array_equal(bundle.generate([1, 4], key, **same), plain)
    greedy = bundle.generate([1, 4], key, top_k=1)
    np.testing.assert_array_equal(bundle.generate([1, 4], jax.random.key(9), top_k=1, temperature=7.0), greedy)


def test_without_a_class_guidance_changes_nothing(bundle):
    key, nothing = jax.random.key(0), [CLASSES, CLASSES]
    plain = bundle.generate(nothing, key, guidance=0.0)
    np.testing.assert_array_equal(bundle.generate(nothing, key, guidance=9.0), plain)


def test_compute_type(folder, bundle, pictures, tokens):
    assert bundle.tokenizer.module.dtype == bundle.transformer.module.dtype == jnp.float32  # the default on a CPU
    narrow = var_jax.load(folder, jnp.bfloat16)
    assert narrow.tokenizer.module.dtype == narrow.transformer.module.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow.transformer)} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(narrow.encode(pictures), tokens)
    decoded = narrow.decode(tokens)
    assert decoded.dtype == jnp.float32
    assert 0 < np.max(np.abs(decoded - bundle.decode(tokens))) < 0.1


def test_a_notebook_can_show_it(bundle):
    """A cell that ends with the bundle prints what it is, and not its weights."""
    assert "codebook_size" in repr(bundle)
    assert "array" not in repr(bundle).lower()


def test_pictures_that_cannot_be_encoded(bundle, pictures):
    floats = pictures / 255.0
    for images, needle in (
        (pictures[0], r"images of shape \(4, 4, 3\): expected \[B, 4, 4, 3\]"),
        (pictures[:0], r"shape \(0, 4, 4, 3\)"),
        (pictures[:, :3], r"shape \(2, 3, 4, 3\)"),
        (pictures.transpose(0, 3, 1, 2), r"shape \(2, 3, 4, 4\)"),
        (pictures.astype(np.int32), "type int32: expected uint8"),
        (pictures > 3, "type bool"),
        (2 * floats - 1, r"range from -1 to 0.9\d*: expected \[0, 1\]"),
        (floats * 255, r"range from \d+ to 2\d\d: expected"),
        (np.where(floats > 0.5, np.nan, floats), "nan"),
        ([[1, 2], [3]], "images: expected an array"),
    ):
        with pytest.raises(InputError, match=needle):
            bundle.encode(images)


def test_tokens_that_cannot_be_decoded(bundle, tokens):
    tokens = np.asarray(tokens, np.int64)
    for wrong, needle in (
        (tokens[0], r"tokens of shape \(5,\): expected \[B, 5\]"),
        (tokens[:, :-1], r"shape \(2, 4\)"),
        (tokens[:0], r"shape \(0, 5\)"),
        (tokens.astype(np.float32), "type float32: expected integers"),
        (tokens - CODES, "the codebook has 0 to 15"),
        (tokens + CODES, "the codebook has 0 to 15"),
        (tokens + 2**32, "tokens range from 42949"),  # in 32 bits these would be the tokens again
        ([[1], [1, 2]], "tokens: expected an array"),
    ):
        with pytest.raises(InputError, match=needle):
            bundle.decode(wrong)
        with pytest.raises(InputError, match=needle):
            bundle.logits([0, 1], wrong)


@pytest.mark.parametrize("scales", [0, 3, -1, 1.5, 2.0, "2"])
def test_scales_that_there_are_not(bundle, tokens, scales):
    with pytest.raises(InputError, match=f"scales {scales}: expected 1 to 2"):
        bundle.decode(tokens, scales)


@pytest.mark.parametrize(
    ("labels", "needle"),
    [
        ([0, CLASSES + 1], "class id 6: expected 0 to 4, or 5 for no class"),
        ([-1, 0], "class id -1"),
        ([], "expected a list of class ids"),
        (3, r"labels of shape \(\)"),
        ([[0, 1]], r"labels of shape \(1, 2\)"),
        ([0.0, 1.0], "type float64"),
        ([True, False], "type bool"),
        (["cat"], "class 'cat': expected a class id, as this model's classes have no names"),
        ([[0], [0, 1]], "labels: expected an array"),
    ],
)
def test_labels_that_there_are_not(bundle, tokens, labels, needle):
    with pytest.raises(InputError, match=needle) as raised:
        bundle.generate(labels, jax.random.key(0))
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=needle):
        bundle.logits(labels, tokens)


def test_labels_and_tokens_have_to_be_as_many(bundle, tokens):
    with pytest.raises(InputError, match="3 labels for 2 rows of tokens"):
        bundle.logits([0, 1, 2], tokens)


@pytest.mark.parametrize(
    ("setting", "values", "needle"),
    [
        ("guidance", [np.nan, np.inf, 1e39], "expected a finite number, 0 for none"),
        ("top_k", [-1, 2.5, np.nan, np.inf], "expected a whole number, 0 to keep all tokens"),
        ("top_p", [-0.1, 1.01, np.nan], "expected 0 to 1, 0 to keep all tokens"),
        ("temperature", [0, -1.0, np.nan, np.inf, 1e-50, 1e39], "expected a number above 0"),
    ],
)
def test_settings_that_cannot_be(bundle, setting, values, needle):
    for value in values:
        with pytest.raises(InputError, match=re.escape(f"{setting} {value}: {needle}")):
            bundle.generate([0], jax.random.key(0), **{setting: value})
    for value in ("1", None, [1.0]):
        with pytest.raises(InputError, match=f"^{setting} .*: expected a number"):
            bundle.generate([0], jax.random.key(0), **{setting: value})


@pytest.mark.parametrize("key", [0, jax.random.PRNGKey(0), None], ids=["number", "raw", "none"])
def test_what_is_no_key(bundle, key):
    with pytest.raises(InputError, match=r"made by jax.random.key\(seed\)"):
        bundle.generate([0], key)


def test_as_many_keys_as_pictures(bundle):
    with pytest.raises(InputError, match=r"key of shape \(3,\): expected one key, or 2 of them"):
        bundle.generate([0, 1], jax.random.split(jax.random.key(0), 3))


def test_a_tokenizer_alone(bundle, tmp_path, pictures, tokens):
    model = drawn_model(TOKENIZER, None)
    save_model(tmp_path / "model", model)
    alone = var_jax.load(tmp_path / "model")
    assert alone.transformer is None
    np.testing.assert_array_equal(alone.encode(pictures), tokens)
    for call in (lambda: alone.generate([0], jax.random.key(0)), lambda: alone.logits([0, 1], tokens)):
        with pytest.raises(InputError, match="has a tokenizer only: import a transformer"):
            call()
