"""Stage 2: the transformer on the tokens of a frozen tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.data.sources import IMAGES, TOKENS
from var_jax.evaluation.likelihood import likelihood_figures, likelihood_sums
from var_jax.generation import sampler
from var_jax.generation.kernels import for_sampling
from var_jax.generation.many import class_keys
from var_jax.generation.pictures import grid
from var_jax.losses.tokens import token_losses
from var_jax.models.attention import xla_attention
from var_jax.models.inputs import teacher_inputs
from var_jax.models.parameters import Params
from var_jax.models.pictures import to_signed
from var_jax.models.precision import parameters_for
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import Transformer
from var_jax.parallel.processes import whole
from var_jax.training.progressive import Stage


class TransformerTask:
    """What the loop needs to know of stage 2.

    Attributes:
      decayed: patterns of parameters that weight decay applies to: matrices and the class table, but
        no vectors, positions, levels or AdaLN tables.
      fixed: the tokenizer's parameters.
    """

    decayed: Sequence[str] = ("kernel$", "class_embedding$")
    post_update = None  # gradients do all
    warm_batches = 0

    def __init__(
        self,
        transformer: Transformer,
        tokenizer: TokenizerConfig,
        tokenizer_params: Params,
        class_names: Sequence[str],
        label_smoothing: float = 0.0,
        grid_classes: int = 10,
        grid_columns: int = 8,
        guidance: float = 1.5,
    ) -> None:
        """`grid_*` and `guidance` are of the sample grid at evaluations; without classes there is none."""
        self.module, self.tokenizer = transformer, Tokenizer(tokenizer, transformer.dtype)
        self.config, self.image_size = transformer.config, tokenizer.image_size
        self.fixed = parameters_for(transformer.dtype, tokenizer_params)
        self.class_names, self.label_smoothing = tuple(class_names), label_smoothing
        self._grid = (min(grid_classes, self.config.num_classes), grid_columns, guidance)

    def about(self) -> dict[str, Any]:
        """What other commands need to rebuild the model."""
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
        module = self.module.clone(attention_fn=xla_attention)
        params = module.init(key, jnp.zeros((1,), jnp.int32), inputs)["params"]
        return parameters_for(self.module.dtype, params)

    def new_counts(self) -> None:
        """Nothing is counted."""
        return

    def tokens(self, fixed: Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Tokens [B, L] of a batch of pictures or stored tokens, and the transformer's inputs made of them."""
        bound = self.tokenizer.bind({"params": fixed})
        tokens = batch[TOKENS] if TOKENS in batch else bound.encode(to_signed(batch[IMAGES]))
        return jax.lax.stop_gradient((tokens, teacher_inputs(bound.quantizer, tokens, self.config.inputs)))

    def loss(
        self,
        params: Params,
        fixed: Params,
        batch: dict[str, jax.Array],
        key: jax.Array,
        step: jax.Array,
        stage: Stage | None = None,
    ) -> tuple[jax.Array, tuple[dict[str, jax.Array], None]]:
        """Cross entropy, mean over all positions, or as `stage` weighs those of its scales.

        Class drop and drop path are on. Metrics are means over the scales that take part, the last
        being the newest.
        """
        tokens, inputs = self.tokens(fixed, batch)
        pyramid = self.config.pyramid if stage is None else stage.prefix
        tokens, inputs = tokens[:, : pyramid.length], inputs[:, : pyramid.length - self.config.start_length]
        logits = self.module.apply({"params": params}, batch["labels"], inputs, key)
        nll_BxL, hit_BxL, smooth_BxL = token_losses(logits, tokens)
        loss_BxL = (1 - self.label_smoothing) * nll_BxL + self.label_smoothing * smooth_BxL
        loss = jnp.mean(loss_BxL if stage is None else jnp.sum(loss_BxL * stage.weights(step), axis=-1))
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

    def add(self, totals: dict[str, np.ndarray] | None, sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A batch's sums on top of those so far (None before the first)."""
        return sums if totals is None else jax.tree.map(np.add, totals, sums)

    def summarise(self, sums: dict[str, np.ndarray]) -> dict[str, Any]:
        """Sums over a validation set -> figures; lists are by scale."""
        return likelihood_figures(sums, self.config.pyramid)

    def headline(self, figures: dict[str, Any]) -> str:
        """The line for people after an evaluation."""
        return (
            f"loss {figures['loss']:.4f} (last scale {figures['loss_last']:.4f}), "
            f"accuracy {figures['accuracy']:.2%} (last scale {figures['accuracy_last']:.2%})"
        )

    def pictures(self, params: Params, fixed: Params, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Samples: a row a class, always from the same keys, so that grids of a run can be compared."""
        classes, columns, guidance = self._grid
        if not classes:
            return {}
        rows = np.repeat(np.arange(classes), columns)
        keys = class_keys(0, rows, np.tile(np.arange(columns), classes))
        settings = sampler.controls(self.config.pyramid, guidance, 900, 0.96)
        given = fixed, for_sampling(params), jnp.asarray(rows), keys, settings
        out = sampler.generate(self.tokenizer, self.module, *given, guided=True, smooth=False)
        return {"samples": grid(whole(out.images), columns)}
