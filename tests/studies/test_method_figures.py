"""The figures of docs/method.md show the numbers that the model computes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from studies import method_figures
from tests.interop.checkpoints import drawn_model, tokenizer_config, transformer_config
from var_jax.bundle import load
from var_jax.data.shapes import CLASS_NAMES, Shapes
from var_jax.errors import InputError
from var_jax.model_directory import save_model
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid((1, 2, 4))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """8 px, the least that shapes can be drawn on."""
    folder = tmp_path_factory.mktemp("figures") / "model"
    parts = tokenizer_config(pyramid=PYRAMID), transformer_config(pyramid=PYRAMID, num_classes=10)
    save_model(folder, dataclasses.replace(drawn_model(*parts), class_names=CLASS_NAMES))
    return folder


@pytest.mark.campaign
def test_the_command_writes_every_figure(model, tmp_path, capsys):
    method_figures.main(["--model", str(model), "--out", str(tmp_path / "out")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| scale | tokens of 16 that top-p 0.95 leaves |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 1x1", "| 2x2", "| 4x4"]
    assert all(1 <= float(line.split(" | ")[1].rstrip(" |")) <= 16 for line in lines[2:])
    sizes = {path.name: Image.open(path).size for path in (tmp_path / "out").iterdir()}
    tile, caption, row = 64, 14, 66
    assert sizes == {
        "method_scales.png": (4 * row - 2, caption + 6 * row - 2),
        "method_input.png": (3 * row - 2, caption + 3 * row - 2),
        "method_mask.png": (30 * 12, 30 * 12),
        "method_guidance.png": (4 * row - 2, caption + 4 * row - 2),
        "method_filtering.png": (4 * row - 2, caption + 4 * row - 2),
    }
    guided = np.asarray(Image.open(tmp_path / "out" / "method_guidance.png"))
    unguided, strong = guided[caption : caption + tile, :tile], guided[caption : caption + tile, 3 * row :]
    assert np.any(unguided != strong)


def test_contributions_add_up_to_what_the_models_see(model):
    bundle = load(model)
    tokens_BxL = bundle.encode(np.stack([Shapes("validation", 8, 10)[index][0] for index in range(2)]))
    steps = method_figures.decoded(bundle.tokenizer.module, bundle.tokenizer.params, tokens_BxL)
    inputs = bundle.tokenizer.apply(tokens_BxL, method="transformer_input")
    flat = np.concatenate([np.asarray(each).reshape(2, -1, each.shape[-1]) for each in steps.inputs], axis=1)
    assert flat.shape[1] == PYRAMID.length - 1
    np.testing.assert_allclose(flat, inputs, atol=1e-5)
    decoded = bundle.tokenizer.apply(steps.sums[-1], method="decode_features")
    np.testing.assert_allclose((np.clip(decoded, -1, 1) + 1) / 2, bundle.decode(tokens_BxL), atol=1e-4)


def test_top_p_of_nearly_everything_leaves_more_than_top_p_of_little(model):
    bundle, source = load(model), Shapes("validation", 8, 10)
    given = np.stack([source[index][0] for index in range(4)]), source.labels()[:4]
    little, much = (method_figures.left_by_top_p(bundle, *given, top_p) for top_p in (0.01, 0.999))
    np.testing.assert_array_equal(little, 1)
    assert np.all(much > 1)


def test_the_mask_shows_own_and_coarser_scales():
    drawn = method_figures.mask_figure(Pyramid((1, 2)))[6::12, 6::12].astype(int)
    seen = drawn.sum(axis=-1) < 600
    np.testing.assert_array_equal(seen, Pyramid((1, 2)).block_causal_mask)


def test_another_model_is_refused(tmp_path):
    save_model(tmp_path / "model", drawn_model())
    with pytest.raises(InputError, match="expected a transformer of their ten classes"):
        method_figures.write(str(tmp_path / "model"), tmp_path)
