"""The name tables: every parameter exactly once, and a table that fails to is noticed."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
import pytest

from tests.interop.checkpoints import TOKENIZER, TRANSFORMER, tokenizer_config, transformer_config
from tests.models.golden_models import random_params
from var_jax.interop import names, tokenizer, transformer
from var_jax.models.presets import transformer_preset
from var_jax.models.shapes import tokenizer_shapes, transformer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.pyramid import Pyramid

TOKENIZERS = {
    "published": TokenizerConfig(),
    "published_512": TokenizerConfig.from_fields(pyramid=512),
    "one_scale": tokenizer_config(pyramid=Pyramid((4,)), num_phis=1),
    "one_level": tokenizer_config(channel_multipliers=(1,), encoder_blocks=3),
    "narrowing": tokenizer_config(base_channels=64, channel_multipliers=(2, 1, 3), decoder_blocks=2),
    "phi_each": tokenizer_config(num_phis=None),
    "phi_one": tokenizer_config(num_phis=1),
    "no_phi": tokenizer_config(phi_ratio=0.0, num_phis=None),
}
TRANSFORMERS = {
    "d16": transformer_preset("d16"),
    "d36-s": transformer_preset("d36-s"),
    "one_block": transformer_config(depth=1, num_heads=1, mlp_ratio=2.5),
    "one_scale": transformer_config(pyramid=Pyramid((3,))),
    "shared": transformer_config(shared_adaln=True, qk_norm=False),
    "plain": transformer_config(qk_norm=False, num_classes=1),
}
CASES = {
    **{name: (tokenizer.tokenizer_table, tokenizer_shapes, config) for name, config in TOKENIZERS.items()},
    **{
        name + "_transformer": (transformer.transformer_table, transformer_shapes, config)
        for name, config in TRANSFORMERS.items()
    },
}
LAYOUTS = {
    "same": (names.SAME, (2, 3), (2, 3)),
    "ones": (names.reshaped(0, 2, 3), (5,), (1, 5, 1, 1)),
    "flat": (names.FLAT, (3, 4), (12,)),
    "conv": (names.CONV, (3, 5, 2, 4), (4, 2, 3, 5)),
    "linear": (names.LINEAR, (4, 3, 2, 5), (30, 4)),
    "pointwise": (names.POINTWISE, (4, 3, 5), (15, 4, 1, 1)),
    "from_heads": (names.LINEAR_FROM_HEADS, (2, 5, 7), (7, 10)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_is_filled_exactly_once(case):
    table_of, shapes_of, config = CASES[case]
    table, abstract = table_of(config), shapes_of(config)
    slots = collections.Counter((entry.path, entry.index) for entry in table)
    assert set(slots.values()) == {1}
    assert len({entry.reference for entry in table}) == len(table)
    leaves = names.flatten(abstract)
    assert {path for path, _ in slots} == set(leaves)
    for path, leaf in leaves.items():
        indices = sorted(index for filled, index in slots if filled == path and index is not None)
        assert indices == list(range(leaf.shape[0])) or (path, None) in slots, path


@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts_go_there_and_back(case):
    layout, ours, reference = LAYOUTS[case]
    array = np.arange(np.prod(ours)).reshape(ours)
    there = layout.to_reference(array)
    assert there.shape == reference == layout.reference_shape(ours)
    np.testing.assert_array_equal(layout.to_ours(there, ours), array)


def test_packed_axes_are_ordered_as_the_reference_packs_them():
    """Row t H K + h K + k of its packed projection is our [:, t, h, k]."""
    ours = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    there = names.LINEAR.to_reference(ours)
    assert all(there[(t * 4 + h) * 5 + k, w] == ours[w, t, h, k] for w, t, h, k in np.ndindex(ours.shape))
    out = np.arange(4 * 5 * 2).reshape(4, 5, 2)
    there = names.LINEAR_FROM_HEADS.to_reference(out)
    assert all(there[w, h * 5 + k] == out[h, k, w] for h, k, w in np.ndindex(out.shape))


@pytest.mark.parametrize(
    ("table", "abstract"),
    [
        (tokenizer.tokenizer_table(TOKENIZER), tokenizer_shapes(TOKENIZER)),
        (transformer.transformer_table(TRANSFORMER), transformer_shapes(TRANSFORMER)),
    ],
    ids=["tokenizer", "transformer"],
)
def test_a_wrong_table_is_a_loud_bug(table, abstract):
    params = random_params(abstract)
    names.to_reference(table, params)
    for number, entry in enumerate(table):
        others = table[:number] + table[number + 1 :]
        for wrong in (others, [*table, entry]):
            with pytest.raises(AssertionError, match=f"disagree at .*'{entry.path[-1]}'"):
                names.to_reference(wrong, params)
        with pytest.raises(AssertionError, match="twice"):
            names.to_reference([*others, dataclasses.replace(entry, reference=others[0].reference)], params)


def test_flatten_and_unflatten_are_inverse():
    tree = {"b": {"y": 1, "x": {"z": 2}}, "a": 3}
    flat = names.flatten(tree)
    assert flat == {("a",): 3, ("b", "x", "z"): 2, ("b", "y"): 1}
    assert names.unflatten(flat) == tree
