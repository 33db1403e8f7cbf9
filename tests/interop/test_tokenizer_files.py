"""The reference's tokenizer files: bit for bit both ways, what they tell, and one line for every wrong one."""

from __future__ import annotations

import numpy as np
import pytest

from tests.interop.checkpoints import (
    TOKENIZER,
    assert_bitwise,
    changed,
    drawn_model,
    nested,
    tokenizer_config,
    tokenizer_tensors,
    transformer_tensors,
)
from tests.models.golden_models import SMALL_PYRAMID, weights
from var_jax.errors import InputError
from var_jax.interop.tokenizer import CODE_COUNTS, LANDMARK, export_tokenizer, import_tokenizer
from var_jax.pyramid import Pyramid

SHORTCUT = "encoder.down.1.block.0.nin_shortcut.weight"


@pytest.fixture(scope="module")
def model():
    return drawn_model()


@pytest.fixture(scope="module")
def tensors(model):
    return tokenizer_tensors(model)


def test_golden_weights_come_back_bit_for_bit(golden):
    theirs = weights(golden("tokenizer_small"))
    imported = import_tokenizer(theirs, SMALL_PYRAMID)
    assert imported.code_counts_SxV.shape == (4, 256)
    assert_bitwise(export_tokenizer(*imported), theirs)


@pytest.mark.parametrize(
    "config",
    [
        tokenizer_config(num_phis=None),
        tokenizer_config(num_phis=1),
        tokenizer_config(num_phis=4),
        tokenizer_config(phi_ratio=0.0, num_phis=None),
        tokenizer_config(pyramid=Pyramid((2,)), num_phis=None, lookup="cosine"),
        tokenizer_config(base_channels=64, channel_multipliers=(2, 1, 3), encoder_blocks=2, decoder_blocks=3),
        tokenizer_config(channel_multipliers=(1,), codebook_size=7, code_width=3),
    ],
    ids=["phi_each", "phi_one", "phi_4", "no_phi", "one_scale", "widths", "one_level"],
)
def test_drawn_weights_and_their_config_come_back(config):
    theirs = tokenizer_tensors(drawn_model(config, None))
    imported = import_tokenizer(theirs, config.pyramid, config.quantizer.lookup)
    assert imported.config == config
    assert_bitwise(export_tokenizer(*imported), theirs)


def test_phi_is_named_by_how_it_is_shared():
    for num_phis, name in ((None, "quant_resi.2"), (1, "quant_resi.qresi"), (2, "quant_resi.qresi_ls.1")):
        theirs = tokenizer_tensors(drawn_model(tokenizer_config(num_phis=num_phis), None))
        phis = [tensor for tensor in theirs if "quant_resi" in tensor]
        assert f"quantize.{name}.weight" in phis
        assert len(phis) == 2 * (num_phis or 3)


def test_narrow_floats_are_widened_exactly(tensors):
    halves = {name: array.astype(np.float16) for name, array in tensors.items()}
    imported = import_tokenizer(halves, TOKENIZER.pyramid)
    assert_bitwise(export_tokenizer(*imported), {name: half.astype(np.float32) for name, half in halves.items()})


def test_training_checkpoints_nest_it(model, tensors):
    nest = nested("trainer.vae_local.", tensors) | nested("trainer.var_wo_ddp.", transformer_tensors(model))
    nest["trainer.var_opt.optimizer.state.0.exp_avg"] = np.zeros(3, np.float32)
    imported = import_tokenizer(nest, TOKENIZER.pyramid)
    assert_bitwise(export_tokenizer(*imported), tensors)


@pytest.mark.parametrize("counts", [None, np.zeros((10, 16), np.float32)], ids=["missing", "of_another_pyramid"])
def test_counts_of_code_use_are_optional(tensors, counts):
    imported = import_tokenizer(changed(tensors, quantize__ema_vocab_hit_SV=counts), TOKENIZER.pyramid)
    assert imported.code_counts_SxV.shape == (3, 16)
    assert not np.any(imported.code_counts_SxV)
    assert not np.any(export_tokenizer(imported.config, imported.params)[CODE_COUNTS])


def refused(tensors, *needles, pyramid=TOKENIZER.pyramid):
    """The one-line refusal of these tensors, which names the file and everything in `needles`."""
    with pytest.raises(InputError) as raised:
        import_tokenizer(tensors, pyramid, file="vae.pth")
    message = str(raised.value)
    assert message.startswith("vae.pth: ")
    assert "\n" not in message
    assert [needle for needle in needles if needle not in message] == []


def test_a_missing_tensor_is_named(tensors):
    biases = [name for name in tensors if name.endswith("bias")]
    for name in (*biases[::8], "quantize.quant_resi.qresi_ls.0.bias", "encoder.conv_in.weight"):
        refused({other: array for other, array in tensors.items() if other != name}, f"tensor '{name}' is missing")
    refused(changed(tensors, quantize__embedding__weight=None), "not a checkpoint of a tokenizer", LANDMARK)


def test_an_extra_tensor_is_named(tensors):
    refused(tensors | {"loss.discriminator.weight": np.zeros(1)}, "'loss.discriminator.weight'", "no place")
    refused(tensors | {SHORTCUT: np.zeros((32, 32, 1, 1), np.float32)}, SHORTCUT)


@pytest.mark.parametrize(
    "name",
    [
        *("encoder.conv_in.weight", "encoder.down.0.block.0.conv1.weight", "decoder.mid.attn_1.qkv.weight"),
        *("decoder.norm_out.weight", "quantize.quant_resi.qresi_ls.3.bias", "quant_conv.weight", LANDMARK),
    ],
)
def test_a_tensor_of_another_shape_is_named(tensors, name):
    for wrong in (tensors[name][..., None], np.float32(1.0)):
        refused(tensors | {name: wrong}, f"tensor '{name}' has shape {wrong.shape}", "expected")
    refused(tensors | {name: tensors[name][:0]})  # no codes or no width: named by what it would mean


def test_integers_are_no_weights(tensors):
    name = "decoder.conv_out.bias"
    refused(tensors | {name: np.zeros(3, np.int64)}, name, "holds int64", "floating-point")


def test_a_width_that_the_reference_cannot_have(tensors):
    narrow = {name: array[:30] if name == "encoder.conv_in.weight" else array for name, array in tensors.items()}
    refused(narrow, "width 30", "norm_groups 32")


def test_another_pyramid_than_that_of_its_phis():
    theirs = tokenizer_tensors(drawn_model(tokenizer_config(num_phis=None), None))
    refused(theirs, "a phi for each of 3 scales", "pyramid 1,2 has 2", pyramid=Pyramid((1, 2)))


def test_a_transformer_is_no_tokenizer(model):
    refused(transformer_tensors(model), "not a checkpoint of a tokenizer", LANDMARK)
    refused({}, "not a checkpoint of a tokenizer")


def test_two_tokenizers_in_one_file(tensors):
    for first, second in (("a.", "b."), ("", "ema.")):
        refused(nested(first, tensors) | nested(second, tensors), "more than one tokenizer", f"'{first}', '{second}'")


def test_norm_groups_that_the_format_cannot_hold():
    model = drawn_model(tokenizer_config(norm_groups=4), None)
    with pytest.raises(InputError, match="norm_groups 4: the reference's always has 32"):
        tokenizer_tensors(model)
