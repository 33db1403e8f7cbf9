"""Multi-scale residual quantization: the paper's Algorithms 1 (encode) and 2 (decode).

The feature map f is encoded scale by scale: scale k downsamples the residual, takes the nearest code at every
position, upsamples, smooths with a convolution phi, adds the result (the scale's contribution) to f_hat and subtracts
it from the residual. Everything here is float32 at full precision on every platform, because tokens are discrete: a
token stored on one machine must be the token that another would have found.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from var_jax.errors import InputError
from var_jax.models.config import require_count, require_number, require_switch
from var_jax.models.precision import Dtype, widened
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid, area_matrix, bicubic_matrix

_HIGHEST = jax.lax.Precision.HIGHEST
_CODES_PER_BLOCK = 1024  # distances are held for this many codes at a time
_SMALLEST_NORM = 1e-12  # below this a vector is divided by this instead of its norm

Corrupt = Callable[[int, jax.Array], jax.Array]  # (scale, its tokens [B, l_k]) -> the tokens that encoding goes on with


@dataclasses.dataclass(frozen=True)
class QuantizerConfig:
    """How features become tokens; the defaults are the published tokenizer's.

    Attributes:
      pyramid: sides of the token maps, coarse to fine.
      codebook_size: number of codes, V.
      code_width: numbers in a code, C.
      num_phis: smoothing convolutions shared by the scales (1: one for all); None: one per scale.
      phi_ratio: r in phi(x) = (1 - r) x + r conv(x), 0 to 1; 0 makes phi the identity.
      lookup: "l2" or "cosine" nearest-code search; either way the code is added as it is stored.
      commitment_weight: weight of the loss's part that pulls f towards its codes.
      unit_codes: codes are brought to length 1 before they are looked up or added.

    Raises:
      InputError: naming the field that cannot be.
    """

    pyramid: Pyramid = Pyramid(PUBLISHED_SIDES[256])
    codebook_size: int = 4096
    code_width: int = 32
    num_phis: int | None = 4
    phi_ratio: float = 0.5
    lookup: str = "l2"
    commitment_weight: float = 0.25
    unit_codes: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "pyramid", Pyramid.parse(self.pyramid))
        for name in ("codebook_size", "code_width"):
            require_count("tokenizer", name, getattr(self, name))
        if self.num_phis is not None:
            require_count("tokenizer", "num_phis", self.num_phis, 1000)
        require_switch("tokenizer", "unit_codes", self.unit_codes)
        require_number("tokenizer", "commitment_weight", self.commitment_weight, 0)
        require_number("tokenizer", "phi_ratio", self.phi_ratio, 0, 1)
        if self.lookup not in ("l2", "cosine"):
            raise InputError(f"tokenizer lookup '{self.lookup}': expected l2 or cosine")


class Teaching(NamedTuple):
    """A feature map encoded, with everything that a training needs of it.

    Attributes:
      tokens: [B, L] int32, scales coarse to fine.
      queries: [B, L, C] the vectors whose nearest codes the tokens are; without gradient.
      inputs: [B, L - l_1, C] a transformer's teacher-forced inputs of all scales but the first.
      contributions: a map [B, h, w, C] per scale, with the gradients of codes and phi.
      f_hat: [B, h, w, C] their sum.
    """

    tokens: jax.Array
    queries: jax.Array
    inputs: jax.Array
    contributions: list[jax.Array]
    f_hat: jax.Array


class Quantized(NamedTuple):
    """The result of the training forward.

    Attributes:
      decoder_input: [B, h, w, C] f_hat in value, with the gradient of f (straight-through).
      loss: scalar quantizer loss.
      tokens: [B, L] int32.
      f_hat: [B, h, w, C] the sum over all scales, with its own gradients.
      queries: [B, L, C] see `Teaching`.
    """

    decoder_input: jax.Array
    loss: jax.Array
    tokens: jax.Array
    f_hat: jax.Array
    queries: jax.Array


def phi_index(k: int, num_scales: int, num_phis: int) -> int:
    """Which of the shared convolutions scale k uses.

    The nearest tick to k/(S-1), the first on a tie. Decided in float64 on the host: k = 2 and 7 of
    ten scales lie exactly between two of four ticks, and rounding chooses.
    """
    margin = 1 / 3 / num_phis if num_phis == 4 else 1 / 2 / num_phis
    ticks = np.linspace(margin, 1 - margin, num_phis)
    ratio = k / (num_scales - 1) if num_scales > 1 else 1.0
    return int(np.argmin(np.abs(ticks - ratio)))


def area_downsample(x_BxHxWxC: jax.Array, side: int) -> jax.Array:
    """Adaptive average pooling of a square map to side x side, float32."""
    return _resize(x_BxHxWxC, area_matrix(x_BxHxWxC.shape[1], side))


def bicubic_upsample(x_BxHxWxC: jax.Array, side: int) -> jax.Array:
    """Cubic interpolation (a = -0.75, border clamped) of a square map to side x side, float32."""
    return _resize(x_BxHxWxC, bicubic_matrix(x_BxHxWxC.shape[1], side))


def _resize(x_BxHxWxC: jax.Array, matrix: np.ndarray) -> jax.Array:
    if matrix.shape[0] == matrix.shape[1]:  # both operators are the identity at equal sides
        return x_BxHxWxC
    rows = jnp.einsum("ih,bhwc->biwc", matrix, x_BxHxWxC, precision=_HIGHEST)
    return jnp.einsum("jw,biwc->bijc", matrix, rows, precision=_HIGHEST)


def nearest_codes(z_NxC: jax.Array, codebook_VxC: jax.Array, lookup: str = "l2") -> jax.Array:
    """Index [N] int32 of the nearest code to each row, the lowest index on a tie.

    `lookup` "l2" minimises |z|^2 + |e|^2 - 2 z.e; "cosine" maximises the product of l2-normalised
    vectors. Codes are visited in blocks, so that the [N, V] table of distances is never whole and
    rows stay free to be sharded.
    """
    if lookup == "cosine":
        z_NxC, codebook_VxC = unit_norm(z_NxC), unit_norm(codebook_VxC)
    z_square_Nx1 = jnp.sum(jnp.square(z_NxC), axis=-1, keepdims=True)
    num_codes = codebook_VxC.shape[0]
    best_N = jnp.full(z_NxC.shape[0], jnp.inf, jnp.float32)
    index_N = jnp.zeros(z_NxC.shape[0], jnp.int32)
    for start in range(0, num_codes, _CODES_PER_BLOCK):
        codes = codebook_VxC[start : start + _CODES_PER_BLOCK]
        products = jnp.einsum("nc,vc->nv", z_NxC, codes, precision=_HIGHEST)
        if lookup == "cosine":
            distance_NxV = -products
        else:
            distance_NxV = z_square_Nx1 + jnp.sum(jnp.square(codes), axis=-1)[None, :] - 2.0 * products
        block_best_N = jnp.min(distance_NxV, axis=-1)
        block_index_N = start + jnp.argmin(distance_NxV, axis=-1).astype(jnp.int32)
        index_N = jnp.where(block_best_N < best_N, block_index_N, index_N)
        best_N = jnp.minimum(block_best_N, best_N)
    return index_N


def unit_norm(x: jax.Array) -> jax.Array:
    """x / max(|x|, 1e-12) along the last axis."""
    norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True))
    return x / jnp.maximum(norm, _SMALLEST_NORM)


def code_counts(tokens_BxL: jax.Array, pyramid: Pyramid, codebook_size: int) -> jax.Array:
    """[S, V] float32: how often each code was used at each scale of a batch of tokens."""
    counts = [
        jnp.zeros(codebook_size, jnp.float32).at[tokens_BxL[:, pyramid.slice(k)].ravel()].add(1.0)
        for k in range(len(pyramid))
    ]
    return jnp.stack(counts)


def codebook_usage(counts_SxV: jax.Array, threshold_share: float = 0.08) -> jax.Array:
    """[S] share of codes used at least `threshold_share` times as often as if all were used alike.

    Each scale is held against its own uniform rate. (The reference holds every scale against the
    finest one's, which no coarse scale can reach on a small batch.)
    """
    uniform_Sx1 = jnp.mean(counts_SxV, axis=-1, keepdims=True)
    return jnp.mean((counts_SxV >= threshold_share * uniform_Sx1) & (counts_SxV > 0), axis=-1)


def codebook_perplexity(counts_SxV: jax.Array) -> jax.Array:
    """[S] exp of the entropy of the codes used at each scale: between 1 and V."""
    share = counts_SxV / jnp.maximum(jnp.sum(counts_SxV, axis=-1, keepdims=True), 1.0)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0)), 0.0), axis=-1)
    return jnp.exp(entropy)


def running_sums(contributions: Iterable[jax.Array], scales: int | jax.Array | None = None) -> Iterator[jax.Array]:
    """f_hat after each scale, [B, h, w, C] each; with `scales` (a number, or [B, 1, 1, 1]) only so many are added."""
    if scales is not None:
        contributions = ((k < scales) * each for k, each in enumerate(contributions))
    return itertools.accumulate(contributions)


class Quantizer(nn.Module):
    """The codebook, the phi convolutions and the two algorithms over a pyramid."""

    config: QuantizerConfig

    def setup(self) -> None:
        c = self.config
        width, phis = c.code_width, c.num_phis or len(c.pyramid)
        codebook = self.param("codebook", _uniform(1.0 / c.codebook_size), (c.codebook_size, width))
        self.codebook = unit_norm(codebook) if c.unit_codes else codebook
        if c.phi_ratio:
            fan_in = 9 * width
            self.phi_kernel = self.param("phi_kernel", _uniform(fan_in**-0.5), (phis, 3, 3, width, width))
            self.phi_bias = self.param("phi_bias", _uniform(fan_in**-0.5), (phis, width))

    @property
    def pyramid(self) -> Pyramid:
        """Sides of the token maps."""
        return self.config.pyramid

    def phi(self, x_BxHxWxC: jax.Array, k: int) -> jax.Array:
        """The smoothing convolution of scale k, mixed with its input."""
        ratio, num_phis = self.config.phi_ratio, self.config.num_phis
        if not ratio:
            return x_BxHxWxC
        index = k if num_phis is None else phi_index(k, len(self.pyramid), num_phis)
        convolved = jax.lax.conv_general_dilated(
            x_BxHxWxC,
            self.phi_kernel[index],
            window_strides=(1, 1),
            padding=((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=_HIGHEST,
        )
        return (1.0 - ratio) * x_BxHxWxC + ratio * (convolved + self.phi_bias[index])

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Code vectors [..., C] of tokens [...]."""
        return jnp.take(self.codebook, tokens, axis=0)

    def nearest(self, queries_BxlxC: jax.Array) -> jax.Array:
        """Tokens [B, l] int32 of the codes nearest to the queries."""
        codebook = jax.lax.stop_gradient(self.codebook)
        tokens_N = nearest_codes(queries_BxlxC.reshape(-1, self.config.code_width), codebook, self.config.lookup)
        return tokens_N.reshape(queries_BxlxC.shape[:-1])

    def contribution(self, codes_BxlxC: jax.Array, k: int) -> jax.Array:
        """The part [B, h, w, C] of f_hat that the code vectors [B, l_k, C] of scale k make."""
        side = self.pyramid.sides[k]
        codes = widened(codes_BxlxC).reshape(-1, side, side, self.config.code_width)
        return self.phi(bicubic_upsample(codes, self.pyramid.final_side), k)

    def next_scale_input(self, map_BxhxwxC: jax.Array, k: int) -> jax.Array:
        """A full map averaged down to scale k, [B, l_k, C].

        Of f_hat after the coarser scales it is the transformer's input at scale k; of the residual, the queries.
        """
        side = self.pyramid.sides[k]
        return area_downsample(map_BxhxwxC, side).reshape(map_BxhxwxC.shape[0], side * side, self.config.code_width)

    def teach(self, features_BxhxwxC: jax.Array, corrupt: Corrupt = lambda k, tokens: tokens) -> Teaching:
        """Algorithm 1: features [B, h, w, C] -> tokens, and all that training needs beside them.

        `corrupt` changes the tokens that are added up, not those that are returned: a model that is trained on inputs
        with mistakes in them learns to correct these at later scales.
        """
        residual = jax.lax.stop_gradient(self._checked(features_BxhxwxC))
        tokens, queries, contributions = [], [], []
        for k in range(len(self.pyramid)):
            queries.append(self.next_scale_input(residual, k))
            tokens.append(self.nearest(queries[k]))
            contributions.append(self.contribution(self.embed(corrupt(k, tokens[k])), k))
            residual = residual - jax.lax.stop_gradient(contributions[k])
        sums = list(running_sums(contributions))
        tokens_BxL, queries_BxLxC = (jnp.concatenate(parts, axis=1) for parts in (tokens, queries))
        return Teaching(tokens_BxL, queries_BxLxC, self._inputs(sums, len(residual)), contributions, sums[-1])

    def encode(self, features_BxhxwxC: jax.Array) -> jax.Array:
        """Algorithm 1: features [B, h, w, C] -> tokens [B, L] int32, scales coarse to fine."""
        return self.teach(features_BxhxwxC).tokens

    def decode(self, tokens_BxL: jax.Array, scales: int | jax.Array | None = None) -> jax.Array:
        """Algorithm 2: tokens of all scales, or of the first `scales` (may be traced) -> f_hat [B, h, w, C]."""
        *_, f_hat = running_sums(self._contributions(tokens_BxL), scales)
        return f_hat

    def transformer_input(self, tokens_BxL: jax.Array) -> jax.Array:
        """Teacher-forced inputs [B, L - l_1, C] float32 of all scales but the first: f_hat of all coarser scales."""
        return self._inputs(running_sums(self._contributions(tokens_BxL)), len(tokens_BxL))

    def __call__(self, features_BxhxwxC: jax.Array, scales_B: jax.Array | None = None) -> Quantized:
        """Training forward.

        The loss is the mean over scales of `commitment_weight` mse(sg(f_hat_k), f) + mse(f_hat_k, sg(f))
        with the running sum f_hat_k, so every code and phi collects from all later sums.

        With `scales_B` (quantizer dropout) f_hat of a picture ends after so many scales, and so do its terms of the
        loss; tokens are those of all scales even so.
        """
        features = self._checked(features_BxhxwxC)
        target, taught = jax.lax.stop_gradient(features), self.teach(features)
        loss = jnp.zeros((), features.dtype)
        scales = None if scales_B is None else scales_B[:, None, None, None]
        for k, f_hat in enumerate(running_sums(taught.contributions, scales)):
            kept = 1.0 if scales is None else k < scales
            commitment = jnp.mean(kept * jnp.square(jax.lax.stop_gradient(f_hat) - features))
            loss = loss + self.config.commitment_weight * commitment + jnp.mean(kept * jnp.square(f_hat - target))
        decoder_input = features + jax.lax.stop_gradient(f_hat - features)
        return Quantized(decoder_input, loss / len(self.pyramid), taught.tokens, f_hat, taught.queries)

    def _contributions(self, tokens_BxL: jax.Array) -> Iterator[jax.Array]:
        """The contribution of each scale, computed when it is taken."""
        codes = (self.embed(tokens_BxL[:, self.pyramid.slice(k)]) for k in range(len(self.pyramid)))
        return (self.contribution(each, k) for k, each in enumerate(codes))

    def _inputs(self, sums: Iterable[jax.Array], batch: int) -> jax.Array:
        """[B, L - l_1, C]: f_hat after each scale but the last, at the size of the scale that follows."""
        parts = [self.next_scale_input(f_hat, k) for k, f_hat in zip(range(1, len(self.pyramid)), sums, strict=False)]
        none = jnp.zeros((batch, 0, self.config.code_width), jnp.float32)  # all there is of a single scale
        return jnp.concatenate([none, *parts], axis=1)

    def _checked(self, features_BxhxwxC: jax.Array) -> jax.Array:
        expected = (self.pyramid.final_side, self.pyramid.final_side, self.config.code_width)
        if features_BxhxwxC.shape[1:] != expected:
            raise InputError(f"features of shape {features_BxhxwxC.shape[1:]}: pyramid {self.pyramid} needs {expected}")
        return widened(features_BxhxwxC)


def _uniform(bound: float) -> nn.initializers.Initializer:
    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw
