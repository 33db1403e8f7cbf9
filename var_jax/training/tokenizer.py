"""Stage 1: the tokenizer, with pixel and perceptual losses and the quantizer's own; `adversary.py` adds to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import FrozenDict

from var_jax.evaluation.frechet import Moments, frechet_between
from var_jax.evaluation.reconstruction import reconstruction_figures, reconstruction_sums
from var_jax.generation.pictures import grid, to_uint8
from var_jax.losses.perceptual import lpips, structure_loss
from var_jax.models.backend import XLA, Backend
from var_jax.models.net import Net
from var_jax.models.parameters import Params
from var_jax.models.pictures import decode_pictures, encode_pictures, to_signed
from var_jax.models.precision import Dtype, parameters_for
from var_jax.models.quantizer import code_counts
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.parallel.processes import whole
from var_jax.pretrained.inception import extract
from var_jax.training.codebook import (
    CodebookOptions,
    code_sums,
    codebook_of,
    fair_weights,
    kept_scales,
    mean_codes,
    revived,
    warm_start,
    with_codebook,
)
from var_jax.training.task import Batch, Loss, Task


@dataclasses.dataclass(frozen=True)
class TokenizerTask(Task):
    """Stage 1 as the step and the loop see it, see `training.task`.

    Its `fixed` arrays are LPIPS' weights ("lpips") and Inception's ("inception"), which makes validation report rFID;
    either may be missing.

    Attributes:
      config: of the tokenizer.
      weights: of the losses: "l1", "l2", "quantizer", perhaps "structure" and "lpips".
      dtype: compute type.
      codebook: how codes stay in use.
      learning: the module that a step runs where it is not the plain one: narrower, on a mesh, recomputing.
      plain: how the plain module computes, which validates and draws pictures.

    Raises:
      InputError: for `codebook` options that this pyramid cannot have.
    """

    config: TokenizerConfig
    weights: Mapping[str, float]
    dtype: Dtype = jnp.float32
    codebook: CodebookOptions = CodebookOptions()
    learning: Tokenizer | None = None
    plain: Backend = XLA

    decayed = ("kernel$",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", FrozenDict(self.weights))
        if self.codebook.dropout:
            options = self.codebook
            kept_scales(jax.random.key(0), 1, self.config.pyramid, options.dropout, options.fewest_scales)

    @property
    def module(self) -> Tokenizer:
        """The plain tokenizer."""
        return Tokenizer(self.config, self.dtype, backend=self.plain)

    @property
    def backend(self) -> Backend:
        return XLA if self.learning is None else self.learning.backend

    @property
    def image_size(self) -> int:
        return self.config.image_size

    @property
    def warm_batches(self) -> int:
        return self.codebook.warm_start

    def about(self) -> dict[str, Any]:
        return {"stage": "tokenizer", "tokenizer": self.config.to_dict()}

    def init(self, key: jax.Array) -> Params:
        size = self.image_size
        params = self.module.init(key, jnp.zeros((1, size, size, 3), jnp.float32))["params"]
        return parameters_for(self.module.dtype, params)

    def new_counts(self) -> Any:
        """Moving counts of code use; where codes are means, also sums of the queries that they answered."""
        codes = jnp.zeros((len(self.config.pyramid), self.config.codebook_size), jnp.float32)
        if not self.codebook.means:
            return codes
        return {"codes": codes, "sums": jnp.zeros((self.config.codebook_size, self.config.code_width), jnp.float32)}

    def loss(
        self, params: Params, fixed: Any, batch: Batch, key: jax.Array, step: jax.Array, scales: None = None
    ) -> Loss:
        """Weighted sum of the losses of pictures, on [-1, 1], and the quantizer's."""
        images = to_signed(batch["images"])
        (picture, quantizer), seen = self.forward(params, images, key)
        total, losses = self.picture_loss(picture, images, fixed)
        total = total + self.weights["quantizer"] * quantizer
        return total, (losses | {"quantizer": quantizer}, self.counts(seen))

    def forward(
        self, params: Params, images: jax.Array, key: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        """Pictures in [-1, 1] -> (reconstruction, quantizer loss), and the input of `counts`, without gradient."""
        deterministic, options, scales_B = self.config.dropout == 0, self.codebook, None
        if options.dropout:
            keep_key = jax.random.fold_in(key, 1)
            scales_B = kept_scales(keep_key, len(images), self.config.pyramid, options.dropout, options.fewest_scales)
        if options.means:
            params = with_codebook(params, jax.lax.stop_gradient(codebook_of(params)))
        out = (self.learning or self.module).apply(
            {"params": params}, images, deterministic, scales_B, rngs={"dropout": key}
        )
        return (out.reconstruction_BxHxWx3, out.quantizer_loss), (out.tokens_BxL, out.queries_BxLxC)

    def picture_loss(self, picture: jax.Array, images: jax.Array, fixed: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Weighted sum of the losses of reconstructions, and its parts; a loss without weight is not computed."""
        difference = picture - images
        losses = {"l1": jnp.mean(jnp.abs(difference)), "l2": jnp.mean(jnp.square(difference))}
        if self.weights.get("structure"):
            losses["structure"] = jnp.mean(structure_loss(picture, images))
        if self.weights.get("lpips"):
            losses["lpips"] = jnp.mean(lpips(fixed["lpips"], picture, images))
        return sum(self.weights[name] * value for name, value in losses.items()), losses

    def counts(self, seen: tuple[jax.Array, jax.Array]) -> Any:
        """How often each code was used at each scale, of (tokens, queries); the shape is `new_counts`'."""
        tokens_BxL, queries_BxLxC = seen
        size = self.config.codebook_size
        codes = code_counts(tokens_BxL, self.config.pyramid, size)
        if not self.codebook.means:
            return codes
        queries_NxC = jax.lax.stop_gradient(queries_BxLxC).reshape(-1, queries_BxLxC.shape[-1])
        return {"codes": codes, "sums": code_sums(tokens_BxL.reshape(-1), queries_NxC, size)}

    def post_update(
        self, params: Params, counts: Any, batch: dict[str, jax.Array], key: jax.Array, step: jax.Array
    ) -> tuple[Params, Any]:
        """Changes of the codebook after a step that no gradient makes: codes that are means, dead codes that move."""
        options = self.codebook
        if options.means:
            uses_V = jnp.sum(counts["codes"], axis=0)
            params = with_codebook(params, mean_codes(codebook_of(params), uses_V, counts["sums"]))
        if not options.reset_every:
            return params, counts
        due = (step + 1) % options.reset_every == 0
        revive = lambda: self._revive(params, counts, batch["images"], jax.random.fold_in(key, 2))
        return jax.lax.cond(due, revive, lambda: (params, counts))

    def _revive(self, params: Params, counts: Any, images: jax.Array, key: jax.Array) -> tuple[Params, Any]:
        uses_V = jnp.sum(counts["codes"] if self.codebook.means else counts, axis=0)
        weights = jnp.asarray(fair_weights(self.config.pyramid, len(images)))
        queries_NxC = self._queries(params, images)
        codebook, dead_V = revived(codebook_of(params), uses_V, queries_NxC, weights, key, self.codebook.reset_share)
        if self.codebook.means:  # as if it had always answered that query
            sums = jnp.where(dead_V[:, None], codebook * uses_V[:, None], counts["sums"])
            counts = counts | {"sums": sums}
        return with_codebook(params, codebook), counts

    def _queries(self, params: Params, images: jax.Array) -> jax.Array:
        queries = self.module.apply({"params": params}, to_signed(images), method="queries")
        return queries.reshape(-1, self.config.code_width)

    def init_codebook(self, params: Params, images: jax.Array, key: jax.Array) -> Params:
        """Fresh parameters with a codebook made of the queries of pictures, uint8 [N, H, W, 3].

        Queries of all scales but the first depend on the codebook: they are those of the drawn one.
        """
        weights = jnp.asarray(fair_weights(self.config.pyramid, len(images)))
        codebook = warm_start(self._queries(params, images), weights, self.config.codebook_size, key)
        return with_codebook(params, codebook)

    def evaluate(self, params: Params, fixed: Any, batch: dict[str, jax.Array]) -> dict[str, Any]:
        """Sums over a validation batch, rows weighted by its `mask`; with Inception's weights its features, too."""
        images, judged = batch["images"], "inception" in fixed
        sums = reconstruction_sums(self.module, params, images, batch["mask"], fixed.get("lpips"), judged)
        if judged:
            pictures = {"real": images, "shown": sums.pop("pictures")[-1]}
            sums["features"] = {name: extract(fixed["inception"], each).pool for name, each in pictures.items()}
            sums["features"]["mask"] = batch["mask"]
        return sums

    def add(self, totals: dict[str, Any] | None, sums: dict[str, Any]) -> dict[str, Any]:
        features, moments = sums.pop("features", None), totals and totals.pop("moments", None)
        totals = super().add(totals, sums)
        if features is not None:
            kept = features.pop("mask") > 0
            moments = moments or {name: Moments() for name in features}
            for name, rows in features.items():
                moments[name].add(rows[kept])
            totals["moments"] = moments
        return totals

    def summarise(self, totals: dict[str, Any]) -> dict[str, Any]:
        """Totals over a validation set -> figures; lists are by number of scales, or by scale."""
        figures = reconstruction_figures(totals)
        if moments := totals.get("moments"):
            figures["rfid"] = frechet_between(*(moments[name].mean_and_covariance() for name in ("real", "shown")))
        return figures | {"loss": -figures["psnr"]}  # what "best" is judged by: lower is better

    def headline(self, figures: dict[str, Any]) -> str:
        used = ", ".join(f"{int(number)}" for number in figures["codes_used"])
        said = [f"PSNR {figures['psnr']:.2f} dB", f"SSIM {figures['ssim']:.3f}"]
        for title, name, digits in (("LPIPS", "lpips", 3), ("rFID", "rfid", 2)):
            said += [f"{title} {figures[name]:.{digits}f}"] if name in figures else []
        return ", ".join([*said, f"codes in use by scale {used}"])

    def pictures(self, params: Params, fixed: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Strips: a picture and its reconstruction from 1 .. S scales, eight rows."""
        images, net = batch["images"][:8], Net(self.module, params)
        tokens = encode_pictures(net, images)
        total = len(self.config.pyramid)
        shown = [to_uint8(whole(decode_pictures(net, tokens, n))) for n in range(1, total + 1)]
        rows = np.stack([images, *shown], axis=1).reshape(-1, *images.shape[1:])
        captions = ["original", *self.config.pyramid.names]
        return {"reconstruction": grid(rows, total + 1, captions if self.image_size >= 48 else ())}
