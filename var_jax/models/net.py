"""A network together with its parameters, so that one argument carries both."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from flax import linen as nn

from var_jax.models.parameters import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Net:
    """A module and its parameters; a pytree whose leaves are the parameters, while the module is static.

    Attributes:
      module: the network, a tokenizer or a transformer.
      params: its parameters, or their shapes.
    """

    module: nn.Module = dataclasses.field(metadata={"static": True})
    params: Params = dataclasses.field(repr=False)

    @property
    def config(self) -> Any:
        """The module's config."""
        return self.module.config

    def apply(self, *args: Any, method: str | None = None, **kwargs: Any) -> Any:
        """The module's result, or that of one of its methods."""
        return self.module.apply({"params": self.params}, *args, method=method, **kwargs)

    def bound(self) -> Any:
        """The module with its parameters bound to it, whose methods can be called directly."""
        return self.module.bind({"params": self.params})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Nets:
    """The networks that draw pictures; a pytree.

    Attributes:
      tokenizer: turns tokens into pictures, and pictures into tokens.
      transformer: predicts tokens.
    """

    tokenizer: Net
    transformer: Net

    def teacher_inputs(self, tokens_BxL: jax.Array) -> jax.Array:
        """The transformer's inputs for its teacher-forced pass over a picture's own tokens."""
        return self.transformer.module.teacher_inputs(self.tokenizer.bound().quantizer, tokens_BxL)
