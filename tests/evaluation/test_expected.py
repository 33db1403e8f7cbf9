"""Published figures: those of every checkpoint are there, and ours stand beside them."""

from __future__ import annotations

import pytest

from var_jax.errors import InputError
from var_jax.evaluation.expected import EXPECTED, beside, published


def test_every_published_checkpoint_has_figures():
    published_ones = {"d16", "d20", "d24", "d30", "d36-s"}
    assert published_ones <= set(EXPECTED)
    known = {"fid", "sfid", "inception_score", "precision", "recall", "rfid", "rfid_reference"}
    for expected in EXPECTED.values():
        assert expected.sources
        assert {name for source in expected.sources.values() for name in source} <= known
    # Depth buys quality, and rejection more of it.
    fids = [EXPECTED[name].sources["paper"]["fid"] for name in ("d16", "d20", "d24", "d30", "d30-re")]
    assert fids == sorted(fids, reverse=True)


def test_ours_beside_them():
    text = beside("d16", {"fid": 3.561234, "precision": 0.8, "recall": 0.5})
    first, header, fid, score = text.splitlines()
    assert first.startswith("Published figures of VAR-d16: 256 px, 50 pictures per class of ImageNet, guidance 1.5")
    assert header.split() == ["ours", "paper", "README"]
    assert fid.split() == ["fid", "3.5612", "3.3", "3.55"]
    assert score.split() == ["inception_score", "-", "274.4", "-"]
    assert fid.index("3.3") == header.index("paper")  # columns stand under their heads


def test_an_unknown_name_is_told_the_known_ones():
    with pytest.raises(InputError, match="no published figures of 'd17' are known: expected one of d16, d20, "):
        published("d17")
