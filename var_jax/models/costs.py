"""What a config costs: parameters and floating-point operations, counted from the shapes.

One multiply-add is two operations. Counted are matrix products and convolutions (border positions
counted whole); norms, activations, softmax, lookups in tables and the optimizer are not. Attention
is counted by the block-causal mask: what a query may not look at is no work. AdaLN is counted once
a picture, not once a token.
"""

from __future__ import annotations

import math

import jax

from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import Transformer, TransformerConfig


def transformer_parameters(config: TransformerConfig) -> int:
    """Learned numbers of a transformer."""
    pyramid = config.pyramid
    shapes = (1,), (1, pyramid.length - config.start_length, config.code_width)
    inputs = jax.ShapeDtypeStruct(shapes[0], "int32"), jax.ShapeDtypeStruct(shapes[1], "float32")
    return _count(jax.eval_shape(Transformer(config).init, jax.random.key(0), *inputs))


def block_parameters(config: TransformerConfig) -> int:
    """The matrices of all blocks, which is N of the paper's scaling laws: 73728 D^3 where W = 64 D, 18 D W^2 else.

    Without AdaLN, or with a shared one, 12 D W^2.
    """
    own = 6 * config.width**2 if config.adaln and not config.shared_adaln else 0
    return config.depth * (4 * config.width**2 + 2 * config.width * config.mlp_width + own)


def tokenizer_parameters(config: TokenizerConfig) -> int:
    """Learned numbers of a tokenizer."""
    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), "float32")
    return _count(jax.eval_shape(Tokenizer(config).init, jax.random.key(0), image))


def _count(variables: dict) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def attention_pairs(config: TransformerConfig) -> int:
    """Pairs (query, key) that the mask lets through: block-causal, or causal in raster order."""
    pyramid = config.pyramid
    if config.raster:
        return pyramid.length * (pyramid.length + 1) // 2
    return sum(length * pyramid.slice(k).stop for k, length in enumerate(pyramid.lengths))


def transformer_forward_flops(config: TransformerConfig) -> int:
    """One forward pass over all L positions of one picture, in training or, with a cache, in sampling."""
    c, length = config, config.pyramid.length
    block = 4 * c.width**2 + 2 * c.width * c.mlp_width  # weights of q, k, v, out and the MLP
    tokens = length * (c.depth * block + c.width * c.codebook_size)
    tokens += (length - c.start_length) * c.code_width * c.width
    attention = 2 * c.depth * attention_pairs(c) * c.width  # scores, and the mixture of values
    adaln = ((1 if c.shared_adaln else c.depth) * 6 + 2) * c.width**2 if c.adaln else 0
    return 2 * (tokens + attention + adaln)


def _steps(config: TransformerConfig) -> tuple[int, ...]:
    """Tokens that are drawn at once, step by step."""
    return (1,) * config.pyramid.length if config.raster else config.pyramid.lengths


def uncached_attention_pairs(config: TransformerConfig) -> int:
    """Pairs (query, key) of all steps of sampling without a KV cache, see `uncached_flops`."""
    total = seen = pairs = 0
    for length in _steps(config):
        seen += length
        pairs += length * seen
        total += pairs
    return total


def uncached_flops(config: TransformerConfig) -> int:
    """Sampling one picture without a KV cache: each step is a forward pass over all positions up to its own.

    Logits are counted at a step's own positions alone; AdaLN, which knows no position, once.
    """
    c, lengths, seen = config, _steps(config), 0
    block = 4 * c.width**2 + 2 * c.width * c.mlp_width
    total = 2 * c.depth * uncached_attention_pairs(c) * c.width
    for length in lengths:
        seen += length
        total += c.depth * seen * block + length * c.width * c.codebook_size
        total += (seen - lengths[0]) * c.code_width * c.width
    adaln = ((1 if c.shared_adaln else c.depth) * 6 + 2) * c.width**2 if c.adaln else 0
    return 2 * (total + adaln)


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
