"""The study of editing, on the smallest models: its methods, its figures and its own parts."""

from __future__ import annotations

import json

import numpy as np
import pytest

from studies import editing
from tests.interop.checkpoints import drawn_model, tokenizer_config, transformer_config
from var_jax.bundle import Bundle
from var_jax.data.images import read_image
from var_jax.models.net import Net
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid((1, 2, 4))


def test_the_references_mask():
    """Bilinear sampling of the finest grid, and the coarsest scale whatever is masked."""
    boxes = np.zeros((2, 16, 16), bool)
    boxes[0, :8, :8] = True
    boxes[1] = True
    pyramid = Pyramid((1, 2, 4, 8))
    kept = editing.reference_keep_mask(boxes, pyramid)
    by_scale = [kept[0, pyramid.slice(k)].reshape(side, side) for k, side in enumerate(pyramid.sides)]
    for side, scale in zip(pyramid.sides[1:], by_scale[1:], strict=True):
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
    transformer = transformer_config(pyramid=PYRAMID, depth=1, num_classes=10)
    model = drawn_model(tokenizer, transformer)
    return Bundle(
        Net(Tokenizer(tokenizer), model.tokenizer_params), Net(Transformer(transformer), model.transformer_params)
    )


@pytest.mark.campaign
def test_the_command(bundle, tmp_path, monkeypatch):
    """Three drawn shapes, edited by the drawn model and judged by a classifier that has learned nothing."""
    monkeypatch.setattr(editing, "load", lambda path: bundle)
    monkeypatch.setattr(editing, "_TRAINING", 60)
    file, folder = tmp_path / "figures.json", tmp_path / "grids"
    editing.main(["--pictures", "3", "--steps", "1", "--json", str(file), "--pictures-out", str(folder)])
    figures = json.loads(file.read_text())
    assert figures["pictures"] == 3
    for task, methods in {"inpaint": 7, "upscale_2": 3, "upscale_4": 3}.items():
        assert sum(" - " not in method for method in figures[task]) == methods
        for method, values in figures[task].items():
            assert set(values) == {"structure", "psnr", "changed", "accuracy"}
            assert all(low <= mean <= high for mean, low, high in values.values()), method
        rows, columns = methods + 2, 3
        height, width = np.asarray(read_image(folder / f"{task}.png")).shape[:2]
        assert height / rows == pytest.approx(width / columns, rel=0.1)
    gain = figures["inpaint"]["dilate_0 - mean_fill"]["psnr"][0]
    both = figures["inpaint"]["dilate_0"]["psnr"][0], figures["inpaint"]["mean_fill"]["psnr"][0]
    assert gain == pytest.approx(both[0] - both[1])


@pytest.mark.campaign
def test_only_the_references_procedure_changes_what_lies_beyond_the_edge(bundle):
    size = bundle.tokenizer.config.image_size
    originals = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    boxes = editing.random_boxes(3, size)
    judge, labels = editing.Judge(Nobody(), None), np.asarray([0, 1, 0])
    edited = editing.inpainted(bundle, originals, boxes, labels, 0)
    assert np.any(edited["dilate_0"] != edited["dilate_0_class"])
    figures = {method: judge(images, originals, labels, boxes) for method, images in edited.items()}
    for method, values in figures.items():
        assert np.all((values["changed"] > 0) == method.startswith("reference")), method
        np.testing.assert_array_equal(values["accuracy"], [1, 0, 1])
        assert np.all(np.isfinite(values["psnr"]) & (values["structure"] > 0))


def test_upscaled_by_every_method(bundle):
    size = bundle.tokenizer.config.image_size
    originals = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    enlarged = editing.upscaled(bundle, originals, 0, 2)
    assert {method: images.shape for method, images in enlarged.items()} == dict.fromkeys(
        ("bicubic", "encoded", "drawn"), originals.shape
    )
    assert np.any(enlarged["encoded"] != enlarged["drawn"])
    assert np.any(enlarged["encoded"] != enlarged["bicubic"])
