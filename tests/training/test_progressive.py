"""Progressive training: the schedule and its weights by hand, a prefix's loss, and a run stopped on the way."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from tests.models.golden_models import random_params
from tests.training import tiny
from tests.training.test_loop import StopAt
from var_jax.errors import InputError
from var_jax.model_directory import Model, save_model
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import Transformer, TransformerConfig
from var_jax.pyramid import Pyramid
from var_jax.training import step as step_module
from var_jax.training.loop import FINISHED, PREEMPTED, Run
from var_jax.training.progressive import Progressive, ScalePrefix
from var_jax.training.transformer import TransformerTask

PUBLISHED = Progressive(Pyramid.parse("256"), 1000, 20, until=0.8, first_scales=5, ramp=1 / 300)


def test_the_schedule_by_hand():
    """5 + round((step - 20) / (800 - 20) * 5), where a half goes to the even neighbour, as the reference has it."""
    by_hand = {0: 5, 20: 5, 98: 5, 99: 6, 253: 6, 254: 7, 410: 7, 411: 8, 565: 8, 566: 9, 722: 9, 723: 10, 999: 10}
    assert {step: PUBLISHED.scales(step) for step in by_hand} == by_hand
    prefixes = [PUBLISHED.at(step) for step in range(1000)]
    assert prefixes[-1] is None
    changes = [(s.scales, s.since) for s in dict.fromkeys(prefixes) if s]
    assert changes == [(5, 0), (6, 99), (7, 254), (8, 411), (9, 566)]


def test_scales_may_join_together_and_until_is_held():
    hasty = Progressive(Pyramid.parse("1,2,3,4,5,6"), 10, 2, until=0.5, first_scales=1, ramp=0.0)
    # (step - 2) / 3 * 5: 1.67 and 3.33 beyond the first scale.
    assert [hasty.scales(step) for step in range(7)] == [1, 1, 1, 3, 4, 6, 6]
    assert hasty.at(3) == ScalePrefix(hasty.pyramid, 3, 3, 0.0)
    np.testing.assert_allclose(hasty.at(3).weights(3), np.full(14, 1 / 91), rtol=1e-6)  # no ramp: full at once


def test_weights_by_hand():
    """1 / 680 each; the newest scale's from a hundredth, a tenth of the rest a step, and full from the tenth on."""
    prefix = ScalePrefix(Pyramid.parse("256"), 6, since=99, ramp_steps=10)
    for step, share in ((99, 0.1), (100, 0.2), (103, 0.5), (108, 1.0), (200, 1.0)):
        expected = np.concatenate([np.full(55, 1 / 680), np.full(36, share / 680)])
        np.testing.assert_allclose(prefix.weights(step), expected, rtol=1e-5)
    slow = ScalePrefix(Pyramid.parse("256"), 6, since=99, ramp_steps=1000)
    np.testing.assert_allclose(slow.weights(99)[-1], 0.01 / 680, rtol=1e-5)
    np.testing.assert_allclose(PUBLISHED.at(0).weights(0), np.full(55, 1 / 680), rtol=1e-6)


