"""The options that several commands share: of the model, of how pictures are drawn, of data sets, of processes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from var_jax.bundle import Bundle, load
from var_jax.errors import InputError
from var_jax.generation import guidance
from var_jax.generation.batching import LARGEST_SEED
from var_jax.generation.classes import numbers_as_names, parse_classes
from var_jax.generation.settings import DEFAULTS, SamplingOptions
from var_jax.model_directory import bundled_model
from var_jax.parallel.processes import EXPECTED, SECONDS_TO_MEET, together

_SAMPLING = [field.name for field in dataclasses.fields(SamplingOptions)]
_DATA = ("path", "name", "data_dir", "validation_share", "seed", "size", "count", "variety")

say = functools.partial(print, flush=True)  # a line of progress, at once even into a file


def add_sampling_options(parser: argparse.ArgumentParser, defaults: SamplingOptions = DEFAULTS) -> None:
    """Adds every sampling option, and the seed."""
    options = parser.add_argument_group("how pictures are drawn", "numbers for all scales, or a list of one each")
    add_limits(options, defaults, _number_or_list)
    schedule = f"of guidance over the scales: {guidance.EXPECTED}"
    options.add_argument("--schedule", default=defaults.schedule, help=schedule)
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
    off = "0 is off (default {:g})".format
    parser.add_argument("--top-k", type=parse(int), default=defaults.top_k, help=off(defaults.top_k))
    parser.add_argument("--top-p", type=parse(float), default=defaults.top_p, help=off(defaults.top_p))


def add_guidance(parser: argparse._ActionsContainer, defaults: SamplingOptions = DEFAULTS) -> None:
    """Adds `--guidance` alone."""
    text = f"0 is none (default {defaults.guidance:g})"
    parser.add_argument("--guidance", type=float, default=defaults.guidance, help=text)


def sampling_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The options by their names in `Bundle.generate`, those that the command has, checked without a model.

    Raises:
      InputError: naming the first that cannot be.
    """
    settings = {name: getattr(args, name) for name in _SAMPLING if hasattr(args, name)}
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


def chosen_classes(text: str, bundle: Bundle) -> list[int]:
    """Ids of the classes in a list that a user wrote; a number that is a name here is said to be one.

    Raises:
      InputError: see `parse_classes`.
    """
    total = bundle.transformer.config.num_classes
    for line in numbers_as_names(text, total, bundle.class_names):
        say(f"note: {line}")
    return parse_classes(text, total, bundle.class_names)


def _number_or_list(kind: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            numbers = [kind(part) for part in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid {kind.__name__} value: '{text}'") from None
        return numbers if len(numbers) > 1 else numbers[0]

    return parse


def add_data_options(parser: argparse.ArgumentParser, kinds: str, required: bool = True) -> None:
    """Adds --kind, mandatory if `required`, and the options of every kind."""
    parser.add_argument("--kind", required=required, help=kinds)
    options = parser.add_argument_group("options of the kind, as in a config")
    options.add_argument("--path", metavar="DIR", help="folder: the folder of class folders; tokens: the store")
    options.add_argument("--name", help="tfds: name of the data set")
    options.add_argument("--data-dir", metavar="DIR", help="tfds: folder it was prepared in")
    options.add_argument("--validation-share", type=float, help="folder, tfds: share of pictures to validate with")
    options.add_argument("--seed", type=int, help="shapes, folder")
    options.add_argument("--size", type=int, help="shapes: side of the pictures")
    options.add_argument("--count", type=int, help="shapes: number of pictures")
    options.add_argument("--variety", type=float, help="shapes: above 0, at most 1")


def data_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options present on the command line, for `make_source`."""
    return {name: getattr(args, name) for name in _DATA if getattr(args, name) is not None}


def add_process_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("processes and devices")
    group.add_argument("--processes", default="auto", metavar="WHICH", help=f"{EXPECTED} (default auto)")
    waited = f"seconds to wait for the others (default {SECONDS_TO_MEET})"
    group.add_argument("--meet-within", type=float, default=SECONDS_TO_MEET, metavar="SECONDS", help=waited)
    group.add_argument("--platform", choices=("tpu", "gpu", "cpu"), help="stop unless the devices are of this kind")
    group.add_argument("--compile-cache", metavar="DIR", help="folder for compiled programs, or gs://BUCKET/FOLDER")


def joined(args: argparse.Namespace, saves: bool = False) -> contextlib.AbstractContextManager[None]:
    """Runs the body together with the other processes, if there are any; `saves` as in `together`."""
    if args.meet_within <= 0:
        raise InputError(f"--meet-within {args.meet_within}: expected seconds above 0")
    if args.compile_cache:
        jax.config.update("jax_compilation_cache_dir", args.compile_cache)
    return together(args.processes, args.platform, saves=saves, seconds=args.meet_within, say=say)
