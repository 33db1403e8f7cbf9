"""The fields of a training config and the values that each may have: one table, checked before anything is claimed.

A number beyond the largest here is a typing error, or would overflow a counter or fill any memory.
"""

from __future__ import annotations

import ast
import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np

from var_jax.errors import InputError
from var_jax.generation.batching import LARGEST_SEED
from var_jax.losses.adversarial import LOSSES
from var_jax.models.baselines import INPUTS
from var_jax.models.recompute import policies
from var_jax.parallel.mesh import AXES
from var_jax.pyramid import Pyramid
from var_jax.training.adversary import KINDS
from var_jax.training.optimizer import SCHEDULES

MOST_STEPS = 2**31 - 1  # the step is an int32


@dataclasses.dataclass(frozen=True)
class Kind:
    """A set of values.

    Attributes:
      expected: the set in words.
      holds: whether a value other than None belongs to it.
      none: whether None does.
      text: whether a word of the command line is text whatever it looks like.
      path: whether it is a path, in which ~ is the home folder.
    """

    expected: str
    holds: Callable[[Any], bool]
    none: bool = False
    text: bool = False
    path: bool = False

    def checked(self, name: str, value: Any) -> Any:
        """The value as a plain one, with ~ expanded.

        Raises:
          InputError: naming the field, if the value is not of this kind.
        """
        value = value.item() if isinstance(value, np.generic) else value
        value = os.fspath(value) if self.path and isinstance(value, os.PathLike) else value
        if not (self.none if value is None else self.holds(value)):
            raise InputError(f"{name} is {_shown(value)}: expected {self.expected}{' or None' * self.none}")
        return os.path.expanduser(value) if self.path and value is not None else value

    def parsed(self, word: str) -> Any:
        """The value that a word of the command line stands for, of this kind or not."""
        value = literal(word)
        if self.text:
            return value if isinstance(value, str) or (value is None and self.none) else word
        return tuple(value) if isinstance(value, list) else value


def literal(word: str) -> Any:
    """A word of the command line as a Python literal; as true, false or none in any case; else as text."""
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False, "none": None}.get(word.lower(), word)


def _shown(value: Any) -> str:
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of too many digits
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:80]}..."


def number(low: float = 0.0, high: float = 1e9, but: tuple[float, ...] = ()) -> Kind:
    """Numbers from `low` to `high`, except those of `but`."""
    fits = lambda value: isinstance(value, (int, float)) and not isinstance(value, bool)
    words = f"a number from {low:g} to {high:g}" + "".join(f", not {value:g}" for value in but)
    return Kind(words, lambda value: fits(value) and low <= value <= high and value not in but)


def whole(low: int, high: int = MOST_STEPS, but: tuple[int, ...] = (), zero: str = "") -> Kind:
    """Whole numbers from `low` to `high`, except those of `but`; `zero` are words for the meaning of 0."""
    fits = lambda value: isinstance(value, int) and not isinstance(value, bool)
    words = f"a whole number from {low} to {high}" + "".join(f", not {value}" for value in but) + zero
    return Kind(words, lambda value: fits(value) and low <= value <= high and value not in but)


def choice(*names: str) -> Kind:
    """One of some words."""
    return Kind(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names, text=True)


def several(kind: Kind, count: int | None = None) -> Kind:
    """A list of `count` values of one kind; by default of any number of them but none."""
    fits = lambda value: isinstance(value, (tuple, list)) and (len(value) == count if count else len(value) > 0)
    words = f"{count or 'a list of'} values, each {kind.expected}"
    return Kind(words, lambda value: fits(value) and all(kind.holds(each) for each in value))


def or_none(kind: Kind) -> Kind:
    """The kind, and None."""
    return dataclasses.replace(kind, none=True)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_pyramid(value: Any) -> bool:
    if isinstance(value, (tuple, list)) and not all(isinstance(side, int) for side in value):
        return False
    return isinstance(value, (str, int, tuple, list)) and bool(Pyramid.parse(value))


def _is_rules(value: Any) -> bool:
    """Whether it is a list of (pattern, axes): every axis None, the name of a mesh axis, or several of them."""
    listed = lambda each: isinstance(each, (tuple, list))
    axis = lambda each: each is None or (set(each) <= set(AXES) if listed(each) else each in AXES)
    rule = lambda pattern, axes: isinstance(pattern, str) and re.compile(pattern) and listed(axes)
    try:
        return listed(value) and all(rule(*each) and all(map(axis, each[1])) for each in value)
    except (TypeError, ValueError, re.error):
        return False


