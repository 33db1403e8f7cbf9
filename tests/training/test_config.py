"""Configs by name, overrides from the command line, and every config of the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from var_jax.configs import RENAMED
from var_jax.errors import InputError
from var_jax.training.config import config_names, differences, load_config, plain


def test_every_config_of_the_package_loads_and_is_locked():
    assert {"shapes_tokenizer", "shapes_var"} <= set(config_names())
    for name in config_names():
        config = load_config(name)
        assert config.is_locked
        assert config.stage in ("tokenizer", "transformer")
        assert plain(config)


def leaves(config, prefix=""):
    """Every value by its dotted key."""
    found = {}
    for key, value in config.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_published_recipe_is_that_of_the_version_before_under_both_names(old, new):
    """Else a run that the old name began would not go on; the file was written with the five configs of old."""
    stored = json.loads((Path(__file__).parent / "var_configs.json").read_text())
    expected = stored["var_d16"] | stored["changes"][old]
    assert leaves(plain(load_config(new))) == expected
    assert leaves(plain(load_config(old))) == expected
    assert load_config(old, ["--config.steps=3"]).steps == 3


def test_every_old_name_and_the_first_preset():
    assert set(RENAMED) == {"var_d16", "var_d20", "var_d24", "var_d30", "var_d36s_512"}
    assert not set(RENAMED) & set(config_names())
    assert plain(load_config("var")) == plain(load_config("var:d16"))


def test_overrides():
    config = load_config(
        "shapes_var",
        [
            "--config.batch_size=16",
            "--config.optimizer.clip=1",
            "--config.init_from=some/dir",
            "--config.data.flip=true",
        ],
    )
    assert (config.batch_size, config.optimizer.clip, config.init_from, config.data.flip) == (16, 1.0, "some/dir", True)
    config = load_config("shapes_tokenizer", ["--config.model.channel_multipliers=(1,1,2)", "--config.steps=None"])
    assert config.model.channel_multipliers == (1, 1, 2)
    assert config.steps is None
    config = load_config("shapes_tokenizer", ["--config.model.pyramid=1,2,4,8", "--config.dtype='bfloat16'"])
    assert (config.model.pyramid, config.dtype) == ("1,2,4,8", "bfloat16")
    assert load_config("shapes_tokenizer", ["--config.model.pyramid=512"]).model.pyramid == "512"


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("shapes_vra", [], "config 'shapes_vra': known are .*shapes_var"),
        ("nowhere.py", [], "nowhere.py: no such file"),
        ("var:d17", [], "var:d17: no such published model, expected one of d16, .*d36-s"),
        ("shapes_var", ["--config.bacth_size=3"], "'bacth_size' is not one of .*batch_size"),
        ("shapes_var", ["--config.seed.inner=3"], "'inner' is not one of nothing below it"),
        ("shapes_var", ["--config.batch_size=many"], "batch_size is 'many': expected a whole number from 1"),
        ("shapes_var", ["--config.optimizer=3"], "is a section"),
        ("shapes_var", ["--config.batch_size"], "expected --config.key=value"),
    ],
)
def test_typos_are_one_clear_line(name, overrides, message):
    with pytest.raises(InputError, match=message) as caught:
        load_config(name, overrides)
    assert "\n" not in str(caught.value)


def test_config_files(tmp_path):
    file = tmp_path / "mine.py"
    lines = ["def get_config(arg):", "    c = shapes_var.get_config()", "    c.seed = int(arg or 7)", "    return c"]
    file.write_text("\n".join(["from var_jax.configs import shapes_var", *lines]))
    assert load_config(str(file)).seed == 7
    assert load_config(f"{file}:9").seed == 9
    file.write_text("raise RuntimeError('oh')")
    with pytest.raises(InputError, match="RuntimeError: oh"):
        load_config(str(file))
    file.write_text("x = 1")
    with pytest.raises(InputError, match="has no get_config"):
        load_config(str(file))


def test_differences_are_readable_and_leave_out_what_is_free():
    old, new = (
        plain(load_config("shapes_var")),
        plain(load_config("shapes_var", ["--config.seed=1", "--config.optimizer.clip=9"])),
    )
    assert differences(old, new) == ["optimizer.clip: 2.0 -> 9.0", "seed: 0 -> 1"]
    assert differences(old, plain(load_config("shapes_var", ["--config.report_every=1", "--config.mesh.fsdp=4"]))) == []
