"""Scaling and cropping as the reference does it, and nothing at all where nothing is to be done."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from var_jax.data.transforms import Crop
from var_jax.errors import InputError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def noise(height, width):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_validation_is_lanczos_and_a_centre_crop():
    image = noise(50, 83)
    # Shorter side to round(1.125 x 24) = 27; the longer to int(27 x 83 / 50) = int(44.82).
    scaled = np.asarray(Image.fromarray(image).resize((44, 27), Image.Resampling.LANCZOS))
    # Half-way offsets go to the even pixel: round((27 - 24) / 2) = round(1.5) = 2, round((44 - 24) / 2) = 10.
    np.testing.assert_array_equal(Crop(24).validation(image), scaled[2:26, 10:34])


def test_training_crops_from_everywhere_in_the_same_scaled_picture(rng):
    image = noise(83, 50)
    scaled = np.asarray(Image.fromarray(image).resize((27, 44), Image.Resampling.LANCZOS))
    squares = {(top, left): scaled[top : top + 24, left : left + 24] for top in range(21) for left in range(4)}
    seen = set()
    for _ in range(1500):
        square = Crop(24).training(image, rng)
        corner = [place for place, expected in squares.items() if np.array_equal(square, expected)]
        assert len(corner) == 1
        seen.add(corner[0])
    assert seen == set(squares)


@pytest.mark.parametrize("enlarge", [1.0, 1.125])
@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (90, 61), (33, 150), (300, 41)])
def test_the_square_alone_is_computed_and_is_that_of_the_whole_scaled_picture(shape, enlarge):
    image, crop = noise(*shape), Crop(64, enlarge=enlarge)
    shorter = min(shape)
    width, height = (
        round(64 * enlarge) if side == shorter else int(round(64 * enlarge) * side / shorter) for side in shape[::-1]
    )
    whole = Image.fromarray(image).resize((width, shape[0]), Image.Resampling.LANCZOS)  # along the rows first
    whole = np.asarray(whole.resize((width, height), Image.Resampling.LANCZOS)).astype(int)
    for seed in range(4):
        square, drawn = crop.training(image, np.random.default_rng(seed)), np.random.default_rng(seed)
        top, left = drawn.integers(height - 63), drawn.integers(width - 63)
        difference = np.abs(square - whole[top : top + 64, left : left + 64])
        assert difference.max() <= 1
        assert np.mean(difference > 0) < 0.01


def test_flips_every_other_picture_and_only_when_asked(rng):
    image = noise(24, 24)
    plain = [Crop(24, enlarge=1.0).training(image, rng) for _ in range(50)]
    assert all(np.array_equal(square, image) for square in plain)
    flipped = [Crop(24, enlarge=1.0, flip=True).training(image, rng) for _ in range(400)]
    mirrored = sum(np.array_equal(square, image[:, ::-1]) for square in flipped)
    assert mirrored + sum(np.array_equal(square, image) for square in flipped) == 400
    assert 150 < mirrored < 250


def test_a_picture_of_the_size_passes_untouched(rng):
    image = noise(32, 32)
    crop = Crop(32, enlarge=1.0)
    np.testing.assert_array_equal(crop.training(image, rng), image)
    np.testing.assert_array_equal(crop.validation(image), image)


@pytest.mark.parametrize("shape", [(7, 5), (5, 300), (64, 64), (1, 1)])
@pytest.mark.parametrize("enlarge", [1.0, 1.125, 2.0])
def test_any_picture_becomes_the_square(rng, shape, enlarge):
    crop = Crop(16, enlarge)
    for square in (crop.training(noise(*shape), rng), crop.validation(noise(*shape))):
        assert (square.shape, square.dtype) == ((16, 16, 3), np.uint8)


def test_of_a_thin_strip_the_middle_is_taken(rng):
    """Scaled whole, a strip of 2 x 100000 pixels would be larger than the memory."""
    strip = np.full((1600, 2, 3), 255, np.uint8)
    strip[784:816] = 7
    squares = np.stack([Crop(16).training(strip, rng) for _ in range(50)])
    np.testing.assert_array_equal(squares, 7)


@pytest.mark.parametrize("enlarge", [0.9, float("nan")])
def test_a_crop_larger_than_the_picture_is_refused(enlarge):
    with pytest.raises(InputError, match="enlarge"):
        Crop(16, enlarge)
    with pytest.raises(InputError, match="size"):
        Crop(0)