FLAG = Kind("True or False", lambda value: isinstance(value, bool))
TEXT = Kind("text", _is_text, text=True)
PATH = Kind("the path of a file or folder", _is_text, text=True, path=True)
SHARE = number(0, 1)
BELOW_1 = number(0, 1, but=(1,))
WEIGHT = number(0, 1e6)
DTYPE = choice("bfloat16", "float32", "float64")
BATCH = whole(1, 2**20)
WIDTH = whole(1, 2**16)
EVERY = whole(0, zero=" (steps; 0: never)")

# Both stages.
COMMON: dict[str, Kind] = {
    "stage": choice("tokenizer", "transformer"),
    "seed": whole(0, LARGEST_SEED),
    "dtype": DTYPE,
    "batch_size": BATCH,
    "accumulate": BATCH,
    "steps": or_none(whole(1)),
    "epochs": or_none(number(0, 1e9, but=(0,))),  # rounded up to whole steps
    "remat": or_none(choice(*policies())),
    "init_from": or_none(PATH),
    "ema_decay": SHARE,
    "data.kind": choice("shapes", "folder", "tfds", "tokens"),
    "data.store": or_none(PATH),
    "data.enlarge": number(1, 100),
    "data.flip": FLAG,
    "data.bad_share": SHARE,
    "data.changed": choice("refuse", "allow"),
    "data.workers": whole(0, 1024),
    "optimizer.learning_rate_per_256": number(0, 1e3),
    "optimizer.schedule": choice(*SCHEDULES),
    "optimizer.warmup": SHARE,
    "optimizer.turn": BELOW_1,
    "optimizer.final": SHARE,
    "optimizer.betas": several(BELOW_1, 2),
    "optimizer.weight_decay": WEIGHT,
    "optimizer.weight_decay_end": WEIGHT,
    "optimizer.clip": number(),
    **{f"mesh.{axis}": whole(-1, 2**20, but=(0,)) for axis in AXES},
    "sharding": Kind("a list of (pattern of a path, list of mesh axes or None)", _is_rules),
    "report_every": EVERY,
    "evaluate_every": EVERY,
    "evaluate_pictures": whole(0, zero=" (0: no evaluations)"),
    "evaluate_batch_size": BATCH,
    "checkpoint_every": EVERY,
    "keep_checkpoints": whole(1, 10**6),
}

# `data.options`, by `data.kind`; a kind's other options are refused where it is opened.
OPTIONS: dict[str, dict[str, Kind]] = {
    "shapes": {
        "size": whole(8, 4096),
        "count": or_none(whole(10)),
        "seed": whole(0, LARGEST_SEED),
        "variety": number(0, 1, but=(0,)),
    },
    "folder": {"path": PATH, "validation_share": number(0, 1, but=(0, 1)), "seed": whole(-(2**63), 2**63)},
    "tfds": {"name": TEXT, "data_dir": or_none(PATH), "validation_share": number(0, 1, but=(0, 1))},
    "tokens": {"path": PATH},
}

