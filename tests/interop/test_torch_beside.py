"""Exported files as PyTorch reads them, and PyTorch's files as we import them."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from tests.interop.checkpoints import (
    TOKENIZER,
    TRANSFORMER,
    assert_bitwise,
    drawn_model,
    tokenizer_tensors,
    transformer_tensors,
)
from var_jax.formats.tensors import flatten_state_dict, read_tensors, write_tensors
from var_jax.interop.tokenizer import export_tokenizer, import_tokenizer
from var_jax.interop.transformer import export_transformer, import_transformer

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def networks():
    model = drawn_model()
    return {"vae": tokenizer_tensors(model), "var": transformer_tensors(model)}


def state_dict(tensors):
    return OrderedDict((name, torch.from_numpy(np.array(array))) for name, array in tensors.items())


@pytest.mark.parametrize("name", ["vae", "var"])
def test_torch_loads_what_we_export(networks, tmp_path, name):
    path = tmp_path / f"{name}.pth"
    write_tensors(path, networks[name], {})
    loaded = torch.load(path, weights_only=True)
    assert list(loaded) == list(networks[name])
    assert_bitwise({key: tensor.numpy() for key, tensor in loaded.items()}, networks[name])


def test_we_import_what_torch_saves(networks, tmp_path):
    for name, tensors in networks.items():
        torch.save(state_dict(tensors), tmp_path / f"{name}.pth")
    imported = import_tokenizer(read_tensors(tmp_path / "vae.pth"), TOKENIZER.pyramid)
    assert imported.config == TOKENIZER
    assert_bitwise(export_tokenizer(*imported), networks["vae"])
    transformer = import_transformer(read_tensors(tmp_path / "var.pth"), imported.config)
    assert transformer.config == TRANSFORMER
    assert_bitwise(export_transformer(*transformer), networks["var"])


def test_we_import_both_from_a_training_checkpoint(networks, tmp_path):
    """The nesting that the reference's trainer saves, optimizer, settings and all."""
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]}
    trainer = {
        "config": {"patch_nums": (1, 2, 3), "label_smooth": 0.0, "prog_it": 0},
        "var_wo_ddp": state_dict(networks["var"]),
        "vae_local": state_dict(networks["vae"]),
        "var_opt": {"optimizer": optimizer},
    }
    torch.save({"epoch": 1, "iter": 0, "trainer": trainer, "args": {"bed": "local"}}, tmp_path / "ar-ckpt-last.pth")
    tensors = flatten_state_dict(read_tensors(tmp_path / "ar-ckpt-last.pth"))
    imported = import_tokenizer(tensors, TOKENIZER.pyramid)
    assert_bitwise(export_tokenizer(*imported), networks["vae"])
    assert_bitwise(export_transformer(*import_transformer(tensors, imported.config)), networks["var"])
