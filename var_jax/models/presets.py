"""Published models by name, and the depth rule that all of them follow."""

from __future__ import annotations

import re

from var_jax.errors import InputError
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer import TransformerConfig

IMAGENET_CLASSES = 1000
_HEAD_WIDTH = 64
_DEEPEST_TO_GATE = ((20, 1e-3), (24, 1e-4), (30, 1e-5))  # initial AdaLN gate factor up to a depth


def initial_gate(depth: int) -> float:
    """Factor on the initial AdaLN gates by depth, as published for 16 to 36 blocks."""
    return next((factor for deepest, factor in _DEEPEST_TO_GATE if depth <= deepest), 5e-6)


def published_drop_path(depth: int) -> float:
    """Drop path rate at the last block: 0.1 at depth 24, in proportion to depth."""
    return 0.1 * depth / 24


def transformer_preset(
    name: str, tokenizer: TokenizerConfig | None = None, num_classes: int = IMAGENET_CLASSES
) -> TransformerConfig:
    """A transformer by depth alone: "d16" is 16 blocks, 16 heads of width 64, own AdaLN; "-s" shares AdaLN.

    Args:
      name: "d6" to "d36", or "d36-s" and the like.
      tokenizer: whose tokens it predicts; None is the published one, at the 512 pyramid for "-s".
      num_classes: classes without "no class".

    Raises:
      InputError: for a name that is not of this form.
    """
    match = re.fullmatch(r"d([1-9]\d?)(-s)?", name)
    if not match:
        raise InputError(f"transformer preset '{name}': expected d and a depth, like d16, or d36-s for shared AdaLN")
    depth, shared = int(match[1]), bool(match[2])
    if tokenizer is None:
        tokenizer = TokenizerConfig.from_fields(pyramid=512 if shared else 256)
    return TransformerConfig(
        pyramid=tokenizer.pyramid,
        codebook_size=tokenizer.codebook_size,
        code_width=tokenizer.code_width,
        num_classes=num_classes,
        depth=depth,
        width=_HEAD_WIDTH * depth,
        num_heads=depth,
        shared_adaln=shared,
        drop_path=published_drop_path(depth),
        gate_init=initial_gate(depth),
    )
