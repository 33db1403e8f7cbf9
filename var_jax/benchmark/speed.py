"""Measures the speed of sampling, encoding and a training step on one device, each optionally beside the reference.

Every function here returns a `Report` with one case per batch size. Weights are drawn unless a model directory is
named; inputs lie on the device before the clock starts, and a call ends when its whole result is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from var_jax.benchmark import beside, machine, work
from var_jax.benchmark.models import Chosen
from var_jax.benchmark.speed_report import Case, Report
from var_jax.benchmark.timing import compilations, progress, timed
from var_jax.benchmark.training_program import training_program
from var_jax.cpu.backend import backend_for
from var_jax.data.sources import IMAGES, TOKENS
from var_jax.errors import InputError
from var_jax.generation import sampler
from var_jax.generation.settings import Settings
from var_jax.models.baselines import make_transformer
from var_jax.models.net import Net
from var_jax.models.pictures import encode_pictures
from var_jax.models.tokenizer import Tokenizer
from var_jax.parallel.mesh import batch_sharding, replicated

Against = str | os.PathLike[str] | None


def sample(
    model: Chosen, batches: Sequence[int], dtype: str, drawing: dict[str, Any], repeats: int, against: Against = None
) -> Report:
    """Times sampling: the one program from labels to pictures.

    Args:
      model: the model that draws.
      batches: pictures per call, one case each.
      dtype: compute type, "float32" or "bfloat16".
      drawing: "guidance", without which (0) the batch is not doubled (the reference always doubles it), "top_k" and
        "top_p"; 0 is off.
      repeats: calls that count.
      against: a checkout of the reference, run in turn with ours; None: ours alone.

    Raises:
      InputError: for invalid settings, or a model without a transformer.
    """
    _check_batches(batches)
    config, backend = model.transformer, backend_for()
    nets = sampler.prepared(
        Net(Tokenizer(model.tokenizer, jnp.dtype(dtype), backend=backend), model.tokenizer_on_device()),
        Net(make_transformer(config, jnp.dtype(dtype), backend), model.transformer_on_device()),
    )
    settings = Settings.create(config.pyramid, **drawing)
    task = beside.shape(model.tokenizer, config) | drawing if against else {}

    def prepared(batch: int) -> Callable[[], Any]:
        labels = jnp.arange(batch, dtype=jnp.int32) % config.num_classes
        key = jax.random.key(0)
        return lambda: sampler.generate(nets, labels, key, settings)

    phases = lambda batch: work.sampling(config, model.tokenizer, batch, drawing["guidance"] != 0, dtype)
    return _report("sample", model, {"dtype": dtype} | drawing, batches, prepared, phases, repeats, against, task)


def tokenize(model: Chosen, batches: Sequence[int], repeats: int, against: Against = None) -> Report:
    """Times encoding, pictures to tokens, in float32 as always. The arguments are those of `sample`."""
    _check_batches(batches)
    tokenizer = Net(Tokenizer(model.tokenizer, backend=backend_for()), model.tokenizer_on_device())
    task = beside.shape(model.tokenizer) if against else {}

    def prepared(batch: int) -> Callable[[], Any]:
        images = random_pictures(batch, model.tokenizer.image_size)
        return lambda: encode_pictures(tokenizer, images)

    phases = lambda batch: work.tokenizing(model.tokenizer, batch)
    return _report("tokenize", model, {"dtype": "float32"}, batches, prepared, phases, repeats, against, task)


def train(
    model: Chosen,
    batches: Sequence[int],
    dtype: str,
    attention: str,
    source: str,
    overrides: Sequence[str],
    repeats: int,
    against: Against = None,
) -> Report:
    """Times a step of stage 2 from pictures, which are encoded in the same step, or from stored tokens.

    The reference has no stored tokens: its step always starts from pictures.

    Args:
      model: a preset.
      attention: "xla", "plain", "splash" or "cudnn".
      source: "pictures" or "tokens".
      overrides: "key=value" of the config, like "remat=nothing_saveable".
      dtype, batches, repeats, against: as for `sample`.

    Raises:
      InputError: for an invalid config.
    """
    _check_batches(batches)
    task = beside.shape(model.tokenizer, model.transformer) if against else {}

    def prepared(batch: int) -> Callable[[], Any]:
        program = training_program(model, batch, dtype, attention, overrides)
        examples = jax.device_put(random_batch(model, batch, source), batch_sharding(program.mesh))
        fixed = jax.device_put(model.tokenizer_on_device(), replicated(program.mesh))
        state = program.first_state()

        def step() -> Any:
            nonlocal state  # which is passed on in place
            state, metrics = program(state, fixed, examples)
            return state, metrics

        return step

    phases = lambda batch: work.training(model.transformer, model.tokenizer, batch, source == "pictures", dtype)
    shown = {"from": source, "dtype": dtype, "attention": attention}
    shown |= dict(text.removeprefix("--config.").partition("=")[::2] for text in overrides)
    return _report("train", model, shown, batches, prepared, phases, repeats, against, task)


def random_pictures(batch: int, size: int) -> jax.Array:
    """Random pictures, uint8 [B, size, size, 3], on the device."""
    return jax.random.randint(jax.random.key(1), (batch, size, size, 3), 0, 256).astype(jnp.uint8)


def random_batch(model: Chosen, batch: int, source: str) -> dict[str, jax.Array]:
    """A random training batch on the device; `source` is "pictures" or "tokens"."""
    labels = jnp.arange(batch, dtype=jnp.int32) % model.transformer.num_classes
    if source == "pictures":
        return {"labels": labels, IMAGES: random_pictures(batch, model.tokenizer.image_size)}
    shape = batch, model.tokenizer.pyramid.length
    tokens = jax.random.randint(jax.random.key(1), shape, 0, model.tokenizer.codebook_size)
    return {"labels": labels, TOKENS: tokens.astype(jnp.int32)}


def _report(
    what: str,
    model: Chosen,
    settings: dict[str, Any],
    batches: Sequence[int],
    prepared: Callable[[int], Callable[[], Any]],
    phases: Callable[[int], list[work.Phase]],
    repeats: int,
    against: Against,
    task: dict[str, Any],
) -> Report:
    """Times every batch size, between two measurements of the device's limits."""
    limits, cases, versions = None, [], {}
    dtypes = {phase.dtype for phase in phases(1)}
    for batch in batches:
        call, compiled = prepared(batch), []
        limits = limits or machine.measure_limits(dtypes)
        progress(f"{what}, batch {batch}: {repeats} calls" + (", in turn with the reference" if against else ""))
        own = task | {"what": what, "dtype": settings["dtype"], "batch": batch}
        timing, theirs, versions = beside.in_turn(_counting(call, compiled), against, own, repeats, again=1)
        later, peak = sum(compiled[1:]), machine.peak_bytes()
        cases.append(Case(f"batch {batch}", batch, timing, later, phases(batch), peak, theirs))
    settings = {"model": model.name, "pixels": model.tokenizer.image_size} | settings
    return Report(what, settings, cases, limits.better(machine.measure_limits(dtypes)), machine.describe(), versions)


def _counting(call: Callable[[], Any], compiled: list[int]) -> Callable[[], float]:
    """Wraps a call so that it is timed and the number of programs it compiled is appended to `compiled`."""

    def run() -> float:
        with compilations() as found:
            seconds = timed(call)
        compiled.append(len(found))
        return seconds

    return run


def _check_batches(batches: Sequence[int]) -> None:
    if not batches or min(batches) < 1:
        raise InputError(f"--batch {','.join(map(str, batches))}: expected numbers from 1 up, like 1,4")
