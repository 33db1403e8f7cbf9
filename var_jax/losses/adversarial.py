"""Adversarial losses of generator and discriminator, and the means that keep the two in balance.

Logits may have any shape with the batch first; every loss is a scalar, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from var_jax.errors import InputError

LOSSES = ("hinge", "non_saturating")
_SMALLEST = 1e-6  # added to the norm in the denominator


def discriminator_loss(kind: str, real: jax.Array, fake: jax.Array) -> jax.Array:
    """The discriminator's loss.

    Args:
      kind: "hinge": half of mean relu(1 - real) + mean relu(1 + fake); "non_saturating": mean
        softplus(-real) + mean softplus(fake).
      real: logits of pictures.
      fake: logits of reconstructions.

    Raises:
      InputError: for another kind.
    """
    if kind == "hinge":
        return 0.5 * (jnp.mean(jax.nn.relu(1.0 - real)) + jnp.mean(jax.nn.relu(1.0 + fake)))
    if kind == "non_saturating":
        return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake))
    raise _unknown(kind)


def generator_loss(kind: str, fake: jax.Array) -> jax.Array:
    """The generator's loss: -mean(fake) under "hinge", mean softplus(-fake) under "non_saturating".

    Raises:
      InputError: for another kind.
    """
    if kind == "hinge":
        return -jnp.mean(fake)
    if kind == "non_saturating":
        return jnp.mean(jax.nn.softplus(-fake))
    raise _unknown(kind)


def _unknown(kind: str) -> InputError:
    return InputError(f"adversarial loss '{kind}': expected one of {', '.join(LOSSES)}")


def adaptive_weight(
    reconstruction_grad: jax.Array, adversarial_grad: jax.Array, low: float = 0.0, high: float = 1e4
) -> jax.Array:
    """Weight that makes the adversarial gradient as large as the others' (VQGAN, arXiv 2012.09841, equation 7).

    Args:
      reconstruction_grad: gradient of all other losses at the decoder's last kernel.
      adversarial_grad: gradient of the generator's loss at the same kernel.
      low, high: bounds of the ratio of their norms.

    Returns:
      A constant as far as gradients are concerned.
    """
    norms = [jnp.sqrt(jnp.sum(jnp.square(grad))) for grad in (reconstruction_grad, adversarial_grad)]
    return jax.lax.stop_gradient(jnp.clip(norms[0] / (norms[1] + _SMALLEST), low, high))


def ramp(step: jax.Array | int, start: int, length: int) -> jax.Array:
    """A linear ramp: 0 before step `start` (counted from 0), then rising to 1 at the last of `length` steps."""
    risen = (jnp.asarray(step, jnp.float32) - start + 1.0) / max(length, 1)
    return jnp.clip(risen, 0.0, 1.0)


def gradient_penalty(discriminate: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """R1 (Mescheder et al., arXiv 1801.04406): mean over pictures of |gradient of its logit|^2, without the half.

    Args:
      discriminate: images [B, ...] -> logits [B, ...], independent per picture; several logits of one
        picture count by their mean.
      images: real pictures.
    """

    def judged(images: jax.Array) -> jax.Array:
        logits = discriminate(images)
        return jnp.sum(jnp.mean(logits.reshape(logits.shape[0], -1), axis=1))

    grads = jax.grad(judged)(images)
    return jnp.mean(jnp.sum(jnp.square(grads), axis=tuple(range(1, grads.ndim))))


class Anchors(NamedTuple):
    """Moving averages of the discriminator's mean logits, for `lecam_penalty`.

    Attributes:
      real: average for pictures.
      fake: average for reconstructions.
      updates: number of updates, int32.
    """

    real: jax.Array
    fake: jax.Array
    updates: jax.Array


def new_anchors() -> Anchors:
    """Anchors before the first update."""
    return Anchors(jnp.float32(0.0), jnp.float32(0.0), jnp.int32(0))


def moved_anchors(anchors: Anchors, real: jax.Array, fake: jax.Array, decay: float = 0.999) -> Anchors:
    """Updates the averages with the mean logits `real` and `fake` of a step; the first step sets them."""
    weight = jnp.minimum(decay, anchors.updates / (anchors.updates + 1.0))
    real, fake = (weight * old + (1.0 - weight) * new for old, new in ((anchors.real, real), (anchors.fake, fake)))
    return Anchors(real, fake, anchors.updates + 1)


def lecam_penalty(anchors: Anchors, real: jax.Array, fake: jax.Array) -> jax.Array:
    """LeCam regularisation (Tseng et al., arXiv 2104.03310) of the discriminator: 0 until there are anchors.

    relu(mean(real) - anchor of fake)^2 + relu(anchor of real - mean(fake))^2: it keeps the two averages
    close together, which matters most with few pictures.
    """
    apart = jnp.square(jax.nn.relu(jnp.mean(real) - anchors.fake))
    apart = apart + jnp.square(jax.nn.relu(anchors.real - jnp.mean(fake)))
    return jnp.where(anchors.updates > 0, apart, 0.0)
