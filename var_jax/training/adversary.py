"""A discriminator that learns beside the tokenizer, in the same jitted step.

The generator's forward pass is shared: one run of the tokenizer serves its own losses and the
discriminator's, and both sides learn from the other's state before the step. Until the discriminator's
start (a share of all steps) the step is the plain one and knows nothing of it; from there its weight
rises in a line. Both are functions of the step alone, so a run that was stopped goes on exactly.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import linen as nn

from var_jax.errors import InputError
from var_jax.losses import adversarial
from var_jax.losses.augment import augmented
from var_jax.losses.discriminator import FeatureDiscriminator, PatchDiscriminator, ResidualDiscriminator
from var_jax.models.parameters import Params
from var_jax.models.pictures import to_signed
from var_jax.models.precision import Dtype, parameters_for
from var_jax.pretrained.dino import DinoViT
from var_jax.pretrained.vgg import STAGES, VGGPatches
from var_jax.training.optimizer import AdamW, Schedule, WeightDecay
from var_jax.training.task import Batch, Loss, Metrics
from var_jax.training.tokenizer import TokenizerTask

KINDS = ("patch", "residual", "vgg", "dino")


class AdversaryState(NamedTuple):
    """The discriminator's state from step to step, part of checkpoints; `anchors` are averages of its mean logits."""

    params: Params
    opt_state: Any
    anchors: adversarial.Anchors


@dataclasses.dataclass(frozen=True)
class Adversary:
    """The discriminator's side of a tokenizer's step; hashable by value.

    Attributes:
      config: the section `adversary`.
      task: the tokenizer's stage.
      dtype: compute type.
      total_steps: of the whole training.
      rate: the tokenizer's learning rate by step; hashable.

    Raises:
      InputError: naming the field that cannot be.
    """

    config: ml_collections.FrozenConfigDict
    task: TokenizerTask
    dtype: Dtype
    total_steps: int
    rate: Schedule

    def __post_init__(self) -> None:
        _ = self._features  # whose levels may be too many

    @property
    def start(self) -> int:
        """The first step (counted from 0) that it takes part in."""
        return round(self.config.start * self.total_steps)

    @property
    def ramp_steps(self) -> int:
        """Steps over which its weight rises to the full one."""
        return round(self.config.ramp * self.total_steps)

    @functools.cached_property
    def _module(self) -> nn.Module:
        c = self.config
        if c.kind == "patch":
            return PatchDiscriminator(c.channels, c.levels, c.norm_groups, self.dtype)
        if c.kind == "residual":
            return ResidualDiscriminator(c.channels, dtype=self.dtype)
        return FeatureDiscriminator(c.norm_groups, self.dtype)

    @functools.cached_property
    def _features(self) -> nn.Module | None:
        """The fixed network that pictures are seen through, if any."""
        if self.config.kind == "dino":
            return DinoViT(dtype=self.dtype)
        if self.config.kind != "vgg":
            return None
        levels = self.config.levels
        if not 0 <= levels < len(STAGES):
            raise InputError(f"config adversary.levels {levels}: VGG16 has halvings from 0 to {len(STAGES) - 1}")
        return VGGPatches(levels, self.dtype)

    @functools.cached_property
    def _optimizer(self) -> optax.GradientTransformation:
        c = self.config
        rate = lambda updates: c.rate * self.rate(self.start + updates)
        decay = WeightDecay(c.weight_decay, c.weight_decay, self.total_steps)
        return AdamW(rate, decay, tuple(c.betas), c.clip, ("kernel$",)).transformation

    def at(self, step: int) -> Adversary | None:
        """Itself where it takes part in a step, else None."""
        return self if step >= self.start else None

    def init(self, key: jax.Array) -> AdversaryState:
        """Its state before the first step."""
        size = self.task.image_size
        seen = jnp.zeros((1, size, size, 3), jnp.float32)
        if self._features is not None:
            features, _ = jax.eval_shape(self._features.init_with_output, key, seen)
            seen = [jnp.zeros(shape.shape, shape.dtype) for shape in features]
        params = self._module.init(key, seen)["params"]
        params = parameters_for(self._module.dtype, params)
        return AdversaryState(params, self._optimizer.init(params), adversarial.new_anchors())

    def gradients(
        self, own: AdversaryState, params: Params, fixed: Any, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[Loss, tuple[Params, Params]]:
        """The loss and its companions as `Task.loss` has them, and the gradients of both sides.

        `own` is its state before the step. The gradients at the decoder's last kernel, whose norms the adaptive weight
        compares, are whole backward passes as written; the compiler drops all of them but the last layer's, since
        nothing else is used.
        """
        c, task = self.config, self.task
        images = to_signed(batch["images"])
        generate_key, real_key, fake_key = (jax.random.fold_in(key, part) for part in range(3))
        outputs, pull, seen = jax.vjp(lambda p: task.forward(p, images, generate_key), params, has_aux=True)
        picture, quantizer = outputs
        (judged, losses), toward_picture = jax.value_and_grad(task.picture_loss, has_aux=True)(picture, images, fixed)
        fooled, toward_real = jax.value_and_grad(
            lambda picture: adversarial.generator_loss(c.loss, self._judge(own.params, fixed, picture, fake_key))
        )(picture)
        risen = adversarial.ramp(step, self.start, self.ramp_steps)
        ratio = jnp.float32(1.0)
        if c.adaptive:
            pulled = [pull((grad, jnp.zeros_like(quantizer)))[0] for grad in (toward_picture, toward_real)]
            last = [grads["decoder"]["conv_out"]["kernel"] for grads in pulled]
            ratio = adversarial.adaptive_weight(*last, *c.adaptive_range)
        weight = c.weight * risen * ratio
        quantizer_weight = jnp.full_like(quantizer, task.weights["quantizer"])
        (grads,) = pull((toward_picture + weight * toward_real, quantizer_weight))
        total = judged + quantizer_weight * quantizer + weight * fooled
        (_, own_metrics), own_grads = jax.value_and_grad(self._judgement, has_aux=True)(
            own.params, fixed, own.anchors, ((images, real_key), (picture, fake_key))
        )
        metrics = losses | {"quantizer": quantizer} | own_metrics
        metrics |= {"adversarial": fooled, "adaptive_weight": ratio, "adversarial_weight": weight}
        return (total, (metrics, task.counts(seen))), (grads, own_grads)

    def update(self, own: AdversaryState, grads: Params, metrics: Metrics) -> AdversaryState:
        """Its state after a step with these gradients and metrics, means over the micro-batches."""
        updates, opt_state = self._optimizer.update(grads, own.opt_state, own.params)
        anchors = adversarial.moved_anchors(own.anchors, metrics["real_score"], metrics["fake_score"])
        return AdversaryState(optax.apply_updates(own.params, updates), opt_state, anchors)

    def _judge(self, params: Params, fixed: Any, images: jax.Array, key: jax.Array) -> jax.Array:
        """Logits of pictures, augmented where the config says so."""
        seen = augmented(key, images) if self.config.augment else images
        if self._features is not None:
            network = fixed["dino"] if self.config.kind == "dino" else {"trunk": fixed["lpips"]["trunk"]}
            seen = self._features.apply({"params": network}, seen)
        return self._module.apply({"params": params}, seen)

    def _judgement(
        self, params: Params, fixed: Any, anchors: adversarial.Anchors, pairs: tuple[tuple[jax.Array, jax.Array], ...]
    ) -> tuple[jax.Array, Metrics]:
        """The discriminator's loss and its metrics; `pairs` are real pictures and drawn ones, each with their key."""
        c = self.config
        real, fake = (self._judge(params, fixed, pictures, key) for pictures, key in pairs)
        metrics = {
            "discriminator": adversarial.discriminator_loss(c.loss, real, fake),
            "real_score": jnp.mean(real),
            "fake_score": jnp.mean(fake),
        }
        loss = metrics["discriminator"]
        if c.lecam:
            metrics["lecam"] = adversarial.lecam_penalty(anchors, real, fake)
            loss = loss + c.lecam * metrics["lecam"]
        if c.gradient_penalty:
            images, key = pairs[0]
            judge = lambda images: self._judge(params, fixed, images, key)
            metrics["gradient_penalty"] = adversarial.gradient_penalty(judge, images)
            loss = loss + c.gradient_penalty * metrics["gradient_penalty"]
        return loss, metrics


def make_adversary(
    config: ml_collections.ConfigDict, task: Any, dtype: Dtype, total_steps: int, rate: Schedule
) -> Adversary | None:
    """The adversary that a stage-1 config names, or None.

    Raises:
      InputError: for a kind or a field that cannot be.
    """
    if config.stage != "tokenizer" or config.adversary.kind is None:
        return None
    return Adversary(ml_collections.FrozenConfigDict(config.adversary), task, dtype, total_steps, rate)
