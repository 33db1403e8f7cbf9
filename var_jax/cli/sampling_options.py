"""The options that turn how pictures are drawn, for every command that draws some."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from var_jax.bundle import Bundle, check_settings, load
from var_jax.errors import InputError
from var_jax.generation.guidance import EXPECTED
from var_jax.generation.many import LARGEST_SEED
from var_jax.model_directory import bundled_model

_SETTINGS = ("guidance", "schedule", "top_k", "top_p", "temperature", "smooth")


def add_sampling_options(parser: argparse.ArgumentParser, guidance: float) -> None:
    """Adds them, with the strength of guidance that the command uses by default."""
    options = parser.add_argument_group("how pictures are drawn", "numbers for all scales, or a list of one each")
    options.add_argument("--guidance", type=float, default=guidance, help=f"0 is none (default {guidance:g})")
    options.add_argument("--schedule", default="linear", help=f"of guidance over the scales: {EXPECTED}")
    options.add_argument("--top-k", type=_number_or_list(int), default=900, help="0 is off (default 900)")
    options.add_argument("--top-p", type=_number_or_list(float), default=0.95, help="0 is off (default 0.95)")
    options.add_argument("--temperature", type=_number_or_list(float), default=1.0, help="above 0 (default 1)")
    options.add_argument("--smooth", action="store_true", help="mix codes instead of drawing one: for looks only")
    options.add_argument("--seed", type=int, default=0, help="the same seed draws the same pictures (default 0)")


def sampling_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings by the names that `Bundle.generate` has for them, checked as far as no model is needed.

    Raises:
      InputError: naming the first that cannot be.
    """
    check_settings(args.guidance, args.top_k, args.top_p, args.temperature, args.schedule)
    if not 0 <= args.seed <= LARGEST_SEED:
        raise InputError(f"--seed {args.seed}: expected 0 to {LARGEST_SEED}")
    return {name: getattr(args, name) for name in _SETTINGS}


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`, for `load_to_sample`."""
    text = "a model directory (default: the small model that comes with the package)"
    parser.add_argument("--model", metavar="DIR", help=text)


def load_to_sample(path: str | None) -> Bundle:
    """A model that can draw; without a path the one that comes with the package, of which a line tells.

    Raises:
      InputError: if there is none at `path`, or a tokenizer alone.
    """
    if path is None:
        print(f"no --model given: the small one that comes with the package is used, {bundled_model()}", flush=True)
    bundle = load(path)
    if bundle.transformer is None:
        raise InputError(f"{path}: has a tokenizer only, import a transformer with it to sample")
    return bundle


def _number_or_list(kind: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            numbers = [kind(part) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid {kind.__name__} value: '{text}'") from None
        return numbers if len(numbers) > 1 else numbers[0]

    return parse
