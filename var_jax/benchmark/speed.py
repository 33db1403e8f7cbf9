"""How fast sampling, encoding and a step of training are on one device, each beside the reference if it is asked for.

Every function here returns a `Report` with one case a batch size. Weights are drawn unless a model directory is given;
inputs lie on the device before the clock starts, and a call ends when all of its result is there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from var_jax.benchmark import beside, machine, work
from var_jax.benchmark.models import Chosen
from var_jax.benchmark.speed_report import Case, Report
from var_jax.benchmark.timing import compilations, take_turns, timed
from var_jax.benchmark.training_program import Program
from var_jax.data.sources import IMAGES, TOKENS
from var_jax.errors import InputError
from var_jax.generation import sampler
from var_jax.generation.kernels import for_sampling
from var_jax.generation.settings import make_controls
from var_jax.models.pictures import encode_pictures
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer

Against = str | os.PathLike[str] | None
Say = Callable[[str], None]


def sample(
    model: Chosen,
    batches: Sequence[int],
    dtype: str,
    guidance: float,
    top_k: int,
    top_p: float,
    repeats: int,
    against: Against = None,
    say: Say = print,
) -> Report:
    """The one program from labels to pictures.

    Args:
      model: of which pictures are drawn.
      batches: pictures a call.
      dtype: compute type, "float32" or "bfloat16".
      guidance: 0 is none, and the batch is not doubled then (the reference's always is).
      top_k, top_p: 0 is off.
      repeats: calls that count.
      against: a checkout of the reference, to be run in turn; None: ours alone.
      say: told what is at work.

    Raises:
      InputError: for settings or a model that cannot be.
    """
    _check_batches(batches)
    transformer_params = for_sampling(model.transformer_on_device())
    params = model.tokenizer_on_device(), transformer_params
    config = model.transformer
    modules = Tokenizer(model.tokenizer, jnp.dtype(dtype)), Transformer(config, jnp.dtype(dtype))
    settings = make_controls(config.pyramid, config.codebook_size, guidance, top_k, top_p, 1.0)
    drawing = {"guidance": guidance, "top_k": top_k, "top_p": top_p}
    task = None
    if against:
        task = beside.shape(model.tokenizer, config) | drawing | {"what": "sample", "dtype": dtype}

    def prepared(batch: int) -> Callable[[], Any]:
        labels = jnp.arange(batch, dtype=jnp.int32) % config.num_classes
        key = jax.random.key(0)
        return lambda: sampler.generate(*modules, *params, labels, key, settings, guided=guidance != 0, smooth=False)

    phases = lambda batch: work.sampling(config, model.tokenizer, batch, guidance != 0, dtype)
    told = {"model": model.name, "pixels": model.tokenizer.image_size, "dtype": dtype} | drawing
    return _report("sample", told, batches, prepared, phases, {dtype}, repeats, against, task, say)


def tokenize(model: Chosen, batches: Sequence[int], repeats: int, against: Against = None, say: Say = print) -> Report:
    """Pictures to tokens: the encoder and the quantizer, in float32 as always. The arguments are those of `sample`."""
    _check_batches(batches)
    tokenizer, params = Tokenizer(model.tokenizer), model.tokenizer_on_device()
    task = beside.shape(model.tokenizer) | {"what": "tokenize", "dtype": "float32"} if against else None

    def prepared(batch: int) -> Callable[[], Any]:
        images = random_pictures(batch, model.tokenizer.image_size)
        return lambda: encode_pictures(tokenizer, params, images)

    phases = lambda batch: work.tokenizing(model.tokenizer, batch)
    told = {"model": model.name, "pixels": model.tokenizer.image_size, "dtype": "float32"}
    return _report("tokenize", told, batches, prepared, phases, {"float32"}, repeats, against, task, say)


def train(
    model: Chosen,
    batches: Sequence[int],
    dtype: str,
    attention: str,
    source: str,
    overrides: Sequence[str],
    repeats: int,
    against: Against = None,
    say: Say = print,
) -> Report:
    """A step of stage 2 from pictures, which are encoded in the same step, or from stored tokens.

    The reference has no stored tokens: its step is always from pictures.

    Args:
      model: a preset.
      attention: "xla", "plain", "splash" or "cudnn".
      source: "pictures" or "tokens".
      overrides: "key=value" of the config, like "remat=nothing_saveable".
      The others are those of `sample`.

    Raises:
      InputError: for a config that cannot be.
    """
    _check_batches(batches)
    task = None
    if against:
        task = beside.shape(model.tokenizer, model.transformer) | {"what": "train", "dtype": dtype}

    def prepared(batch: int) -> Callable[[], Any]:
        program = Program(model, batch, dtype, attention, overrides)
        return program.ready(random_batch(model, batch, source))

    phases = lambda batch: work.training(model.transformer, model.tokenizer, batch, source == "pictures", dtype)
    told = {"model": model.name, "pixels": model.tokenizer.image_size, "from": source, "dtype": dtype}
    told |= {"attention": attention} | dict(text.removeprefix("--config.").partition("=")[::2] for text in overrides)
    return _report("train", told, batches, prepared, phases, {dtype, "float32"}, repeats, against, task, say)


def random_pictures(batch: int, size: int) -> jax.Array:
    """uint8 [B, size, size, 3] on the device."""
    return jax.random.randint(jax.random.key(1), (batch, size, size, 3), 0, 256).astype(jnp.uint8)


def random_batch(model: Chosen, batch: int, source: str) -> dict[str, jax.Array]:
    """A training batch on the device; `source` is "pictures" or "tokens"."""
    labels = jnp.arange(batch, dtype=jnp.int32) % model.transformer.num_classes
    if source == "pictures":
        return {"labels": labels, IMAGES: random_pictures(batch, model.tokenizer.image_size)}
    shape = batch, model.tokenizer.pyramid.length
    tokens = jax.random.randint(jax.random.key(1), shape, 0, model.tokenizer.codebook_size)
    return {"labels": labels, TOKENS: tokens.astype(jnp.int32)}


def _report(
    what: str,
    told: dict[str, Any],
    batches: Sequence[int],
    prepared: Callable[[int], Callable[[], Any]],
    phases: Callable[[int], list[work.Phase]],
    dtypes: set[str],
    repeats: int,
    against: Against,
    task: dict[str, Any] | None,
    say: Say,
) -> Report:
    """Times every batch size, between two looks at the device's limits."""
    limits, cases, versions = None, [], {}
    for batch in batches:
        call, compiled = prepared(batch), []
        limits = limits or machine.measure_limits(dtypes)
        say(f"{what}, batch {batch}: {repeats} calls" + (", in turn with the reference" if against else ""))
        with contextlib.ExitStack() as opened:
            runs = {"ours": _counting(call, compiled)}
            if against:
                reference = opened.enter_context(beside.Reference(against, task | {"batch": batch}))
                runs["reference"], versions = reference.run, reference.versions
            timings = take_turns(runs, repeats, again=1)
            theirs = (timings["reference"], reference.peak_bytes()) if against else None
        later, peak = sum(compiled[1:]), machine.peak_bytes()
        cases.append(Case(f"batch {batch}", batch, timings["ours"], later, phases(batch), peak, theirs))
    return Report(what, told, cases, limits.better(machine.measure_limits(dtypes)), machine.describe(), versions)


def _counting(call: Callable[[], Any], compiled: list[int]) -> Callable[[], float]:
    """The call timed; how many programs each one compiled is added to `compiled`."""

    def run() -> float:
        with compilations() as found:
            seconds = timed(call)
        compiled.append(len(found))
        return seconds

    return run


def _check_batches(batches: Sequence[int]) -> None:
    if not batches or min(batches) < 1:
        raise InputError(f"--batch {','.join(map(str, batches))}: expected numbers from 1 up, like 1,4")
