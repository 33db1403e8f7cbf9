"""The attention kind that a config names: what it is on which devices, and one line where it cannot be."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.models.attention import cudnn_attention, plain_attention, xla_attention
from var_jax.models.splash import Splash
from var_jax.parallel.mesh import make_mesh
from var_jax.parallel.rules import PerDevice
from var_jax.training.build import attention
from var_jax.training.config import differences, load_config, plain


def of_devices(platform):
    """A mesh as far as the choice looks at it."""
    return SimpleNamespace(devices=np.array([[[SimpleNamespace(platform=platform)]]]))


def test_kinds():
    here = make_mesh(devices=jax.devices()[:1])
    assert attention(load_config("var:d16"), here) is xla_attention
    assert attention(load_config("var:d16", ["attention=plain"]), here) is plain_attention
    tpu, gpu = of_devices("tpu"), of_devices("gpu")
    config = load_config("var:d16", ["attention=splash"])
    assert attention(config, tpu) == PerDevice(tpu, Splash(*config.attention_blocks))
    blocks = load_config("var:d16", ["attention=splash", "attention_blocks=(128,256)", "dtype=float32"])
    assert attention(blocks, tpu) == PerDevice(tpu, Splash(block_q=128, block_kv=256))
    assert attention(load_config("var:d16", ["attention=cudnn"]), gpu) == PerDevice(gpu, cudnn_attention)


@pytest.mark.parametrize(
    ("kind", "platform", "dtype", "message"),
    [
        ("flash", "tpu", "bfloat16", "'flash': expected one of xla, plain, splash, cudnn"),
        (
            "splash",
            "cpu",
            "bfloat16",
            "'splash' is for devices of kind tpu, these are cpu: take --config.attention=xla",
        ),
        ("cudnn", "tpu", "bfloat16", "'cudnn' is for devices of kind gpu, these are tpu: take --config.attention=xla"),
        ("cudnn", "gpu", "float32", "'cudnn' computes in bfloat16, not in float32: take --config.attention=xla"),
        ("splash", "tpu", "float64", "'splash' computes in float32 or bfloat16, not in float64"),
    ],
)
def test_what_cannot_be(kind, platform, dtype, message):
    with pytest.raises(InputError, match=message):
        attention(load_config("var:d16", [f"attention={kind}", f"dtype={dtype}"]), of_devices(platform))


def test_a_run_goes_on_with_another_kind():
    """On other devices, or from before there was a choice: nothing that is learned depends on it."""
    before, after = plain(load_config("var:d16")), plain(load_config("var:d16", ["attention=splash"]))
    assert before != after and not differences(before, after)
    del before["attention"], before["attention_blocks"]
    assert not differences(before, after)
