"""Every field of every config against every kind of wrong value; and the values at the edge, on tiny runs."""

from __future__ import annotations

import functools
import json
import math
import operator
from pathlib import Path

import jax
import ml_collections
import numpy as np
import pytest
from etils import epath

from tests.training import tiny
from tests.training.runs import last_state
from var_jax.errors import InputError
from var_jax.training import build, fields, loop
from var_jax.training.config import config_names, load_config, plain
from var_jax.training.loop import FINISHED, Run, total_steps, train
from var_jax.training_directory import has_checkpoint

CONFIGS = [*config_names(), "scaling:shapes", "scaling:digits"]
WORDS = ["None", "0", "-1", "1.5", "nan", "inf", "1e999", "9" * 400, "many", "True", "[]", "{}", "(1, 'a')", "", "b'x'"]
VALUES = [None, 0, -1, 1.5, math.nan, math.inf, -math.inf, 10**30, 10**300, "many", True, (), [[]], {}, b"x", object()]
ABSENT = object()
# Fields that may be None, 0 or -1; any other refuses it.
NONE = {
    *("steps", "epochs", "remat", "init_from", "data.store", "encoder_dtype", "adversary.kind", "model.num_phis"),
    *(f"model.{name}" for name in ("depth", "width", "num_heads", "mlp_ratio", "shared_adaln", "qk_norm", "adaln")),
    *(f"model.{name}" for name in ("inputs", "drop_path", "class_drop", "gate_init", "input_init")),
    *("data.options.count", "data.options.data_dir"),
}
ZERO = {
    *("seed", "ema_decay", "data.bad_share", "data.workers", "label_smoothing", "sample_classes", "sample_guidance"),
    *(f"optimizer.{name}" for name in ("learning_rate_per_256", "warmup", "turn", "final", "clip")),
    *("optimizer.weight_decay", "optimizer.weight_decay_end", "model.phi_ratio", "model.commitment_weight"),
    *("report_every", "evaluate_every", "evaluate_pictures", "checkpoint_every"),
    *(f"model.{name}" for name in ("dropout", "drop_path", "class_drop", "gate_init", "input_init")),
    *(f"loss.{name}" for name in ("l1", "l2", "quantizer", "lpips", "structure")),
    *(f"codebook.{name}" for name in ("dropout", "reset_every", "reset_share", "warm_start")),
    *(f"adversary.{name}" for name in ("weight", "start", "ramp", "lecam", "gradient_penalty", "levels", "rate")),
    *("adversary.weight_decay", "adversary.clip", "progressive.until", "progressive.ramp", "data.options.seed"),
}
NEGATIVE = {"mesh.data", "mesh.fsdp", "mesh.tensor", "sample_guidance"}
TEXT = {  # whatever is written on the command line
    *("init_from", "data.store", "tokenizer", "lpips_weights", "inception_weights", "adversary.dino_weights"),
    *("model.preset", "data.options.path", "data.options.data_dir", "data.options.name"),
}


def allowed(config: str, field: str, value: object) -> bool:
    """Whether a field may have a value of `VALUES`, by the lists above."""
    if value is None:
        return field in NONE
    if isinstance(value, bool):
        names = ("flip", "means", "adaptive", "augment", "unit_codes", "shared_adaln", "qk_norm", "adaln")
        return field.rpartition(".")[2] in names
    if isinstance(value, str):
        return field in TEXT
    if isinstance(value, int):
        folder_seed = field == "data.options.seed" and config.startswith(("folder", "finetune", "scaling:digits"))
        return value == 0 and field in ZERO or value == -1 and (field in NEGATIVE or folder_seed)
    if value == 1.5:
        bounds = ("enlarge", "clip", "rate", "epochs", "mlp_ratio", "gate_init", "input_init", "guidance", "penalty")
        parts = ("weight", "lecam", "l1", "l2", "quantizer", "lpips", "structure", "rate_per_256", "decay", "decay_end")
        return field.endswith((*bounds, *parts)) and field not in TEXT and field != "ema_decay"
    return value == () and field == "sharding"


