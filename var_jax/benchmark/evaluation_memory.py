"""All five figures of many pictures whose features are drawn, and the most memory that the process held meanwhile.

    python -m var_jax.benchmark.evaluation_memory --samples 50000 --reference 10000

Everything behind the network is what `var-jax evaluate` runs, at its sizes; the network itself, whose memory is that of
one batch, is left out, so that this takes minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from var_jax.benchmark.machine import resident_peak
from var_jax.evaluation.extract import Chunk
from var_jax.evaluation.protocol import Judge, Reference, evaluate
from var_jax.parallel.mesh import make_mesh

_POOLED, _SPATIAL, _CLASSES, _CHUNK = 2048, 2023, 1008, 1024


@dataclasses.dataclass(frozen=True)
class DrawnPictures:
    """So many pictures of which only features will be drawn, by a seed."""

    name: str
    count: int
    seed: int

    def notes(self) -> list[str]:
        """Nothing to be said of them."""
        return []

    def identity(self) -> str:
        """None: nothing is kept on disk."""
        return ""


@dataclasses.dataclass(frozen=True)
class DrawnFeatures:
    """In the place of the extractor; few directions vary most, as in real features."""

    mesh: jax.sharding.Mesh

    def chunks(self, pictures: DrawnPictures, *_: Any, **__: Any) -> Iterator[Chunk]:
        """A thousand pictures' features at a time."""
        rng = np.random.default_rng(pictures.seed)
        directions = np.random.default_rng(0).standard_normal((64, _POOLED), np.float32) / 8
        for start in range(0, pictures.count, _CHUNK):
            rows = min(_CHUNK, pictures.count - start)
            mixed = rng.standard_normal((rows, 64), np.float32) @ directions
            pooled = np.abs(mixed + 0.3 * rng.standard_normal((rows, _POOLED), np.float32)) / 2
            yield Chunk(
                pooled, rng.standard_normal((rows, _SPATIAL), np.float32), rng.integers(0, 2**63, rows, np.uint64)
            )


def measure(samples: int, reference: int, say: Callable[[str], None]) -> dict[str, float]:
    """The five figures, and `peak_gib` and `seconds` of the process so far."""
    since = time.monotonic()
    mesh = make_mesh()
    classes = np.random.default_rng(1).standard_normal((_POOLED, _CLASSES)).astype(np.float32) * 0.05
    judge = Judge(DrawnFeatures(mesh), classes, _SPATIAL, {"published": False})
    given = Reference("drawn", None, None, DrawnPictures("reference", reference, 3))
    report, _ = evaluate(DrawnPictures("samples", samples, 2), given, judge, say=say)
    names = ("fid", "sfid", "inception_score", "precision", "recall")
    took = {"peak_gib": resident_peak() / 2**30, "seconds": time.monotonic() - since}
    return {name: report[name] for name in names} | took


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--reference", type=int, default=10_000)
    args = parser.parse_args()
    for name, value in measure(args.samples, args.reference, lambda line: print(line, flush=True)).items():
        print(f"{name:18}{value:.4f}")


if __name__ == "__main__":
    main()
