"""Stage 2: the transformer on the tokens of a frozen tokenizer."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.data.sources import IMAGES, TOKENS
from var_jax.evaluation.likelihood import likelihood_figures, likelihood_sums
from var_jax.generation import sampler
from var_jax.generation.batching import class_keys
from var_jax.generation.pictures import grid
from var_jax.generation.settings import DEFAULTS, Settings
from var_jax.losses.tokens import token_losses
from var_jax.models.backend import XLA, Backend
from var_jax.models.net import Net
from var_jax.models.parameters import Params
from var_jax.models.pictures import to_signed
from var_jax.models.precision import parameters_for
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer
from var_jax.models.transformer_config import TransformerConfig
from var_jax.parallel.processes import whole
from var_jax.training.progressive import ScalePrefix
from var_jax.training.task import Loss, Task


@dataclasses.dataclass(frozen=True)
class TransformerTask(Task):
    """Stage 2 as the step and the loop see it, see `training.task`. Its `fixed` arrays are the tokenizer's parameters.

    Attributes:
      module: the transformer.
      tokenizer: whose tokens it predicts.
      class_names: by class id.
      label_smoothing: share of the target spread over all tokens.
      grid_classes: rows, at most, of the sample grid at evaluations; without rows there is none.
      guidance: of the sample grid.
    """

    module: Transformer
    tokenizer: Tokenizer
    class_names: tuple[str, ...]
    label_smoothing: float = 0.0
    grid_classes: int = 10
    guidance: float = DEFAULTS.guidance

    # Matrices and the class table; no vectors, positions, levels or AdaLN tables.
    decayed = ("kernel$", "class_embedding$")

    @property
    def config(self) -> TransformerConfig:
        """The transformer's."""
        return self.module.config

    @property
    def backend(self) -> Backend:
        return self.module.backend

    @property
    def image_size(self) -> int:
        return self.tokenizer.config.image_size

    def about(self) -> dict[str, Any]:
        return {
            "stage": "transformer",
            "tokenizer": self.tokenizer.config.to_dict(),
            "transformer": self.config.to_dict(),
            "class_names": list(self.class_names),
        }

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters; of one picture, which no mesh divides, so that attention is plain."""
        length = self.config.pyramid.length - self.config.start_length
        inputs = jnp.zeros((1, length, self.config.code_width), jnp.float32)
        module = self.module.clone(backend=XLA)
        params = module.init(key, jnp.zeros((1,), jnp.int32), inputs)["params"]
        return parameters_for(self.module.dtype, params)

    def tokens(self, fixed: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Tokens [B, L] of a batch of pictures or stored tokens, and the transformer's inputs made of them."""
        bound = self.tokenizer.bind({"params": fixed})
        tokens = batch[TOKENS] if TOKENS in batch else bound.encode(to_signed(batch[IMAGES]))
        return jax.lax.stop_gradient((tokens, self.module.teacher_inputs(bound.quantizer, tokens)))

    def loss(
        self,
        params: Params,
        fixed: Params,
        batch: dict[str, jax.Array],
        key: jax.Array,
        step: jax.Array,
        scales: ScalePrefix | None = None,
    ) -> Loss:
        """Cross entropy, mean over all positions, or as `scales` weighs those of its own.

        Class drop and drop path are on. Metrics are means over the scales that take part, the last
        being the newest.
        """
        tokens, inputs = self.tokens(fixed, batch)
        pyramid = self.config.pyramid if scales is None else scales.prefix
        tokens, inputs = tokens[:, : pyramid.length], inputs[:, : pyramid.length - self.config.start_length]
        logits = self.module.apply({"params": params}, batch["labels"], inputs, key)
        nll_BxL, hit_BxL, smooth_BxL = token_losses(logits, tokens)
        loss_BxL = (1 - self.label_smoothing) * nll_BxL + self.label_smoothing * smooth_BxL
        loss = jnp.mean(loss_BxL if scales is None else jnp.sum(loss_BxL * scales.weights(step), axis=-1))
        last = pyramid.slice(len(pyramid) - 1)
        metrics = {
            "loss_mean": jnp.mean(nll_BxL),
            "loss_last": jnp.mean(nll_BxL[:, last]),
            "accuracy_mean": jnp.mean(hit_BxL),
            "accuracy_last": jnp.mean(hit_BxL[:, last]),
        }
        return loss, (metrics, None)

    def evaluate(self, params: Params, fixed: Params, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """Sums over a validation batch, rows weighted by its `mask`; no class is dropped."""
        tokens, inputs = self.tokens(fixed, batch)
        return likelihood_sums(self.module, params, batch["labels"], tokens, inputs, batch["mask"])

    def summarise(self, sums: dict[str, np.ndarray]) -> dict[str, Any]:
        """Sums over a validation set -> figures; lists are by scale."""
        return likelihood_figures(sums, self.config.pyramid)

    def headline(self, figures: dict[str, Any]) -> str:
        return (
            f"loss {figures['loss']:.4f} (last scale {figures['loss_last']:.4f}), "
            f"accuracy {figures['accuracy']:.2%} (last scale {figures['accuracy_last']:.2%})"
        )

    def pictures(self, params: Params, fixed: Params, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Samples: one row per class, always from the same keys, so that grids of a run can be compared."""
        classes, columns = min(self.grid_classes, self.config.num_classes), 8
        if not classes:
            return {}
        rows = np.repeat(np.arange(classes), columns)
        keys = class_keys(0, rows, np.tile(np.arange(columns), classes))
        settings = Settings.create(self.config.pyramid, guidance=self.guidance)
        model = sampler.prepared(Net(self.tokenizer, fixed), Net(self.module, params))
        out = sampler.generate(model, jnp.asarray(rows), keys, settings)
        return {"samples": grid(whole(out.images), columns)}