STAGES: dict[str, dict[str, Kind]] = {
    "tokenizer": {
        "model.pyramid": Kind("a published side or a list of sides", _is_pyramid, text=True),
        "model.codebook_size": whole(1, 2**22),
        "model.code_width": WIDTH,
        "model.base_channels": WIDTH,
        "model.channel_multipliers": several(whole(1, 64)),
        "model.encoder_blocks": whole(1, 64),
        "model.decoder_blocks": whole(1, 64),
        "model.norm_groups": WIDTH,
        "model.num_phis": or_none(whole(1, 64)),
        "model.phi_ratio": SHARE,
        "model.lookup": choice("l2", "cosine"),
        "model.commitment_weight": WEIGHT,
        "model.dropout": BELOW_1,
        "model.unit_codes": FLAG,
        "encoder_dtype": or_none(DTYPE),
        **{f"loss.{name}": WEIGHT for name in ("l1", "l2", "quantizer", "lpips", "structure")},
        "lpips_weights": PATH,
        "inception_weights": PATH,
        "codebook.dropout": SHARE,
        "codebook.fewest_scales": whole(1, 64),
        "codebook.means": FLAG,
        "codebook.reset_every": EVERY,
        "codebook.reset_share": SHARE,
        "codebook.warm_start": whole(0, 10_000),
        "adversary.kind": or_none(choice(*KINDS)),
        "adversary.dino_weights": PATH,
        "adversary.loss": choice(*LOSSES),
        "adversary.weight": WEIGHT,
        "adversary.adaptive": FLAG,
        "adversary.adaptive_range": several(number(), 2),
        "adversary.start": SHARE,
        "adversary.ramp": SHARE,
        "adversary.augment": FLAG,
        "adversary.lecam": WEIGHT,
        "adversary.gradient_penalty": WEIGHT,
        "adversary.channels": WIDTH,
        "adversary.levels": whole(0, 8),
        "adversary.norm_groups": WIDTH,
        "adversary.rate": WEIGHT,
        "adversary.betas": several(BELOW_1, 2),
        "adversary.weight_decay": WEIGHT,
        "adversary.clip": number(),
    },
    "transformer": {  # None in `model`: the preset's
        "tokenizer": PATH,
        "model.preset": TEXT,
        "model.depth": or_none(whole(1, 1024)),
        "model.width": or_none(WIDTH),
        "model.num_heads": or_none(WIDTH),
        "model.mlp_ratio": or_none(number(0, 64, but=(0,))),
        "model.shared_adaln": or_none(FLAG),
        "model.qk_norm": or_none(FLAG),
        "model.adaln": or_none(FLAG),
        "model.inputs": or_none(choice(*INPUTS)),
        "model.drop_path": or_none(BELOW_1),
        "model.class_drop": or_none(BELOW_1),
        "model.gate_init": or_none(WEIGHT),
        "model.input_init": or_none(WEIGHT),
        "label_smoothing": SHARE,
        "progressive.until": SHARE,
        "progressive.first_scales": whole(1, 64),
        "progressive.ramp": SHARE,
        "attention": choice("xla", "plain", "splash", "cudnn"),
        "attention_blocks": several(whole(128, 2**16), 2),
        "sample_classes": whole(0),
        "sample_guidance": number(-1e6, 1e6),
    },
}

# The options of `var-jax tokenize` beside those of the data.
TOKENIZING: dict[str, Kind] = {
    "crops": whole(1, 2**16),
    "enlarge": COMMON["data.enlarge"],
    "flips": FLAG,
    "crop_seed": COMMON["seed"],
    "pictures_per_file": whole(1),
    "batch": BATCH,
    "workers": COMMON["data.workers"],
    "bad_share": COMMON["data.bad_share"],
}

_HAVE_DEFAULTS = ("model.", "data.options.", "data.changed")  # which a config need not have
_WHOLE_SECTIONS = ("codebook", "progressive", "mesh")  # which have the table's fields and no others


def fields(config: Mapping[str, Any]) -> dict[str, Kind]:
    """The table of a config's stage and kind of data, by dotted name."""
    data = config.get("data")
    kind = data.get("kind") if isinstance(data, ml_collections.ConfigDict) else None
    options = OPTIONS.get(kind, {}) if isinstance(kind, str) else {}
    stage = COMMON["stage"].checked("config stage", config.get("stage"))
    return COMMON | STAGES[stage] | {f"data.options.{name}": each for name, each in options.items()}


def check_values(table: Mapping[str, Kind], values: Mapping[str, Any]) -> None:
    """Checks those of the values that the table has, by their options' names on the command line.

    Raises:
      InputError: naming the first that cannot be.
    """
    for name in filter(table.__contains__, values):
        table[name].checked(f"--{name.replace('_', '-')}", values[name])


def check(config: ml_collections.ConfigDict) -> None:
    """Checks every field of a config, and expands ~ in its paths. A config's own fields beside those are its business.

    Raises:
      InputError: naming the first field that is missing, or whose value cannot be.
    """
    table = fields(config)
    for name, kind in table.items():
        *sections, last = name.split(".")
        node = config
        for part in sections:
            node = node.get(part, ml_collections.ConfigDict())
            if not isinstance(node, ml_collections.ConfigDict):
                raise InputError(f"config {part} is {_shown(node)}: expected a section, see configs/_common.py")
        if last not in node:
            if name.startswith(_HAVE_DEFAULTS):
                continue
            raise InputError(f"config {name} is missing: begin with the configs in configs/_common.py, which have it")
        value = kind.checked(f"config {name}", node[last])
        if type(value) is not type(node[last]) or value != node[last]:
            with node.unlocked(), node.ignore_type():
                node[last] = value
    for section in _WHOLE_SECTIONS:
        for key in config.get(section, ()):
            if (name := f"{section}.{key}") not in table:
                raise InputError(f"config {name} is no field of a config: see configs/_common.py")