def place(config: ml_collections.ConfigDict, field: str, value: object) -> ml_collections.ConfigDict:
    """A copy of the config with another value, as a file of the user's may make it."""
    changed = config.to_dict()  # since a ConfigDict would make a number of the new value where the old one is a number
    *sections, last = field.split(".")
    functools.reduce(operator.getitem, sections, changed)[last] = value
    return ml_collections.ConfigDict(changed)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_of_every_config_refuses_what_it_cannot_be(name):
    config = ml_collections.ConfigDict(load_config(name).to_dict())
    for field in fields.fields(config):
        *sections, last = field.split(".")
        node = functools.reduce(operator.getitem, sections, config)
        before = node.get(last, ABSENT)
        for value in VALUES:
            _put(node, last, value)
            if allowed(name, field, value):
                fields.check(config)
                continue
            with pytest.raises(InputError) as refused:
                fields.check(config)
                pytest.fail(f"{name}: {field} = {value!r} was accepted")
            said = str(refused.value)
            assert said.startswith((f"config {field} is ", "pyramid", "config stage")), said
            assert "\n" not in said and len(said) < 400
        _put(node, last, before)


def _put(node: ml_collections.ConfigDict, key: str, value: object) -> None:
    """Sets a key as a fresh one: a ConfigDict would make a number of a value where there was one before."""
    if key in node:
        del node[key]
    if value is not ABSENT:
        node[key] = value


@pytest.mark.parametrize("name", ["shapes_tokenizer", "folder_var"])
def test_words_of_the_command_line_are_values_of_a_field_or_one_line(name):
    for field in fields.fields(load_config(name)):
        for word in WORDS:
            try:
                config = load_config(name, [f"--config.{field}={word}"])
            except InputError as refused:
                assert "\n" not in str(refused)
                continue
            fields.check(config)
            json.dumps(plain(config), allow_nan=False)
            found = config
            for part in field.split("."):
                found = found[part]
            if field in TEXT:
                assert found == (None if word == "None" and field in NONE else word.replace("b'x'", "b'x'"))


def test_text_stays_text_and_pairs_are_pairs(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config(
        "folder_var", ["init_from=20250101", "data.store=1e5", "tokenizer=~/tok", "data.options.path=~"]
    )
    assert (config.init_from, config.data.store) == ("20250101", "1e5")
    assert (config.tokenizer, config.data.options.path) == (str(tmp_path / "tok"), str(tmp_path))
    for word in ("0.9", "0.9,0.99,1e-8", "(0.9,None)"):
        with pytest.raises(InputError, match="optimizer.betas is .*expected 2 values"):
            load_config("shapes_var", [f"optimizer.betas={word}"])
    assert load_config("shapes_var", ["optimizer.betas=[0.5,0.9]"]).optimizer.betas == (0.5, 0.9)


USERS = """
from var_jax.configs import shapes_var
def get_config(arg):
    c = shapes_var.get_config()
    {change}
    return c
"""


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("del c.evaluate_pictures", "evaluate_pictures is missing"),
        ("c.data = None", "config data is None: expected a section"),
        ("del c.data", "config data.kind is missing"),
        ("c.progressive.untl = 0.5", "config progressive.untl is no field"),
        ("c.mesh.model = 2", "config mesh.model is no field"),
        ("with c.ignore_type(): c.seed = 0.5", "config seed is 0.5: expected a whole number"),
        ("c.optimizer.betas = (0.9,)", "expected 2 values"),
        ("return None", "get_config returned NoneType, expected a ConfigDict"),
        ("return 5", "get_config returned int, expected a ConfigDict"),
        ("1 / 0", "get_config: ZeroDivisionError"),
        ("c.nothing", "get_config: AttributeError"),
    ],
)
def test_a_users_own_config_is_checked_like_ours(tmp_path, change, says):
    (tmp_path / "mine.py").write_text(USERS.format(change=change))
    with pytest.raises(InputError, match=says) as refused:
        load_config(str(tmp_path / "mine.py"))
    assert "\n" not in str(refused.value)


def test_a_users_own_fields_are_theirs(tmp_path):
    own = "c.mine = ml_collections.ConfigDict({'rate': 0.5, 'name': 'a'})"
    text = USERS.format(change=own).replace("\ndef", "\nimport ml_collections\ndef")
    (tmp_path / "mine.py").write_text(text)
    config = load_config(str(tmp_path / "mine.py"), ["mine.rate=1", "mine.name=20250101"])
    assert (config.mine.rate, config.mine.name) == (1.0, "20250101")
    config = place(config, "seed", np.int64(7))
    fields.check(config)
    assert (config.seed, type(config.seed)) == (7, int)
    with pytest.raises(InputError, match="expected float like 0.5, got 'fast'"):
        load_config(str(tmp_path / "mine.py"), ["mine.rate=fast"])


@pytest.mark.parametrize(("epochs", "steps"), [(1, 2), (1.3, 3), (0.01, 1), (1.5, 3), (2.0, 4)])
def test_steps_are_whole(epochs, steps):
    config = tiny.tokenizer(steps=None)
    assert total_steps(place(config, "epochs", epochs), 15) == steps


