"""The figures of docs/method.md and its table: the parts of the method at work on drawn shapes.

    python -m studies.method_figures --out docs/pictures

The encoded pictures are held-out drawn shapes, so the model has to be one of those; without --model it is the one that
comes with the package.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from studies.command_line import exit_with, options
from var_jax.bundle import Bundle, load
from var_jax.data.shapes import CLASS_NAMES, Shapes
from var_jax.errors import InputError
from var_jax.generation.filtering import filter_logits
from var_jax.generation.pictures import grid, save_picture
from var_jax.models.tokenizer import Tokenizer
from var_jax.pyramid import Pyramid

GUIDANCES = (0.0, 1.0, 3.0, 8.0)
FILTERS = ({"top_k": 1}, {"top_p": 0.5}, {"top_p": 0.95}, {})
TOP_P = 0.95  # of the table
_CAPTIONS = ("top-k 1", "top-p 0.5", "top-p 0.95", "all")
_PICTURES = 40  # held-out ones that the table is a mean over
_ENCODED = (4, 12, 26)  # of them the figures show: a star, a square, a crescent
_LABELS = (1, 3, 4, 6)  # classes of the drawn figures, one per row
_TILE = 64  # pixels of a map in the figures, at least
_MASKED = Pyramid((1, 2, 3, 4))  # small enough to see single tokens
_CELL = 12  # pixels of a token in the mask's figure
_CONTRAST = 2.0  # of differences of pictures, around grey


class Decoded(NamedTuple):
    """A picture's tokens decoded scale by scale: maps of code width C.

    Attributes:
      added: [S, B, h, w, C] the contribution of each scale.
      sums: [S, B, h, w, C] the running sum f_hat after it.
      inputs: S - 1 maps [B, p, p, C]: the sum at the next scale's size, from which that scale is predicted.
    """

    added: jax.Array
    sums: jax.Array
    inputs: list[jax.Array]


@functools.partial(jax.jit, static_argnums=0)
def decoded(tokenizer: Tokenizer, params: dict, tokens_BxL: jax.Array) -> Decoded:
    """The decoder's side of the paper's Algorithms 1 and 2, step by step."""
    quantizer, pyramid = tokenizer.bind({"params": params}).quantizer, tokenizer.config.pyramid
    codes = [quantizer.embed(tokens_BxL[:, pyramid.slice(k)]) for k in range(len(pyramid))]
    added = jnp.stack([quantizer.contribution(each, k) for k, each in enumerate(codes)])
    sums = jnp.cumsum(added, axis=0)
    inputs = []
    for k in range(1, len(pyramid)):
        shape = (tokens_BxL.shape[0], pyramid.sides[k], pyramid.sides[k], -1)
        inputs.append(quantizer.next_scale_input(sums[k - 1], k).reshape(shape))
    return Decoded(added, sums, inputs)


def scales_figure(bundle: Bundle, images: np.ndarray) -> np.ndarray:
    """Two rows per picture: decoded after each scale, last the picture; and the change by each scale, around grey."""
    tokens_BxL, pyramid = bundle.encode(images), bundle.tokenizer.config.pyramid
    after = np.stack([np.asarray(bundle.decode(tokens_BxL, scales=k + 1)) for k in range(len(pyramid))])
    changed = np.clip(0.5 + _CONTRAST * np.diff(after, axis=0, prepend=np.full_like(after[:1], 0.5)), 0, 1)
    rows = []
    for row, image in enumerate(images):
        white = np.ones_like(after[0, row])
        rows += [*after[:, row], image / 255.0, *changed[:, row], white]
    columns = len(pyramid) + 1
    return grid(_enlarged(np.stack(rows)), columns, [*pyramid.names, "picture"])


def input_figure(bundle: Bundle, images: np.ndarray) -> np.ndarray:
    """Three rows for one picture, by scale: its contribution, the sum, the sum at the next scale's size.

    Maps have more channels than colours: the figure shows the three directions in which the sum varies most.
    """
    pyramid, steps = bundle.tokenizer.config.pyramid, decoded(*_tokenizer(bundle), bundle.encode(images[:1]))
    values = np.asarray(steps.sums[-1]).reshape(-1, steps.sums.shape[-1])
    _, _, directions = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
    colours = np.zeros((values.shape[1], 3), np.float32)
    colours[:, : len(directions[:3])] = directions[:3].T
    largest = np.abs(values @ colours).max()

    def coloured(maps: jax.Array) -> list[np.ndarray]:
        shown = np.clip(0.5 + np.asarray(maps) @ colours / (2 * largest), 0, 1)
        return list(_to_side(shown, max(_TILE, pyramid.final_side)))

    rows = [*coloured(steps.added[:, 0]), *coloured(steps.sums[:, 0])]
    rows += [coloured(each)[0] for each in steps.inputs] + [np.ones_like(rows[0])]
    return grid(np.stack(rows), len(pyramid), pyramid.names)


def mask_figure(pyramid: Pyramid = _MASKED) -> np.ndarray:
    """The attention mask: one row per position, coloured where it may look, by the scale of the seen token."""
    shades = np.linspace(0.25, 0.75, len(pyramid))[:, None] * np.array([0.1, 0.75, 0.8])
    cells = np.where(pyramid.block_causal_mask[..., None], shades[pyramid.level_ids][None], 0.94)
    image = np.kron(cells, np.ones((_CELL, _CELL, 1)))
    for at in range(0, len(image), _CELL):
        image[at], image[:, at] = 1.0, 1.0
    return grid(image[None], 1)


def guidance_figure(bundle: Bundle, seed: int = 0) -> np.ndarray:
    """One column per strength of guidance, one row per class; a row's pictures are drawn with one key."""
    columns = [_drawn(bundle, seed, guidance=strength) for strength in GUIDANCES]
    captions = [f"{strength:g}" for strength in GUIDANCES]
    return _by_column(columns, captions)


