"""Multi-scale residual quantization: the paper's Algorithms 1 (encode) and 2 (decode).

A feature map f is told scale by scale. Scale k shrinks what is still untold to p_k x p_k, picks the
nearest code for every position, enlarges those codes to the full map, smooths them with a
convolution phi, adds the result to the running sum f_hat and takes it off the rest. Everything here
is float32 at full precision on every platform, because tokens are discrete: a token stored on one
machine must be the token that another would have found.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from var_jax.errors import InputError
from var_jax.models.precision import widened
from var_jax.pyramid import Pyramid, area_matrix, bicubic_matrix

_HIGHEST = jax.lax.Precision.HIGHEST
_CODES_PER_BLOCK = 1024  # distances are held for this many codes at a time
_SMALLEST_NORM = 1e-12  # below this a vector is divided by this instead of its norm


class Quantized(NamedTuple):
    """What the training forward returns.

    Attributes:
      decoder_input: [B, h, w, C] f_hat in value, with the gradient of f (straight-through).
      loss: scalar quantizer loss.
      tokens: [B, L] int32.
      f_hat: [B, h, w, C] the sum over all scales, with its own gradients.
      asked: [B, L, C] what was looked up; without gradient.
    """

    decoder_input: jax.Array
    loss: jax.Array
    tokens: jax.Array
    f_hat: jax.Array
    asked: jax.Array


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


class Quantizer(nn.Module):
    """The codebook, the phi convolutions and the two algorithms over a pyramid.

    Attributes:
      pyramid: sides of the token maps.
      codebook_size: V.
      code_width: C.
      num_phis: convolutions shared by the scales; None gives every scale its own.
      phi_ratio: r in phi(x) = (1 - r) x + r conv(x); 0 makes phi the identity.
      lookup: "l2" or "cosine"; either way the raw code is what is added.
      commitment_weight: weight of the loss's part that pulls f towards its codes.
      unit_codes: codes are brought to length 1 before they are looked up or added.
    """

    pyramid: Pyramid
    codebook_size: int
    code_width: int
    num_phis: int | None = 4
    phi_ratio: float = 0.5
    lookup: str = "l2"
    commitment_weight: float = 0.25
    unit_codes: bool = False

    def setup(self) -> None:
        width, phis = self.code_width, self.num_phis or len(self.pyramid)
        bound = 1.0 / self.codebook_size
        codebook = self.param("codebook", _uniform(bound), (self.codebook_size, width))
        self.codebook = unit_norm(codebook) if self.unit_codes else codebook
        if self.phi_ratio:
            fan_in = 9 * width
            self.phi_kernel = self.param("phi_kernel", _uniform(fan_in**-0.5), (phis, 3, 3, width, width))
            self.phi_bias = self.param("phi_bias", _uniform(fan_in**-0.5), (phis, width))

    def phi(self, x_BxHxWxC: jax.Array, k: int) -> jax.Array:
        """The smoothing convolution of scale k, mixed with its input."""
        if not self.phi_ratio:
            return x_BxHxWxC
        scales = len(self.pyramid)
        index = k if self.num_phis is None else phi_index(k, scales, self.num_phis)
        convolved = jax.lax.conv_general_dilated(
            x_BxHxWxC,
            self.phi_kernel[index],
            window_strides=(1, 1),
            padding=((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=_HIGHEST,
        )
        return (1.0 - self.phi_ratio) * x_BxHxWxC + self.phi_ratio * (convolved + self.phi_bias[index])

    def contribution(self, codes_BxlxC: jax.Array, k: int) -> jax.Array:
        """What the code vectors [B, l_k, C] of scale k add to f_hat: [B, h, w, C]."""
        side = self.pyramid.sides[k]
        codes = widened(codes_BxlxC).reshape(-1, side, side, self.code_width)
        return self.phi(bicubic_upsample(codes, self.pyramid.final_side), k)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Code vectors [..., C] of tokens [...]."""
        return jnp.take(self.codebook, tokens, axis=0)

    def _tell_scale(self, rest_BxhxwxC: jax.Array, k: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Tokens [B, l_k] that tell most of `rest` at scale k, what they add to f_hat, what was asked [B, l_k, C]."""
        asked_BxlxC = self.next_scale_input(rest_BxhxwxC, k)
        codebook = jax.lax.stop_gradient(self.codebook)
        tokens_N = nearest_codes(asked_BxlxC.reshape(-1, self.code_width), codebook, self.lookup)
        tokens_Bxl = tokens_N.reshape(asked_BxlxC.shape[:2])
        return tokens_Bxl, self.contribution(self.embed(tokens_Bxl), k), asked_BxlxC

    def encode(self, features_BxhxwxC: jax.Array) -> jax.Array:
        """Algorithm 1: features -> tokens [B, L] int32, scales coarse to fine."""
        rest = self._checked(features_BxhxwxC)
        tokens = []
        for k in range(len(self.pyramid)):
            tokens_Bxl, told, _ = self._tell_scale(rest, k)
            tokens.append(tokens_Bxl)
            rest = rest - told
        return jnp.concatenate(tokens, axis=1)

    def asked(self, features_BxhxwxC: jax.Array) -> jax.Array:
        """What is looked up on the way of `encode`: [B, L, C], scales coarse to fine."""
        rest = self._checked(features_BxhxwxC)
        asked = []
        for k in range(len(self.pyramid)):
            _, told, asked_BxlxC = self._tell_scale(rest, k)
            asked.append(asked_BxlxC)
            rest = rest - told
        return jnp.concatenate(asked, axis=1)

    def decode(self, tokens_BxL: jax.Array, scales: int | jax.Array | None = None) -> jax.Array:
        """Algorithm 2: tokens of all scales, or of the first `scales` (may be traced) -> f_hat [B, h, w, C]."""
        f_hat = 0.0
        for k in range(len(self.pyramid)):
            told = self.contribution(self.embed(tokens_BxL[:, self.pyramid.slice(k)]), k)
            f_hat = f_hat + (told if scales is None else jnp.where(k < scales, told, 0.0))
        return f_hat

    def next_scale_input(self, f_hat_BxhxwxC: jax.Array, k: int) -> jax.Array:
        """A full map at scale k, [B, l_k, C]; of the sum so far it is what the transformer predicts scale k from."""
        side = self.pyramid.sides[k]
        shape = (f_hat_BxhxwxC.shape[0], side * side, self.code_width)
        return area_downsample(f_hat_BxhxwxC, side).reshape(shape)

    def transformer_input(self, tokens_BxL: jax.Array) -> jax.Array:
        """Teacher-forced inputs [B, L - l_1, C] float32 of all scales but the first."""
        f_hat, parts = 0.0, []
        for k in range(len(self.pyramid) - 1):
            f_hat = f_hat + self.contribution(self.embed(tokens_BxL[:, self.pyramid.slice(k)]), k)
            parts.append(self.next_scale_input(f_hat, k + 1))
        if not parts:
            return jnp.zeros((tokens_BxL.shape[0], 0, self.code_width), jnp.float32)
        return jnp.concatenate(parts, axis=1)

    def __call__(self, features_BxhxwxC: jax.Array, kept_B: jax.Array | None = None) -> Quantized:
        """Training forward.

        The loss is the mean over scales of `commitment_weight` mse(sg(f_hat_k), f) + mse(f_hat_k, sg(f))
        with the running sum f_hat_k, so every code and phi collects from all later sums.

        With `kept_B` (quantizer dropout) f_hat of a picture ends after its first `kept_B` scales, and so do
        its terms of the loss; tokens are told of all scales whatever is kept.
        """
        features = self._checked(features_BxhxwxC)
        target = jax.lax.stop_gradient(features)
        rest, f_hat, loss, tokens, asked = target, jnp.zeros_like(features), 0.0, [], []
        for k in range(len(self.pyramid)):
            tokens_Bxl, told, asked_BxlxC = self._tell_scale(rest, k)
            tokens.append(tokens_Bxl)
            asked.append(asked_BxlxC)
            rest = rest - jax.lax.stop_gradient(told)
            kept = 1.0 if kept_B is None else (k < kept_B)[:, None, None, None]
            f_hat = f_hat + kept * told
            commitment = jnp.mean(kept * jnp.square(jax.lax.stop_gradient(f_hat) - features))
            loss = loss + self.commitment_weight * commitment + jnp.mean(kept * jnp.square(f_hat - target))
        decoder_input = features + jax.lax.stop_gradient(f_hat - features)
        tokens_BxL, asked_BxLxC = jnp.concatenate(tokens, axis=1), jnp.concatenate(asked, axis=1)
        return Quantized(decoder_input, loss / len(self.pyramid), tokens_BxL, f_hat, asked_BxLxC)

    def _checked(self, features_BxhxwxC: jax.Array) -> jax.Array:
        expected = (self.pyramid.final_side, self.pyramid.final_side, self.code_width)
        if features_BxhxwxC.shape[1:] != expected:
            raise InputError(f"features of shape {features_BxhxwxC.shape[1:]}: pyramid {self.pyramid} needs {expected}")
        return widened(features_BxhxwxC)


def _uniform(bound: float) -> nn.initializers.Initializer:
    def draw(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw
