"""Editing: the masked sampler at its two ends, windows, pasting back, up-scaling."""

from __future__ import annotations

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.interop.checkpoints import drawn_model, tokenizer_config, transformer_config
from var_jax.bundle import Bundle
from var_jax.errors import InputError
from var_jax.generation import editing, sampler, upscaling
from var_jax.generation.known import KnownPicture
from var_jax.generation.masks import first_scales, soft_edge
from var_jax.models.net import Net
from var_jax.models.pictures import to_signed
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer
from var_jax.pyramid import Pyramid

PYRAMID = Pyramid((1, 2, 4))
SIZE, CODES = 8, 16
RNG = np.random.default_rng(0)
SETTINGS = {"guidance": 2.0, "top_k": 9, "top_p": 0.9}


@pytest.fixture(scope="module")
def bundle():
    tokenizer = tokenizer_config(pyramid=PYRAMID, base_channels=8, norm_groups=4)
    transformer = transformer_config(pyramid=PYRAMID, depth=1)
    model = drawn_model(tokenizer, transformer)
    parts = Net(Tokenizer(tokenizer), model.tokenizer_params), Net(Transformer(transformer), model.transformer_params)
    return Bundle(*parts, class_names=("a", "b", "c", "d", "e"))


@pytest.fixture(scope="module")
def pictures():
    return RNG.integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)


def keys(count=3):
    return jax.random.split(jax.random.key(5), count)


def redrawn(bundle, pictures, keep, reencode=True):
    """Pictures and tokens; one program for all that use it."""
    arguments = bundle.sampler_arguments([1, 0, 4], keys(), **SETTINGS)
    return sampler.generate(*arguments, KnownPicture(pictures, jnp.asarray(keep), reencode))


def keep_where(mask_L):
    return np.tile(mask_L, (3, 1))


@pytest.mark.parametrize("reencode", [True, False])
def test_keeping_everything_is_the_tokenizers_reconstruction(bundle, pictures, reencode):
    out = redrawn(bundle, pictures, keep_where(np.ones(PYRAMID.length, bool)), reencode)
    np.testing.assert_array_equal(out.tokens, bundle.encode(pictures))
    np.testing.assert_allclose(out.images, bundle.decode(bundle.encode(pictures)), atol=1e-4)


@pytest.mark.parametrize("reencode", [True, False])
def test_keeping_nothing_is_plain_sampling(bundle, pictures, reencode):
    out = redrawn(bundle, pictures, keep_where(np.zeros(PYRAMID.length, bool)), reencode)
    plain = sampler.generate(*bundle.sampler_arguments([1, 0, 4], keys(), **SETTINGS))
    np.testing.assert_array_equal(out.tokens, plain.tokens)
    np.testing.assert_allclose(out.images, plain.images, atol=1e-4)


def test_first_scales_stay_and_the_others_follow_from_the_key(bundle, pictures):
    keep = keep_where(first_scales(PYRAMID, 2))
    out, own = redrawn(bundle, pictures, keep), np.asarray(bundle.encode(pictures))
    np.testing.assert_array_equal(np.asarray(out.tokens)[keep], own[keep])
    assert np.mean(np.asarray(out.tokens)[~keep] != own[~keep]) > 0.5
    np.testing.assert_array_equal(redrawn(bundle, pictures, keep).tokens, out.tokens)


def test_known_tokens_stay_where_the_mask_says(bundle, pictures):
    keep = RNG.random((3, PYRAMID.length)) < 0.5
    own = np.asarray(bundle.encode(pictures))
    np.testing.assert_array_equal(np.asarray(redrawn(bundle, pictures, keep, False).tokens)[keep], own[keep])


