"""The config of a transformer: its sizes, and the choices of its architecture."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from var_jax.errors import InputError
from var_jax.models.config import config_from_dict, require_count, require_number, require_switch
from var_jax.pyramid import Pyramid


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes and choices of a transformer.

    Attributes:
      pyramid: sides of the token maps it predicts.
      codebook_size: V, the tokenizer's.
      code_width: C, the tokenizer's.
      num_classes: class ids are 0 .. num_classes - 1; the id num_classes is "no class".
      depth: blocks, D.
      width: W.
      num_heads: H; W / H is the head width.
      mlp_ratio: hidden width of the MLP over W.
      shared_adaln: one AdaLN projection for all blocks plus a table per block, instead of a
        projection in each.
      qk_norm: l2-normalised queries and keys with a learned scale per head.
      drop_path: rate at the last block, rising linearly from 0 at the first; training only.
      class_drop: share of labels replaced by "no class"; training only.
      gate_init: factor on the initial AdaLN gates, which makes blocks start near the identity.
      input_init: factor on the initial kernel that embeds codes; above 1, short training heeds its inputs sooner.

    Raises:
      InputError: naming the field that cannot be.
    """

    pyramid: Pyramid
    codebook_size: int
    code_width: int
    num_classes: int
    depth: int
    width: int
    num_heads: int
    mlp_ratio: float = 4.0
    shared_adaln: bool = False
    qk_norm: bool = True
    drop_path: float = 0.0
    class_drop: float = 0.1
    gate_init: float = 1e-3
    input_init: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pyramid", Pyramid.parse(self.pyramid))
        for name in ("codebook_size", "code_width", "num_classes", "depth", "width", "num_heads"):
            require_count("transformer", name, getattr(self, name))
        require_count("transformer", "depth", self.depth, 1000)
        for name in ("shared_adaln", "qk_norm"):
            require_switch("transformer", name, getattr(self, name))
        for name in ("drop_path", "class_drop", "gate_init", "input_init"):
            require_number("transformer", name, getattr(self, name))
        require_number("transformer", "mlp_ratio", self.mlp_ratio, high=1000)
        if self.width % self.num_heads:
            raise InputError(f"transformer width {self.width} does not divide into num_heads {self.num_heads}")
        for name in ("drop_path", "class_drop"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"transformer {name} is {getattr(self, name)}: expected 0 up to, not including, 1")
        if self.mlp_ratio <= 0:
            raise InputError(f"transformer mlp_ratio is {self.mlp_ratio}: expected a positive number")

    @property
    def head_width(self) -> int:
        """K."""
        return self.width // self.num_heads

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLP."""
        return round(self.width * self.mlp_ratio)

    @property
    def steps(self) -> tuple[int, ...]:
        """Tokens drawn at once in each step of sampling: those of a scale."""
        return self.pyramid.lengths

    @property
    def start_length(self) -> int:
        """Positions of the first step, which know only the class."""
        return self.steps[0]

    @property
    def mask_LxL(self) -> np.ndarray:
        """True where the row's position may look at the column's, in training."""
        return self.pyramid.block_causal_mask

    @property
    def modulation_size(self) -> int:
        """Weights that turn a class into scales, shifts and gates."""
        return ((1 if self.shared_adaln else self.depth) * 6 + 2) * self.width**2

    @property
    def no_class(self) -> int:
        """The class id that means "no class"."""
        return self.num_classes

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON."""
        return dataclasses.asdict(self) | {"pyramid": list(self.pyramid.sides)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TransformerConfig:
        """Inverse of `to_dict`; an unknown or missing field is an error that names it."""
        return config_from_dict(cls, {"input_init": 1.0, **values}, "transformer")
