"""The 2015 Inception network against torch-fidelity's numbers, and its file."""

from __future__ import annotations

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.pretrained import drawn_inception
from var_jax.errors import InputError
from var_jax.formats.tensors import write_tensors
from var_jax.pretrained import inception_file
from var_jax.pretrained.inception import OUTPUTS, POOL, SPATIAL, Inception, extract, prepare
from var_jax.pretrained.inception_file import read_inception


@pytest.fixture(scope="module")
def params():
    return drawn_inception.params()


def test_features_at_three_sizes(golden, params):
    """The three sizes differ in the resize only, so the network itself is compiled once."""
    arrays, sizes = golden("inception"), (64, 256, 512)
    prepared = [prepare(jnp.asarray(arrays[f"{size}/images"])) for size in sizes]
    assert {x.shape[1:] for x in prepared} == {(299, 299, 3)}
    network = jax.jit(lambda x: Inception().apply({"params": params}, x))
    found = network(jnp.concatenate(prepared))
    expected = {part: np.concatenate([arrays[f"{size}/{part}"] for size in sizes]) for part in PARTS}
    assert found.pool.shape == (5, POOL)
    assert found.spatial.shape == (5, SPATIAL)
    np.testing.assert_allclose(found.pool, expected["pool"], atol=1e-3)
    np.testing.assert_allclose(found.spatial, expected["spatial"], atol=1e-3)
    logits = np.asarray(found.pool) @ params["fc"]["kernel"]
    np.testing.assert_allclose(logits, expected["logits_without_bias"], atol=1e-3)
    # The golden numbers would notice what the traps do: half-pixel centres, and channels before rows.
    assert np.abs(expected["pool"]).max() > 0.1
    wrong = np.asarray(found.spatial).reshape(5, 17, 17, 7).transpose(0, 3, 1, 2).reshape(5, -1)
    assert np.abs(wrong - expected["spatial"]).max() > 0.1


PARTS = ("pool", "logits_without_bias", "spatial")


@pytest.mark.parametrize("size", [64, 512])
def test_the_resize_is_the_graphs(size):
    """Pixel by pixel in float64; half-pixel centres or antialiasing are far off."""
    image = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
    at = np.arange(299) * (size / 299)
    low = np.floor(at).astype(int)
    high, share = np.minimum(low + 1, size - 1), at - low
    rows = image[low] * (1 - share)[:, None, None] + image[high] * share[:, None, None]
    expected = rows[:, low] * (1 - share)[:, None] + rows[:, high] * share[:, None]
    ours = np.asarray(prepare(jnp.asarray(image[None])))[0] * 128 + 128
    np.testing.assert_allclose(ours, expected, atol=0.05)
    for antialias in (False, True):
        other = jax.image.resize(image.astype(np.float32), (299, 299, 3), "bilinear", antialias=antialias)
        assert np.abs(np.asarray(other) - expected).mean() > 5


def same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


def test_the_file_gives_the_weights(tmp_path, params):
    write_tensors(tmp_path / "inception.pth", drawn_inception.tensors(), {})
    found = read_inception(tmp_path / "inception.pth")
    same(found.params, params)
    assert found.published is False
    assert found.sha256 == hashlib.sha256((tmp_path / "inception.pth").read_bytes()).hexdigest()


def test_wrong_files_are_named(tmp_path, monkeypatch):
    named = {"fc.weight": np.zeros((1000, POOL), np.float32)}
    write_tensors(tmp_path / "short.safetensors", named, {})
    with pytest.raises(InputError, match="lacks Conv2d_1a_3x3.conv.weight of the 2015 Inception network; get pt_inc"):
        read_inception(tmp_path / "short.safetensors")
    wrong = {**drawn_inception.tensors(), "fc.weight": np.zeros((1000, POOL), np.float32)}
    write_tensors(tmp_path / "today.safetensors", wrong, {})
    with pytest.raises(InputError, match=rf"fc.weight has the shape \(1000, 2048\), expected \({OUTPUTS}, 2048\)"):
        read_inception(tmp_path / "today.safetensors")
    (tmp_path / "graph.pb").write_bytes(b"\x0a\x05\x0a\x01x\x12\x00")
    with pytest.raises(InputError, match="graph.pb: TensorFlow graphs are not read; get .* pt_inc.*6726825d.pth"):
        read_inception(tmp_path / "graph.pb")
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    write_tensors(path, named, {})
    with pytest.raises(InputError, match="SHA-256 starts with [0-9a-f]{8}, as its name says it should with 6726825d"):
        read_inception(path)
    with pytest.raises(InputError, match="no file '.*nowhere.pth'; get pt_inception-2015-12-05-6726825d.pth"):
        read_inception(tmp_path / "nowhere.pth")


def test_weights_are_found_in_the_cache_folder(tmp_path, monkeypatch, params):
    monkeypatch.setenv("VAR_JAX_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=f"none in {tmp_path}; get pt_inception.* and put it there"):
        read_inception()
    (tmp_path / "classify_image_graph_def.pb").write_bytes(b"graph")
    with pytest.raises(InputError, match="graph_def.pb: TensorFlow graphs are not read; get .* pt_inc.*6726825d.pth"):
        read_inception()
    monkeypatch.setattr(inception_file, "PUBLISHED_START", "")  # as if the drawn weights were the published ones
    write_tensors(tmp_path / "pt_inception-2015-12-05-6726825d.pth", drawn_inception.tensors(), {})
    found = read_inception()  # it comes before the graph
    same(found.params, params)
    assert found.published is True
    assert found.file.endswith("6726825d.pth")
    monkeypatch.delenv("VAR_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert str(inception_file.cache_folder()) == "/elsewhere/var_jax"


def test_extract_takes_bytes_of_any_size(params):
    shaped = jax.eval_shape(lambda images: extract(params, images), jax.ShapeDtypeStruct((3, 40, 56, 3), np.uint8))
    assert [leaf.shape for leaf in shaped] == [(3, POOL), (3, SPATIAL)]
    assert {leaf.dtype for leaf in shaped} == {np.dtype(np.float32)}
