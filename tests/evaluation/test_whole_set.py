"""Figures over a whole set: the same on one device and on eight; rFID's two streams; the command."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from tests.evaluation.small_judge import POOL, SPATIAL, small_judge
from tests.losses.drawn import weights as drawn_lpips
from tests.models.golden_models import random_params
from tests.training import tiny
from var_jax.bundle import load
from var_jax.cli import validate
from var_jax.cli.main import main
from var_jax.data.sources import Spread, make_source
from var_jax.errors import InputError
from var_jax.evaluation.frechet import frechet_distance, mean_and_covariance
from var_jax.evaluation.reconstruction import psnr, reconstruction_figures, reconstruction_sums
from var_jax.evaluation.statistics import Statistics, write_statistics
from var_jax.evaluation.structure import transformer_losses
from var_jax.evaluation.whole_set import whole_set
from var_jax.generation.pictures import to_uint8
from var_jax.losses.perceptual import lpips
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.parallel.mesh import make_mesh
from var_jax.pretrained.efficientnet import ImageNetClassifier
from var_jax.pyramid import Pyramid

SIDES = (1, 2, 4)


def features(images):
    """Six numbers a picture."""
    return images.reshape(len(images), -1, 3).astype(np.float64)[:, [0, 30]].reshape(len(images), 6) / 255


@pytest.fixture(scope="module")
def bundle(tiny_run):
    return load(tiny_run / "transformer")


@pytest.fixture(scope="module")
def source():
    return Spread(make_source("shapes", "validation", size=8), 21)


@pytest.fixture(scope="module")
def figures(bundle, source):
    settings = {"enlarge": 1.0, "batch": 8, "features": {"rfid": features}, "say": lambda text: None}
    return whole_set(bundle, source, **settings, references={"rfid": (np.zeros(6), np.eye(6))})


def test_figures_by_hand(bundle, source, figures):
    images, labels = (np.stack(part) for part in zip(*(source[i] for i in range(21)), strict=True))
    tokens = np.asarray(bundle.encode(images))
    shown = [np.asarray(bundle.decode(tokens, n)) for n in (1, 2, 3)]
    assert figures["pictures"] == 21
    by_hand = [float(np.mean(psnr(images / np.float32(255), picture))) for picture in shown]
    np.testing.assert_allclose(figures["tokenizer"]["psnr_by_scales"], by_hand, rtol=1e-4)
    real = mean_and_covariance(features(images))
    found = [mean_and_covariance(features(to_uint8(picture))) for picture in shown]
    rfid = [frechet_distance(*statistics, *real) for statistics in found]
    # A pixel next to a whole number may be cut off to either side.
    np.testing.assert_allclose(figures["tokenizer"]["rfid_by_scales"], rfid, rtol=2e-2)
    assert figures["tokenizer"]["rfid"] == figures["tokenizer"]["rfid_by_scales"][-1]
    assert figures["tokenizer"]["rfid_reference"] > 2 * figures["tokenizer"]["rfid"]  # another figure, another name
    parts = [Pyramid(SIDES).slice(k) for k in range(3)]
    for k, part in enumerate(parts):
        counts = np.bincount(tokens[:, part].ravel(), minlength=16)
        share = counts[counts > 0] / counts.sum()
        assert figures["tokenizer"]["codes_used"][k] == len(share)
        perplexity = np.exp(-np.sum(share * np.log(share)))
        np.testing.assert_allclose(figures["tokenizer"]["perplexity"][k], perplexity, rtol=1e-4)
    losses = transformer_losses(bundle, tokens, labels)
    np.testing.assert_allclose(figures["transformer"]["loss"], losses.mean(), rtol=1e-4)
    np.testing.assert_allclose(figures["transformer"]["perplexity"], np.exp(losses.mean()), rtol=1e-4)
    by_scale = [losses[:, part].mean() for part in parts]
    np.testing.assert_allclose(figures["transformer"]["loss_by_scale"], by_scale, rtol=1e-4)
    hits = np.argmax(bundle.logits(labels, tokens), axis=-1) == tokens
    np.testing.assert_allclose(figures["transformer"]["accuracy"], hits.mean(), atol=0.01)


def test_one_device_and_another_batch_give_the_same(bundle, source, figures):
    settings = {"enlarge": 1.0, "batch": 5, "features": {"rfid": features}, "say": lambda text: None}
    alone = whole_set(bundle, source, **settings, mesh=make_mesh(devices=jax.devices()[:1]))
    assert alone["tokenizer"]["codes_used"].tolist() == figures["tokenizer"]["codes_used"].tolist()
    for part, names in (
        ("tokenizer", ("psnr_by_scales", "ssim_by_scales", "perplexity", "usage")),
        ("transformer", ("loss_by_scale", "accuracy_by_scale")),
    ):
        for name in names:
            np.testing.assert_allclose(alone[part][name], figures[part][name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(alone["tokenizer"]["rfid"], figures["tokenizer"]["rfid"], rtol=2e-2)


def test_what_cannot_be_judged_is_named(bundle, source):
    tokens = Spread(source, 4)
    tokens.holds = "tokens"
    with pytest.raises(InputError, match="a store of tokens holds no pictures"):
        whole_set(bundle, tokens)
    many = Spread(source, 4)
    many.class_names = tuple(map(str, range(11)))
    with pytest.raises(InputError, match="the pictures have 11 classes, the transformer has 10"):
        whole_set(bundle, many)


def test_the_command(tiny_run, tmp_path, monkeypatch, capsys):
    """On a run's own data, without LPIPS (its pictures are too small), with small networks in the others' places."""
    fake = lambda images: (None, features(images))
    monkeypatch.setattr(ImageNetClassifier, "from_file", classmethod(lambda cls, path: fake))
    monkeypatch.setattr(validate, "inception_judge", lambda path: small_judge())
    statistics = (np.zeros(POOL), np.eye(POOL)), (np.zeros(SPATIAL), np.eye(SPATIAL))
    write_statistics(tmp_path / "reference.npz", *(Statistics(*of) for of in statistics), 9)
    model, out = str(tiny_run / "tokenizer"), tmp_path / "figures.json"
    options = ["--pictures", "21", "--batch", "16", "--efficientnet", "a.pth", "--expect", "--json", str(out)]
    options += ["--inception", "a.pth", "--reference", str(tmp_path / "reference.npz")]
    assert main(["validate", "--model", model, *options]) == 0
    found, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert "Published figures of VAR's tokenizer" in printed
    assert (found["pictures"], list(found)) == (21, ["pictures", "tokenizer"])
    assert len(found["tokenizer"]["frechet_efficientnet_lite0_by_scales"]) == 3
    assert f"{found['tokenizer']['psnr']:.4f}" in printed
    rfid = found["tokenizer"]["rfid"]
    assert found["tokenizer"]["rfid_reference"] != rfid > 0
    assert next(line for line in printed.splitlines() if line.startswith("rfid ") and "0.92" in line).split()[1] == (
        f"{rfid:.4f}".rstrip("0").rstrip(".")
    )
    assert [line.split()[0] for line in printed.splitlines() if "x" in line.split(" ")[0]][-3:] == ["1x1", "2x2", "4x4"]


def test_the_command_refuses(tiny_run, tmp_path, capsys):
    model = str(tiny_run / "tokenizer")
    for options, message in (
        (["--batch", "0"], "--batch 0: expected 1 or more"),
        (["--reference", "a.npz"], "give --inception FILE too"),
        (["--lpips", str(tmp_path / "none")], "weights of LPIPS: no file or folder"),
        (["--kind", "folder"], "data kind 'folder' needs the option path"),
    ):
        assert main(["validate", "--model", model, *options]) == 2
        assert message in capsys.readouterr().err
    assert main(["validate", "--model", str(tiny_run / "transformer" / "tokenizer")]) == 2
    assert "choose the pictures by --kind and its options" in capsys.readouterr().err


def test_lpips_by_number_of_scales():
    """In the sums, on a tokenizer whose pictures are large enough for VGG16."""
    tokenizer = Tokenizer(TokenizerConfig.from_fields(**tiny.tokenizer(model={"channel_multipliers": (1, 1, 2)}).model))
    images = jax.random.randint(jax.random.key(7), (2, 16, 16, 3), 0, 256).astype(np.uint8)
    params = random_params(tokenizer_shapes(tokenizer.config))
    sums = jax.jit(reconstruction_sums, static_argnums=0)(
        tokenizer, params, images, np.array([1.0, 0.0]), drawn_lpips()
    )
    found = reconstruction_figures(jax.device_get(sums))
    signed = images.astype(np.float32) / 127.5 - 1
    bound = tokenizer.bind({"params": params})
    shown = jax.jit(lambda x: bound.decode(bound.encode(x), 2))(signed)
    expected = jax.jit(lpips)(drawn_lpips(), shown, signed)[0]
    np.testing.assert_allclose(found["lpips_by_scales"][1], expected, rtol=1e-3)
    assert found["lpips"] == found["lpips_by_scales"][-1] > 0
