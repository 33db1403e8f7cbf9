"""The quality of editing on held-out pictures of a trained model, each figure with a bootstrap interval.

    python -m studies.editing --pictures 200 --lpips vgg16.ckpt --pictures-out runs/editing \\
        --json runs/editing.json

judges the model that comes with the package, `--model runs/quickstart/var` the newest of a training.

In-painting: a box of random place and size is cut out of every picture and redrawn without a class, by

* `mean_fill`: the mean colour of the rest;
* `reference`: the reference's procedure: nothing blanked, the mask brought to each scale by bilinear interpolation,
  the coarsest scale kept, known tokens of the untouched picture, nothing composited;
* `dilate_0`, `dilate_1`, `dilate_2`: this package's, with 0 to 2 tokens around the mask redrawn too;
* `reference_class`, `dilate_0_class`: the same with the picture's class.

Up-scaling: every picture is shrunk by means of blocks, to a half and to a quarter, and enlarged by

* `bicubic`: cubic interpolation;
* `encoded`: as `var-jax edit` does, every scale encoding the enlarged picture;
* `drawn`: the same, but scales finer than the small picture's grid are drawn by the transformer.

Figures, of pictures in [-1, 1] against the originals: `lpips` if there are weights for it, `structure`
(losses/perceptual.py: differences of edges at several sizes; not LPIPS), `psnr` (inside the mask, or of everything),
`accuracy` of a classifier that is trained on the model's own training pictures, `changed` the share of pixels beyond
the mask and its soft edge that are not the original's.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from studies.command_line import exit_with, options, write_json
from var_jax.bundle import Bundle, load
from var_jax.data.sources import SPLITS, Spread, make_source
from var_jax.evaluation.classifier import Classifier, train_classifier
from var_jax.evaluation.small_data import pictures_of
from var_jax.generation import masks, upscaling
from var_jax.generation.batching import batches
from var_jax.generation.editing import box_mask, seen_and_keep_mask
from var_jax.generation.pictures import grid, save_picture, to_uint8
from var_jax.losses.perceptual import lpips, structure_loss
from var_jax.pretrained.lpips_file import read_lpips
from var_jax.pyramid import Pyramid
from var_jax.training.config import load_config
from var_jax.training_directory import read_run

_BUNDLED_RECIPE = "shapes_var:64"  # whose data the model that comes with the package was trained on
_BATCH = 50
_RESAMPLED = 2000
_TRAINING = 6000  # pictures that the classifier learns from, at most
_SHOWN = 12  # pictures in the grids
FACTORS = (2, 4)
SETTINGS = {"top_k": 900, "top_p": 0.95}
_GUIDANCE = 3.0  # with a class; without one guidance changes nothing


@dataclasses.dataclass(frozen=True)
class Judge:
    """Measures edited pictures against the originals."""

    classifier: Classifier
    lpips_params: dict | None

    def __call__(
        self, edited: np.ndarray, originals: np.ndarray, labels: np.ndarray, mask_NxHxW: np.ndarray
    ) -> dict[str, np.ndarray]:
        """By name, one number per picture; uint8 pictures in."""
        measures: dict[str, Callable] = {"structure": structure_loss}
        if self.lpips_params is not None:
            measures["lpips"] = functools.partial(jax.jit(lpips), self.lpips_params)
        figures = {name: _by_batches(measure, edited, originals) for name, measure in measures.items()}
        squares = np.mean((edited.astype(np.float64) - originals) ** 2, axis=-1)
        error = np.sum(squares * mask_NxHxW, axis=(1, 2)) / np.sum(mask_NxHxW, axis=(1, 2))
        figures["psnr"] = 10 * np.log10(255.0**2 / np.maximum(error, 1e-3))
        beyond = np.stack([masks.soft_edge(mask, soft_edge(mask)) == 0 for mask in mask_NxHxW])
        changed = np.any(edited != originals, axis=-1) & beyond
        figures["changed"] = np.sum(changed, axis=(1, 2)) / np.maximum(np.sum(beyond, axis=(1, 2)), 1)
        figures["accuracy"] = (np.argmax(self.classifier(edited)[0], axis=-1) == labels).astype(np.float64)
        return figures


def _by_batches(measure: Callable, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    signed = lambda images: jnp.asarray(images, jnp.float32) / 127.5 - 1.0
    return np.concatenate(
        [np.asarray(measure(signed(a[rows]), signed(b[rows])))[:new] for rows, new in batches(len(a), _BATCH)]
    )


def interval(values: np.ndarray, seed: int = 0) -> list[float]:
    """[mean, lower, upper]: the mean with its 95 % bootstrap interval over pictures."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (_RESAMPLED, len(values)))].mean(axis=1)
    return [float(values.mean()), *(float(q) for q in np.quantile(means, (0.025, 0.975)))]