def test_too_many_epochs_are_refused_and_decimals_are_meant():
    config = tiny.tokenizer(steps=None)
    assert total_steps(place(config, "epochs", 1.1), 80) == 11
    with pytest.raises(InputError, match="config epochs is 100000000.0: .* steps, expected 2147483647 at most"):
        total_steps(place(config, "epochs", 1e8), 10**6)


class _Claimed(Exception):
    pass


def _claims(config: ml_collections.ConfigDict, folder: Path, patch: pytest.MonkeyPatch) -> bool:
    """Whether a run of the config would claim its folder; if not, it was refused in one line and left nothing."""

    def claim(*_: object) -> None:
        raise _Claimed

    patch.setattr(loop, "claim_directory", claim)
    try:
        Run(config, epath.Path(folder), jax.devices()[:1])
    except _Claimed:
        return True
    except InputError as refused:
        assert "\n" not in str(refused)
        return False
    finally:
        assert not folder.exists()
    raise AssertionError("a run without a claim")


@pytest.mark.parametrize("stage", ["tokenizer", "transformer"])
def test_what_the_table_accepts_can_be_built_or_is_refused_before_the_claim(tiny_run, tmp_path, monkeypatch, stage):
    config = {"tokenizer": tiny.tokenizer(), "transformer": tiny.transformer(tiny_run / "tokenizer")}[stage]
    assert _claims(config, tmp_path / "run", monkeypatch)
    quick = [field for field in fields.fields(config) if not field.startswith(("adversary.", "loss.", "optimizer."))]
    edges = [(field, value) for field in quick for value in (None, 0) if allowed("shapes", field, value)]
    refused = [edge for edge in edges if not _claims(place(config, *edge), tmp_path / "run", monkeypatch)]
    assert refused == ([("steps", None)] if stage == "tokenizer" else [("steps", None)])


def test_no_interval_and_no_evaluation_is_a_run_with_its_last_checkpoint(tmp_path, capsys, one_device):
    never = dict.fromkeys(("report_every", "evaluate_every", "checkpoint_every", "evaluate_pictures"), 0)
    data = {"options": {"size": 8, "count": 15}}
    short = tiny.tokenizer(**never, data=data, epochs=1.3).copy_and_resolve_references()
    short = place(short, "steps", None)
    assert train(short, str(tmp_path / "run")) == FINISHED
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [3]
    assert not [line for line in lines if line["kind"] == "validation"]
    assert int(last_state(tmp_path / "run").step) == 3
    capsys.readouterr()
    assert train(place(short, "evaluate_pictures", 4), str(tmp_path / "run")) == FINISHED  # nothing is learned anew
    assert "step 3, validation: PSNR" in capsys.readouterr().out
    assert train(place(short, "evaluate_pictures", 4), str(tmp_path / "run")) == FINISHED
    said = capsys.readouterr().out
    assert "finished: 3 steps" in said and "validation" not in said


def test_the_last_checkpoint_is_there_before_the_last_evaluation(tiny_run, tmp_path, monkeypatch, one_device):
    config, found = tiny.transformer(tiny_run / "tokenizer", steps=2, checkpoint_every=100), []

    def fails(run: Run, step: int) -> None:
        found.append((step, has_checkpoint(run.workdir)))
        raise InputError("no pictures any more")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "evaluate", fails)
        with pytest.raises(InputError, match="no pictures any more"):
            train(config, str(tmp_path / "run"))
    assert found == [(2, True)]
    assert train(config, str(tmp_path / "run")) == FINISHED
    assert '"validation"' in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_an_evaluation_that_cannot_be_is_refused_before_the_first_step(tmp_path, monkeypatch):
    config = tiny.tokenizer(mesh={"data": 4}, evaluate_batch_size=6)
    with pytest.raises(InputError, match="evaluate_batch_size 6 does not divide over 4"):
        Run(config, epath.Path(tmp_path / "run"), jax.devices()[:4])
    none = lambda config: (build.make_source("shapes", "train", size=8), build.Spread(np.zeros(0), 0))
    monkeypatch.setattr(build.Spread, "__init__", lambda self, *_: None)
    monkeypatch.setattr(build.Spread, "__len__", lambda self: 0)
    monkeypatch.setattr(build, "make_sources", none)
    with pytest.raises(InputError, match="there are no validation pictures; set it to 0"):
        Run(tiny.tokenizer(), epath.Path(tmp_path / "run"), jax.devices()[:1])
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_path_is_named():
    with pytest.raises(InputError, match="data.options.path is not set: give --config.data.options.path=DIR"):
        build.make_sources(load_config("folder_tokenizer"))