def filtering_figure(bundle: Bundle, seed: int = 0) -> np.ndarray:
    """One column per filter of the distribution, one row per class; unguided."""
    off = {"top_k": 0, "top_p": 0.0, "guidance": 0.0}
    return _by_column([_drawn(bundle, seed, **off | limits) for limits in FILTERS], list(_CAPTIONS))


def left_by_top_p(bundle: Bundle, images: np.ndarray, labels: np.ndarray, top_p: float = TOP_P) -> np.ndarray:
    """[S] number of tokens that top-p leaves to choose from: means over the positions of encoded pictures."""
    pyramid = bundle.tokenizer.config.pyramid
    logits_BxLxV = bundle.logits(labels, bundle.encode(images))
    left_BxL = np.asarray(jnp.isfinite(filter_logits(logits_BxLxV, 0, top_p)).sum(axis=-1))
    return np.array([part.mean() for part in pyramid.split(left_BxL)])


def _drawn(bundle: Bundle, seed: int, **settings: float) -> np.ndarray:
    return np.asarray(bundle.generate(list(_LABELS), jax.random.key(seed), **settings))


def _by_column(columns: list[np.ndarray], captions: list[str]) -> np.ndarray:
    rows = np.stack(columns, axis=1)
    return grid(_enlarged(rows.reshape(-1, *rows.shape[2:])), len(columns), captions)


def _tokenizer(bundle: Bundle) -> tuple[Tokenizer, dict]:
    return bundle.tokenizer.module, bundle.tokenizer.params


def _enlarged(images_NxHxWx3: np.ndarray) -> np.ndarray:
    """Small pictures enlarged by a whole factor, so that captions fit above them."""
    side = images_NxHxWx3.shape[1]
    return _to_side(images_NxHxWx3, side * -(-_TILE // side))


def _to_side(images_NxHxWx3: np.ndarray, side: int) -> np.ndarray:
    """Pictures at another side, by nearest neighbours: every pixel becomes a block."""
    nearest = np.arange(side) * images_NxHxWx3.shape[1] // side
    return np.asarray(images_NxHxWx3)[:, nearest][:, :, nearest]


def write(model: str | None, out: Path) -> list[str]:
    """Writes the figures as PNG and returns the lines of the table.

    Raises:
      InputError: for a model of something else than drawn shapes.
    """
    bundle = load(model)
    if bundle.transformer is None or bundle.class_names != CLASS_NAMES:
        raise InputError(f"{model}: the figures are of drawn shapes; expected a transformer of their ten classes")
    source = Shapes("validation", bundle.tokenizer.config.image_size, _PICTURES)
    images = np.stack([source[index][0] for index in range(_PICTURES)])
    shown = images[list(_ENCODED)]
    figures = {
        "scales": scales_figure(bundle, shown),
        "input": input_figure(bundle, shown),
        "mask": mask_figure(),
        "guidance": guidance_figure(bundle),
        "filtering": filtering_figure(bundle),
    }
    for name, figure in figures.items():
        save_picture(out / f"method_{name}.png", figure)
    pyramid, codes = bundle.tokenizer.config.pyramid, bundle.tokenizer.config.codebook_size
    left = left_by_top_p(bundle, images, source.labels())
    lines = [f"| {side} | {count:.1f} |" for side, count in zip(pyramid.names, left, strict=True)]
    return [f"| scale | tokens of {codes} that top-p {TOP_P:g} leaves |", "|---|---|", *lines]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the study with the command line's options."""
    parser = options("method_figures", __doc__)
    parser.add_argument("--model", metavar="DIR", help="a model of drawn shapes (default: the one of the package)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder for the figures")
    args = parser.parse_args(argv)
    print("\n".join(write(args.model, args.out)))


if __name__ == "__main__":
    exit_with(main)
