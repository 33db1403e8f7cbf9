"""Measures the time from the start of Python until a program could run, with an empty and with a filled cache.

    python -m var_jax.benchmark.compiling TASK

is one such start, which prints its seconds as JSON; `compile_times` makes such starts. Nothing is drawn or computed,
so a model may be larger than the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from var_jax.errors import InputError
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes

PHASES = ("start of Python and JAX", "tracing and lowering", "compiling or loading")


def compile_times(
    task: dict[str, Any], repeats: int, say: Callable[[str], None] = print
) -> tuple[dict[str, list[dict[str, float]]], dict[str, Any]]:
    """Measures first and second starts; returns their seconds by phase and the machine's description.

    Args:
      task: "program" ("sample" or "train"), "preset", "pyramid", "channels", "batch", "dtype" (None: the machine's
        own); for sampling also "guidance", for training also "attention", "source" and "overrides".
      repeats: pairs of a first start with an empty cache and a second one.
      say: called with lines about progress.

    Raises:
      InputError: for an invalid task.
    """
    if repeats < 1:
        raise InputError(f"repeats {repeats}: expected 1 or more")
    found: dict[str, list[dict[str, float]]] = {"first start": [], "second start": []}
    for number in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for kind, starts in found.items():
                say(f"compile {task['program']}: {kind}, {number + 1} of {repeats}")
                seconds, described = _start(task, cache)
                starts.append(seconds)
            size = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
    return found, described | {"cache_bytes": size}


def _start(task: dict[str, Any], cache: str) -> tuple[dict[str, float], dict[str, Any]]:
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    since = time.time()
    child = subprocess.run(
        [sys.executable, "-m", "var_jax.benchmark.compiling", json.dumps(task | {"since": since})],
        env=environment,
        capture_output=True,
        text=True,
    )
    if child.returncode:
        raise InputError((child.stderr.strip().splitlines() or ["the measured process ended without a message"])[-1])
    answer = json.loads(child.stdout.splitlines()[-1])
    return answer["seconds"], answer["machine"]


def text_of(found: dict[str, list[dict[str, float]]]) -> Sequence[dict[str, str]]:
    """Columns of the table, one per kind of start."""
    from var_jax.benchmark.speed_report import spread

    columns = []
    for starts in found.values():
        column = {f"{phase}, s": spread([start[phase] for start in starts]) for phase in PHASES}
        columns.append(column | {"in all, s": spread([sum(start.values()) for start in starts])})
    return columns


def _lowered(task: dict[str, Any]) -> Any:
    import jax
    import jax.numpy as jnp

    from var_jax.benchmark.models import preset
    from var_jax.benchmark.speed import random_batch
    from var_jax.benchmark.training_program import training_program
    from var_jax.cpu.backend import backend_for
    from var_jax.cpu.layer_kernels import shapes_for_sampling
    from var_jax.generation import sampler
    from var_jax.generation.settings import Settings
    from var_jax.models.baselines import make_transformer
    from var_jax.models.net import Net, Nets
    from var_jax.models.tokenizer import Tokenizer

    model = preset(task["preset"], task["pyramid"], task["channels"])
    if task["program"] == "train":
        program = training_program(model, task["batch"], task["dtype"], task["attention"], task["overrides"])
        batch = jax.eval_shape(lambda: random_batch(model, task["batch"], task["source"]))
        return program.lower(tokenizer_shapes(model.tokenizer), batch)
    dtype, backend = jnp.dtype(task["dtype"]), backend_for()
    shapes = transformer_shapes(model.transformer)
    shapes = shapes_for_sampling(shapes) if jax.default_backend() == "cpu" else shapes
    tokenizer = Net(Tokenizer(model.tokenizer, dtype, backend=backend), tokenizer_shapes(model.tokenizer))
    return sampler.generate.lower(
        Nets(tokenizer, Net(make_transformer(model.transformer, dtype, backend), shapes)),
        jax.ShapeDtypeStruct((task["batch"],), jnp.int32),
        jax.eval_shape(lambda: jax.random.key(0)),
        jax.eval_shape(lambda: Settings.create(model.transformer.pyramid, guidance=task["guidance"])),
    )


def main() -> None:
    """Measures one start: until JAX runs, until the program is lowered, until it is compiled."""
    task = json.loads(sys.argv[1])
    from var_jax.benchmark import machine

    described, task["dtype"] = machine.describe(), task["dtype"] or machine.default_dtype()
    moments = [task["since"], time.time()]
    try:
        lowered = _lowered(task)
    except InputError as error:
        sys.exit(str(error))
    moments.append(time.time())
    lowered.compile()
    moments.append(time.time())
    seconds = {name: b - a for name, a, b in zip(PHASES, moments, moments[1:], strict=False)}
    print(json.dumps({"seconds": seconds, "machine": described | {"dtype": task["dtype"]}}))


if __name__ == "__main__":
    main()
