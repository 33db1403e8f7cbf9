"""The pyramid: everything derived from the sides, against hand counts and PyTorch's own resizes."""

from __future__ import annotations

import numpy as np
import pytest

from var_jax.errors import InputError
from var_jax.pyramid import PUBLISHED_SIDES, Pyramid, area_matrix, bicubic_matrix


def test_published_lengths():
    assert {size: Pyramid(sides).length for size, sides in PUBLISHED_SIDES.items()} == {256: 680, 512: 2240, 1024: 9451}


def test_small_pyramid_by_hand():
    pyramid = Pyramid((1, 2, 3))
    assert (pyramid.lengths, pyramid.offsets, pyramid.length) == ((1, 4, 9), (0, 1, 5), 14)
    assert pyramid.slice(1) == slice(1, 5)
    assert pyramid.level_ids.tolist() == [0] + [1] * 4 + [2] * 9
    assert [pyramid.ratio(k) for k in range(3)] == [0.0, 0.5, 1.0]
    mask = pyramid.block_causal_mask
    assert mask[0].tolist() == [True] + [False] * 13
    assert mask[3].tolist() == [True] * 5 + [False] * 9
    assert mask[13].all()
    parts = pyramid.split(np.arange(14)[None, :])
    assert [part.tolist() for part in parts] == [[[0]], [[1, 2, 3, 4]], [list(range(5, 14))]]


def test_one_scale_alone():
    pyramid = Pyramid((16,))
    assert (pyramid.length, pyramid.offsets, pyramid.ratio(0)) == (256, (0,), 1.0)
    assert pyramid.block_causal_mask.all()


def test_hashable_and_parsed():
    assert Pyramid.parse("256") == Pyramid.parse(256) == Pyramid.parse("1,2,3,4,5,6,8,10,13,16")
    assert Pyramid.parse("1, 2 4") == Pyramid.parse([1, 2, 4]) == Pyramid((1, 2, 4))
    assert len({Pyramid((1, 2)), Pyramid([1, 2])}) == 1
    assert Pyramid.parse("16") == Pyramid((16,))
    assert str(Pyramid((1, 2))) == "1,2"


@pytest.mark.parametrize("bad", [(), (0, 1), (1, -2), (3, 2), (1, 2.5), ("a",), (4, 4, 2), 7, None])
def test_bad_sides_are_one_clear_error(bad):
    with pytest.raises(InputError, match="pyramid") as caught:
        Pyramid(bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "abc", "1,2,x", "1;2", "3,2,1", "-1,2", "²", "1,9999", "9" * 5000])
def test_bad_text_is_one_clear_error(text):
    with pytest.raises(InputError, match="pyramid"):
        Pyramid.parse(text)


def test_split_refuses_another_length():
    with pytest.raises(InputError, match="expected 5 positions"):
        Pyramid((1, 2)).split(np.zeros((1, 6)))


def test_area_by_hand():
    np.testing.assert_allclose(area_matrix(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    np.testing.assert_allclose(area_matrix(3, 2), [[0.5, 0.5, 0], [0, 0.5, 0.5]])
    np.testing.assert_allclose(area_matrix(5, 5), np.eye(5))


def test_bicubic_by_hand():
    np.testing.assert_allclose(bicubic_matrix(4, 4), np.eye(4))
    np.testing.assert_allclose(bicubic_matrix(1, 3), np.ones((3, 1)))
    # Doubling: the sample a quarter past input 1 weighs inputs 0..3 by the kernel at 1.25, 0.25, 0.75, 1.75.
    kernel = [-0.10546875, 0.87890625, 0.26171875, -0.03515625]
    np.testing.assert_allclose(bicubic_matrix(4, 8)[3], kernel)


@pytest.mark.parametrize(
    ("small", "large"), [(1, 16), (2, 16), (3, 16), (10, 16), (13, 16), (13, 32), (27, 64), (5, 7)]
)
def test_resizes_equal_pytorch(small, large):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    coarse = rng.standard_normal((small, small)).astype(np.float32)
    fine = rng.standard_normal((large, large)).astype(np.float32)
    interpolate = torch.nn.functional.interpolate
    up = interpolate(torch.from_numpy(coarse)[None, None], size=(large, large), mode="bicubic")[0, 0].numpy()
    down = interpolate(torch.from_numpy(fine)[None, None], size=(small, small), mode="area")[0, 0].numpy()
    enlarge, shrink = bicubic_matrix(small, large), area_matrix(large, small)
    np.testing.assert_allclose(enlarge @ coarse @ enlarge.T, up, atol=2e-5)
    np.testing.assert_allclose(shrink @ fine @ shrink.T, down, atol=1e-5)
