"""The sampling options on the command line, for every command that draws pictures."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from var_jax.bundle import Bundle, load
from var_jax.errors import InputError
from var_jax.generation.batching import LARGEST_SEED
from var_jax.generation.guidance import EXPECTED
from var_jax.generation.settings import DEFAULTS, SamplingOptions
from var_jax.model_directory import bundled_model

_NAMES = [field.name for field in dataclasses.fields(SamplingOptions)]


def add_sampling_options(parser: argparse.ArgumentParser, defaults: SamplingOptions = DEFAULTS) -> None:
    """Adds every sampling option, and the seed."""
    options = parser.add_argument_group("how pictures are drawn", "numbers for all scales, or a list of one each")
    add_limits(options, defaults, _number_or_list)
    options.add_argument("--schedule", default=defaults.schedule, help=f"of guidance over the scales: {EXPECTED}")
    temperature = f"above 0 (default {defaults.temperature:g})"
    options.add_argument("--temperature", type=_number_or_list(float), default=defaults.temperature, help=temperature)
    options.add_argument("--smooth", action="store_true", help="mix codes instead of drawing one: for looks only")
    options.add_argument("--seed", type=int, default=0, help="the same seed draws the same pictures (default 0)")


def add_limits(
    parser: argparse._ActionsContainer,
    defaults: SamplingOptions = DEFAULTS,
    parse: Callable[[type], Callable[[str], Any]] = lambda kind: kind,
) -> None:
    """Adds `--guidance`, `--top-k` and `--top-p` alone; the latter two are single numbers unless `parse` reads more."""
    add_guidance(parser, defaults)
    parser.add_argument("--top-k", type=parse(int), default=defaults.top_k, help=_off(defaults.top_k))
    parser.add_argument("--top-p", type=parse(float), default=defaults.top_p, help=_off(defaults.top_p))


def add_guidance(parser: argparse._ActionsContainer, defaults: SamplingOptions = DEFAULTS) -> None:
    """Adds `--guidance` alone."""
    text = f"0 is none (default {defaults.guidance:g})"
    parser.add_argument("--guidance", type=float, default=defaults.guidance, help=text)


def sampling_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options by their names in `Bundle.generate`, those that the command has, checked without a model.

    Raises:
      InputError: naming the first that cannot be.
    """
    settings = {name: getattr(args, name) for name in _NAMES if hasattr(args, name)}
    SamplingOptions(**settings).check()
    if not 0 <= args.seed <= LARGEST_SEED:
        raise InputError(f"--seed {args.seed}: expected 0 to {LARGEST_SEED}")
    return settings


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--model`, for `load_to_sample`."""
    text = "a model directory (default: the small model that comes with the package)"
    parser.add_argument("--model", metavar="DIR", help=text)


def load_to_sample(path: str | None) -> Bundle:
    """A model that can draw; without a path the one that comes with the package, which a printed line says.

    Raises:
      InputError: if there is none at `path`, or a tokenizer alone.
    """
    if path is None:
        print(f"no --model given: the small one that comes with the package is used, {bundled_model()}", flush=True)
    bundle = load(path)
    if bundle.transformer is None:
        raise InputError(f"{path}: has a tokenizer only, import a transformer with it to sample")
    return bundle


def _off(default: float) -> str:
    return f"0 is off (default {default:g})"


def _number_or_list(kind: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            numbers = [kind(part) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid {kind.__name__} value: '{text}'") from None
        return numbers if len(numbers) > 1 else numbers[0]

    return parse
