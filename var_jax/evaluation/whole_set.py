"""A model's figures over a whole set of pictures, in one pass: reconstructions by number of scales, tokens by scale.

Peak memory is one batch with its reconstructions, and (S + 1) F^2 numbers per kind of features.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from var_jax.bundle import Bundle
from var_jax.data.pipeline import epoch_batches
from var_jax.data.sources import IMAGES, Source
from var_jax.errors import InputError
from var_jax.evaluation.frechet import Moments, frechet_between
from var_jax.evaluation.likelihood import likelihood_figures, likelihood_sums
from var_jax.evaluation.reconstruction import reconstruction_figures, reconstruction_sums
from var_jax.models.net import Net, Nets
from var_jax.models.parameters import Params
from var_jax.models.pictures import to_signed
from var_jax.parallel.mesh import BATCH_AXES, batch_sharding, make_mesh, replicated

# uint8 pictures [N, H, W, 3] -> features [N, F].
Features = Callable[[np.ndarray], np.ndarray]
Statistics = tuple[np.ndarray, np.ndarray]


def whole_set(
    bundle: Bundle,
    source: Source,
    *,
    enlarge: float = 1.125,
    batch: int = 48,
    lpips_params: Params | None = None,
    features: Mapping[str, Features] | None = None,
    references: Mapping[str, Statistics] | None = None,
    mesh: jax.sharding.Mesh | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Judges a tokenizer, and the transformer if there is one, by every picture of a source.

    Args:
      source: pictures; the middle square of each is used.
      enlarge: see `Crop`.
      batch: pictures at a time, made a multiple of the devices.
      lpips_params: weights of LPIPS, if it is to be measured.
      features: by the name of the Frechet distance on them: "rfid" for Inception's.
      references: by the same names, mean and covariance of features of other pictures, like the published reference:
        gives NAME_reference, a figure of its own (rFID is against the same crops of the same pictures).
      mesh: whose devices share each batch; by default all of them.

    Returns:
      "pictures", how many there were; "tokenizer", see `reconstruction_figures`, with NAME and NAME_by_scales for
      each kind of features; "transformer", if there is one: see `likelihood_figures`, with the losses' exponentials.

    Raises:
      InputError: if the source holds no pictures, classes that the model does not have, or damaged pictures alone.
    """
    _check(bundle, source)
    mesh = mesh or make_mesh()
    devices = int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
    batch = -(-batch // devices) * devices
    bundle = bundle.over(mesh)
    parts = bundle.tokenizer, bundle.transformer, jax.device_put(lpips_params, replicated(mesh))
    features, scales = features or {}, len(bundle.tokenizer.config.pyramid)
    # For each kind of features: moments of the pictures, then of their reconstructions from 1 .. S scales.
    moments = {name: [Moments() for _ in range(1 + scales)] for name in features}
    totals, done = None, 0
    for examples in epoch_batches(source, bundle.tokenizer.config.image_size, batch, enlarge=enlarge):
        rows = {name: jax.device_put(examples[name], batch_sharding(mesh)) for name in (IMAGES, "labels", "mask")}
        sums = jax.device_get(_sums(*parts, rows, bool(features)))
        kept = examples["mask"] > 0
        shown = sums["tokenizer"].pop("pictures", None)
        judges = features if kept.any() else {}  # which need not take an empty batch
        for name, features_of in judges.items():
            for each, images in zip(moments[name], (examples[IMAGES], *shown), strict=True):
                each.add(features_of(images[kept]))
        sums = jax.tree.map(lambda x: np.asarray(x, np.float64), sums)
        totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
        done += int(kept.sum())
        say(f"{done}/{len(source)} pictures")
    if not done:
        raise InputError(f"not one of the {len(source)} pictures can be read: expected a set with pictures in it")
    return _figures(bundle, totals, moments, references or {})


def _check(bundle: Bundle, source: Source) -> None:
    if source.holds != IMAGES:
        raise InputError("a store of tokens holds no pictures to reconstruct: give the pictures that it was made of")
    if bundle.transformer is not None:
        classes = bundle.transformer.config.num_classes
        if len(source.class_names) > classes:
            raise InputError(
                f"the pictures have {len(source.class_names)} classes, the transformer has {classes}: give the "
                "pictures that it was trained for"
            )


def _figures(
    bundle: Bundle, totals: dict[str, Any], moments: Mapping[str, list[Moments]], references: Mapping[str, Statistics]
) -> dict[str, Any]:
    tokenizer = reconstruction_figures(totals["tokenizer"])
    for name, found in moments.items():
        compared = {name: found[0].mean_and_covariance()}
        if name in references:
            compared[f"{name}_reference"] = references[name]
        for figure, reference in compared.items():
            by_scales = [frechet_between(each.mean_and_covariance(), reference) for each in found[1:]]
            tokenizer |= {figure: by_scales[-1], f"{figure}_by_scales": by_scales}
    found = {"pictures": int(totals["tokenizer"]["count"]), "tokenizer": tokenizer}
    if "transformer" in totals:
        figures = likelihood_figures(totals["transformer"], bundle.transformer.config.pyramid)
        by_scale = [math.exp(loss) for loss in figures["loss_by_scale"]]
        perplexity = {"perplexity": math.exp(figures["loss"]), "perplexity_by_scale": by_scale}
        found["transformer"] = figures | perplexity
    return found


def table(figures: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Lines for people: figures of the whole set, then one row per scale."""
    lines = [f"{figures['pictures']} pictures"]
    for part in ("tokenizer", "transformer"):
        if part not in figures:
            continue
        scalars = {name: value for name, value in figures[part].items() if isinstance(value, float)}
        lines += ["", f"{part}:", *(f"{name:36} {value:.4f}" for name, value in scalars.items())]
        columns = {
            name.removesuffix("_by_scales").removesuffix("_by_scale"): np.asarray(value, float)
            for name, value in figures[part].items()
            if not isinstance(value, float)
        }
        lines.append("  ".join(["scale".ljust(8), *(name.rjust(max(len(name), 9)) for name in columns)]))
        for k, scale in enumerate(names):
            cells = (f"{values[k]:.4f}".rjust(max(len(name), 9)) for name, values in columns.items())
            lines.append("  ".join([scale.ljust(8), *cells]))
    return lines


@functools.partial(jax.jit, static_argnums=4)
def _sums(
    tokenizer: Net, transformer: Net | None, lpips_params: Params | None, batch: dict[str, jax.Array], pictures: bool
) -> dict[str, dict[str, jax.Array]]:
    images, mask = batch[IMAGES], batch["mask"]
    module, params = tokenizer.module, tokenizer.params
    sums = {"tokenizer": reconstruction_sums(module, params, images, mask, lpips_params, pictures)}
    if transformer is not None:
        tokens = tokenizer.apply(to_signed(images), method="encode")
        inputs = Nets(tokenizer, transformer).teacher_inputs(tokens)
        module, params = transformer.module, transformer.params
        sums["transformer"] = likelihood_sums(module, params, batch["labels"], tokens, inputs, mask)
    return sums
