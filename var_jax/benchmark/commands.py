"""The `var-jax benchmark` commands: from parsed arguments to measurements and printed reports."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from var_jax.benchmark import compiling, loading, machine, speed
from var_jax.benchmark.models import Chosen, directory, preset
from var_jax.benchmark.speed_report import Report, about, machine_lines, table
from var_jax.benchmark.timing import progress
from var_jax.errors import InputError
from var_jax.formats.atomic import atomic_file


def sample(args: argparse.Namespace) -> None:
    """`benchmark sample`."""
    _share_the_device(args)
    dtype = args.dtype or machine.default_dtype()
    drawing = {name: getattr(args, name) for name in ("guidance", "top_k", "top_p")}
    _present(args, speed.sample(_model(args), _batches(args.batch), dtype, drawing, args.repeats, args.against))


def train(args: argparse.Namespace) -> None:
    """`benchmark train`."""
    _share_the_device(args)
    model, batches = preset(args.preset, args.pyramid, args.channels), _batches(args.batch)
    options = args.dtype or machine.default_dtype(), args.attention, args.source, args.overrides, args.repeats
    _present(args, speed.train(model, batches, *options, args.against))


def tokenize(args: argparse.Namespace) -> None:
    """`benchmark tokenize`."""
    _share_the_device(args)
    _present(args, speed.tokenize(_model(args), _batches(args.batch), args.repeats, args.against))


def data(args: argparse.Namespace) -> None:
    """`benchmark data`."""
    options = args.size, args.batch, args.batches, args.workers, args.repeats
    if args.folder:
        return _present(args, loading.load(args.folder, *options, args.against))
    with tempfile.TemporaryDirectory() as folder:
        progress(f"making {args.pictures} JPEG pictures")
        loading.make_folder(Path(folder), args.pictures)
        _present(args, loading.load(folder, *options, args.against))


def compile(args: argparse.Namespace) -> None:
    """`benchmark compile`."""
    task = {name: getattr(args, name) for name in ("program", "preset", "pyramid", "channels", "batch", "dtype")}
    if args.program == "sample":
        task |= {"guidance": args.guidance}
        if args.overrides:
            raise InputError(f"{args.overrides[0]}: changes a training config, take --program train")
    else:
        task |= {"attention": args.attention, "source": args.source, "overrides": args.overrides}
    found, described = compiling.compile_times(task, args.repeats, progress)
    lines = [f"compile: {', '.join(f'{name} {value}' for name, value in task.items() if value)}"]
    lines += [*machine_lines(described, None, {}), "", table(list(found), compiling.text_of(found))]
    print("\n".join(lines))
    _write(args.json, about("compile", task, described) | {"starts": found})


def _model(args: argparse.Namespace) -> Chosen:
    if not args.model:
        return preset(args.preset, args.pyramid, args.channels)
    if args.pyramid or args.channels != 160:
        raise InputError(f"--pyramid and --channels: the model {args.model} fixes them, leave them out")
    return directory(args.model)


def _share_the_device(args: argparse.Namespace) -> None:
    """Keeps JAX from reserving nearly all memory of a GPU that the reference is to share."""
    if args.against:
        os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.45")


def _batches(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--batch {text}: expected numbers from 1 up, like 1,4") from None


def _present(args: argparse.Namespace, report: Report) -> None:
    print(report.text())
    _write(args.json, report.to_dict())


def _write(path: str | None, values: dict[str, Any]) -> None:
    if path:
        with atomic_file(Path(path)) as temporary:
            temporary.write_text(json.dumps(values, indent=1) + "\n")
