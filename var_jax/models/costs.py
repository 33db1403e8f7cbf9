"""The cost of a config: parameters and floating-point operations, counted from the shapes.

One multiply-add is two operations. Counted are matrix products and convolutions (border positions
counted whole); norms, activations, softmax, lookups in tables and the optimizer are not. Attention
is counted by the block-causal mask: masked pairs are no work. AdaLN is counted once per picture,
not once per token.
"""

from __future__ import annotations

import itertools
import math

import jax

from var_jax.models.parameters import Params
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.models.transformer_config import TransformerConfig


def transformer_parameters(config: TransformerConfig) -> int:
    """Learned numbers of a transformer."""
    return _count(transformer_shapes(config))


def block_parameters(config: TransformerConfig) -> int:
    """The matrices of all blocks, which is N of the paper's scaling laws: 73728 D^3 where W = 64 D, 18 D W^2 else.

    Without AdaLN, or with a shared one, 12 D W^2.
    """
    own = 0 if config.shared_adaln else max(config.modulation_size - 2 * config.width**2, 0)
    return config.depth * (4 * config.width**2 + 2 * config.width * config.mlp_width) + own


def tokenizer_parameters(config: TokenizerConfig) -> int:
    """Learned numbers of a tokenizer."""
    return _count(tokenizer_shapes(config))


def _count(params: Params) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def attention_pairs(config: TransformerConfig) -> int:
    """Pairs (query, key) that the mask lets through: each step sees itself and the steps before it."""
    return sum(_pairs_by_step(config))


def uncached_attention_pairs(config: TransformerConfig) -> int:
    """Pairs (query, key) of all steps of sampling without a KV cache, see `uncached_flops`."""
    return sum(itertools.accumulate(_pairs_by_step(config)))


def _pairs_by_step(config: TransformerConfig) -> list[int]:
    return [length * seen for length, seen in zip(config.steps, itertools.accumulate(config.steps), strict=True)]


def transformer_forward_flops(config: TransformerConfig) -> int:
    """One forward pass over all L positions of one picture, in training or, with a cache, in sampling."""
    c, length = config, config.pyramid.length
    block = 4 * c.width**2 + 2 * c.width * c.mlp_width  # weights of q, k, v, out and the MLP
    tokens = length * (c.depth * block + c.width * c.codebook_size)
    tokens += (length - c.start_length) * c.code_width * c.width
    attention = 2 * c.depth * attention_pairs(c) * c.width  # scores, and the mixture of values
    return 2 * (tokens + attention + c.modulation_size)


def uncached_flops(config: TransformerConfig) -> int:
    """Sampling one picture without a KV cache: each step is a forward pass over all positions up to its own.

    Logits are counted at a step's own positions alone; AdaLN, which knows no position, once.
    """
    c, block = config, 4 * config.width**2 + 2 * config.width * config.mlp_width
    total = 2 * c.depth * uncached_attention_pairs(c) * c.width
    for length, seen in zip(c.steps, itertools.accumulate(c.steps), strict=True):
        total += c.depth * seen * block + length * c.width * c.codebook_size
        total += (seen - c.steps[0]) * c.code_width * c.width
    return 2 * (total + c.modulation_size)


def training_flops_per_token(config: TransformerConfig) -> float:
    """Forward and backward (twice the forward) per token, without recomputation."""
    return 3 * transformer_forward_flops(config) / config.pyramid.length


def encode_flops(config: TokenizerConfig) -> int:
    """One picture to tokens: the encoder, and the quantizer's distances and sums."""
    c = config
    side, channels = c.image_size, c.base_channels
    total = _conv(side, 3, channels)
    last = len(c.channel_multipliers) - 1
    for level, multiplier in enumerate(c.channel_multipliers):
        for _ in range(c.encoder_blocks):
            total += _residual(side, channels, c.base_channels * multiplier)
            channels = c.base_channels * multiplier
            total += _attention(side, channels) if level == last else 0
        if level != last:
            side //= 2
            total += _conv(side, channels, channels)
    total += _middle(side, channels) + _conv(side, channels, c.code_width) + _conv(side, c.code_width, c.code_width)
    distances = 2 * c.pyramid.length * c.code_width * c.codebook_size
    return total + distances + quantizer_flops(c, down=True)


def decode_flops(config: TokenizerConfig) -> int:
    """Tokens of one picture to pixels: the quantizer's sums and the decoder."""
    c = config
    side, channels = c.pyramid.final_side, c.base_channels * c.channel_multipliers[-1]
    total = quantizer_flops(c, down=False) + _conv(side, c.code_width, c.code_width)
    total += _conv(side, c.code_width, channels) + _middle(side, channels)
    last = len(c.channel_multipliers) - 1
    for level in range(last, -1, -1):
        for _ in range(c.decoder_blocks):
            total += _residual(side, channels, c.base_channels * c.channel_multipliers[level])
            channels = c.base_channels * c.channel_multipliers[level]
            total += _attention(side, channels) if level == last else 0
        if level:
            side *= 2
            total += _conv(side, channels, channels)
    return total + _conv(side, channels, 3)


def sample_flops(transformer: TransformerConfig, tokenizer: TokenizerConfig, guided: bool) -> int:
    """One picture from a class label: the transformer (twice under guidance), the sums and the decoder."""
    sums = quantizer_flops(tokenizer, down=True) - quantizer_flops(tokenizer, down=False)
    return (2 if guided else 1) * transformer_forward_flops(transformer) + sums + decode_flops(tokenizer)


def quantizer_flops(config: TokenizerConfig, down: bool) -> int:
    """The running sum over all scales: enlarging and phi, and, with `down`, shrinking to each scale."""
    side, width, total = config.pyramid.final_side, config.code_width, 0
    for small in config.pyramid.sides:
        resize = 0 if small == side else 2 * width * (side * small * small + side * side * small)
        total += resize * (2 if down else 1)
        total += _conv(side, width, width) if config.quantizer.phi_ratio else 0
    return total


def _conv(side: int, incoming: int, outgoing: int, kernel: int = 3) -> int:
    return 2 * side**2 * kernel**2 * incoming * outgoing


def _residual(side: int, incoming: int, outgoing: int) -> int:
    shortcut = _conv(side, incoming, outgoing, 1) if incoming != outgoing else 0
    return _conv(side, incoming, outgoing) + _conv(side, outgoing, outgoing) + shortcut


def _attention(side: int, channels: int) -> int:
    projections = 4 * _conv(side, channels, channels, 1)
    return projections + 2 * 2 * math.prod((side**2, side**2, channels))


def _middle(side: int, channels: int) -> int:
    return 2 * _residual(side, channels, channels) + _attention(side, channels)
