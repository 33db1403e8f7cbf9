#!/usr/bin/env python3
"""Resident memory of the loader over many steps, from pictures and from a store of tokens; exit code 1 if it grows.

python launch/loader_memory.py --steps 10000
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from var_jax.benchmark.stored_tokens import drawn_tokenizer
from var_jax.data.pipeline import train_batches
from var_jax.data.sources import make_source
from var_jax.models.quantizer import QuantizerConfig
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.pyramid import Pyramid
from var_jax.training.tokenize import Cuts, tokenize

SIZE, BATCH, MOST = 16, 8, 0.05


def main() -> int:
    """Prints a line for either kind; 0 if both stay flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000, help="of the loader (default 10000)")
    args = parser.parse_args()
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
    """What training reads from a folder of pictures, and from a store of their tokens."""
    rng = np.random.default_rng(0)
    for number in range(200):
        file = folder / "pictures" / f"class{number % 2}" / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 20, 3), np.uint8)).save(file)
    pyramid, options = Pyramid((1, 2, 4)), {"path": str(folder / "pictures")}
    blocks = {"encoder_blocks": 1, "decoder_blocks": 1}
    config = TokenizerConfig(QuantizerConfig(pyramid, 16, 4), 8, (1, 2, 2), **blocks, norm_groups=4)
    drawn_tokenizer(folder / "tokenizer", config)
    given = {"pictures_a_file": 16, "say": lambda text: None}
    tokenize(folder / "tokenizer", "folder", options, Cuts(4), folder / "store", **given)
    return {
        "pictures": train_batches(make_source("folder", "train", **options), SIZE, BATCH, 0, flip=True),
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
    sys.exit(main())