def test_known_tokens_encode_the_residual_of_the_drawn_ones(bundle, pictures):
    """Only the coarsest is drawn: the finer scales are the encoding of the residual that it leaves."""
    keep = keep_where(~first_scales(PYRAMID, 1))
    out = redrawn(bundle, pictures, keep)
    bound = bundle.tokenizer.bound()
    features = bound.features(to_signed(jnp.asarray(pictures)))
    rest, own = features, np.asarray(bundle.encode(pictures))
    drawn = np.asarray(out.tokens)
    assert np.any(drawn[:, :1] != own[:, :1])
    rest = rest - bound.quantizer.contribution(bound.quantizer.embed(out.tokens[:, :1]), 0)
    for k in (1, 2):
        tokens = np.asarray(bound.quantizer.nearest(bound.quantizer.next_scale_input(rest, k)))
        np.testing.assert_array_equal(drawn[:, PYRAMID.slice(k)], tokens)
        rest = rest - bound.quantizer.contribution(bound.quantizer.embed(jnp.asarray(tokens)), k)
    assert np.any(drawn[:, 1:] != own[:, 1:])


def test_masks_and_classes_recompile_nothing(bundle, pictures):
    redrawn(bundle, pictures, keep_where(np.ones(PYRAMID.length, bool)))
    before = sampler.generate._cache_size()
    redrawn(bundle, pictures, keep_where(RNG.random(PYRAMID.length) < 0.5))
    assert sampler.generate._cache_size() == before


def test_redraw_refuses_what_does_not_fit(bundle, pictures):
    keep = keep_where(np.ones(PYRAMID.length, bool))
    for wrong, labels in ((keep[:, 1:], [0, 0, 0]), (keep.astype(int), [0, 0, 0]), (keep, [0])):
        with pytest.raises(InputError, match=r"expected \(3, 21\) of bool and 3 labels"):
            bundle.redraw(pictures, wrong, labels, jax.random.key(0))


def box(shape, x0, y0, x1, y1):
    return editing.box_mask((x0, y0, x1, y1), shape)


@pytest.mark.parametrize(
    ("shape", "marked", "expected"),
    [
        ((8, 8), (2, 3, 4, 5), (0, 0, 8)),
        ((10, 30), (20, 1, 25, 3), (17, 0, 10)),  # left, top, side
        ((10, 30), (25, 1, 30, 3), (20, 0, 10)),
        ((30, 10), (0, 0, 5, 2), (0, 0, 10)),
        ((10, 30), (4, 0, 24, 10), (4, 0, 20)),  # wider than the picture is high: a strip
        ((10, 30), (0, 0, 30, 10), (0, 0, 30)),
        ((5, 7), (0, 0, 7, 2), (0, -1, 7)),  # the model sees more than that: a square, which reaches beyond
        ((90, 80), (40, 50, 48, 56), (36, 45, 16)),  # twice the mask, for the model sees less than the picture
        ((90, 80), (40, 50, 41, 51), (36, 46, 8)),  # at its own size
        ((90, 80), (79, 0, 80, 1), (72, 0, 8)),
    ],
)
def test_the_window_holds_the_mask_and_some_room(shape, marked, expected):
    window = editing.window_around(box(shape, *marked), 8)
    assert (window.left, window.top, window.side) == expected
    picture = RNG.integers(0, 256, (*shape, 3), np.uint8)
    part, outside = window.cut(picture), window.outside(*shape)
    assert part.shape == (window.height, window.width, 3)
    assert np.sum(~outside) == min(window.side, shape[0]) * min(window.side, shape[1])
    np.testing.assert_array_equal(window.put_back(picture, part), picture)
    changed = window.put_back(picture, np.where(outside[..., None], 7, 0).astype(np.uint8))
    assert np.sum(np.any(changed != picture, axis=-1)) >= 0.99 * np.sum(~outside)
    assert not np.any(window.put_back(np.zeros_like(picture), np.where(outside[..., None], 7, 0)))


SEEN = []


def white(images, keep):
    """A sampler that draws white, and remembers what it was shown."""
    SEEN[:] = [(images, keep)]
    return np.ones(images.shape, np.float32)


