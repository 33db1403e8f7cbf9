"""Any picture file as RGB, and its middle square."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.formats.samples import damaged
from var_jax.data.images import centre_crop, decode_image, read_header, read_image, to_rgb
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


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes, at_end: bool = False) -> bytes:
    """The PNG of `colours()` with more chunks behind its header, or behind its pixels."""
    content = io.BytesIO()
    colours().save(content, "PNG")
    whole, place = content.getvalue(), -12 if at_end else 33
    return whole[:place] + b"".join(chunks) + whole[place:]


LARGE = zlib.compress(bytes(2 << 20))  # unpacked 2 MiB, twice what Pillow reads


@pytest.mark.parametrize("at_end", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"iCCP", b"icc\0\0" + LARGE)],
        [chunk(b"zTXt", b"parameters\0\0" + LARGE)],
        [chunk(b"iTXt", b"workflow\0\1\0\0\0" + LARGE)],
        [chunk(b"tEXt", b"note\0" + bytes([65 + i]) * (23 << 20)) for i in range(3)],
        [chunk(b"iCCP", b"icc\0\7" + LARGE)],
    ],
    ids=["profile", "packed-text", "international-text", "much-text", "unknown-packing"],
)
def test_large_texts_and_colour_profiles_are_skipped(tmp_path, chunks, at_end):
    """Programs that draw pictures put their settings there."""
    (tmp_path / "a.png").write_bytes(png(*chunks, at_end=at_end))
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(colours()))
    assert read_header(tmp_path / "a.png") == ("RGB", (3, 2))
    np.testing.assert_array_equal(decode_image(png(*chunks, at_end=at_end), "a"), np.asarray(colours()))


def test_a_picture_with_large_text_is_still_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    colours().save(content, "PNG", exif=exif)
    whole = content.getvalue()
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk(b"zTXt", b"parameters\0\0" + LARGE) + whole[33:])
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), np.rot90(np.asarray(colours()), -1))
    assert read_header(tmp_path / "a.png") == ("RGB", (2, 3))


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0, 200], "32-bit"), ([0, 70_000], "32-bit"), ([-1, 300], "32-bit"), ([0, 2**31 - 1], "32-bit")],
)
def test_integers_whose_white_is_unknown_are_refused(tmp_path, values, kind):
    """Zero to 255 would be black, and more than 16 bits white."""
    Image.fromarray(np.array([values], np.int32)).save(tmp_path / "a.tiff")
    low, high = values
    refused(
        tmp_path / "a.tiff", f"holds {kind} integers from {low} to {high}, whose white is unknown; save 8 or 16 bits"
    )


def tiff(path, photometric: int, sample_format: int, bits: int, values: np.ndarray) -> None:
    """A grey TIFF of one strip, little-endian, written by hand."""
    height, width = values.shape
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: height,
        279: values.nbytes,
    }
    tags |= {339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    folder = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + values.nbytes) + values.tobytes() + folder)


def test_signed_greys_are_refused_and_inverted_ones_are_inverted(tmp_path):
    ramp = np.linspace(0, 2**15 - 1, 8, dtype=np.int16)[None]
    tiff(tmp_path / "signed.tiff", 1, 2, 16, ramp)
    refused(tmp_path / "signed.tiff", "holds signed 16-bit integers from 0 to 32767")
    ramp = np.linspace(0, 2**16 - 1, 8, dtype=np.uint16)[None]
    for photometric, expected in ((1, ramp >> 8), (0, 255 - (ramp >> 8))):
        tiff(tmp_path / "a.tiff", photometric, 1, 16, ramp)
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.tiff"))[..., 0], expected)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_a_ramp_of_16_bits(tmp_path, suffix):
    ramp = np.linspace(0, 2**16 - 1, 512, dtype=np.uint16)[None]
    if suffix == "pgm":
        (tmp_path / "a.pgm").write_bytes(b"P5 512 1 65535\n" + ramp.astype(">u2").tobytes())
    else:
        Image.fromarray(ramp).save(tmp_path / f"a.{suffix}")
    drawn = np.asarray(read_image(tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(drawn, np.repeat((ramp >> 8)[..., None], 3, axis=-1))


def test_colours_of_16_bits_keep_their_high_bytes(tmp_path):
    values = np.random.default_rng(0).integers(0, 2**16, (5, 4, 3))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode_image(content, "a"), values >> 8)


def test_orientation_in_a_jpeg_and_broken_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn = read_back(colours().resize((48, 32), 0), tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    turned = np.rot90(np.asarray(colours().resize((48, 32), 0)), -1)
    assert drawn.shape == turned.shape
    assert np.abs(drawn.astype(int) - turned).mean() < 3
    plain = read_back(colours(), tmp_path / "a.jpg")
    head = b"Exif\0\0MM\0*\0\0\0\x08"
    entry = b"\0\x01\x01\x12\0\x03\0\0\0\x01"
    far = b"Exif\0\0MM\0*\0\0\xff\xff"
    for broken in (b"Exif\0\0garbage!", head[:14], head + entry + bytes(8), head + b"\0\x01\x01\x12\0\x02"[:6], far):
        np.testing.assert_array_equal(read_back(colours(), tmp_path / "a.jpg", exif=broken), plain)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_of_several_pictures_the_first(tmp_path, kind):
    frames = [colours(), *(Image.new("RGB", (3, 2), colour) for colour in (RED, BLUE))]
    options = {"lossless": True} if kind == "WEBP" else {}
    drawn = read_back(frames[0], tmp_path / f"a.{kind.lower()}", save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(drawn, np.asarray(colours()))


def test_the_first_picture_of_a_transparent_animation(tmp_path):
    frames = [Image.new("RGBA", (4, 4), (*colour, 0)) for colour in (RED, BLUE)]
    for frame in frames:
        frame.putpixel((1, 1), (*GREEN, 255))
    expected = np.full((4, 4, 3), 255)
    expected[1, 1] = GREEN
    for name, options in {"a.webp": {"lossless": True}, "a.png": {}, "a.gif": {"disposal": 2}}.items():
        drawn = read_back(frames[0], tmp_path / name, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(drawn, expected)


def test_a_jpeg_cut_short(tmp_path):
    """What comes behind the end is no loss."""
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(content, "JPEG")
    whole, path = content.getvalue(), tmp_path / "a.jpg"
    for cut in (len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:cut])
        refused(path, "cannot be read as a picture")
    path.write_bytes(whole)
    expected = np.asarray(read_image(path))
    path.write_bytes(whole + b"junk" * 100)
    np.testing.assert_array_equal(np.asarray(read_image(path)), expected)


def test_a_png_that_is_nearly_whole(tmp_path):
    flawed = chunk(b"tEXt", b"a\0b")[:-1] + b"?"
    for content in (png()[:-12], png() + b"junk", png(flawed, at_end=True)):
        (tmp_path / "a.png").write_bytes(content)
        np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "a.png")), np.asarray(colours()))


def test_no_decoder_starts_another_program(tmp_path, monkeypatch):
    """Whatever a file is called, its content decides; EPS would run Ghostscript."""
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for name in ("a.jpg", "a.eps"):
        (tmp_path / name).write_bytes(page)
        refused(tmp_path / name, "cannot be read as a picture (none of the formats that are read: PNG, JPEG, ")


@pytest.mark.parametrize("kind", ["TGA", "ICO", "PCX", "SGI", "JPEG2000", "DDS", "ICNS", "IM", "MSP", "XBM"])
def test_rare_formats_are_not_tried(tmp_path, kind):
    Image.new("1" if kind in ("MSP", "XBM") else "RGB", (64, 64)).save(tmp_path / "a.png", kind)
    refused(tmp_path / "a.png", "none of the formats that are read")


def test_100_million_pixels_are_read_without_a_warning_and_200_refused(tmp_path):
    """They are counted before one is decoded."""
    rows = chunk(b"IDAT", zlib.compress(bytes(1251 * 10_000))) + chunk(b"IEND", b"")
    signature = b"\x89PNG\r\n\x1a\n"
    for name, side in (("large.png", 10_000), ("larger.png", 12_000), ("bomb.png", 14_000)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        (tmp_path / name).write_bytes(signature + header + rows)
    program = f"from var_jax.data.images import read_header as read; print(*read({str(tmp_path / 'large.png')!r}))"
    read = subprocess.run([sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, check=True)
    assert read.stdout == "1 (10000, 10000)\n"
    assert "DecompressionBomb" not in read.stderr
    refused(tmp_path / "larger.png", "has 12000 x 12000 pixels, the limit is 134217728; scale it down")
    refused(tmp_path / "bomb.png", "claims too many pixels, the limit is 134217728; scale it down")


def test_a_strip_of_one_pixel(tmp_path):
    for size in ((1, 100_000), (100_000, 1)):
        drawn = read_back(Image.new("LA", size, (0, 0)), tmp_path / "a.png")
        assert drawn.shape == (size[1], size[0], 3)
        assert drawn.min() == 255


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "I;16", "I", "F", "CMYK", "LAB", "YCbCr", "1"])
def test_large_pictures_are_converted_part_by_part(mode):
    """Parts meet without a seam, and a value far from the others counts for all."""
    side = 1500
    ramp = np.add.outer(np.arange(side), np.arange(side)).astype(np.float32) * (65_000 / (2 * side))
    if mode == "I;16":
        image, expected = Image.fromarray(ramp.astype(np.uint16)), ramp.astype(np.uint16) >> 8
    elif mode in ("I", "F"):
        image = Image.fromarray(ramp.astype(np.int32 if mode == "I" else np.float32))
        scale = 255.0 / float(ramp.max())
        expected = ramp.astype(np.int32) >> 8 if mode == "I" else (ramp.astype(np.float64) * scale).clip(0, 255)
    else:
        grey = Image.fromarray((ramp / 256).astype(np.uint8))
        image = grey.convert("RGB").convert(mode) if mode != "LAB" else Image.merge("LAB", [grey] * 3)
        expected = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(to_rgb(image)), expected)
        return
    np.testing.assert_array_equal(np.asarray(to_rgb(image))[..., 0], expected.astype(np.uint8))


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


def test_a_flipped_bit_among_the_pixels_of_a_png_is_noticed(tmp_path):
    """Pillow decodes some of them to other pixels without a word."""
    pixels = np.tile(np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8), (8, 8, 1))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    start = whole.index(b"IDAT")
    end = start + 8 + int.from_bytes(whole[start - 4 : start], "big")
    for bit in range(8 * (start + 4), 8 * end, 5):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "b.png").write_bytes(flipped)
        with pytest.raises(InputError, match="b.png: cannot be read as a picture"):
            read_image(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes(whole[: end + 1])  # cut behind the pixels: nothing is missing
    np.testing.assert_array_equal(np.asarray(read_image(tmp_path / "b.png")), pixels)
