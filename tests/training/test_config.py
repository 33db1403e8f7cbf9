"""Configs by name, overrides from the command line, and every config of the package."""

from __future__ import annotations

import pytest

from var_jax.errors import InputError
from var_jax.training.config import config_names, differences, load_config, plain


def test_every_config_of_the_package_loads_and_is_locked():
    assert {"shapes_tokenizer", "shapes_var"} <= set(config_names())
    for name in config_names():
        config = load_config(name)
        assert config.is_locked
        assert config.stage in ("tokenizer", "transformer")
        assert plain(config)


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
        ("shapes_var", ["--config.bacth_size=3"], "'bacth_size' is not one of .*batch_size"),
        ("shapes_var", ["--config.seed.inner=3"], "'inner' is not one of nothing below it"),
        ("shapes_var", ["--config.batch_size=many"], "expected int like 24, got 'many'"),
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
