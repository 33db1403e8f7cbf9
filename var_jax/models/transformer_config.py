"""What a transformer is: sizes, and the choices of the architecture that can be made otherwise."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from var_jax.errors import InputError
from var_jax.models.config import config_from_dict, require_count
from var_jax.models.inputs import CUMULATIVE, INPUTS, PREVIOUS_TOKEN
from var_jax.pyramid import Pyramid

_CAME_LATER = {"adaln": True, "inputs": CUMULATIVE}  # not in the descriptions, and so the fingerprints, of older models


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """What a transformer is.

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
      qk_norm: l2-normalised queries and keys with a learned scale a head.
      drop_path: rate at the last block, rising linearly from 0 at the first; training only.
      class_drop: share of labels replaced by "no class"; training only.
      gate_init: factor on the initial AdaLN gates, which makes blocks start near the identity.
      input_init: factor on the initial kernel that embeds codes; above 1, short training heeds its inputs sooner.
      adaln: without it norms have learned scales and shifts that know no class, and branches no gates.
      inputs: what a position is told, see `models.inputs`; "previous_token" is raster order, see `models.raster`.

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
    adaln: bool = True
    inputs: str = CUMULATIVE

    def __post_init__(self) -> None:
        object.__setattr__(self, "pyramid", Pyramid.parse(self.pyramid))
        for name in ("codebook_size", "code_width", "num_classes", "depth", "width", "num_heads"):
            require_count("transformer", name, getattr(self, name))
        if self.width % self.num_heads:
            raise InputError(f"transformer width {self.width} does not divide into num_heads {self.num_heads}")
        for name in ("drop_path", "class_drop"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise InputError(f"transformer {name} is {getattr(self, name)}: expected 0 up to, not including, 1")
        if self.mlp_ratio <= 0:
            raise InputError(f"transformer mlp_ratio is {self.mlp_ratio}: expected a positive number")
        if self.shared_adaln and not self.adaln:
            raise InputError("transformer shared_adaln: there is none to share without adaln, choose one")
        if self.inputs not in INPUTS:
            raise InputError(f"transformer inputs '{self.inputs}': expected one of {', '.join(INPUTS)}")
        if self.raster and len(self.pyramid) > 1:
            raise InputError(f"transformer inputs 'previous_token': need a tokenizer of one scale, not {self.pyramid}")

    @property
    def head_width(self) -> int:
        """K."""
        return self.width // self.num_heads

    @property
    def mlp_width(self) -> int:
        """Hidden width of the MLP."""
        return round(self.width * self.mlp_ratio)

    @property
    def raster(self) -> bool:
        """Whether tokens follow one after another, row by row, instead of a scale at once."""
        return self.inputs == PREVIOUS_TOKEN

    @property
    def start_length(self) -> int:
        """Positions that nothing but the class is told."""
        return 1 if self.raster else self.pyramid.lengths[0]

    @property
    def mask_LxL(self) -> np.ndarray:
        """True where the row's position may look at the column's, in training."""
        return np.tril(np.ones((self.pyramid.length,) * 2, bool)) if self.raster else self.pyramid.block_causal_mask

    @property
    def no_class(self) -> int:
        """The class id that means "no class"."""
        return self.num_classes

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, ready for JSON; without what came later where it is as it was before."""
        values = dataclasses.asdict(self)
        for name, before in _CAME_LATER.items():
            if values[name] == before:
                del values[name]
        return values | {"pyramid": list(self.pyramid.sides)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TransformerConfig:
        """Inverse of `to_dict`; an unknown or missing field is an error that names it."""
        return config_from_dict(cls, {"input_init": 1.0, **_CAME_LATER, **values}, "transformer")
