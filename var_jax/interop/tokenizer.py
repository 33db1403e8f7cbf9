"""The reference's tokenizer checkpoint (`vae_ch160v4096z32.pth`): the model's config from it, and its names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.interop.names import (
    CONV,
    FLAT,
    POINTWISE,
    SAME,
    Entry,
    Layout,
    require_finite,
    select,
    shape_of,
    to_params,
    to_reference,
)
from var_jax.models.parameters import Params
from var_jax.models.quantizer import QuantizerConfig, unit_norm
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.pyramid import Pyramid

LANDMARK = "quantize.embedding.weight"
CODE_COUNTS = "quantize.ema_vocab_hit_SV"  # moving counts of code use, stored beside the parameters
_NORM_GROUPS = 32  # in all of the reference's group norms
_PHI_RATIO = 0.5  # in all published models; not in the files


class ImportedTokenizer(NamedTuple):
    """A tokenizer read from a reference checkpoint.

    Attributes:
      config: the config, inferred from names and shapes.
      params: our parameters, float32 numpy arrays.
      code_counts_SxV: moving counts of code use per scale, zeros if the file has none.
    """

    config: TokenizerConfig
    params: Params
    code_counts_SxV: np.ndarray


def tokenizer_table(config: TokenizerConfig) -> list[Entry]:
    """Entries for all learned tensors of the reference's tokenizer."""
    return [
        *_half("encoder", "down", config.encoder_blocks, config.channel_multipliers),
        *_half("decoder", "up", config.decoder_blocks, config.channel_multipliers),
        *_layer("quant_conv", ("pre_quantizer",)),
        *_layer("post_quant_conv", ("post_quantizer",)),
        *quantizer_table(config.quantizer, "quantize.", ("quantizer",)),
    ]


def quantizer_table(config: QuantizerConfig, prefix: str, path: tuple[str, ...]) -> list[Entry]:
    """Entries for codebook and phi; phi's names depend on how it is shared."""
    table = [Entry(prefix + "embedding.weight", (*path, "codebook"))]
    kind = {None: "quant_resi.{}", 1: "quant_resi.qresi"}.get(config.num_phis, "quant_resi.qresi_ls.{}")
    for index in range(config.num_phis or len(config.pyramid)) if config.phi_ratio else ():
        name = prefix + kind.format(index)
        table.append(Entry(name + ".weight", (*path, "phi_kernel"), CONV, index))
        table.append(Entry(name + ".bias", (*path, "phi_bias"), SAME, index))
    return table


def _half(net: str, way: str, blocks: int, multipliers: tuple[int, ...]) -> list[Entry]:
    """Entries for the encoder, whose way is "down", or for the decoder, whose way is "up"."""
    last = len(multipliers) - 1
    incoming, end = ((1, *multipliers), last) if way == "down" else ((*multipliers[1:], multipliers[-1]), 0)
    table = _layer(f"{net}.conv_in", (net, "conv_in"))
    for level, multiplier in enumerate(multipliers):
        reference, ours = f"{net}.{way}.{level}", f"level_{level}"
        for block in range(blocks):
            widens = block == 0 and incoming[level] != multiplier
            table += _residual(f"{reference}.block.{block}", (net, f"{ours}_block_{block}"), widens)
            if level == last:
                table += _attention(f"{reference}.attn.{block}", (net, f"{ours}_attention_{block}"))
        if level != end:
            table += _layer(f"{reference}.{way}sample.conv", (net, f"{ours}_{way}sample"))
    table += _residual(f"{net}.mid.block_1", (net, "middle", "block_1"), False)
    table += _attention(f"{net}.mid.attn_1", (net, "middle", "attention"))
    table += _residual(f"{net}.mid.block_2", (net, "middle", "block_2"), False)
    table += _layer(f"{net}.norm_out", (net, "norm_out"), "scale", SAME)
    return table + _layer(f"{net}.conv_out", (net, "conv_out"))


def _residual(reference: str, path: tuple[str, ...], widens: bool) -> list[Entry]:
    table = []
    for index in (1, 2):
        table += _layer(f"{reference}.norm{index}", (*path, f"norm_{index}"), "scale", SAME)
        table += _layer(f"{reference}.conv{index}", (*path, f"conv_{index}"))
    return table + (_layer(f"{reference}.nin_shortcut", (*path, "shortcut")) if widens else [])


def _attention(reference: str, path: tuple[str, ...]) -> list[Entry]:
    return [
        *_layer(f"{reference}.norm", (*path, "norm"), "scale", SAME),
        *_layer(f"{reference}.qkv", (*path, "qkv"), layout=POINTWISE),
        *_layer(f"{reference}.proj_out", (*path, "out"), layout=POINTWISE),
    ]


