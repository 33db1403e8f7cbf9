"""The five figures of many pictures with drawn features, and the most memory that the process held meanwhile.

    python -m studies.evaluation_memory --samples 50000 --reference 10000

Everything behind the network is the code of `var-jax evaluate`, at its sizes. The network itself, whose memory is that
of one batch, is left out, so that this takes minutes.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from studies.command_line import exit_with, options
from var_jax.benchmark.machine import resident_peak
from var_jax.evaluation.extract import Chunk
from var_jax.evaluation.protocol import Judge, Reference, evaluate
from var_jax.parallel.mesh import make_mesh

_CLASSES, _CHUNK = 1008, 1024


@dataclasses.dataclass(frozen=True)
class DrawnPictures:
    """A number of pictures, of which only features are drawn, from a seed."""

    name: str
    count: int
    seed: int

    def notes(self) -> list[str]:
        """Remarks for the report: none."""
        return []

    def identity(self) -> str:
        """The name under which features are stored: empty, none are."""
        return ""


@dataclasses.dataclass(frozen=True)
class DrawnFeatures:
    """Features in the place of the extractor's; a few directions vary most, as in real ones."""

    mesh: jax.sharding.Mesh
    pooled: int
    spatial: int

    def chunks(self, pictures: DrawnPictures, *_: Any, **__: Any) -> Iterator[Chunk]:
        """The features of a thousand pictures at a time."""
        rng = np.random.default_rng(pictures.seed)
        directions = np.random.default_rng(0).standard_normal((64, self.pooled), np.float32) / 8
        for start in range(0, pictures.count, _CHUNK):
            rows = min(_CHUNK, pictures.count - start)
            mixed = rng.standard_normal((rows, 64), np.float32) @ directions
            pooled = np.abs(mixed + 0.3 * rng.standard_normal((rows, self.pooled), np.float32)) / 2
            spatial = rng.standard_normal((rows, self.spatial), np.float32)
            yield Chunk(pooled, spatial, rng.integers(0, 2**63, rows, np.uint64))


def measure(
    samples: int, reference: int, pooled: int, spatial: int, say: Callable[[str], None] = print
) -> dict[str, float]:
    """The five figures, and `peak_gib` and `seconds` of the process so far.

    Args:
      samples, reference: how many pictures of each.
      pooled, spatial: features per picture, of each kind.
      say: gets a line now and then.
    """
    since = time.monotonic()
    mesh = make_mesh()
    classes = np.random.default_rng(1).standard_normal((pooled, _CLASSES)).astype(np.float32) * 0.05
    judge = Judge(DrawnFeatures(mesh, pooled, spatial), classes, spatial, {"published": False})
    against = Reference(None, None, DrawnPictures("reference", reference, 3))
    report, _ = evaluate(DrawnPictures("samples", samples, 2), against, judge, say=say)
    names = ("fid", "sfid", "inception_score", "precision", "recall")
    took = {"peak_gib": resident_peak() / 2**30, "seconds": time.monotonic() - since}
    return {name: report[name] for name in names} | took


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the study with the command line's options."""
    parser = options("evaluation_memory", __doc__)
    parser.add_argument("--samples", type=int, default=50_000, help="pictures to judge (default 50000)")
    parser.add_argument("--reference", type=int, default=10_000, help="pictures to judge by (default 10000)")
    parser.add_argument("--pooled", type=int, default=2048, help="features of the whole picture (default 2048)")
    parser.add_argument("--spatial", type=int, default=2023, help="features of its places (default 2023)")
    args = parser.parse_args(argv)
    say = functools.partial(print, flush=True)
    figures = measure(args.samples, args.reference, args.pooled, args.spatial, say)
    for name, value in figures.items():
        print(f"{name:18}{value:.4f}")


if __name__ == "__main__":
    exit_with(main)
