"""Our reader and writer beside PyTorch's own, both ways and in both of its formats."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import samples
from var_jax.errors import InputError
from var_jax.formats import torch_file
from var_jax.formats.torch_file import read_torch_file, write_torch_file

torch = pytest.importorskip("torch")

FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
TYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
]


def saved(folder: Path, value: Any, new: bool) -> Any:
    """Saves the value by PyTorch and reads it by ours."""
    torch.save(value, folder / "a.pth", _use_new_zipfile_serialization=new)
    return read_torch_file(folder / "a.pth")


def bits(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as numpy, bfloat16 bit by bit."""
    tensor = tensor.detach().contiguous()
    return tensor.view(torch.int16).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def assert_equal(array: np.ndarray, tensor: torch.Tensor) -> None:
    assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
    expected = bits(tensor)
    assert samples.same(array.view(np.int16) if tensor.dtype == torch.bfloat16 else array, expected)


@FORMATS
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type(tmp_path, new, dtype):
    tensor = (torch.randn(3, 5, generator=torch.Generator().manual_seed(0)) * 50).to(dtype)
    assert_equal(saved(tmp_path, tensor, new), tensor)
    read = saved(tmp_path, [torch.ones(1, dtype=torch.int8), tensor], new)  # off every alignment in the legacy format
    assert_equal(read[1], tensor)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2])
def test_types_without_a_storage_class(tmp_path, dtype):
    tensor = torch.arange(12).to(dtype).reshape(3, 4).t()
    read = saved(tmp_path, tensor, True)
    assert read.dtype.name == str(dtype).removeprefix("torch.")
    assert read.astype(np.int64).tolist() == tensor.to(torch.float64).to(torch.int64).tolist()


@FORMATS
@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        torch.arange(24.0)[5:20:3],
        torch.arange(4.0).expand(3, 4),
        torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.tensor(3.5),
        torch.zeros(0, 3),
        torch.arange(5.0)[5:],
        torch.nn.Parameter(torch.arange(3.0)),
        torch.nn.Parameter(torch.arange(3), requires_grad=False),
    ],
)
def test_every_geometry(tmp_path, new, tensor):
    assert_equal(saved(tmp_path, tensor, new), tensor)


@FORMATS
def test_shared_memory_stays_shared(tmp_path, new):
    whole = torch.arange(12.0)
    read = saved(tmp_path, {"whole": whole, "part": whole[3:9].view(2, 3), "same": whole, "other": whole.clone()}, new)
    assert_equal(read["part"], whole[3:9].view(2, 3))
    assert np.shares_memory(read["whole"], read["part"])
    assert np.shares_memory(read["whole"], read["same"])
    assert not np.shares_memory(read["whole"], read["other"])


@FORMATS
def test_state_dict_of_a_module(tmp_path, new):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2).half())
    state = module.state_dict()  # an OrderedDict with attributes
    read = saved(tmp_path, state, new)
    assert type(read) is dict
    assert list(read) == list(state)
    for name, tensor in state.items():
        assert_equal(read[name], tensor)


