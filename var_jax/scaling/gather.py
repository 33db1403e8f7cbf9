"""Gathers training directories into one table: one row per evaluation of every finished model."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections

from var_jax.errors import InputError
from var_jax.formats.atomic import local_target
from var_jax.models.baselines import transformer_config_from
from var_jax.models.costs import block_parameters, training_flops_per_token, transformer_parameters
from var_jax.models.transformer import TransformerConfig
from var_jax.training.build import make_progressive
from var_jax.training.reporting import METRICS_FILE
from var_jax.training_directory import RUN_FILE, newest_step, read_run

Row = dict[str, Any]


def gather(runs: Sequence[str | os.PathLike[str]]) -> tuple[list[Row], list[str]]:
    """Rows of all runs, and one line per directory that is left out.

    Args:
      runs: training directories, or folders of them.

    Returns:
      Rows by size and step, with the columns of `evaluation_rows`; then directories left out, with the reason.

    Raises:
      InputError: if a folder holds no training directory.
    """
    rows, left_out = [], []
    for path in runs:
        folder = local_target(path)
        parts = sorted(folder.iterdir()) if folder.is_dir() else []
        found = [folder] if (folder / RUN_FILE).exists() else [part for part in parts if part.is_dir()]
        if not found:
            raise InputError(f"{path}: holds no training directory; give the --out of a sweep, or runs themselves")
        for run in found:
            try:
                rows += evaluation_rows(run)
            except InputError as error:
                left_out.append(str(error))
    return sorted(rows, key=lambda row: (row["n"], row["model"], row["step"])), left_out


def is_finished(run: Path) -> bool:
    """Whether a run was trained, evaluated and saved to its end."""
    try:
        evaluation_rows(run)
    except InputError:
        return False
    return True


def evaluation_rows(run: Path) -> list[Row]:
    """A finished transformer run's evaluations.

    Returns:
      Rows with model (the directory's name), depth, width, n (see `block_parameters`), parameters (all), step,
      tokens and flops of training so far, loss and error (1 - accuracy): mean over all tokens, `_last` for the last
      scale, and `_0` ... per scale.

    Raises:
      InputError: naming the directory, if it is damaged, has not finished, or is no transformer's.
    """
    about = read_run(run)
    if about["stage"] != "transformer":
        raise InputError(f"{run}: is a tokenizer's run, a table has transformers")
    try:
        config = transformer_config_from(about["transformer"])
        settings = ml_collections.ConfigDict(about["config"])
        total = about.get("total_steps") or settings.steps
        batch = settings.batch_size
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{run}: {RUN_FILE} is damaged ({type(error).__name__}: {error})") from None
    evaluations = _evaluations(run)
    if not total or total not in evaluations or newest_step(run) < total:
        done = f"{max(evaluations)} of {total} steps evaluated" if evaluations else "no evaluation"
        remedy = "the same training command goes on, with evaluate_pictures above 0"
        raise InputError(f"{run}: has not finished ({done}); {remedy}")
    seen = _seen(settings, config, total, batch)
    size = {"n": block_parameters(config), "parameters": transformer_parameters(config)}
    rows = []
    for step, figures in sorted(evaluations.items()):
        tokens, flops = seen(step)
        row = {"model": run.name, "depth": config.depth, "width": config.width, **size, "step": step}
        rows.append(row | {"tokens": tokens, "flops": flops} | _figures(run, step, figures))
    return rows


def _evaluations(run: Path) -> dict[int, dict[str, Any]]:
    """Validation figures by step; the later ones for a step that was done twice, after a kill."""
    file, found = run / METRICS_FILE, {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({type(error).__name__}: {error})") from None
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            if values["kind"] == "validation":
                found[int(values["step"])] = values
        except (ValueError, KeyError, TypeError):
            if number < len(lines):  # a process killed while writing leaves half a line, at the end only
                raise InputError(f"{file}, line {number}: is damaged; restore the file, or train again") from None
    return found


def _figures(run: Path, step: int, values: dict[str, Any]) -> Row:
    try:
        row = {"loss": values["loss"], "error": 1.0 - values["accuracy"]}
        row |= {"loss_last": values["loss_last"], "error_last": 1.0 - values["accuracy_last"]}
        row |= {f"loss_{k}": loss for k, loss in enumerate(values["loss_by_scale"])}
        row |= {f"error_{k}": 1.0 - hits for k, hits in enumerate(values["accuracy_by_scale"])}
        if not all(math.isfinite(value) for value in row.values()):
            raise ValueError("a figure that is not finite")
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{run / METRICS_FILE}: the evaluation at step {step} is damaged ({error})") from None
    return {name: round(value, 7) for name, value in row.items()}


def _seen(settings: ml_collections.ConfigDict, config: TransformerConfig, total: int, batch: int) -> Any:
    """A function step -> (tokens, training FLOPs) until then; a progressive step counts its own scales alone."""
    with_pyramid = lambda pyramid: dataclasses.replace(config, pyramid=pyramid)
    flops_of = functools.cache(lambda pyramid: training_flops_per_token(with_pyramid(pyramid)))
    if not settings.progressive.until:
        each = batch * config.pyramid.length
        return lambda step: (step * each, step * each * flops_of(config.pyramid))
    stage_at, tokens, flops = make_progressive(settings, config.pyramid, total), [0], [0.0]
    for step in range(total):
        stage = stage_at(step)
        pyramid = config.pyramid if stage is None else stage.prefix
        tokens.append(tokens[-1] + batch * pyramid.length)
        flops.append(flops[-1] + batch * pyramid.length * flops_of(pyramid))
    return lambda step: (tokens[step], flops[step])
