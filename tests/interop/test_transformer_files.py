"""The reference's transformer files: bit for bit both ways, what they tell, and one line for every wrong one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.interop.checkpoints import (
    TOKENIZER,
    TRANSFORMER,
    assert_bitwise,
    changed,
    drawn_model,
    nested,
    tokenizer_config,
    tokenizer_tensors,
    transformer_config,
    transformer_tensors,
)
from tests.models.golden_models import small_tokenizer, weights
from var_jax.errors import InputError
from var_jax.interop.transformer import LANDMARK, computed_tensors, export_transformer, import_transformer
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid

SMALL = ["transformer_small", "transformer_small_shared_adaln", "transformer_small_no_qk_norm"]


@pytest.fixture(scope="module")
def model():
    return drawn_model()


@pytest.fixture(scope="module")
def tensors(model):
    return transformer_tensors(model)


@pytest.mark.parametrize("name", SMALL)
def test_golden_weights_come_back_bit_for_bit(golden, name):
    theirs = weights(golden(name))
    imported = import_transformer(theirs, small_tokenizer(golden("tokenizer_small")).config, num_heads=2)
    ours = export_transformer(*imported)
    assert_bitwise({key: ours[key] for key in theirs}, theirs)
    assert set(ours) - set(theirs) == set(computed_tensors(imported.config))
    config = imported.config
    assert (config.depth, config.width, config.num_heads, config.num_classes) == (2, 64, 2, 10)
    assert config.shared_adaln == ("shared" in name)
    assert config.qk_norm == ("no_qk" not in name)


def test_what_follows_from_the_config_is_what_the_reference_keeps():
    computed = computed_tensors(transformer_config(pyramid=Pyramid((1, 2)), depth=2))
    levels = np.array([[0, 1, 1, 1, 1]])
    np.testing.assert_array_equal(computed["lvl_1L"], levels)
    assert computed["lvl_1L"].dtype == np.int64
    mask = computed["attn_bias_for_masking"]
    assert (mask.shape, mask.dtype) == ((1, 1, 5, 5), np.float32)
    for row, column in np.ndindex(5, 5):
        assert mask[0, 0, row, column] == (0.0 if levels[0, row] >= levels[0, column] else -np.inf)
    for block in range(2):
        bias = computed[f"blocks.{block}.attn.zero_k_bias"]
        assert bias.dtype == np.float32
        np.testing.assert_array_equal(bias, np.zeros(16))
    assert len(computed) == 4


@pytest.mark.parametrize(
    "changes",
    [
        *({"shared_adaln": shared, "qk_norm": norm} for shared in (False, True) for norm in (False, True)),
        {"pyramid": Pyramid((2,)), "shared_adaln": True},
        {"num_classes": 1, "mlp_ratio": 1.5, "num_heads": 4, "depth": 3, "drop_path": 0.1 * 3 / 24},
    ],
    ids=["own", "own_qk", "shared", "shared_qk", "one_scale", "odd"],
)
def test_drawn_weights_and_their_config_come_back(changes):
    config = transformer_config(**changes)
    tokenizer = tokenizer_config(pyramid=config.pyramid)
    theirs = transformer_tensors(drawn_model(tokenizer, config))
    imported = import_transformer(theirs, tokenizer, num_heads=config.num_heads)
    assert imported.config == config
    assert_bitwise(export_transformer(*imported), theirs)


def test_learned_tensors_alone_are_enough(tensors):
    learned = {name: array for name, array in tensors.items() if name not in computed_tensors(TRANSFORMER)}
    assert len(learned) == len(tensors) - 4
    assert_bitwise(export_transformer(*import_transformer(learned, TOKENIZER)), tensors)


def test_heads_without_qk_norm_are_64_wide_unless_told(golden):
    theirs = weights(golden("transformer_small_no_qk_norm"))
    tokenizer = small_tokenizer(golden("tokenizer_small")).config
    assert import_transformer(theirs, tokenizer).config.num_heads == 1
    assert import_transformer(theirs, tokenizer, num_heads=2).config.num_heads == 2


def test_training_checkpoints_nest_it(model, tensors):
    nest = nested("trainer.vae_local.", tokenizer_tensors(model)) | nested("trainer.var_wo_ddp.", tensors)
    assert_bitwise(export_transformer(*import_transformer(nest, TOKENIZER)), tensors)


def refused(tensors, *needles, tokenizer=TOKENIZER, num_heads=None):
    """The one-line refusal of these tensors, which names the file and everything in `needles`."""
    with pytest.raises(InputError) as raised:
        import_transformer(tensors, tokenizer, num_heads, file="var.pth")
    message = str(raised.value)
    assert message.startswith("var.pth: ")
    assert "\n" not in message
    assert [needle for needle in needles if needle not in message] == []


def test_a_missing_tensor_is_named(tensors):
    without = set(computed_tensors(TRANSFORMER)) | {LANDMARK, "blocks.0.attn.scale_mul_1H11"}  # that tells qk norm
    for name in sorted(set(tensors) - without):
        refused({other: array for other, array in tensors.items() if other != name}, f"tensor '{name}' is missing")
    refused(changed(tensors, word_embed__weight=None), "not a checkpoint of a transformer", LANDMARK)


def test_a_missing_block_is_named():
    three = transformer_tensors(drawn_model(transformer=transformer_config(depth=3)))
    for prefix, needle in (
        ("blocks.0.", "tensor 'blocks.0.ffn.fc1.weight' is missing"),
        ("blocks.1.", "tensor 'blocks.1.attn.mat_qkv.weight' is missing"),
        ("blocks.", "has no tensors 'blocks.0...'"),
    ):
        refused({name: array for name, array in three.items() if not name.startswith(prefix)}, needle)


def test_an_extra_tensor_is_named(tensors):
    refused(tensors | {"blocks.0.attn.relative_bias": np.zeros(1)}, "'blocks.0.attn.relative_bias'", "no place")


@pytest.mark.parametrize(
    "name",
    [
        *("word_embed.weight", "pos_1LC", "pos_start", "head.weight", "class_emb.weight", "lvl_embed.weight"),
        *("blocks.0.ffn.fc1.weight", "blocks.1.ffn.fc1.weight", "blocks.1.attn.mat_qkv.weight"),
        *("blocks.0.attn.scale_mul_1H11", "blocks.0.ada_lin.1.bias"),
    ],
)
def test_a_tensor_of_another_shape_is_refused(tensors, name):
    for wrong in (tensors[name][..., None], np.float32(1.0), tensors[name][:0]):
        refused(tensors | {name: wrong})


def test_integers_are_no_weights(tensors):
    refused(tensors | {"head.bias": np.zeros(16, np.int8)}, "'head.bias' holds int8")


def test_another_pyramid_is_refused_with_the_right_one(tensors):
    other = TokenizerConfig.from_dict(TOKENIZER.to_dict() | {"pyramid": Pyramid((1, 2, 4))})
    refused(tensors, "made for 14 positions", "pyramid 1,2,4 has 21", "--pyramid 1,2,3", tokenizer=other)
    unsure = changed(tensors, lvl_1L=None)
    refused(unsure, "made for 14 positions", "give its sides by --pyramid", tokenizer=other)
    refused(tensors | {"lvl_1L": np.zeros((1, 14), np.int64)}, "give its sides by --pyramid", tokenizer=other)


@pytest.mark.parametrize("with_levels", [True, False])
@pytest.mark.parametrize("size", PUBLISHED_SIDES)
def test_a_published_pyramid_is_told_by_its_name(size, with_levels):
    pyramid = Pyramid(PUBLISHED_SIDES[size])
    tensors = {
        "word_embed.weight": np.zeros((16, 4), np.float32),
        "pos_1LC": np.zeros((1, pyramid.length, 16), np.float32),
        "blocks.0.attn.q_bias": np.zeros(16, np.float32),
    }
    if with_levels:
        tensors["lvl_1L"] = pyramid.level_ids[None].astype(np.int64)
    refused(tensors, f"made for {pyramid.length} positions", f"import both with --pyramid {size}")


def test_another_pyramid_of_the_same_length_is_noticed():
    """25 positions are 1 + 4 + 4 + 16, or 16 + 9."""
    theirs = drawn_model(tokenizer_config(pyramid=Pyramid((3, 4))), transformer_config(pyramid=Pyramid((3, 4))))
    tokenizer = tokenizer_config(pyramid=Pyramid((1, 2, 2, 4)))
    refused(transformer_tensors(theirs), "another pyramid than 1,2,2,4", "--pyramid 3,4", tokenizer=tokenizer)


def test_another_codebook_is_refused(tensors):
    refused(tensors, "made for codes 16, the tokenizer has 32", tokenizer=tokenizer_config(codebook_size=32))
    refused(tensors, "made for code width 4, the tokenizer has 8", tokenizer=tokenizer_config(code_width=8))


def test_another_number_of_heads_is_refused(tensors):
    refused(tensors, "has 2 heads, expected 4", num_heads=4)
    plain = transformer_tensors(drawn_model(transformer=transformer_config(qk_norm=False)))
    refused(plain, "width 16 does not divide into num_heads 3", num_heads=3)
    refused(plain, "num_heads is -1", num_heads=-1)


def test_a_tokenizer_is_no_transformer(model):
    refused(tokenizer_tensors(model), "not a checkpoint of a transformer", LANDMARK)


def test_two_transformers_in_one_file(tensors):
    refused(nested("model.", tensors) | nested("ema.", tensors), "more than one transformer", "'ema.', 'model.'")
