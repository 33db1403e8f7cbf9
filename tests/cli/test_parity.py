"""`var-jax parity`: what is said where there is no reference to run."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        ([], "required: --reference"),
        (["--reference", "{folder}"], "not a checkout of FoundationVision/VAR (it has no models/vqvae.py)"),
        (["--reference", "{folder}/missing"], "missing: not a checkout of FoundationVision/VAR"),
        (["--reference", "{folder}", "--pyramid", "2,1"], "from coarse to fine and never shrink"),
        (["--reference", "{folder}", "--seed", "x"], "invalid int value: 'x'"),
    ],
)
def test_what_cannot_be_compared(tmp_path, refused, options, needle):
    assert needle in refused("parity", *(option.format(folder=tmp_path) for option in options))
