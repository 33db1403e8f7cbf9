"""Positions whose tokens are known and stay: all that editing is to the sampler."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from var_jax.models.pictures import to_signed
from var_jax.models.quantizer import Quantizer
from var_jax.models.tokenizer import Tokenizer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class KnownPicture:
    """Pictures of which some tokens stay while the others are drawn; a pytree.

    Attributes:
      images_BxHxWx3: uint8, or float in [0, 1]; already blanked where they are to be redrawn.
      keep_mask_BxL: bool; True where the token of the picture stays.
      reencode: static. True: each scale encodes the residual that the scales before it leave, drawn tokens included,
        as Algorithm 1 does. False: the tokens are those of the whole picture, as in the reference's editing; each of
        them completes its *own* coarser tokens, and is wrong wherever the contribution of a drawn one reaches.
    """

    images_BxHxWx3: jax.Array
    keep_mask_BxL: jax.Array
    reencode: bool = dataclasses.field(default=True, metadata={"static": True})

    def encoded(self, tokenizer: Tokenizer) -> Known:
        """The same as the sampling loop takes it, encoded by a tokenizer that is bound to its parameters."""
        features = tokenizer.features(to_signed(self.images_BxHxWx3))
        if self.reencode:
            return Known(self.keep_mask_BxL, features, None)
        return Known(self.keep_mask_BxL, None, tokenizer.quantizer.encode(features))


class Known(NamedTuple):
    """The known part of a picture on its way through the scales.

    Attributes:
      keep_mask_BxL: bool; where False the token is drawn.
      residual_BxhxwxC: float32; the features less the contributions of all scales so far. None with
      tokens_BxL: int32; the known tokens, where they do not depend on the drawn ones.
    """

    keep_mask_BxL: jax.Array
    residual_BxhxwxC: jax.Array | None
    tokens_BxL: jax.Array | None

    def in_place_of(
        self, tokens_Bxl: jax.Array, codes_BxlxC: jax.Array, quantizer: Quantizer, k: int
    ) -> tuple[jax.Array, jax.Array]:
        """The tokens and codes of scale k, known ones in the place of drawn ones."""
        keep_mask = self.keep_mask_BxL[:, quantizer.pyramid.slice(k)]
        known_tokens = self._tokens(quantizer, k)
        codes = jnp.where(keep_mask[..., None], quantizer.embed(known_tokens), codes_BxlxC)
        return jnp.where(keep_mask, known_tokens, tokens_Bxl), codes

    def _tokens(self, quantizer: Quantizer, k: int) -> jax.Array:
        """[B, l_k]: the known tokens of scale k."""
        if self.tokens_BxL is not None:
            return self.tokens_BxL[:, quantizer.pyramid.slice(k)]
        assert self.residual_BxhxwxC is not None  # one of the two always is there
        queries_BxlxC = quantizer.next_scale_input(self.residual_BxhxwxC, k)
        return quantizer.nearest(queries_BxlxC)

    def less(self, contribution_BxhxwxC: jax.Array) -> Known:
        """The same once a scale has added its contribution."""
        if self.residual_BxhxwxC is None:
            return self
        return self._replace(residual_BxhxwxC=self.residual_BxhxwxC - contribution_BxhxwxC)
