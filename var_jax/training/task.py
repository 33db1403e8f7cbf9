"""The interface of a stage to the training step and the loop: `tokenizer.py` and `transformer.py` implement it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from var_jax.models.backend import Backend
from var_jax.models.parameters import Params
from var_jax.training.progressive import ScalePrefix

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
# (loss, (metrics, an addition to the moving counts)).
Loss = tuple[jax.Array, tuple[Metrics, Any]]
# Runs after an update, for what no gradient does: (params, moving counts, batch, key, step) -> new params and counts.
PostUpdate = Callable[[Params, Any, Batch, jax.Array, jax.Array], tuple[Params, Any]]


class Task(Protocol):
    """A stage: a network with its losses, its validation and its pictures. Hashable by value, and without arrays.

    Attributes:
      decayed: patterns of parameters that weight decay applies to.
      post_update: see `PostUpdate`, or None.
      warm_batches: batches that `init_codebook` takes before the first step; 0: it is not called.
      image_size: side of its pictures in pixels.
      backend: how the network that learns computes.
    """

    decayed: tuple[str, ...]
    post_update: PostUpdate | None
    warm_batches: int
    image_size: int
    backend: Backend

    def about(self) -> dict[str, Any]:
        """The description from which other commands rebuild the model."""
        ...

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        ...

    def new_counts(self) -> Any:
        """Moving counts before the first step, or None."""
        ...

    def loss(
        self,
        params: Params,
        fixed: Any,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        scales: ScalePrefix | None = None,
    ) -> Loss:
        """The loss of a batch; `fixed` are arrays that are used and not learned."""
        ...

    def evaluate(self, params: Params, fixed: Any, batch: Batch) -> dict[str, Any]:
        """Sums over a validation batch, rows weighted by its `mask`."""
        ...

    def add(self, totals: dict[str, Any] | None, sums: dict[str, Any]) -> dict[str, Any]:
        """A batch's sums added to the totals (None before the first)."""
        ...

    def summarise(self, totals: dict[str, Any]) -> dict[str, Any]:
        """Figures of a validation set."""
        ...

    def headline(self, figures: dict[str, Any]) -> str:
        """The line for people after an evaluation."""
        ...

    def pictures(self, params: Params, fixed: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Pictures to look at after an evaluation, by name."""
        ...
