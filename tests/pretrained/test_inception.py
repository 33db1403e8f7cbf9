"""The 2015 Inception network against torch-fidelity's numbers, and its files in both forms."""

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
from var_jax.pretrained.inception import OUTPUTS, POOL, SPATIAL, Inception, extract, layers, prepare
from var_jax.pretrained.inception_file import graph_scopes, read_inception


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


def constants() -> dict[str, np.ndarray]:
    """The drawn weights under the names of the frozen graph."""
    params, parts = drawn_inception.params(), {"scale": "gamma", "bias": "beta", "mean": "moving_mean"}
    parts["variance"] = "moving_variance"
    named = {"softmax/weights": params["fc"]["kernel"], "softmax/biases": params["fc"]["bias"]}
    for name, scope in graph_scopes().items():
        named[f"{scope}/conv2d_params"] = params[name]["kernel"]
        named |= {f"{scope}/batchnorm/{theirs}": params[name][ours] for ours, theirs in parts.items()}
    return named


def test_both_files_give_the_same_weights(tmp_path, params):
    write_tensors(tmp_path / "inception.pth", drawn_inception.tensors(), {})
    others = [drawn_inception.field(1, drawn_inception.field(1, b"ExpandDims") + drawn_inception.field(2, b"Identity"))]
    others.append(drawn_inception.field(4, drawn_inception.field(1, 8)))  # the graph's version
    (tmp_path / "classify_image_graph_def.pb").write_bytes(drawn_inception.graph(constants(), others))
    from_torch, from_graph = (read_inception(tmp_path / n) for n in ("inception.pth", "classify_image_graph_def.pb"))
    same(from_torch.params, params)
    same(from_graph.params, params)
    assert (from_torch.published, from_graph.published) == (False, None)
    assert from_torch.sha256 == hashlib.sha256((tmp_path / "inception.pth").read_bytes()).hexdigest()


def test_scopes_of_the_graph():
    """As a published converter lists them, which matched the two files by their tensors' shapes."""
    scopes = graph_scopes()
    assert set(scopes) == set(layers())
    assert len(set(scopes.values())) == 94
    listed = {
        "Conv2d_1a_3x3": "conv",
        "Conv2d_4a_3x3": "conv_4",
        "Mixed_5b.branch1x1": "mixed/conv",
        "Mixed_5b.branch5x5_2": "mixed/tower/conv_1",
        "Mixed_5d.branch3x3dbl_3": "mixed_2/tower_1/conv_2",
        "Mixed_6a.branch3x3": "mixed_3/conv",
        "Mixed_6a.branch3x3dbl_1": "mixed_3/tower/conv",
        "Mixed_6d.branch1x1": "mixed_6/conv",
        "Mixed_6e.branch_pool": "mixed_7/tower_2/conv",
        "Mixed_7a.branch3x3_1": "mixed_8/tower/conv",
        "Mixed_7a.branch7x7x3_4": "mixed_8/tower_1/conv_3",
        "Mixed_7b.branch3x3_2a": "mixed_9/tower/mixed/conv",
        "Mixed_7c.branch3x3dbl_3b": "mixed_10/tower_1/mixed/conv_1",
    }
    assert {name: scopes[name] for name in listed} == listed


def test_wrong_files_are_named(tmp_path, monkeypatch):
    named = {"fc.weight": np.zeros((1000, POOL), np.float32)}
    write_tensors(tmp_path / "short.safetensors", named, {})
    with pytest.raises(InputError, match="lacks Conv2d_1a_3x3.conv.weight of the 2015 Inception network; get pt_inc"):
        read_inception(tmp_path / "short.safetensors")
    wrong = {**drawn_inception.tensors(), "fc.weight": np.zeros((1000, POOL), np.float32)}
    write_tensors(tmp_path / "today.safetensors", wrong, {})
    with pytest.raises(InputError, match=rf"fc.weight has the shape \(1000, 2048\), expected \({OUTPUTS}, 2048\)"):
        read_inception(tmp_path / "today.safetensors")
    (tmp_path / "graph.pb").write_bytes(drawn_inception.graph({"conv/conv2d_params": np.zeros((3, 3, 3, 32))}))
    with pytest.raises(InputError, match="graph.pb: lacks conv/batchnorm/gamma"):
        read_inception(tmp_path / "graph.pb")
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    write_tensors(path, named, {})
    with pytest.raises(InputError, match="SHA-256 starts with [0-9a-f]{8}, as its name says it should with 6726825d"):
        read_inception(path)
    with pytest.raises(InputError, match="no file '.*nowhere.pth'; get pt_inception-2015-12-05-6726825d.pth"):
        read_inception(tmp_path / "nowhere.pth")


def test_weights_are_found_in_the_cache_folder(tmp_path, monkeypatch, params):
    monkeypatch.setenv("VAR_JAX_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=f"none in {tmp_path}; get pt_inception.* or .*_def.pb .* and put it there"):
        read_inception()
    (tmp_path / "classify_image_graph_def.pb").write_bytes(drawn_inception.graph(constants()))
    same(read_inception().params, params)
    monkeypatch.setattr(inception_file, "PUBLISHED_START", "")  # as if the drawn weights were the published ones
    write_tensors(tmp_path / "pt_inception-2015-12-05-6726825d.pth", drawn_inception.tensors(), {})
    found = read_inception()  # it comes before the graph
    assert found.published is True
    assert found.file.endswith("6726825d.pth")
    monkeypatch.delenv("VAR_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert str(inception_file.cache_folder()) == "/elsewhere/var_jax"


def test_extract_takes_bytes_of_any_size(params):
    shaped = jax.eval_shape(lambda images: extract(params, images), jax.ShapeDtypeStruct((3, 40, 56, 3), np.uint8))
    assert [leaf.shape for leaf in shaped] == [(3, POOL), (3, SPATIAL)]
    assert {leaf.dtype for leaf in shaped} == {np.dtype(np.float32)}