def test_a_prefix_s_loss_is_its_part_of_the_whole():
    """A prefix's logits are those that the whole pyramid gives at its positions, and its loss their weighted sum."""
    pyramid = Pyramid.parse("1,2,4")
    tokenizer = TokenizerConfig.from_fields(**tiny.tokenizer().model)
    module = Transformer(TransformerConfig(pyramid, 16, 4, 10, depth=2, width=16, num_heads=2, class_drop=0.0))
    task = TransformerTask(module, Tokenizer(tokenizer), tuple(str(i) for i in range(10)))
    fixed = random_params(tokenizer_shapes(tokenizer))
    params = jax.jit(lambda key: jax.tree.map(lambda x: x + 0.1, task.init(key)))(jax.random.key(1))
    batch = {
        "images": jax.random.randint(jax.random.key(2), (3, 8, 8, 3), 0, 256).astype(jnp.uint8),
        "labels": jnp.arange(3),
    }
    sums = jax.jit(task.evaluate)(params, fixed, batch | {"mask": jnp.ones(3)})
    prefix = ScalePrefix(pyramid, 2, since=5, ramp_steps=4)
    at_step = jax.jit(task.loss, static_argnums=5)
    loss, (metrics, _) = at_step(params, fixed, batch, jax.random.key(0), jnp.int32(6), prefix)
    nll_L = np.asarray(sums["loss_L"]) / 3
    np.testing.assert_allclose(loss, (nll_L[0] + 0.5 * nll_L[1:5].sum()) / 21, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss_mean"], nll_L[:5].mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["loss_last"], nll_L[1:5].mean(), rtol=1e-4)
    with pytest.raises(InputError, match="inputs for 4 positions: pyramid 1,2,4 has no scale that ends there"):
        module.apply({"params": params}, batch["labels"], jnp.zeros((3, 3, 4)))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """An untrained one's directory."""
    config = TokenizerConfig.from_fields(**tiny.tokenizer().model)
    params = random_params(tokenizer_shapes(config))
    folder = tmp_path_factory.mktemp("runs") / "tokenizer"
    save_model(folder, Model(config, jax.device_get(params), np.zeros((3, 16), np.float32)))
    return folder


def config_for(tokenizer, **progressive):
    fields = {"until": 0.9, "first_scales": 1, "ramp": 0.2} | progressive
    return tiny.transformer(tokenizer, steps=8, report_every=1, progressive=fields)


def run_on_one_device(config, workdir):
    run = Run(config, epath.Path(workdir), jax.devices()[:1])
    return run.go(), run


def test_stopped_in_the_middle_and_resumed_is_the_unbroken_run(tokenizer, tmp_path, monkeypatch):
    config = config_for(tokenizer)
    code, whole = run_on_one_device(config, tmp_path / "whole")
    assert code == FINISHED
    assert step_module._jitted(whole.program)._cache_size() == 3  # a program for each number of scales
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    # 1 + round(step / 7.2 * 2) scales, all from step 7.2 on; the second scale's four positions ramp in over 1.6 steps.
    weighed = [1, 1, 1 + 4 / 1.6, 1 + 4, 1 + 4, 1 + 4, 21, 21]
    np.testing.assert_allclose(losses, np.log(16) / 21 * np.array(weighed), rtol=0.15)
    with monkeypatch.context() as patch:
        StopAt(patch, 5)
        assert run_on_one_device(config, tmp_path / "broken")[0] == PREEMPTED
    code, broken = run_on_one_device(config, tmp_path / "broken")
    assert code == FINISHED
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole.state), jax.device_get(broken.state))
    log = (tmp_path / "broken" / "log.txt").read_text()
    assert [line.split(" ", 2)[2] for line in log.splitlines() if " on: " in line] == [
        "from step 1 on: 1 scale (1)",
        "from step 3 on: 2 scales (1,2)",
        "from step 6 on: 2 scales (1,2)",
        "from step 7 on: 3 scales (1,2,4)",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"until": 0.01}, "progressive.until is 0.01: expected 0 for off, or more than the warm-up's 0.25 and"),
        ({"until": 1.5}, "progressive.until is 1.5"),
        ({"first_scales": 3}, "progressive.first_scales is 3: expected 1 to 2, fewer than pyramid 1,2,4 has"),
        ({"first_scales": 0}, "progressive.first_scales is 0"),
        ({"ramp": -0.1}, "progressive.ramp is -0.1: expected a share"),
    ],
)
def test_impossible_schedules_are_one_line(fields, message):
    with pytest.raises(InputError, match=message) as raised:
        Progressive(Pyramid.parse("1,2,4"), 8, 2, **{"until": 0.9, "first_scales": 1, "ramp": 0.2} | fields)
    assert "\n" not in str(raised.value)


def test_a_config_s_schedule_is_refused_before_there_is_a_run(tokenizer, tmp_path):
    with pytest.raises(InputError, match="progressive.first_scales is 5: expected 1 to 2"):
        Run(config_for(tokenizer, first_scales=5), epath.Path(tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def test_one_scale_cannot_grow():
    with pytest.raises(InputError, match="set it to 0, pyramid 8 has one scale"):
        Progressive(Pyramid.parse("8"), 8, 0, until=0.9, first_scales=1, ramp=0.2)
