"""Small programs of every kind through the TPU's own compiler, by the command; needs libtpu, but no TPU."""

from __future__ import annotations

import json

import pytest

from tests.interop.checkpoints import drawn_model
from var_jax.cli.main import main
from var_jax.model_directory import save_model
from var_jax.parallel.mesh import make_mesh
from var_jax.rehearsal.topologies import Topology, compiler, devices

pytest.importorskip("libtpu", reason="the TPU compiler is not installed")
pytestmark = pytest.mark.campaign


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("rehearsal") / "model"
    save_model(path, drawn_model(transformer=None))
    return path


@pytest.fixture
def rehearsed(tmp_path):
    def run(*arguments):
        report = tmp_path / "report.json"
        assert main(["rehearse", "--topology", "v5e:2x2", "--json", str(report), *map(str, arguments)]) == 0
        return json.loads(report.read_text())

    return run


def small(model, attention):
    """Overrides that make var:d16 tiny."""
    values = {"tokenizer": model, "model.depth": 2, "model.width": 128, "model.num_heads": 2, "batch_size": 8}
    values |= {"mesh.fsdp": 2, "attention": attention, "data.store": "tokens", "steps": 10}
    return [f"--config.{name}={value}" for name, value in values.items()]


@pytest.mark.parametrize("attention", ["xla", "splash"])
def test_a_training_step(model, rehearsed, attention, capsys):
    found = rehearsed("--config", "var:d16", "--quick", *small(model, attention))
    assert found["fits"]
    assert found["mesh"] == {"data": 2, "fsdp": 2, "tensor": 1}
    assert 0 < found["peak_bytes_per_chip"] < found["chip_memory_bytes"]
    assert 0 < found["mfu_bound"] < 1
    assert (found["unknown_kernels"], found["unknown_loops"]) == ([], 0)
    assert found["flops_per_chip"] > found["useful_flops"] / 4
    assert "all-gather" in found["collectives"]
    assert "bound on MFU" in capsys.readouterr().out


def test_the_tokenizers_step_with_a_discriminator(rehearsed):
    small_enough = {
        **{"model.pyramid": "1,2", "model.base_channels": 32, "model.channel_multipliers": "(1,1)", "batch_size": 8},
        **{"model.encoder_blocks": 1, "model.decoder_blocks": 1, "model.codebook_size": 16, "steps": 10},
        **{"adversary.kind": "patch", "adversary.channels": 32, "adversary.levels": 1, "mesh.fsdp": 2},
    }
    overrides = [f"--config.{name}={value}" for name, value in small_enough.items()]
    found = rehearsed("--config", "shapes_tokenizer", "--what", "tokenizer", "--quick", *overrides)
    assert found["fits"]
    assert found["flops_per_chip"] > found["useful_flops"] / 4


def test_without_machine_code_the_figures_are_the_same(model, rehearsed):
    arguments = ("--config", "var:d16", "--what", "tokenize", "--batch", "8", *small(model, "xla"))
    whole, quick = rehearsed(*arguments), rehearsed(*arguments, "--quick")
    assert whole["fits"]
    # Useful operations are counted as if convolutions had no border, and these pictures are nearly all border.
    assert 0.5 * whole["useful_flops"] < whole["flops_per_chip"] * 4 < 1.1 * whole["useful_flops"]
    assert 0.5 < quick["peak_bytes_per_chip"] / whole["peak_bytes_per_chip"] < 2  # of so little, padding is much
    figures = ("flops_per_chip", "moved_bytes_per_chip", "collectives", "mfu_bound")
    assert {name: quick[name] for name in figures} == {name: whole[name] for name in figures}


def test_what_the_other_process_meets_is_told(rehearsed, capsys):
    arguments = ["--config", "var:d16", "--quick", "--config.batch_size=6", "--topology", "v5e:2x2"]
    assert main(["rehearse", *arguments]) == 2
    assert "batch size (of a micro-batch) 6 does not divide over 4 parts" in capsys.readouterr().err


def test_the_sampler(model, rehearsed):
    found = rehearsed("--config", "var:d16", "--what", "sample", "--quick", "--batch", "8", *small(model, "xla"))
    assert found["fits"]
    assert found["collectives"] == {}
    assert found["pictures_per_second_bound"] > 0


@pytest.mark.parametrize("text", ["v5p:4x4x4", "v6e:8x8"])
def test_every_split_of_a_slice_is_a_mesh(text):
    """2 x 32 of 4 x 4 x 4 chips too, where no side of the slice is a side of the mesh."""
    with compiler():
        chips = devices(Topology.parse(text))
    for fsdp in (1, 2, 4, 8, 16, 32, 64):
        for tensor in (1, 2, 4):
            if fsdp * tensor <= 64:
                mesh = make_mesh(-1, fsdp, tensor, chips)
                assert dict(mesh.shape) == {"data": 64 // fsdp // tensor, "fsdp": fsdp, "tensor": tensor}
                assert {device.id for device in mesh.devices.flat} == {device.id for device in chips}