@FORMATS
def test_training_checkpoint(tmp_path, new):
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "name": "run é",
        "done": False,
        "best": None,
        "lr": 1e-3,
        "seed": 2**80,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "meta": OrderedDict(shape=torch.Size([1, 2]), device=torch.device("cuda", 1), cpu=torch.device("cpu")),
        "types": [torch.float16, torch.strided, (1, "two")],
    }
    read = saved(tmp_path, checkpoint, new)
    assert {name: read[name] for name in list(checkpoint)[:6]} == {n: checkpoint[n] for n in list(checkpoint)[:6]}
    assert read["meta"] == {"shape": (1, 2), "device": "cuda:1", "cpu": "cpu"}
    assert read["types"] == ["torch.float16", "torch.strided", (1, "two")]
    assert_equal(read["model"]["weight"], model.weight)
    assert read["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
    assert_equal(read["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@FORMATS
def test_every_pickle_protocol(tmp_path, new, protocol):
    value = {"w": torch.arange(3.0), "meta": OrderedDict(a=1)}
    torch.save(value, tmp_path / "a.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    read = read_torch_file(tmp_path / "a.pth")
    assert_equal(read["w"], value["w"])
    assert read["meta"] == {"a": 1}


def test_a_file_without_checksums(tmp_path):
    assert torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        assert saved(tmp_path, torch.arange(3), True).tolist() == [0, 1, 2]
    finally:
        torch.serialization.set_crc32_options(True)


def test_torch_reads_what_we_write(tmp_path):
    written = samples.tensors() | {"complex": np.array([1 + 2j, 3j])}
    write_torch_file(tmp_path / "a.pth", written)
    for mapped in (False, True):
        read = torch.load(tmp_path / "a.pth", weights_only=True, mmap=mapped)
        assert type(read) is OrderedDict
        assert list(read) == list(written)
        for name, tensor in read.items():
            assert_equal(np.array(written[name], written[name].dtype.newbyteorder("="), order="C"), tensor)
            assert tensor.is_contiguous()
            assert tensor.stride() == torch.empty(tensor.shape).stride()


def test_torch_reads_our_64_bit_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "_LARGE", 0)  # as for entries beyond a GiB
    write_torch_file(tmp_path / "a.pth", {"w": np.arange(5.0), "e": np.zeros((0, 2))})
    assert torch.load(tmp_path / "a.pth", weights_only=True)["w"].tolist() == [0, 1, 2, 3, 4]


def test_a_module_takes_what_we_write(tmp_path):
    rng = np.random.default_rng(0)
    written = {"weight": rng.standard_normal((3, 2)).astype(np.float32), "bias": np.zeros(3, np.float32)}
    write_torch_file(tmp_path / "a.pth", written)
    module = torch.nn.Linear(2, 3)
    module.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True))
    assert_equal(written["weight"], module.weight)


class Net(torch.nn.Module):
    """A module that would notice if it were unpickled."""

    awake: list[str] = []

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def __setstate__(self, state: dict) -> None:
        self.awake.append("ran")
        super().__setstate__(state)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@FORMATS
def test_a_whole_module_is_refused_by_name(tmp_path, new, monkeypatch):
    # Under the plain name of a top-level module, so that pickle finds the class whatever pytest calls this file.
    monkeypatch.setitem(sys.modules, "their_model", type("Module", (), {"Net": Net}))
    monkeypatch.setattr(Net, "__module__", "their_model")
    with pytest.raises(InputError, match="a.pth: .*their_model.Net, refused"):
        saved(tmp_path, {"model": Net()}, new)
    assert Net.awake == []
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert Net.awake == ["ran"]
    Net.awake.clear()


@FORMATS
def test_attacks_are_refused_by_name(tmp_path, new):
    for name, attack in samples.attacks(tmp_path / "ran"):
        with pytest.raises(InputError, match=f"a.pth: .*{name}, refused"):
            saved(tmp_path, {"w": torch.ones(2), "x": attack}, new)
        assert not (tmp_path / "ran").exists()


@FORMATS
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        (lambda: torch.eye(2).to_sparse(), "_rebuild_sparse_tensor"),
        (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "_rebuild_qtensor"),
        (lambda: torch.zeros(2, device="meta"), "_rebuild_meta_tensor_no_storage"),
        (lambda: np.ones(2), "numpy.*_reconstruct"),
        (lambda: {1, 2}, "set"),
        (lambda: torch.ones(2).untyped_storage(), "bare object"),
        (lambda: torch.view_as_complex(torch.ones(1, 2)).conj(), "conjugated"),
    ],
    ids=["module", "sparse", "quantized", "meta", "numpy", "set", "storage", "conjugated"],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_what_is_no_plain_tensor_is_refused(tmp_path, new, make, name):
    with pytest.raises(InputError, match=f"a.pth: .*{name}"):
        saved(tmp_path, {"x": make()}, new)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@FORMATS
def test_random_damage_of_real_files(tmp_path, new):
    tensors = {"w": torch.arange(6.0).reshape(2, 3).t(), "p": torch.nn.Parameter(torch.ones(2)), "n": [1, "a"]}
    tensors["b"] = torch.ones(3, dtype=torch.bfloat16)
    saved(tmp_path, tensors, new)
    content = (tmp_path / "a.pth").read_bytes()
    samples.assert_only_input_errors(read_torch_file, content, tmp_path, count=300, seed=3)


def test_the_oldest_legacy_files(tmp_path):
    (tmp_path / "a.pth").write_bytes(samples.oldest_legacy_bytes())
    expected = torch.load(tmp_path / "a.pth", weights_only=False)
    assert_equal(read_torch_file(tmp_path / "a.pth")["part"], expected["part"])
