"""What keeps a codebook alive: pure functions of codes, how often they are used, and what is asked of them.

"Asked" are the vectors [N, C] that the quantizer looks up (`Quantizer.asked`), of all scales; most positions
belong to the finest scale, so draws are weighted (`fair_weights`) to give every scale the same chance.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.errors import InputError
from var_jax.models.quantizer import nearest_codes
from var_jax.pyramid import Pyramid


def fair_weights(pyramid: Pyramid, batch: int) -> np.ndarray:
    """[batch * L] probabilities of the positions of a batch, each scale as likely as any other."""
    lengths = np.asarray(pyramid.lengths)
    share_L = (1.0 / (len(pyramid) * lengths * batch))[pyramid.level_ids]
    return np.tile(share_L, batch).astype(np.float32)


def kept_scales(key: jax.Array, batch: int, pyramid: Pyramid, probability: float, fewest: int) -> jax.Array:
    """[batch] int32: how many of the coarsest scales a picture is told with in training (quantizer dropout).

    All of them, or with `probability` any number from `fewest` to one less than all. Coarse scales then have
    to tell by themselves what a picture is, as in ImageFolder's trainer (a tenth of the pictures, 3 at least).

    Raises:
      InputError: if that cannot be.
    """
    scales = len(pyramid)
    if not 0.0 <= probability <= 1.0 or not 1 <= fewest < scales:
        raise InputError(
            f"quantizer dropout of {probability} down to {fewest} scales: expected a share, and 1 to {scales - 1}"
        )
    coin, number = jax.random.split(key)
    fewer_B = jax.random.randint(number, (batch,), fewest, scales)
    return jnp.where(jax.random.uniform(coin, (batch,)) < probability, fewer_B, scales)


def revived(
    codebook_VxC: jax.Array,
    uses_V: jax.Array,
    asked_NxC: jax.Array,
    weights_N: jax.Array,
    key: jax.Array,
    share: float = 0.01,
) -> tuple[jax.Array, jax.Array]:
    """The codebook with its dead codes moved to where something is asked, and which those were.

    Args:
      codebook_VxC: codes.
      uses_V: how often each was used, over all scales; moving averages will do.
      asked_NxC: what was asked of late.
      weights_N: how likely each of them is drawn, with sum 1.
      key: of the draws.
      share: a code is dead that is used less than this times as often as if all were used alike.

    Returns:
      Codebook [V, C] and [V] bool. Codes in use stay bit for bit as they are.
    """
    dead_V = uses_V < share * jnp.mean(uses_V)
    drawn_V = jax.random.choice(key, asked_NxC.shape[0], codebook_VxC.shape[:1], p=weights_N)
    return jnp.where(dead_V[:, None], asked_NxC[drawn_V], codebook_VxC), dead_V


class MovingCodes(NamedTuple):
    """Moving averages behind codes that are means and not learned by gradients.

    Attributes:
      uses_V: times a code was used in a batch.
      sums_VxC: sum of what it was used for.
    """

    uses_V: jax.Array
    sums_VxC: jax.Array


def new_moving_codes(codebook_VxC: jax.Array) -> MovingCodes:
    """As if each code had been used once, for exactly itself."""
    return MovingCodes(jnp.ones(codebook_VxC.shape[0], codebook_VxC.dtype), codebook_VxC)


def moved_codes(
    moving: MovingCodes, tokens_N: jax.Array, asked_NxC: jax.Array, decay: float = 0.99, smoothing: float = 1e-5
) -> tuple[jax.Array, MovingCodes]:
    """Codes as moving means of what they are used for (VQ-VAE, arXiv 1711.00937, appendix A.1).

    Args:
      moving: averages before this batch.
      tokens_N: what each question was answered with; one that is V or more is left out.
      asked_NxC: the questions.
      decay: of the averages.
      smoothing: uses that every code gets beside its own, taken off all alike, so that a code that is no
        longer used is not divided by nothing.

    Returns:
      Codebook [V, C] and the averages after this batch.
    """
    size = moving.uses_V.shape[0]
    uses_V = jnp.zeros_like(moving.uses_V).at[tokens_N].add(1.0, mode="drop")
    sums_VxC = jnp.zeros_like(moving.sums_VxC).at[tokens_N].add(asked_NxC, mode="drop")
    new = MovingCodes(uses_V, sums_VxC)
    moving = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, moving, new)
    total = jnp.sum(moving.uses_V)
    smooth_V = (moving.uses_V + smoothing) / (total + size * smoothing) * total
    return moving.sums_VxC / smooth_V[:, None], moving


def warm_start(asked_NxC: jax.Array, weights_N: jax.Array, size: int, key: jax.Array, rounds: int = 10) -> jax.Array:
    """A codebook [size, C] made of data: rows drawn by weight, then `rounds` of weighted k-means.

    A row that is drawn twice gives two codes; in k-means the second stays where it is, being nobody's
    nearest. Give several times more rows than codes.
    """
    drawn = jax.random.choice(key, asked_NxC.shape[0], (size,), p=weights_N, replace=asked_NxC.shape[0] < size)

    def round_(_: int, codebook_VxC: jax.Array) -> jax.Array:
        nearest_N = nearest_codes(asked_NxC, codebook_VxC)
        mass_V = jnp.zeros(size, asked_NxC.dtype).at[nearest_N].add(weights_N)
        sums_VxC = jnp.zeros_like(codebook_VxC).at[nearest_N].add(weights_N[:, None] * asked_NxC)
        means_VxC = sums_VxC / jnp.where(mass_V > 0, mass_V, 1.0)[:, None]
        return jnp.where(mass_V[:, None] > 0, means_VxC, codebook_VxC)

    return jax.lax.fori_loop(0, rounds, round_, asked_NxC[drawn])
