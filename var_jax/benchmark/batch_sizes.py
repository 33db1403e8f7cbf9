"""Whether the size of a batch shows in what is drawn: the share of pictures all of whose tokens are the same.

    python -m var_jax.benchmark.batch_sizes [--model DIR] --pictures 200 --batches 7,64

A picture's random draws follow from its own key, so only rounding can differ: a matrix product over another number of
rows may add in another order. Without `--model` it is the model that comes with the package.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from var_jax.bundle import Bundle, load
from var_jax.generation import sampler
from var_jax.generation.batching import batches, class_keys


def drawn_tokens(bundle: Bundle, count: int, batch: int, seed: int = 0) -> np.ndarray:
    """Tokens [N, L] of `count` pictures, classes in turn, drawn so many at a time with the usual settings."""
    indices, classes = np.divmod(np.arange(count), bundle.transformer.config.num_classes)
    keys, parts = class_keys(seed, classes, indices), []
    for rows, new in batches(count, batch, fill=True):
        arguments = bundle.sampler_arguments(classes[rows], keys[rows], guidance=3.0, top_p=0.95)
        parts.append(np.asarray(sampler.generate(*arguments).tokens)[:new])
    return np.concatenate(parts)


def same_share(bundle: Bundle, count: int, sizes: Sequence[int], seed: int = 0) -> float:
    """The share of pictures that every batch size draws with the same tokens."""
    first, *others = (drawn_tokens(bundle, count, size, seed) for size in sizes)
    return float(np.mean(np.all([np.all(first == other, axis=1) for other in others], axis=0)))


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="DIR", help="a model that can draw")
    parser.add_argument("--pictures", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--batches", default="7,64", help="batch sizes (default 7,64)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    sizes = [int(size) for size in args.batches.split(",")]
    share = same_share(load(args.model), args.pictures, sizes, args.seed)
    print(f"{args.pictures} pictures, batches of {args.batches}: all tokens equal in {share:.2%} of them")


if __name__ == "__main__":
    main()
