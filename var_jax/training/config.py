"""Configs: found by name or file, overridden from the command line, locked, and kept with the run."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
from etils import epath

from var_jax.errors import InputError
from var_jax.training import fields
from var_jax.training_directory import FORMAT, FORMAT_VERSION, RUN_FILE, read_run


def load_config(name: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Loads a config by its name in the package or from a Python file, applies overrides, checks and locks it.

    Args:
      name: "shapes_var" or "path/to/file.py", either with an argument after a colon ("shapes_var:quick").
      overrides: "key=value" or "key.inner=value" (a leading "--config." is removed); values are
        Python literals, anything else is text.

    Raises:
      InputError: naming the unknown config, or the key or value that cannot be.
    """
    base, argument = split_name(name)
    try:
        config = config_module(base).get_config(argument)
    except InputError:
        raise
    except Exception as error:  # a user's file may raise anything
        if base.endswith(".py") and not isinstance(error, (KeyError, ValueError)):
            raise InputError(f"config file {base}: get_config: {type(error).__name__}: {error}") from error
        raise InputError(f"config {base}: has no variant '{argument}' (see the text on top of it)") from None
    if not isinstance(config, ml_collections.ConfigDict):
        raise InputError(f"config {base}: get_config returned {type(config).__name__}, expected a ConfigDict")
    config.lock()
    for override in overrides:
        _override(config, override)
    fields.check(config)
    return config


def split_name(name: str) -> tuple[str, str]:
    """The config and its argument ("" for none) of "config:argument"; names of earlier versions stand for today's."""
    renamed = importlib.import_module("var_jax.configs").RENAMED
    base, _, argument = renamed.get(name.partition(":")[0], name).partition(":")
    return base, argument


def config_names() -> list[str]:
    """Names of the configs inside the package."""
    package = importlib.import_module("var_jax.configs")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def config_module(base: str) -> Any:
    """Imports a config's module by its name in the package, or a Python file.

    Raises:
      InputError: if there is no such config, or it has no get_config.
    """
    if base.endswith(".py"):
        path = Path(base)
        if not path.is_file():
            raise InputError(f"config file {base}: no such file")
        spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # a user's file may raise anything
            raise InputError(f"config file {base}: {type(error).__name__}: {error}") from error
    elif base in config_names():
        module = importlib.import_module(f"var_jax.configs.{base}")
    else:
        raise InputError(f"config '{base}': known are {', '.join(config_names())}, or give a .py file")
    if not hasattr(module, "get_config"):
        raise InputError(f"config {base}: has no get_config(argument)")
    return module


def _override(config: ml_collections.ConfigDict, text: str) -> None:
    key, equals, value = text.removeprefix("--").removeprefix("config.").partition("=")
    if not equals:
        raise InputError(f"override '{text}': expected --config.key=value")
    node, parts = config, key.split(".")
    for part in parts[:-1]:
        node = _child(node, part, key)
    old = _child(node, parts[-1], key)
    if isinstance(old, ml_collections.ConfigDict):
        raise InputError(f"override '{key}': is a section ({', '.join(old)}), set one of its keys")
    kind = fields.fields(config).get(key)
    own = fields.TEXT if isinstance(old, str) else fields.Kind("", lambda value: True)  # of a user's own field
    new = (kind or own).parsed(value)
    if isinstance(old, tuple) and isinstance(new, (int, float)):
        new = (new,)
    new = new if kind is None else kind.checked(f"config {key}", new)
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        new = float(new)
    if kind is None and old is not None and new is not None and type(old) is not type(new):
        raise InputError(f"override '{key}': expected {type(old).__name__} like {old!r}, got {value!r}")
    with node.unlocked(), node.ignore_type():
        node[parts[-1]] = new


def _child(node: Any, part: str, key: str) -> Any:
    if not isinstance(node, ml_collections.ConfigDict) or part not in node:
        known = ", ".join(node) if isinstance(node, ml_collections.ConfigDict) else "nothing below it"
        raise InputError(f"config key '{key}': '{part}' is not one of {known}")
    return node[part]


def plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as read back from JSON: tuples are lists."""
    return json.loads(json.dumps(config.to_dict()))


# Fields that may change between runs in one directory, since none of them affects what is learned.
_FREE = {
    *("mesh", "sharding", "remat", "attention", "attention_blocks"),  # where and how it is computed
    *("data.workers", "data.bad_share", "data.changed"),  # who decodes pictures, and what stops the run
    *("report_every", "evaluate_every", "checkpoint_every", "keep_checkpoints"),
    *("evaluate_pictures", "evaluate_batch_size", "sample_classes", "sample_guidance"),  # evaluations alone
    "inception_weights",  # judges evaluations alone
    "lpips_weights",  # the published ones or none, wherever they lie; without them `loss.lpips` is refused
    "tokenizer",  # another one than the run began with is refused by its fingerprint, wherever it lies
}


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Lines "key: old -> new" for the differences between two plain configs that are not allowed."""
    lines = []
    for key in sorted(set(old) | set(new)):
        name = f"{prefix}{key}"
        if name in _FREE or old.get(key) == new.get(key):
            continue
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            lines += differences(old[key], new[key], name + ".")
        else:
            lines.append(f"{name}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}")
    return lines


def claim_directory(workdir: epath.Path, config: ml_collections.ConfigDict, about: dict[str, Any]) -> None:
    """Claims `workdir` for this config, or checks that it has been.

    `about` are facts about the run for other commands (stage, model configs, class names).

    Raises:
      InputError: if the directory holds something else, or a run of another config.
    """
    file = workdir / RUN_FILE
    if file.exists():
        stored = read_run(workdir)
        # A different stage explains all other differences, so it comes first.
        if changed := sorted(differences(stored["config"], plain(config)), key=lambda line: "stage:" not in line):
            raise InputError(
                f"{workdir}: holds a run of another config ({'; '.join(changed[:6])}): choose another --workdir"
            )
        return
    temporary = workdir / f"{RUN_FILE}.tmp"  # a process killed here may have left it
    if workdir.exists() and any(item.name != temporary.name for item in workdir.iterdir()):
        raise InputError(f"{workdir}: is not empty and holds no run of var_jax: choose another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **about, "config": plain(config)}
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(file)
