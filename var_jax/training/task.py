"""A stage, as the training step and the loop see it: `tokenizer.py` and `transformer.py` implement it."""

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
# Runs after an update, for changes that no gradient makes: (params, moving counts, batch, key, step) -> both anew.
PostUpdate = Callable[[Params, Any, Batch, jax.Array, jax.Array], tuple[Params, Any]]


class Task(Protocol):
    """A stage: a network with its losses, its validation and its pictures. Hashable by value, and without arrays.

    Attributes:
      decayed: patterns of parameters that weight decay applies to.
      post_update: see `PostUpdate`; None where gradients do everything.
      warm_batches: batches that `init_codebook` takes before the first step; 0: it is not called.
      image_size: side of its pictures in pixels.
      backend: how the network that learns computes.
    """

    decayed: tuple[str, ...]
    post_update: PostUpdate | None = None
    warm_batches: int = 0
    image_size: int
    backend: Backend

    # The description from which other commands rebuild the model; fresh parameters.
    def about(self) -> dict[str, Any]: ...
    def init(self, key: jax.Array) -> Params: ...

    def new_counts(self) -> Any:
        """Moving counts; by default nothing is counted."""
        return None

    # A step's loss; `fixed` are arrays that are used and not learned.
    def loss(
        self, params: Params, fixed: Any, batch: Batch, key: jax.Array, step: jax.Array, scales: ScalePrefix | None
    ) -> Loss: ...

    # Validation: sums over a batch, rows weighted by its `mask`; added up; as figures; as a line for people; pictures.
    def evaluate(self, params: Params, fixed: Any, batch: Batch) -> dict[str, Any]: ...

    def add(self, totals: dict[str, Any] | None, sums: dict[str, Any]) -> dict[str, Any]:
        """A batch's sums on top of those so far (None before the first)."""
        return sums if totals is None else jax.tree.map(np.add, totals, sums)

    def summarise(self, totals: dict[str, Any]) -> dict[str, Any]: ...
    def headline(self, figures: dict[str, Any]) -> str: ...
    def pictures(self, params: Params, fixed: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]: ...
