"""Keeping a codebook in use: pure functions of the codes, how often they are used, and the queries they answer.

Queries are the vectors [N, C] that the quantizer looks up (`Tokenizer.queries`), of all scales; most positions
belong to the finest scale, so draws are weighted (`fair_weights`) to give every scale the same chance.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.models.parameters import Params
from var_jax.models.quantizer import nearest_codes
from var_jax.pyramid import Pyramid

_FEWEST_USES = 1e-3  # per step, on average


@dataclasses.dataclass(frozen=True)
class CodebookOptions:
    """How a stage-1 run keeps its codebook in use; the fields are those of the config's section `codebook`.

    Attributes:
      dropout: share of pictures whose f_hat is made of fewer scales in training ...
      fewest_scales: ... of this many at least.
      means: codes are moving means of the queries that they answer, instead of learned by gradients.
      reset_every: steps after which dead codes move to queries; 0 is never.
      reset_share: a code is dead that is used less than this times as often as if all were used alike.
      warm_start: batches whose features the first codebook is made of; 0: it is drawn.
    """

    dropout: float = 0.0
    fewest_scales: int = 3
    means: bool = False
    reset_every: int = 0
    reset_share: float = 0.01
    warm_start: int = 0


def codebook_of(params: Params) -> jax.Array:
    """[V, C] of a tokenizer's parameters."""
    return params["quantizer"]["codebook"]


def with_codebook(params: Params, codebook_VxC: jax.Array) -> Params:
    """The parameters with another codebook."""
    return params | {"quantizer": params["quantizer"] | {"codebook": codebook_VxC}}


def fair_weights(pyramid: Pyramid, batch: int) -> np.ndarray:
    """[batch * L] probabilities of the positions of a batch, each scale as likely as any other."""
    lengths = np.asarray(pyramid.lengths)
    share_L = (1.0 / (len(pyramid) * lengths * batch))[pyramid.level_ids]
    return np.tile(share_L, batch).astype(np.float32)


def kept_scales(key: jax.Array, batch: int, pyramid: Pyramid, probability: float, fewest: int) -> jax.Array:
    """[batch] int32: how many of the coarsest scales make a picture's f_hat in training (quantizer dropout).

    All of them, or with `probability` any number from `fewest` to one less than all. Coarse scales then have
    to show the picture by themselves, as in ImageFolder's trainer (a tenth of the pictures, 3 at least).

    Raises:
      InputError: if that cannot be.
    """
    scales = len(pyramid)
    if not 0.0 <= probability <= 1.0 or not 1 <= fewest < scales:
        raise InputError(
            f"quantizer dropout of {probability} down to {fewest} scales: expected a share, and 1 to {scales - 1}"
        )
    coin, number = jax.random.split(key)
    fewer_B = jax.random.randint(number, (batch,), fewest, scales, jnp.int32)
    return jnp.where(jax.random.uniform(coin, (batch,), jnp.float32) < probability, fewer_B, scales)


def revived(
    codebook_VxC: jax.Array,
    uses_V: jax.Array,
    queries_NxC: jax.Array,
    weights_N: jax.Array,
    key: jax.Array,
    share: float = 0.01,
) -> tuple[jax.Array, jax.Array]:
    """The codebook with its dead codes moved to queries, and which those were.

    Args:
      codebook_VxC: codes.
      uses_V: how often each was used, over all scales; moving averages will do.
      queries_NxC: of late.
      weights_N: how likely each of them is drawn, with sum 1.
      key: of the draws.
      share: a code is dead that is used less than this times as often as if all were used alike.

    Returns:
      Codebook [V, C] and [V] bool. Codes in use stay bit for bit as they are.
    """
    dead_V = uses_V < share * jnp.mean(uses_V)
    drawn_V = jax.random.choice(key, queries_NxC.shape[0], codebook_VxC.shape[:1], p=weights_N)
    return jnp.where(dead_V[:, None], queries_NxC[drawn_V], codebook_VxC), dead_V


def code_sums(tokens_N: jax.Array, queries_NxC: jax.Array, size: int) -> jax.Array:
    """[V, C] for each code the sum of the queries it answered; a token that is V or more is left out."""
    return jnp.zeros((size, queries_NxC.shape[-1]), queries_NxC.dtype).at[tokens_N].add(queries_NxC, mode="drop")


def mean_codes(codebook_VxC: jax.Array, uses_V: jax.Array, sums_VxC: jax.Array) -> jax.Array:
    """Codes as means of the queries they answered (VQ-VAE, arXiv 1711.00937, appendix A.1), by moving averages of both.

    A code that is hardly used any more stays as it is, so that no sum is divided by zero.
    """
    means_VxC = sums_VxC / jnp.maximum(uses_V, _FEWEST_USES)[:, None]
    return jnp.where((uses_V > _FEWEST_USES)[:, None], means_VxC, codebook_VxC)


def warm_start(queries_NxC: jax.Array, weights_N: jax.Array, size: int, key: jax.Array, rounds: int = 10) -> jax.Array:
    """A codebook [size, C] made of queries: rows drawn by weight, then `rounds` of weighted k-means.

    A row that is drawn twice gives two codes; in k-means the second stays where it is, being no query's
    nearest. Give several times more queries than codes.
    """
    drawn = jax.random.choice(key, queries_NxC.shape[0], (size,), p=weights_N, replace=queries_NxC.shape[0] < size)

    def round_(_: int, codebook_VxC: jax.Array) -> jax.Array:
        nearest_N = nearest_codes(queries_NxC, codebook_VxC)
        mass_V = jnp.zeros(size, queries_NxC.dtype).at[nearest_N].add(weights_N)
        sums_VxC = jnp.zeros_like(codebook_VxC).at[nearest_N].add(weights_N[:, None] * queries_NxC)
        means_VxC = sums_VxC / jnp.where(mass_V > 0, mass_V, 1.0)[:, None]
        return jnp.where(mass_V[:, None] > 0, means_VxC, codebook_VxC)

    return jax.lax.fori_loop(0, rounds, round_, queries_NxC[drawn])