def random_boxes(count: int, size: int, seed: int = 0) -> np.ndarray:
    """[N, size, size] bool: one box per picture, of sides between a quarter and a half, anywhere."""
    rng, boxes = np.random.default_rng(seed), []
    for _ in range(count):
        sides = rng.integers(size // 4, size // 2 + 1, 2)
        x, y = (int(rng.integers(0, size - side + 1)) for side in sides)
        boxes.append(box_mask((x, y, x + int(sides[0]), y + int(sides[1])), (size, size)))
    return np.stack(boxes)


def soft_edge(mask_HxW: np.ndarray) -> int:
    """The width in pixels of the soft edge of `var-jax edit`."""
    return max(1, mask_HxW.shape[0] // 32)


def reference_keep_mask(mask_NxHxW: np.ndarray, pyramid: Pyramid) -> np.ndarray:
    """[N, L] bool, the mask of the reference's notebook: bilinear to each scale, above 0.5, the coarsest scale kept."""
    side = pyramid.final_side
    cells = mask_NxHxW.reshape(len(mask_NxHxW), side, mask_NxHxW.shape[1] // side, side, -1).mean(axis=(2, 4)) > 0.5
    keep_masks = []
    for p in pyramid.sides:
        shape = (len(cells), p, p)
        share = jax.image.resize(1.0 - cells, shape, "linear", antialias=False)
        keep_masks.append(np.asarray((share > 0.5) | (p == 1)).reshape(len(cells), -1))
    return np.concatenate(keep_masks, axis=1)


def redraw_all(
    bundle: Bundle,
    shown: np.ndarray,
    keep: np.ndarray,
    seed: int,
    reencode: bool = True,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """uint8 pictures redrawn, each from a key of its own; without labels, of no class."""
    keys = jax.random.split(jax.random.key(seed), len(shown))
    classes = [None] * len(shown) if labels is None else [int(label) for label in labels]
    settings, parts = SETTINGS | {"guidance": 0.0 if labels is None else _GUIDANCE, "reencode": reencode}, []
    for rows, new in batches(len(shown), _BATCH):
        drawn = bundle.redraw(shown[rows], keep[rows], [classes[row] for row in rows], keys[rows], **settings)
        parts.append(to_uint8(drawn)[:new])
    return np.concatenate(parts)


def inpainted(
    bundle: Bundle, originals: np.ndarray, mask_NxHxW: np.ndarray, labels: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """The pictures in-painted by every method; "_class" is with the class."""
    pyramid, size = bundle.tokenizer.config.pyramid, bundle.tokenizer.config.image_size
    weights = ~mask_NxHxW[..., None]
    means = np.sum(originals * weights, axis=(1, 2), keepdims=True) / np.sum(weights, axis=(1, 2), keepdims=True)
    result = {"mean_fill": np.where(weights, originals, np.rint(means).astype(np.uint8))}
    keep_mask = reference_keep_mask(mask_NxHxW, pyramid)
    for name, classes in (("reference", None), ("reference_class", labels)):
        result[name] = redraw_all(bundle, originals, keep_mask, seed, reencode=False, labels=classes)
    alphas = [masks.soft_edge(mask, soft_edge(mask)) for mask in mask_NxHxW]
    for dilate, classes in ((0, None), (1, None), (2, None), (0, labels)):
        pairs = [
            seen_and_keep_mask(*pair, pyramid, size, 0, dilate) for pair in zip(originals, mask_NxHxW, strict=True)
        ]
        shown, keep = (np.stack(part) for part in zip(*pairs, strict=True))
        drawn = redraw_all(bundle, shown, keep, seed, labels=classes)
        result[f"dilate_{dilate}{'' if classes is None else '_class'}"] = np.stack(
            [masks.composite(*three) for three in zip(originals, drawn, alphas, strict=True)]
        )
    return result


def upscaled(bundle: Bundle, originals: np.ndarray, seed: int, factor: int) -> dict[str, np.ndarray]:
    """The pictures shrunk by `factor` and enlarged again, by cubic interpolation and by the model."""
    pyramid, size = bundle.tokenizer.config.pyramid, bundle.tokenizer.config.image_size
    small = [to_uint8(upscaling.resize(image, (size // factor, size // factor)) / 255.0) for image in originals]
    result = {"bicubic": np.stack([to_uint8(upscaling.resize(image, (size, size)) / 255.0) for image in small])}
    coarse = max(1, sum(side * factor <= pyramid.final_side for side in pyramid.sides))
    for name, scales in (("encoded", len(pyramid)), ("drawn", coarse)):
        calls = itertools.count(seed)
        redraw = lambda shown, keep, calls=calls: redraw_all(bundle, shown, keep, next(calls)) / np.float32(255)
        result[name] = upscaling.upscale(redraw, pyramid, size, np.stack(small), factor, scales)
    return result


def measure(model: str | None, count: int, lpips_file: str | None, folder: Path | None, seed: int, steps: int) -> dict:
    """The whole study: {task: {method: {figure: [mean, lower, upper]}}}; the grids go to `folder`.

    Raises:
      InputError: if `model` is no transformer's training directory, or `lpips_file` no weights of LPIPS.
    """
    data = load_config(_BUNDLED_RECIPE).data if model is None else read_run(model)["config"]["data"]
    bundle = load(model)
    size, classes = bundle.tokenizer.config.image_size, bundle.transformer.config.num_classes
    training, held_out = (
        pictures_of(Spread(make_source(data["kind"], split, **data["options"]), number), size, data["enlarge"])
        for split, number in zip(SPLITS, (_TRAINING, count), strict=True)
    )
    judge = Judge(
        train_classifier(*training, classes, steps=steps, seed=seed, progress=print),
        read_lpips(lpips_file) if lpips_file else None,
    )
    originals, labels = held_out
    boxes, everywhere = random_boxes(len(originals), size, seed), np.ones((len(originals), size, size), bool)
    blanked = np.stack([masks.blank(*pair) for pair in zip(originals, boxes, strict=True)])
    tasks = {
        "inpaint": (inpainted(bundle, originals, boxes, labels, seed), boxes, blanked),
    }
    for factor in FACTORS:
        tasks[f"upscale_{factor}"] = upscaled(bundle, originals, seed, factor), everywhere, originals
    figures: dict = {"pictures": len(originals), "classifier_accuracy": judge.classifier.accuracy(*held_out)}
    for task, (edited, mask, shown) in tasks.items():
        values = {method: judge(images, originals, labels, mask) for method, images in edited.items()}
        figures[task] = {method: {name: interval(each) for name, each in of.items()} for method, of in values.items()}
        figures[task] |= {f"{a} - {b}": _differences(values[a], values[b]) for a, b in _pairs(task)}
        if folder is not None:
            rows = [originals[:_SHOWN], shown[:_SHOWN], *(images[:_SHOWN] for images in edited.values())]
            save_picture(folder / f"{task}.png", grid(np.concatenate(rows), min(_SHOWN, len(originals))))
    return figures


def _pairs(task: str) -> list[tuple[str, str]]:
    if task != "inpaint":
        return [("encoded", "bicubic"), ("drawn", "bicubic"), ("encoded", "drawn")]
    pairs = [("dilate_0", other) for other in ("mean_fill", "reference", "dilate_1", "dilate_2")]
    return pairs + [("dilate_0_class", other) for other in ("mean_fill", "reference", "reference_class")]


def _differences(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Intervals of differences picture by picture, which are much sharper than two intervals side by side."""
    return {name: interval(a[name] - b[name]) for name in a}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the study with the command line's options."""
    parser = options("editing", __doc__)
    parser.add_argument("--model", metavar="DIR", help="a transformer's training directory (default: see above)")
    parser.add_argument("--pictures", type=int, default=200, help="held-out pictures (default 200)")
    parser.add_argument("--lpips", metavar="FILE", help="weights of LPIPS; without them that figure is left out")
    parser.add_argument("--pictures-out", type=Path, metavar="DIR", help="write grids to look at here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (default 0)")
    parser.add_argument("--steps", type=int, default=800, help="of training the classifier (default 800)")
    args = parser.parse_args(argv)
    figures = measure(args.model, args.pictures, args.lpips, args.pictures_out, args.seed, args.steps)
    print(json.dumps(figures, indent=2))
    write_json(args.json, figures)


if __name__ == "__main__":
    exit_with(main)
