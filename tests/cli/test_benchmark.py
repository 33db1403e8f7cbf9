"""`var-jax benchmark`: what cannot be measured gets one line."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "needle"),
    [
        ([], "required: WHAT"),
        (["sample", "--preset", "huge"], "transformer preset 'huge': expected d and a depth"),
        (["sample", "--batch", "1,x"], "--batch 1,x: expected numbers from 1 up, like 1,4"),
        (["sample", "--batch", "0"], "--batch 0: expected numbers from 1 up"),
        (["sample", "--config.remat=None"], "--config.remat=None: works with train and compile only"),
        (["tokenize", "--model", "{folder}", "--channels", "32"], "--pyramid and --channels: the model"),
        (["tokenize", "--model", "{folder}/missing"], "missing"),
        (["train", "--attention", "splash"], "'splash' is for devices of kind tpu"),
        (["train", "--config.stage=tokenizer"], "--config.stage: take the command's own options"),
        (["compile", "--config.remat=None"], "changes a training config, take --program train"),
        (["compile", "--repeats", "0"], "repeats 0: expected 1 or more"),
        (["data", "--pictures", "1"], "--pictures 1: expected 4 or more"),
        (["data", "--folder", "{folder}/missing"], "no such folder"),
        (["data", "--folder", "{folder}", "--batch", "0"], "--batch 0: expected 1 or more"),
    ],
)
def test_what_cannot_be_measured(tmp_path, refused, arguments, needle):
    assert needle in refused("benchmark", *(argument.format(folder=tmp_path) for argument in arguments))
