"""The tokenizer: picture <-> multi-scale tokens, as one module over encoder, quantizer and decoder."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from var_jax.errors import InputError
from var_jax.models.autoencoder import Decoder, Encoder, Layers, conv
from var_jax.models.backend import XLA, Backend
from var_jax.models.config import check_fields, require_count, require_number
from var_jax.models.constraint import Constrain, identity
from var_jax.models.precision import Dtype, at_least_float32, widened
from var_jax.models.quantizer import Quantizer, QuantizerConfig
from var_jax.pyramid import Pyramid

_FIELD_ORDER = (  # of files and configs, which have the quantizer's fields beside the tokenizer's own
    "pyramid",
    "codebook_size",
    "code_width",
    "base_channels",
    "channel_multipliers",
    "encoder_blocks",
    "decoder_blocks",
    "norm_groups",
    "num_phis",
    "phi_ratio",
    "lookup",
    "commitment_weight",
    "dropout",
    "unit_codes",
)


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Sizes and choices of a tokenizer; the defaults are the published one's.

    Attributes:
      quantizer: how features become tokens.
      base_channels: width of the finest level of encoder and decoder.
      channel_multipliers: width of each level over `base_channels`, finest first; every level but
        the last halves the picture.
      encoder_blocks: residual blocks per level in the encoder.
      decoder_blocks: residual blocks per level in the decoder.
      norm_groups: groups of every group norm; must divide every width.
      dropout: in residual blocks, training only.

    Raises:
      InputError: naming the field that cannot be.
    """

    quantizer: QuantizerConfig = QuantizerConfig()
    base_channels: int = 160
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    norm_groups: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel_multipliers", tuple(self.channel_multipliers))
        for name in ("base_channels", "encoder_blocks", "decoder_blocks", "norm_groups"):
            require_count("tokenizer", name, getattr(self, name))
        for name in ("encoder_blocks", "decoder_blocks"):
            require_count("tokenizer", name, getattr(self, name), 100)
        require_number("tokenizer", "dropout", self.dropout, 0, 1)
        require_count("tokenizer", "levels of channel_multipliers", len(self.channel_multipliers), 12)
        for multiplier in self.channel_multipliers:
            require_count("tokenizer", "channel_multipliers", multiplier, 1024)
            if self.base_channels * multiplier % self.norm_groups:
                raise InputError(
                    f"tokenizer width {self.base_channels * multiplier} does not divide into norm_groups "
                    f"{self.norm_groups}: change base_channels or norm_groups"
                )

    @property
    def pyramid(self) -> Pyramid:
        """Sides of the token maps, coarse to fine."""
        return self.quantizer.pyramid

    @property
    def codebook_size(self) -> int:
        """Number of codes, V."""
        return self.quantizer.codebook_size

    @property
    def code_width(self) -> int:
        """Numbers in a code, C."""
        return self.quantizer.code_width

    @property
    def downsampling(self) -> int:
        """Picture pixels along one side of a feature."""
        return 2 ** (len(self.channel_multipliers) - 1)

    @property
    def image_size(self) -> int:
        """Side in pixels of the pictures that this pyramid describes."""
        return self.downsampling * self.pyramid.final_side

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON; without `unit_codes` where it is off, as models written before it."""
        values = dataclasses.asdict(self)
        values |= values.pop("quantizer")
        values |= {"pyramid": list(self.pyramid.sides), "channel_multipliers": list(self.channel_multipliers)}
        if not self.quantizer.unit_codes:
            del values["unit_codes"]
        return {name: values[name] for name in sorted(values, key=_FIELD_ORDER.index)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TokenizerConfig:
        """Inverse of `to_dict`; an unknown or missing field is an error that names it."""
        values = {"unit_codes": False, **values}
        check_fields(values, set(_FIELD_ORDER), "tokenizer")
        return cls.from_fields(**values)

    @classmethod
    def from_fields(cls, **fields: Any) -> TokenizerConfig:
        """From fields of the tokenizer and of its quantizer, side by side; an unknown one is an error that names it."""
        check_fields(fields, set(_FIELD_ORDER), "tokenizer", complete=False)
        names = {field.name for field in dataclasses.fields(QuantizerConfig)}
        quantizer = QuantizerConfig(**{name: value for name, value in fields.items() if name in names})
        return cls(quantizer, **{name: value for name, value in fields.items() if name not in names})


class TokenizerOutput(NamedTuple):
    """Training forward: the reconstruction (not clipped), the quantizer loss, and see `Quantized`."""

    reconstruction_BxHxWx3: jax.Array
    quantizer_loss: jax.Array
    tokens_BxL: jax.Array
    queries_BxLxC: jax.Array


class Tokenizer(nn.Module):
    """Encoder, quantizer and decoder. Pictures are NHWC in [-1, 1].

    Encoder and quantizer compute in float32 whatever `dtype` is, because their result is discrete and
    must be the same everywhere; the encoder of a tokenizer that is still learning may do with less.

    Attributes:
      config: sizes and choices of the architecture.
      dtype: compute type of the decoder.
      encoder_dtype: of the encoder; None: float32, or `dtype` where that is wider.
      constrain: see `models.autoencoder`.
      remat: see `models.autoencoder`.
      backend: how convolutions and batches of pictures are computed, see `models.backend`. Learning takes the plain
        one: the backward pass of the CPU's convolutions would be slower.
    """

    config: TokenizerConfig
    dtype: Dtype = jnp.float32
    encoder_dtype: Dtype | None = None
    constrain: Constrain = identity
    remat: str | None = None
    backend: Backend = XLA

    def setup(self) -> None:
        c = self.config
        encoder_dtype = self.encoder_dtype or at_least_float32(self.dtype)
        options = (self.constrain, self.remat, self.backend.convolution)
        layers = lambda dtype: Layers(c.norm_groups, c.dropout, dtype, *options)
        widths = (c.base_channels, c.channel_multipliers)
        self.encoder = Encoder(*widths, c.encoder_blocks, c.code_width, layers(encoder_dtype))
        self.decoder = Decoder(*widths, c.decoder_blocks, layers(self.dtype))
        self.quantizer = Quantizer(c.quantizer)
        self.pre_quantizer = conv(c.code_width, encoder_dtype, "pre_quantizer")
        self.post_quantizer = conv(c.code_width, self.dtype, "post_quantizer")

    def features(self, image_BxHxWx3: jax.Array, deterministic: bool = True) -> jax.Array:
        """Features [B, h, w, C] float32, which the quantizer encodes."""
        return widened(self.pre_quantizer(self._by_backend(self.encoder, image_BxHxWx3, deterministic)))

    def _by_backend(self, network: nn.Module, x_BxHxWxC: jax.Array, deterministic: bool) -> jax.Array:
        feature_bytes = 4 * self.config.image_size**2 * self.config.base_channels
        return self.backend.pictures(network, x_BxHxWxC, deterministic, feature_bytes)

    def encode(self, image_BxHxWx3: jax.Array) -> jax.Array:
        """Picture in [-1, 1] -> tokens [B, L] int32."""
        return self.quantizer.encode(self.features(image_BxHxWx3))

    def decode_features(self, f_hat_BxhxwxC: jax.Array, deterministic: bool = True) -> jax.Array:
        """f_hat -> picture, float32, not clipped."""
        features = self.post_quantizer(f_hat_BxhxwxC.astype(self.dtype))
        return widened(self._by_backend(self.decoder, features, deterministic))

    def decode(self, tokens_BxL: jax.Array, scales: int | jax.Array | None = None) -> jax.Array:
        """Tokens of all scales, or the first `scales` -> picture float32 in [-1, 1]."""
        return jnp.clip(self.decode_features(self.quantizer.decode(tokens_BxL, scales)), -1.0, 1.0)

    def transformer_input(self, tokens_BxL: jax.Array) -> jax.Array:
        """Teacher-forced inputs [B, L - l_1, C] of VAR's transformer, see `Quantizer.transformer_input`."""
        return self.quantizer.transformer_input(tokens_BxL)

    def queries(self, image_BxHxWx3: jax.Array) -> jax.Array:
        """Picture in [-1, 1] -> the vectors [B, L, C] that are looked up in the codebook to encode it."""
        return self.quantizer.teach(self.features(image_BxHxWx3)).queries

    def __call__(
        self, image_BxHxWx3: jax.Array, deterministic: bool = True, scales_B: jax.Array | None = None
    ) -> TokenizerOutput:
        """Training forward; needs a `dropout` key where the config has dropout and not deterministic.

        `scales_B`: how many scales reach the decoder, per picture, see `Quantizer`; None: all.
        """
        quantized = self.quantizer(self.features(image_BxHxWx3, deterministic), scales_B)
        reconstruction = self.decode_features(quantized.decoder_input, deterministic)
        return TokenizerOutput(reconstruction, quantized.loss, quantized.tokens, quantized.queries)