@pytest.mark.parametrize("shape", [(8, 8), (5, 5), (32, 32), (40, 64), (64, 40)])
def test_beyond_the_soft_edge_the_picture_is_untouched(shape):
    picture, region = RNG.integers(0, 250, (*shape, 3), np.uint8), box(shape, 1, 1, shape[1] // 2, shape[0] // 2)
    edited = editing.edit(white, PYRAMID, SIZE, picture, region)
    edge = soft_edge(region, max(1, editing.window_around(region, SIZE).side // 32)) > 0
    assert edited.shape == picture.shape
    np.testing.assert_array_equal(edited[~edge], picture[~edge])
    assert np.all(edited[region] == 255)
    shown, keep = SEEN[0]
    assert shown.shape == (1, SIZE, SIZE, 3)
    assert keep.shape == (1, PYRAMID.length)
    other = np.where(region[..., None], 255 - picture, picture)
    editing.edit(white, PYRAMID, SIZE, other, region)
    np.testing.assert_array_equal(SEEN[0][0], shown)  # of the region the model sees nothing


def test_kept_scales_show_the_region_and_keep_it():
    picture, region = RNG.integers(0, 250, (8, 8, 3), np.uint8), np.ones((8, 8), bool)
    edited = editing.edit(white, PYRAMID, SIZE, picture, region, keep_scales=2)
    np.testing.assert_array_equal(SEEN[0][0][0], picture)
    np.testing.assert_array_equal(SEEN[0][1][0], first_scales(PYRAMID, 2))
    assert np.all(edited == 255)


@pytest.mark.parametrize("shape", [(4, 40), (40, 4), (1, 300), (100, 1000), (400, 4000)])
def test_strips_take_the_memory_of_strips(shape):
    """A band along a strip: a square around it took 16 times the memory of 400 x 4000 pixels, and did not end."""
    picture, region = np.full((*shape, 3), (10, 20, 30), np.uint8), np.ones(shape, bool)
    region[: shape[0] // 3] = region[:, : shape[1] // 3] = False
    region[shape[0] // 2, :] = region[:, shape[1] // 2] = True
    tracemalloc.start()
    edited = editing.edit(white, PYRAMID, SIZE, picture, region, edge=0)
    assert tracemalloc.get_traced_memory()[1] < 300 * region.size + 2**20
    tracemalloc.stop()
    assert np.all(edited[region] == 255)
    np.testing.assert_array_equal(edited[~region], picture[~region])
    shown, keep = SEEN[0]
    assert shown.shape == (1, SIZE, SIZE, 3)
    if not region.all():
        np.testing.assert_array_equal(shown[0], np.full((SIZE, SIZE, 3), (10, 20, 30)))


def test_a_strip_is_seen_in_the_middle():
    """Twice the model's side and half as high: what is drawn for the middle comes back, and nothing else."""
    picture, region = np.zeros((SIZE, 2 * SIZE, 3), np.uint8), np.ones((SIZE, 2 * SIZE), bool)
    bands = np.where((np.arange(SIZE) // (SIZE // 4)) % 3, 1.0, 0.0).astype(np.float32)  # the middle half is white
    edited = editing.edit(
        lambda images, keep: np.tile(bands[:, None, None], (1, 1, SIZE, 3)), PYRAMID, SIZE, picture, region
    )
    assert edited.shape == picture.shape
    assert np.all(edited == 255)


def test_masks_of_any_type_mean_the_same(bundle):
    picture, mask = RNG.integers(0, 256, (9, 12, 3), np.uint8), box((9, 12), 6, 2, 10, 7)
    for task in ("inpaint", "outpaint"):
        right = bundle.edit(picture, task, jax.random.key(0), mask=mask, **SETTINGS)
        for same in (
            mask.astype(np.uint8),
            mask.astype(int),
            mask.astype(np.float32),
            mask.tolist(),
            jnp.asarray(mask),
        ):
            np.testing.assert_array_equal(bundle.edit(picture, task, jax.random.key(0), mask=same, **SETTINGS), right)
    grey = mask.astype(np.uint8) * 255
    for other in (grey, mask * 0.5, np.where(mask, np.nan, 0), mask.astype(complex), mask.astype(str), [[1], [1, 2]]):
        with pytest.raises(InputError, match="mask"):
            bundle.edit(picture, "inpaint", jax.random.key(0), mask=other)


@pytest.mark.parametrize("task", ["inpaint", "outpaint", "class", "vary"])
def test_each_task_of_a_model(bundle, task):
    picture, mask = RNG.integers(0, 256, (9, 12, 3), np.uint8), box((9, 12), 6, 2, 10, 7)
    settings = {"mask": mask, "label": "b" if task == "class" else None, **SETTINGS}
    edited = bundle.edit(picture, task, jax.random.key(0), **settings)
    region = ~mask if task == "outpaint" else mask
    untouched = soft_edge(region, 1) == 0
    np.testing.assert_array_equal(edited[untouched], picture[untouched])
    assert np.mean(edited[region] != picture[region]) > 0.9
    np.testing.assert_array_equal(bundle.edit(picture, task, jax.random.key(0), **settings), edited)
    assert np.any(bundle.edit(picture, task, jax.random.key(1), **settings) != edited)


def test_requests_are_bounded_before_anything_is_made(bundle):
    """By sides and pixels, of the picture as of the result; once a 1 x 1 picture could ask for 43 TiB."""
    pixel = np.zeros((1, 1, 3), np.uint8)
    for room in ((0, 0, 4_000_000, 0), (0, 40_000, 0, 0), (9_000, 0, 0, 9_000)):
        with pytest.raises(InputError, match="expected at most 67108864 pixels, and 32768 along a side"):
            editing.extended(pixel, *room)
    with pytest.raises(InputError, match="picture of 40000 x 1 pixels"):
        bundle.edit(np.zeros((1, 40_000, 3), np.uint8), "vary", jax.random.key(0))
    with pytest.raises(InputError, match="picture of 40000 x 8 pixels"):
        bundle.edit(np.zeros((1, 5_000, 3), np.uint8), "upscale", jax.random.key(0), factor=8)
    with pytest.raises(InputError, match=r"key of shape \(3,\): expected one key$"):
        bundle.edit(pixel, "vary", keys())
    with pytest.raises(InputError, match="key: expected one made by"):
        bundle.edit(pixel, "vary", 5)


def test_room_at_any_side():
    picture = RNG.integers(0, 256, (5, 7, 3), np.uint8)
    canvas, mask = editing.extended(picture, 1, 2, 3, 4)
    assert canvas.shape == (11, 11, 3)
    np.testing.assert_array_equal(canvas[mask].reshape(5, 7, 3), picture)
    np.testing.assert_array_equal(canvas[2:7, 1:8], picture)
    for room in ((0, 0, 0, 0), (-1, 0, 0, 5)):
        with pytest.raises(InputError, match="expected the pixels to add"):
            editing.extended(picture, *room)


def blurred(images, keep):
    """A sampler that hands back what it is shown."""
    SEEN[:] = [(images, keep)]
    return images / np.float32(255)


@pytest.mark.parametrize(("shape", "seen"), [((4, 4), 1), ((3, 2), 1), ((5, 11), 8), ((16, 4), 5)])
def test_upscaling_tells_the_small_picture_wherever_its_windows_lie(shape, seen):
    smooth = upscaling.resize(RNG.uniform(40, 210, (3, 3, 3)).astype(np.float32), (32, 32))[: shape[0], : shape[1]]
    small = np.rint(smooth).astype(np.uint8)
    for draw in (blurred, lambda images, keep: images / 255.0 * 0.9 + 0.05):
        large = upscaling.upscale(draw, PYRAMID, SIZE, small[None])[0]
        assert large.shape == (2 * shape[0], 2 * shape[1], 3)
        means = large.reshape(shape[0], 2, shape[1], 2, 3).mean(axis=(1, 3))
        assert np.max(np.abs(means - small)) < 4
    assert len(SEEN[0][0]) == seen
    np.testing.assert_array_equal(SEEN[0][1], np.ones((seen, PYRAMID.length), bool))


@pytest.mark.parametrize(
    ("factor", "keep", "needle"),
    [
        (3, None, "factor 3: expected a divisor of the model's picture side 8, like 2, 4, 8"),
        (1, None, "factor 1"),
        (2, 0, "keep_scales 0: expected 1 to 3"),
        (2, 4, "keep_scales 4: expected 1 to 3"),
    ],
)
def test_upscaling_that_cannot_be(factor, keep, needle):
    with pytest.raises(InputError, match=needle):
        upscaling.upscale(blurred, PYRAMID, SIZE, np.zeros((1, 4, 4, 3), np.uint8), factor, keep)


def test_upscaling_averages_over_shifts_of_the_windows():
    """Of a tokenizer that is off by what depends on the place in a cell, the average is nearer than any one."""
    cell, seen = SIZE // PYRAMID.final_side, []
    pattern = np.tile(np.where(np.arange(SIZE) % (2 * cell) < cell, 40.0, -40.0), (SIZE, 1))[None, ..., None]
    small = np.full((4, 4, 3), 120, np.uint8)

    def patterned(images, keep):
        seen.append(images.shape)
        return np.clip((images + pattern) / 255.0, 0, 1)

    large = upscaling.upscale(patterned, PYRAMID, SIZE, small[None])[0]
    assert len(seen) == 5
    alone = upscaling.corrected((np.full((SIZE, SIZE, 3), 120.0) + pattern[0]).astype(np.float32), small)
    assert np.abs(large.astype(float) - 120).mean() < 0.7 * np.abs(alone - 120).mean()


def test_upscaling_by_a_model(bundle):
    small = RNG.integers(0, 256, (4, 6, 3), np.uint8)
    large = bundle.edit(small, "upscale", jax.random.key(0), **SETTINGS)
    assert (large.shape, large.dtype) == ((8, 12, 3), np.uint8)


@pytest.mark.parametrize(
    ("task", "options", "needle"),
    [
        ("paint", {}, "task 'paint': there is no such task; expected one of inpaint, outpaint, class, vary, upscale"),
        ("inpaint", {}, "task inpaint: needs a mask or a box"),
        ("inpaint", {"mask": np.zeros((8, 8), bool)}, "mask: is empty"),
        ("outpaint", {"mask": np.ones((8, 8), bool)}, "leaves out-painting nothing to draw"),
        ("inpaint", {"mask": np.ones((9, 8), bool)}, "mask of 8 x 9 pixels: the picture has 8 x 8"),
        ("class", {"mask": np.ones((8, 8), bool)}, "task class: needs the class"),
        ("vary", {"label": "cat"}, "class 'cat'"),
        ("vary", {"keep_scales": 9}, "keep_scales 9: expected a whole number, 0 to 3"),
        ("vary", {"dilate": -1}, "dilate -1: expected a whole number, 0 to 4"),
        ("vary", {"dilate": 1.5}, "dilate 1.5: expected a whole number"),
        ("vary", {"dilate": [1]}, r"dilate \[1\]: expected a whole number"),
        ("vary", {"keep_scales": True}, "keep_scales True: expected a whole number"),
        ("upscale", {"factor": 2.0}, "factor 2.0: expected a divisor"),
        ("upscale", {"factor": [2]}, r"factor \[2\]: expected a divisor"),
        ("vary", {"top_p": [0.5, [1]]}, r"top_p \[0.5, \[1\]\]: expected a number, or one for each scale"),
        ("vary", {"edge": -1}, "edge -1"),
        ("vary", {"guidance": np.nan}, "guidance nan: expected a finite number"),
    ],
)
def test_edits_that_cannot_be(bundle, task, options, needle):
    with pytest.raises(InputError, match=needle):
        bundle.edit(np.zeros((8, 8, 3), np.uint8), task, jax.random.key(0), **options)
