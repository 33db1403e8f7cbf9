"""Resident memory of the loader over many steps, from pictures and from a store of tokens; exit code 1 if it grows.

python -m studies.loader_memory --steps 10000
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from studies.command_line import exit_with, options
from studies.stored_tokens import drawn_tokenizer
from var_jax.data.pipeline import train_batches
from var_jax.data.sources import make_source
from var_jax.models.quantizer import QuantizerConfig
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.pyramid import Pyramid
from var_jax.training.tokenize import Cuts, tokenize

SIZE, BATCH, MOST = 16, 8, 0.05


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one line per kind of source; 0 if memory stays flat with both."""
    parser = options("loader_memory", __doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="of the loader (default 10000)")
    args = parser.parse_args(argv)
    grown = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, batches in loaders(Path(folder)).items():
            early, late = resident(batches, args.steps)
            grown.append(late / early - 1)
            print(
                f"{kind}: {args.steps} steps, {early / 2**20:.1f} MiB, then {late / 2**20:.1f} MiB ({grown[-1]:+.2%})"
            )
    return int(max(grown) > MOST)


def loaders(folder: Path) -> dict[str, Iterator[dict[str, np.ndarray]]]:
    """The batches of a training from a folder of pictures, and from a store of their tokens."""
    rng = np.random.default_rng(0)
    for number in range(200):
        file = folder / "pictures" / f"class{number % 2}" / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(file)
    pyramid, pictures = Pyramid((1, 2, 4)), {"path": str(folder / "pictures")}
    config = TokenizerConfig(QuantizerConfig(pyramid, 16, 4), 8, (1, 2, 2), 1, 1, norm_groups=4)
    drawn_tokenizer(folder / "tokenizer", config)
    quietly = {"pictures_per_file": 16, "say": lambda text: None}
    tokenize(folder / "tokenizer", "folder", pictures, Cuts(4), folder / "store", **quietly)
    return {
        "pictures": train_batches(make_source("folder", "train", **pictures), SIZE, BATCH, 0, flip=True),
        "store": train_batches(make_source("tokens", "train", path=folder / "store"), SIZE, BATCH, 0),
    }


def resident(batches: Iterator[dict[str, np.ndarray]], steps: int) -> tuple[float, float]:
    """Median resident bytes in the second tenth of the steps, and in the last."""
    page, seen = os.sysconf("SC_PAGE_SIZE"), []
    for _ in itertools.islice(batches, steps):
        seen.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)
    batches.close()
    tenth = max(steps // 10, 1)
    return statistics.median(seen[tenth : 2 * tenth]), statistics.median(seen[-tenth:])


if __name__ == "__main__":
    exit_with(main)
