"""Whether pictures depend on the size of their batch: the share of pictures all of whose tokens are the same.

    python -m studies.batch_sizes --pictures 200 --batches 7,64

A picture's random draws follow from its own key, so only rounding can differ: a matrix product over another number of
rows may add in another order. Without `--model DIR` the model that comes with the package draws them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from studies.command_line import exit_with, options
from var_jax.bundle import Bundle, load
from var_jax.generation import sampler
from var_jax.generation.batching import batches, class_keys


def drawn_tokens(bundle: Bundle, count: int, batch: int, seed: int = 0) -> np.ndarray:
    """Tokens [N, L] of `count` pictures, classes in turn, drawn `batch` at a time with the usual settings."""
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


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the study with the command line's options."""
    parser = options("batch_sizes", __doc__)
    parser.add_argument("--model", metavar="DIR", help="a model with a transformer (default: the one of the package)")
    parser.add_argument("--pictures", type=int, default=200, help="how many (default 200)")
    parser.add_argument("--batches", default="7,64", help="batch sizes (default 7,64)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    sizes = [int(size) for size in args.batches.split(",")]
    share = same_share(load(args.model), args.pictures, sizes, args.seed)
    print(f"{args.pictures} pictures, batches of {args.batches}: all tokens equal in {share:.2%} of them")


if __name__ == "__main__":
    exit_with(main)
