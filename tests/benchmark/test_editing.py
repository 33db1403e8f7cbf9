"""The benchmark of editing, on the smallest models: its methods, its figures and its own parts."""

from __future__ import annotations

import numpy as np
import pytest

from tests.interop.checkpoints import drawn_model, tokenizer_config, transformer_config
from var_jax.benchmark import editing
from var_jax.bundle import Bundle
from var_jax.models.net import Net
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid((1, 2, 4, 8))


def test_the_references_mask():
    """Bilinear sampling of the finest grid, and the coarsest scale whatever is masked."""
    boxes = np.zeros((2, 16, 16), bool)
    boxes[0, :8, :8] = True
    boxes[1] = True
    kept = editing.reference_kept(boxes, PYRAMID)
    by_scale = [kept[0, PYRAMID.slice(k)].reshape(side, side) for k, side in enumerate(PYRAMID.sides)]
    for side, scale in zip(PYRAMID.sides[1:], by_scale[1:], strict=True):
        expected = np.ones((side, side), bool)
        expected[: side // 2, : side // 2] = False
        np.testing.assert_array_equal(scale, expected)
    assert kept[:, 0].all()
    assert not kept[1, 1:].any()


def test_boxes_lie_in_the_picture_and_differ():
    boxes = editing.random_boxes(40, 32)
    shares = boxes.mean(axis=(1, 2))
    assert np.all((shares >= 1 / 16) & (shares <= 1 / 4))
    assert len({box.tobytes() for box in boxes}) > 30
    np.testing.assert_array_equal(editing.random_boxes(40, 32), boxes)


def test_intervals_hold_the_mean_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        mean, low, high = editing.interval(rng.normal(3.0, 1.0, 50))
        assert low < mean < high
        inside += low < 3.0 < high
    assert 0.88 <= inside / 200 <= 0.99


class Nobody:
    """A classifier that finds class 0 in everything."""

    def __call__(self, images):
        return np.eye(5)[np.zeros(len(images), int)], None


@pytest.fixture(scope="module")
def bundle():
    tokenizer = tokenizer_config(pyramid=PYRAMID, base_channels=8, norm_groups=4)
    transformer = transformer_config(pyramid=PYRAMID, depth=1)
    model = drawn_model(tokenizer, transformer)
    return Bundle(
        Net(Tokenizer(tokenizer), model.tokenizer_params), Net(Transformer(transformer), model.transformer_params)
    )


def test_only_the_references_procedure_changes_what_lies_beyond_the_edge(bundle):
    size = bundle.tokenizer.config.image_size
    originals = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    boxes = editing.random_boxes(3, size)
    judge, labels = editing.Judge(Nobody(), None), np.asarray([0, 1, 0])
    edited = editing.inpainted(bundle, originals, boxes, labels, 0)
    assert np.any(edited["dilate_0"] != edited["dilate_0_told"])
    figures = {method: judge(images, originals, labels, boxes) for method, images in edited.items()}
    for method, values in figures.items():
        assert np.all((values["changed"] > 0) == method.startswith("reference")), method
        np.testing.assert_array_equal(values["accuracy"], [1, 0, 1])
        assert np.all(np.isfinite(values["psnr"]) & (values["structure"] > 0))


def test_upscaled_by_every_method(bundle):
    size = bundle.tokenizer.config.image_size
    originals = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    enlarged = editing.upscaled(bundle, originals, 0, 2)
    assert {method: images.shape for method, images in enlarged.items()} == dict.fromkeys(
        ("bicubic", "told", "drawn"), originals.shape
    )
    assert np.any(enlarged["told"] != enlarged["drawn"])
    assert np.any(enlarged["told"] != enlarged["bicubic"])
