"""Any picture file as RGB, and its middle square."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
from PIL import Image

from tests.formats.samples import damaged
from var_jax.data.images import centre_crop, decode_image, read_image, to_rgb
from var_jax.errors import InputError

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def colours():
    """2 rows of 3 pixels, all different."""
    pixels = [[RED, GREEN, BLUE], [WHITE, BLACK, (128, 64, 32)]]
    return Image.fromarray(np.array(pixels, np.uint8))


def read_back(image, path, **options):
    image.save(path, **options)
    read = read_image(path)
    assert read.mode == "RGB"
    return np.asarray(read)


def test_rgb_is_left_as_it_is(tmp_path):
    np.testing.assert_array_equal(read_back(colours(), tmp_path / "a.png"), np.asarray(colours()))


@pytest.mark.parametrize(
    ("mode", "pixel"),
    [("L", 77), ("LA", (77, 255)), ("I;16", 77 * 256 + 255), ("I", 77 * 256)],
    ids=["L", "LA", "I;16", "I"],
)
def test_grey_in_every_mode(tmp_path, mode, pixel):
    """The high byte of 16 bits, so that 8-bit greys stored in 16 come out as they were."""
    drawn = read_back(Image.new(mode, (3, 2), pixel), tmp_path / "a.tiff")
    np.testing.assert_array_equal(drawn, np.full((2, 3, 3), 77))


def test_black_and_white(tmp_path):
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(read_back(image, tmp_path / "a.png"), [[BLACK, WHITE]])


def test_floats_are_scaled_to_their_brightest(tmp_path):
    values = np.array([[0.0, 0.25, 0.5, -1.0, np.nan]], np.float32)
    drawn = read_back(Image.fromarray(values), tmp_path / "a.tiff")
    np.testing.assert_array_equal(drawn[0, :, 0], [0, 127, 255, 0, 0])
    np.testing.assert_array_equal(to_rgb(Image.new("F", (1, 1), 0.0)), [[BLACK]])


def test_transparent_pixels_are_white(tmp_path):
    rgba = colours().convert("RGBA")
    rgba.putpixel((0, 0), (0, 0, 0, 0))
    rgba.putpixel((1, 0), (0, 0, 0, 128))
    drawn = read_back(rgba, tmp_path / "a.png")
    np.testing.assert_array_equal(drawn[0], [WHITE, (127, 127, 127), BLUE])
    np.testing.assert_array_equal(read_back(Image.new("LA", (1, 1), (0, 0)), tmp_path / "b.png"), [[WHITE]])


def test_a_palette_with_a_transparent_colour(tmp_path):
    palette = colours().quantize(6)
    plain = read_back(palette, tmp_path / "a.png")
    np.testing.assert_array_equal(plain, np.asarray(colours()))
    drawn = read_back(palette, tmp_path / "b.png", transparency=palette.getpixel((1, 1)))
    transparent = np.all(plain == BLACK, axis=-1)
    assert transparent.sum() == 1
    np.testing.assert_array_equal(drawn, np.where(transparent[..., None], 255, plain))


def test_inks(tmp_path):
    drawn = read_back(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.jpg", quality=95)
    assert np.max(np.abs(drawn.astype(int) - RED)) < 8


@pytest.mark.parametrize("mode", ["YCbCr", "HSV"])
def test_other_colour_spaces(mode):
    drawn = np.asarray(to_rgb(Image.new("RGB", (1, 1), (200, 100, 50)).convert(mode)), int)
    assert np.max(np.abs(drawn - (200, 100, 50))) <= 3


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_pictures_are_turned_upright(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    drawn = read_back(colours(), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(drawn, upright(np.asarray(colours())))


def refused(path, *needles):
    with pytest.raises(InputError) as raised:
        read_image(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert [needle for needle in needles if needle not in message] == []


def test_what_is_no_picture(tmp_path):
    refused(tmp_path / "missing.png", "no such picture")
    refused(tmp_path / ("long" * 200), "no such picture")
    refused(tmp_path, "is a folder, expected a picture file")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    refused(tmp_path / "pipe", "not a regular file")
    for name, content in (("empty.png", b""), ("text.jpg", b"dear diary"), ("zeros.bmp", bytes(4096))):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "cannot be read as a picture (none of the formats that are read: PNG, JPEG, ")


def test_a_picture_that_claims_to_be_huge(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    refused(tmp_path / "bomb.png", "too many pixels")


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of damaged tags
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damage_is_one_line(tmp_path, kind):
    """Truncations and flipped bytes: a picture, or a line that names the file."""
    content, path = io.BytesIO(), tmp_path / "damaged"
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(content, kind)
    whole = content.getvalue()
    for copy in damaged(whole, 20, 0):
        path.write_bytes(copy)
        try:
            read_image(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "cannot be read as a picture")


def test_a_decoder_that_fails_in_its_own_way(tmp_path, monkeypatch):
    """Some raise what is no OSError, and without a word."""
    colours().save(tmp_path / "a.png")

    def fail(_):
        raise RuntimeError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    refused(tmp_path / "a.png", "cannot be read as a picture (RuntimeError)")


@pytest.mark.parametrize("shape", [(8, 8), (8, 20), (21, 8), (5, 3), (1, 1), (1, 40), (300, 2)])
@pytest.mark.parametrize("size", [8, 13])
def test_the_middle_square_has_the_size_asked_for(shape, size):
    height, width = shape
    squares = centre_crop(Image.new("RGB", (width, height), (9, 99, 199)), size)
    assert squares.dtype == np.uint8
    np.testing.assert_array_equal(squares, np.full((size, size, 3), (9, 99, 199)))


@pytest.mark.parametrize("stripes", [(10, 20, 11), (20, 20, 20), (400, 20, 400), (401, 20, 400)])
@pytest.mark.parametrize("upright", [False, True])
def test_the_middle_square_is_in_the_middle(stripes, upright):
    """Of black, white, black stripes it is the white one, or off by the pixel that cannot be halved."""
    left, middle, _ = stripes
    strip = np.zeros((20, sum(stripes), 3), np.uint8)
    strip[:, left : left + middle] = 255
    image = Image.fromarray(strip.transpose(1, 0, 2) if upright else strip)
    square = centre_crop(image, 20)
    lines = (square.transpose(1, 0, 2) if upright else square)[0, :, 0]
    assert np.all(lines[1:-1] == 255)
    assert sum(stripes) % 2 or np.all(lines == 255)


def test_scaling_is_lanczos_then_cut():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8))
    scaled = np.asarray(noise.resize((20, 12), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(centre_crop(noise, 12), scaled[:, 4:16])


def test_a_thin_strip_needs_no_more_memory_than_its_middle():
    """Scaled as a whole it would have 77 thousand million pixels."""
    strip = Image.new("RGB", (300_000, 1), GREEN)
    np.testing.assert_array_equal(centre_crop(strip, 512), np.full((512, 512, 3), GREEN))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP"])
def test_sent_bytes_are_a_picture(kind):
    content = io.BytesIO()
    colours().save(content, format=kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(np.asarray(decode_image(content.getvalue(), "a", 6)), np.asarray(colours()))
    with pytest.raises(InputError, match="^a: has 3 x 2 pixels, the limit is 5; scale it down$"):
        decode_image(content.getvalue(), "a", 5)


def test_sent_bytes_of_rarer_formats_are_not_tried():
    """Some of Pillow's formats start another program, as EPS does."""
    content = io.BytesIO()
    colours().save(content, format="EPS")
    with pytest.raises(InputError, match="^a: cannot be read as a picture"):
        decode_image(content.getvalue(), "a", 6)
