"""Masks: which tokens stay, what is blanked, and that nothing beyond the soft edge changes."""

from __future__ import annotations

import numpy as np
import pytest

from var_jax.generation import masks
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid((1, 2, 4, 8))


def box(size, x0, y0, x1, y1):
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def finest(kept, row=0):
    return kept[row, PYRAMID.slice(3)].reshape(8, 8)


def test_everything_and_nothing():
    both = np.stack([np.zeros((16, 16), bool), np.ones((16, 16), bool)])
    for dilate in (0, 1, 8):
        kept = masks.keep_mask(both, PYRAMID, dilate)
        assert kept.shape == (2, PYRAMID.length)
        assert kept[0].all()
        assert not kept[1].any()


@pytest.mark.parametrize(("dilate", "redrawn"), [(0, (4, 5)), (1, (3, 6)), (2, (2, 7))])
def test_one_pixel_redraws_its_cell_and_those_around_it(dilate, redrawn):
    kept = finest(masks.keep_mask(box(16, 8, 9, 9, 10)[None], PYRAMID, dilate))
    expected = np.ones((8, 8), bool)
    expected[redrawn[0] : redrawn[1], redrawn[0] : redrawn[1]] = False
    np.testing.assert_array_equal(kept, expected)


def test_coarse_tokens_stay_where_any_of_their_cell_does():
    kept = masks.keep_mask(box(16, 0, 0, 8, 10)[None], PYRAMID, 0)  # 4 x 5 cells of the upper left
    by_scale = [kept[0, PYRAMID.slice(k)].reshape(side, side) for k, side in enumerate(PYRAMID.sides)]
    assert by_scale[0].all()
    np.testing.assert_array_equal(by_scale[1], [[False, True], [True, True]])
    np.testing.assert_array_equal(by_scale[2][:, 0], [False, False, True, True])  # the third is covered by half
    np.testing.assert_array_equal(by_scale[2][:, 2:], np.ones((4, 2)))


@pytest.mark.parametrize("steps", [0, 1, 3, 9])
def test_dilation_is_the_square_around_every_pixel(steps):
    mask = np.random.default_rng(0).random((2, 9, 13)) < 0.05
    expected = np.zeros_like(mask)
    for n, y, x in np.argwhere(mask):
        expected[n, max(y - steps, 0) : y + steps + 1, max(x - steps, 0) : x + steps + 1] = True
    np.testing.assert_array_equal(masks.dilated(mask, steps), expected)


def test_nothing_masked_is_left_and_nothing_else_changes():
    rng = np.random.default_rng(1)
    picture, mask = rng.integers(0, 256, (13, 18, 3), np.uint8), box(18, 3, 2, 11, 9)[:13]
    blanked = masks.blank(picture, mask)
    np.testing.assert_array_equal(blanked[~mask], picture[~mask])
    other = np.where(mask[..., None], rng.integers(0, 256, picture.shape, np.uint8), picture)
    np.testing.assert_array_equal(masks.blank(other, mask), blanked)
    np.testing.assert_allclose(masks.blank(picture / 255.0, mask), blanked / 255.0, atol=0.51 / 255)


def test_the_fill_has_the_colours_around_it():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, :16], picture[:, 16:] = (200, 40, 10), (20, 90, 250)
    blanked = masks.blank(picture, box(32, 4, 8, 28, 24)).astype(int)
    assert np.abs(blanked[16, 5] - (200, 40, 10)).max() < 30
    assert np.abs(blanked[16, 26] - (20, 90, 250)).max() < 30
    flat = np.full((7, 5, 3), 99, np.uint8)
    np.testing.assert_array_equal(masks.blank(flat, box(7, 1, 0, 4, 6)[:, :5]), flat)
    assert np.all(masks.blank(flat, np.ones((7, 5), bool)) == 127)  # nothing is known


@pytest.mark.parametrize("width", [0, 1, 3])
def test_beyond_the_soft_edge_every_byte_is_the_originals(width):
    mask, rng = box(20, 6, 7, 12, 11), np.random.default_rng(2)
    alpha = masks.soft_edge(mask, width)
    touched = masks.dilated(mask[None], width)[0]
    assert np.all(alpha[mask] == 1)
    assert np.all(alpha[~touched] == 0)
    assert np.all((alpha[touched & ~mask] > 0) & (alpha[touched & ~mask] < 1))
    original, redrawn = rng.integers(0, 256, (2, 20, 20, 3), np.uint8)
    result = masks.composite(original, redrawn, alpha)
    np.testing.assert_array_equal(result[~touched], original[~touched])
    np.testing.assert_array_equal(result[mask], redrawn[mask])