def _layer(reference: str, path: tuple[str, ...], weight: str = "kernel", layout: Layout = CONV) -> list[Entry]:
    """Entries for a layer's weight, by our name of it, and its bias."""
    return [Entry(f"{reference}.weight", (*path, weight), layout), Entry(f"{reference}.bias", (*path, "bias"), FLAT)]


def infer_config(tensors: Mapping[str, np.ndarray], pyramid: Pyramid, lookup: str, file: str) -> TokenizerConfig:
    """Infers width, depth, codes and kind of phi from names and shapes; pyramid and lookup are not in the file."""
    base = shape_of(tensors, "encoder.conv_in.weight", 4, file)[0]
    levels = _count(tensors, r"encoder\.down\.(\d+)\.block\.")
    widths = [shape_of(tensors, f"encoder.down.{level}.block.0.conv1.weight", 4, file)[0] for level in range(levels)]
    codes, code_width = shape_of(tensors, LANDMARK, 2, file)
    num_phis, phi_ratio = _infer_phi(tensors, pyramid, file)
    try:
        return TokenizerConfig.from_fields(
            pyramid=pyramid,
            codebook_size=codes,
            code_width=code_width,
            base_channels=base,
            channel_multipliers=tuple(max(1, width // max(1, base)) for width in widths),
            encoder_blocks=_count(tensors, r"encoder\.down\.0\.block\.(\d+)\."),
            decoder_blocks=_count(tensors, r"decoder\.up\.0\.block\.(\d+)\."),
            norm_groups=_NORM_GROUPS,
            num_phis=num_phis,
            phi_ratio=phi_ratio,
            lookup=lookup,
        )
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _infer_phi(tensors: Mapping[str, np.ndarray], pyramid: Pyramid, file: str) -> tuple[int | None, float]:
    """Number of phis (None: one per scale) and their ratio, which is 0 if there are none."""
    if own := _count(tensors, r"quantize\.quant_resi\.(\d+)\.weight"):
        if own != len(pyramid):
            raise InputError(f"{file}: has a phi for each of {own} scales, but pyramid {pyramid} has {len(pyramid)}")
        return None, _PHI_RATIO
    if "quantize.quant_resi.qresi.weight" in tensors:
        return 1, _PHI_RATIO
    shared = _count(tensors, r"quantize\.quant_resi\.qresi_ls\.(\d+)\.weight")
    return (shared, _PHI_RATIO) if shared else (None, 0.0)


def _count(tensors: Mapping[str, np.ndarray], pattern: str) -> int:
    """Counts the different numbers matched by the pattern's group."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def import_tokenizer(
    tensors: Mapping[str, np.ndarray], pyramid: Pyramid, lookup: str = "l2", file: str = "checkpoint"
) -> ImportedTokenizer:
    """Turns reference tensors (a plain state dict or a training checkpoint's, flattened) into our tokenizer.

    Raises:
      InputError: naming the file and the first tensor that is missing, unknown or mis-shaped.
    """
    tensors = select(tensors, LANDMARK, "tokenizer", file)
    config = infer_config(tensors, pyramid, lookup, file)
    params = to_params(tokenizer_table(config), tensors, tokenizer_shapes(config), [CODE_COUNTS], file)
    expected = (len(pyramid), config.codebook_size)
    counts = tensors.get(CODE_COUNTS)
    if counts is None or counts.shape != expected:  # the reference also ignores counts of another pyramid
        counts = np.zeros(expected, np.float32)
    require_finite(counts, CODE_COUNTS, file)
    return ImportedTokenizer(config, params, np.asarray(counts, np.float32))


def export_tokenizer(
    config: TokenizerConfig, params: Params, code_counts_SxV: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Turns our tokenizer into tensors under the reference's names and layouts, complete for its strict loading.

    Raises:
      InputError: for another number of norm groups than the reference's.
    """
    if config.norm_groups != _NORM_GROUPS:
        raise InputError(
            f"tokenizer with norm_groups {config.norm_groups}: the reference's always has {_NORM_GROUPS}, "
            "so its files cannot hold this one"
        )
    if code_counts_SxV is None:
        code_counts_SxV = np.zeros((len(config.pyramid), config.codebook_size), np.float32)
    if config.quantizer.unit_codes:  # the reference adds codes as they are stored
        codes = np.asarray(unit_norm(jnp.asarray(params["quantizer"]["codebook"])))
        params = params | {"quantizer": params["quantizer"] | {"codebook": codes}}
    return to_reference(tokenizer_table(config), params) | {CODE_COUNTS: np.asarray(code_counts_SxV, np.float32)}
