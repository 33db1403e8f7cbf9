"""Reading a training directory: its description and the model of its newest checkpoint.

`training.json` describes the run (its config, the models' configs, class names), `checkpoints/STEP`
holds Orbax items, of which `weights` are the parameters to draw pictures with. A transformer's run
keeps its tokenizer as a model directory beside them. `read_any_model` opens a training directory and
a model directory alike.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from var_jax.errors import InputError
from var_jax.formats.bucket import in_bucket, open_folder
from var_jax.formats.checksums import damage, is_sealed
from var_jax.formats.description import read_description
from var_jax.formats.small_files import OBJECT, TEXTS, Kind, require_fields
from var_jax.model_directory import CONFIG_FILE, Model, read_model
from var_jax.models.baselines import transformer_config_from
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import TokenizerConfig

RUN_FILE = "training.json"
FORMAT = "var_jax training directory"
FORMAT_VERSION = 1
CHECKPOINTS, WEIGHTS, TOKENIZER = "checkpoints", "weights", "tokenizer"
# Orbax's own file of a checkpoint, and the mark in it that the checkpoint was named with checksums inside.
_STAGE = Kind("tokenizer or transformer", lambda value: value in ("tokenizer", "transformer"))
_REMEDY = "bring it back from a copy"
ORBAX_FILE, SEALED = "_CHECKPOINT_METADATA", "sealed"


def read_any_model(path: str | os.PathLike[str]) -> Model:
    """Reads the model of a model directory, or the newest one of a training directory.

    Raises:
      InputError: if the path holds neither, or an incomplete one.
    """
    folder = open_folder(path)
    if (folder / RUN_FILE).exists() and not (folder / CONFIG_FILE).exists():
        return _read_trained(folder)
    return read_model(path)


def read_run(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the description of the run (`training.json`) in a training directory.

    Raises:
      InputError: if `workdir` is not a training directory.
    """
    file = open_folder(workdir) / RUN_FILE
    if not file.exists():
        raise InputError(f"{workdir}: not a training directory, it has no {RUN_FILE}")
    run = read_description(file, "the description", FORMAT, FORMAT_VERSION, _REMEDY)
    stage = {"class_names": TEXTS, "transformer": OBJECT} if run.get("stage") != "tokenizer" else {"tokenizer": OBJECT}
    require_fields(run, file, {"stage": _STAGE, "config": OBJECT, **stage}, _REMEDY)
    return run


def check_path(workdir: epath.Path) -> None:
    """Refuses a path under which checkpoints would be written in vain.

    Raises:
      InputError: for a character that TensorStore or Orbax takes for something else.
    """
    try:
        text = str(workdir).encode().decode()
    except UnicodeEncodeError:
        raise InputError(f"{str(workdir)!a}: is not UTF-8, which checkpoints need; choose another path") from None
    if not in_bucket(workdir) and (found := [wrong for wrong in ("\\", "gs:/") if wrong in f"{text}/"]):
        raise InputError(f"{workdir}: checkpoints cannot be read under a path with {found[0]}; choose another path")


def has_checkpoint(workdir: epath.Path) -> bool:
    """Whether the run has a finished checkpoint to resume from."""
    return bool(_steps(workdir))


def _steps(workdir: epath.Path) -> list[int]:
    folder = workdir / CHECKPOINTS
    return ocp.utils.checkpoint_steps(folder) if folder.exists() else []


def newest_step(workdir: epath.Path) -> int:
    """The step of the newest finished checkpoint.

    Raises:
      InputError: if the run has none.
    """
    steps = _steps(workdir)
    if not steps:
        raise InputError(f"{workdir}: this run has no checkpoint yet")
    return max(steps)


def need_not_be_sealed(checkpoint: Path) -> bool:
    """Whether a checkpoint has no checksums and none are missing: var_jax 0.1 wrote them late, or was killed."""
    try:
        marks = json.loads((checkpoint / ORBAX_FILE).read_text())["custom_metadata"] or {}
        return not is_sealed(checkpoint) and SEALED not in marks
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read_trained(workdir: epath.Path) -> Model:
    run, step = read_run(workdir), newest_step(workdir)
    source = {run["stage"]: f"trained for {step} steps"}
    if run["stage"] == "tokenizer":
        config = _config_of(run, TokenizerConfig.from_dict, workdir)
        counts = np.zeros((len(config.pyramid), config.codebook_size), np.float32)
        params = _restore(workdir, step, tokenizer_shapes(config))
        return Model(config, params, counts, source=source)
    tokenizer = read_model(workdir / TOKENIZER)
    transformer_config = _config_of(run, transformer_config_from, workdir)
    params = _restore(workdir, step, transformer_shapes(transformer_config))
    names = tuple(run["class_names"])  # a config of the user's own may make room for more classes than its data has
    names += tuple(f"class {label}" for label in range(len(names), transformer_config.num_classes))
    return Model(
        tokenizer.tokenizer_config,
        tokenizer.tokenizer_params,
        tokenizer.code_counts_SxV,
        transformer_config,
        params,
        names,
        {**tokenizer.source, **source},
    )


def _config_of(run: dict[str, Any], read: Callable[[dict[str, Any]], Any], workdir: epath.Path) -> Any:
    """The config of the model that a run trains."""
    try:
        return read(run[run["stage"]])
    except InputError as error:
        raise InputError(f"{workdir / RUN_FILE}: {error}") from None
    except (TypeError, ValueError, AttributeError) as error:  # text or a list where a number belongs
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{workdir / RUN_FILE}: '{run['stage']}' is no model's config ({reason}); {_REMEDY}") from None


def _restore(workdir: epath.Path, step: int, abstract: Any) -> Any:
    """The checkpoint's weights as float32 numpy arrays, checked against the shapes that the run implies."""
    folder = workdir / CHECKPOINTS / str(step) / WEIGHTS
    local = None if in_bucket(workdir) else Path(folder.parent)
    if local and not need_not_be_sealed(local) and (found := damage(local, WEIGHTS)):
        raise InputError(
            f"{folder}: the checkpoint is damaged ({found}); resume the run, which puts it aside and goes on from the "
            "one before"
        )
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray, dtype=np.float32), abstract)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            params = checkpointer.restore(folder, args=ocp.args.PyTreeRestore(abstract, restore_args))
    except (ValueError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: the checkpoint cannot be read ({reason})") from None
    for (where, leaf), found in zip(
        jax.tree_util.tree_leaves_with_path(abstract), jax.tree.leaves(params), strict=True
    ):
        if leaf.shape != found.shape:
            name = jax.tree_util.keystr(where, simple=True, separator="/")
            raise InputError(f"{folder}: {name} has shape {found.shape}, {RUN_FILE} implies {leaf.shape}")
    return params
