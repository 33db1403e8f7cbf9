"""The reference's transformer checkpoints (`var_d16.pth` ...): the model's config from them, and their names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from var_jax.errors import InputError
from var_jax.interop import names
from var_jax.interop.names import FLAT, LINEAR, Entry, reshaped, shape_of
from var_jax.models.baselines import BaselineConfig
from var_jax.models.parameters import Params
from var_jax.models.presets import initial_gate, published_drop_path
from var_jax.models.shapes import transformer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer import TransformerConfig
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid

LANDMARK = "word_embed.weight"
LEVEL_IDS = "lvl_1L"
_QK_SCALE = "blocks.0.attn.scale_mul_1H11"
_HEAD_WIDTH = 64  # in all published models; not in files without qk norm


class ImportedTransformer(NamedTuple):
    """A transformer read from a reference checkpoint: its config and float32 numpy parameters."""

    config: TransformerConfig
    params: Params


def transformer_table(config: TransformerConfig) -> list[Entry]:
    """Entries for all learned tensors of the reference's transformer.

    Raises:
      InputError: for a transformer that the reference does not have.
    """
    if isinstance(config, BaselineConfig):
        what = "in raster order" if config.raster else "without AdaLN"
        raise InputError(f"a transformer {what} has no name in the reference's files: it cannot be exported to them")
    table = [
        *_linear("word_embed", "word"),
        Entry("class_emb.weight", ("class_embedding",)),
        Entry("pos_start", ("start_position",), reshaped(0)),
        Entry("pos_1LC", ("position_embedding",), reshaped(0)),
        Entry("lvl_embed.weight", ("level_embedding",)),
    ]
    if config.shared_adaln:
        table += _linear("shared_ada_lin.1", "shared_adaln")
    for index in range(config.depth):
        table += _block(f"blocks.{index}", index, config)
    return table + _linear("head_nm.ada_lin.1", "head_adaln") + _linear("head", "head")


def _block(reference: str, index: int, config: TransformerConfig) -> list[Entry]:
    def entry(name: str, ours: str, layout: names.Layout = FLAT) -> Entry:
        return Entry(f"{reference}.{name}", ("blocks", ours), layout, index)

    table = [
        entry("attn.mat_qkv.weight", "qkv_kernel", LINEAR),
        entry("attn.q_bias", "q_bias"),
        entry("attn.v_bias", "v_bias"),
        entry("attn.proj.weight", "out_kernel", names.LINEAR_FROM_HEADS),
        entry("attn.proj.bias", "out_bias"),
        entry("ffn.fc1.weight", "mlp_in_kernel", LINEAR),
        entry("ffn.fc1.bias", "mlp_in_bias"),
        entry("ffn.fc2.weight", "mlp_out_kernel", LINEAR),
        entry("ffn.fc2.bias", "mlp_out_bias"),
    ]
    if config.qk_norm:
        table.append(entry("attn.scale_mul_1H11", "qk_log_scale", reshaped(0, 2, 3)))
    if config.shared_adaln:
        table.append(entry("ada_gss", "adaln_table", reshaped(0, 1)))
    else:
        table += [entry("ada_lin.1.weight", "adaln_kernel", LINEAR), entry("ada_lin.1.bias", "adaln_bias")]
    return table


def _linear(reference: str, name: str) -> list[Entry]:
    return [
        Entry(f"{reference}.weight", (f"{name}_kernel",), LINEAR),
        Entry(f"{reference}.bias", (f"{name}_bias",), FLAT),
    ]


def computed_tensors(config: TransformerConfig) -> dict[str, np.ndarray]:
    """The tensors of a reference checkpoint that follow from its config: not learned, but required by the reference."""
    level_ids, mask, *zero_biases = _computed_names(config.depth)
    bias = np.where(config.pyramid.block_causal_mask, np.float32(0.0), np.float32(-np.inf))
    return {
        level_ids: config.pyramid.level_ids[None].astype(np.int64),
        mask: bias[None, None],
        **{name: np.zeros(config.width, np.float32) for name in zero_biases},
    }


def _computed_names(depth: int) -> list[str]:
    return [LEVEL_IDS, "attn_bias_for_masking", *(f"blocks.{index}.attn.zero_k_bias" for index in range(depth))]


def infer_config(
    tensors: Mapping[str, np.ndarray], tokenizer: TokenizerConfig, num_heads: int | None, file: str
) -> TransformerConfig:
    """Infers the config from names and shapes, and checks it against the tokenizer that the model belongs to."""
    depth = len({match[1] for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))})
    if not depth:
        raise InputError(f"{file}: has no tensors 'blocks.0...': not a transformer's file, or not complete")
    width, code_width = shape_of(tensors, LANDMARK, 2, file)
    _check_pyramid(shape_of(tensors, "pos_1LC", 3, file)[1], tensors.get(LEVEL_IDS), tokenizer.pyramid, file)
    codes = shape_of(tensors, "head.weight", 2, file)[0]
    pair = {"codes": (codes, tokenizer.codebook_size), "code width": (code_width, tokenizer.code_width)}
    for what, (found, wanted) in pair.items():
        if found != wanted:
            raise InputError(f"{file}: made for {what} {found}, the tokenizer has {wanted}: not a pair")
    classes = shape_of(tensors, "class_emb.weight", 2, file)[0] - 1  # the last row is "no class"
    hidden = shape_of(tensors, "blocks.0.ffn.fc1.weight", 2, file)[0]
    qk_norm = _QK_SCALE in tensors
    heads = tensors[_QK_SCALE].size if qk_norm else num_heads or max(1, width // _HEAD_WIDTH)
    if num_heads not in (None, heads):
        raise InputError(f"{file}: has {heads} heads, expected {num_heads}")
    try:
        return TransformerConfig(
            pyramid=tokenizer.pyramid,
            codebook_size=codes,
            code_width=code_width,
            num_classes=classes,
            depth=depth,
            width=width,
            num_heads=heads,
            mlp_ratio=hidden / max(1, width),
            shared_adaln="shared_ada_lin.1.weight" in tensors,
            qk_norm=qk_norm,
            drop_path=published_drop_path(depth),
            gate_init=initial_gate(depth),
        )
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _check_pyramid(length: int, levels: np.ndarray | None, pyramid: Pyramid, file: str) -> None:
    """Refuses a file made for another pyramid, by its length and, in most files, the level of every position."""
    if length == pyramid.length and (levels is None or np.array_equal(np.ravel(levels), pyramid.level_ids)):
        return
    published = {Pyramid(sides): str(size) for size, sides in PUBLISHED_SIDES.items()}
    own = _pyramid_of(levels) or next((known for known in published if known.length == length), None)
    hint = f"import both with --pyramid {published.get(own, own)}" if own else "give its sides by --pyramid"
    if length != pyramid.length:
        raise InputError(f"{file}: made for {length} positions, pyramid {pyramid} has {pyramid.length}: {hint}")
    raise InputError(f"{file}: made for another pyramid than {pyramid} by its tensor '{LEVEL_IDS}': {hint}")


def _pyramid_of(levels: np.ndarray | None) -> Pyramid | None:
    """The pyramid with these level ids, or None if there is none."""
    if levels is None:
        return None
    _, lengths = np.unique(levels, return_counts=True)
    try:
        pyramid = Pyramid(tuple(math.isqrt(int(length)) for length in lengths))
    except InputError:
        return None
    return pyramid if np.array_equal(np.ravel(levels), pyramid.level_ids) else None


def import_transformer(
    tensors: Mapping[str, np.ndarray],
    tokenizer: TokenizerConfig,
    num_heads: int | None = None,
    file: str = "checkpoint",
) -> ImportedTransformer:
    """Turns reference tensors (a plain state dict or a training checkpoint's, flattened) into our transformer.

    Args:
      tensors: the file's tensors by name.
      tokenizer: the tokenizer that the model was trained on; pyramid and codebook are checked.
      num_heads: needed only for files without qk norm whose head width is not 64.
      file: the file's name in errors.

    Raises:
      InputError: naming the file and the mismatch.
    """
    tensors = names.select(tensors, LANDMARK, "transformer", file)
    config = infer_config(tensors, tokenizer, num_heads, file)
    skipped, abstract = _computed_names(config.depth), transformer_shapes(config)
    return ImportedTransformer(config, names.to_params(transformer_table(config), tensors, abstract, skipped, file))


def export_transformer(config: TransformerConfig, params: Params) -> dict[str, np.ndarray]:
    """Turns our transformer into tensors under the reference's names and layouts, complete for its strict loading."""
    return names.to_reference(transformer_table(config), params) | computed_tensors(config)
