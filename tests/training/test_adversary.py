"""The discriminator in stage 1's step: gradients, start and ramp, exact resume, and what is refused."""

from __future__ import annotations

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import _common
from tests.losses.drawn import weights as drawn_lpips
from tests.models.golden_models import random_params
from tests.training import tiny
from tests.training.programs import constant
from tests.training.programs import stepped as one_step
from tests.training.runs import StopAt, equal, last_state
from tests.training.runs import on_one_device as one_device
from var_jax.errors import InputError
from var_jax.losses.adversarial import generator_loss
from var_jax.losses.augment import augmented
from var_jax.models.pictures import to_signed
from var_jax.models.shapes import tokenizer_shapes
from var_jax.models.tokenizer import TokenizerConfig
from var_jax.parallel.mesh import make_mesh
from var_jax.parallel.rules import shardings
from var_jax.pretrained.dino import DinoViT
from var_jax.pretrained.vgg import VGG16, normalised
from var_jax.training import adversary as adversary_module
from var_jax.training import build
from var_jax.training.adversary import make_adversary
from var_jax.training.loop import FINISHED, PREEMPTED, train
from var_jax.training.tokenizer import TokenizerTask

pytestmark = pytest.mark.usefixtures("one_device")

SMALL = {"kind": "patch", "channels": 8, "levels": 2, "norm_groups": 4, "start": 0.3, "ramp": 0.5}
FLAT = {"pyramid": "1,8", "channel_multipliers": (1,)}  # one resolution compiles sooner
OWN_METRICS = {"adversarial", "adaptive_weight", "discriminator", "real_score", "fake_score", "lecam"}


def config_with(**changes):
    return tiny.tokenizer(adversary=SMALL | changes)


def smaller_with(**changes):
    return tiny.tokenizer(adversary=SMALL | changes, model=FLAT)


def made(config):
    """Task, adversary and a batch of a config, without a run."""
    task = TokenizerTask(TokenizerConfig.from_fields(**config.model), config.loss, jnp.float32)
    adversary = make_adversary(config, task, jnp.float32, config.steps, constant(1e-2))
    images = jax.random.randint(jax.random.key(7), (config.batch_size, 8, 8, 3), 0, 256).astype(jnp.uint8)
    return task, adversary, {"images": images}


def drawn(task, adversary):
    """Parameters of the tokenizer, without compiling an initialiser, and the adversary's first state."""
    return random_params(tokenizer_shapes(task.config)), jax.jit(adversary.init)(jax.random.key(1))


def stepped(config, steps=2, change=lambda state: state):
    """States and metrics after each step with the discriminator, from a fresh state: the program of a run."""
    mesh = make_mesh(devices=jax.devices()[:1])
    program = build.make_program(config, mesh, build.tokenizer_task(config, mesh), config.steps)
    seen = [(change(program.first_state()), {})]
    for _ in range(steps):
        seen.append(one_step(program, seen[-1][0], made(config)[-1], program.opponent))
    return seen


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adversarial") / "run"
    config = smaller_with()
    config.update({"report_every": 1})
    with one_device():
        assert train(config, str(folder)) == FINISHED
    return folder, config


def test_stopped_in_the_middle_of_the_ramp_and_resumed_is_the_unbroken_run(finished, tmp_path, monkeypatch):
    folder, config = finished
    with monkeypatch.context() as patch:
        StopAt(patch, 4)
        assert train(config, str(tmp_path / "run")) == PREEMPTED
    assert train(config, str(tmp_path / "run")) == FINISHED
    broken, whole = last_state(tmp_path / "run"), last_state(folder)
    assert int(whole.step) == 6
    assert int(whole.adversary["anchors"]["updates"]) == 4
    equal(broken, whole)


def test_reports_from_its_start_on(finished):
    folder, _ = finished
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if line["kind"] == "train"]
    for line in training:
        assert set(line) >= OWN_METRICS if line["step"] > 2 else not OWN_METRICS & set(line)
        assert all(math.isfinite(value) for value in line.values() if isinstance(value, (int, float)))
    shares = [line["adversarial_weight"] / line["adaptive_weight"] for line in training[2:]]
    np.testing.assert_allclose(shares, [0.4 / 3, 0.8 / 3, 0.4, 0.4], rtol=1e-4)
    assert "from step 3 on: the discriminator takes part" in (folder / "log.txt").read_text()


def test_until_its_start_the_run_is_the_plain_one(tiny_run, tmp_path):
    assert train(config_with(start=1.0), str(tmp_path / "late")) == FINISHED
    late, plain = last_state(tmp_path / "late"), last_state(tiny_run / "tokenizer")
    assert plain.adversary is None
    assert int(late.adversary["anchors"]["updates"]) == 0
    equal(late._replace(adversary=None), plain)


def test_gradients_are_those_of_the_weighted_sum():
    """Against the loss written out, with the adaptive weight from whole gradients of its two parts."""
    config = smaller_with(adaptive_range=(0.0, 1e4))
    task, adversary, batch = made(config)
    (params, own), key = drawn(task, adversary), jax.random.key(5)
    images, step = to_signed(batch["images"]), jnp.int32(3)
    (_, (metrics, _)), (grads, _) = jax.jit(adversary.gradients)(own, params, {}, batch, key, step)

    def parts(params):
        """The three losses that the tokenizer learns from."""
        (picture, quantizer), _ = task.forward(params, images, jax.random.fold_in(key, 0))
        seen = augmented(jax.random.fold_in(key, 2), picture)
        fooled = generator_loss("hinge", adversary._module.apply({"params": own.params}, seen))
        return jnp.stack([task.picture_loss(picture, images, {})[0], quantizer, fooled])

    each = jax.device_get(jax.jit(jax.jacrev(parts))(params))
    written_out = [jax.tree.map(lambda leaf, n=n: leaf[n], each) for n in range(3)]
    last = [grad["decoder"]["conv_out"]["kernel"] for grad in written_out]
    ratio = np.linalg.norm(last[0]) / np.linalg.norm(last[2])
    np.testing.assert_allclose(metrics["adaptive_weight"], ratio, rtol=1e-3)
    weight = 0.4 * 2 / 3 * ratio  # the second of three steps of the ramp
    np.testing.assert_allclose(metrics["adversarial_weight"], weight, rtol=1e-3)

    expected = jax.tree.map(lambda picture, quantizer, fooled: picture + quantizer + weight * fooled, *written_out)
    norm = float(optax.tree.norm(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3 * norm), grads, expected)


def test_the_adaptive_weight_costs_no_backward_pass_of_its_own():
    """Two whole ones as written, of which the compiler keeps the last layer's."""
    flops = []
    for adaptive in (True, False):
        config = smaller_with(adaptive=adaptive, adaptive_range=(0.0, 1e4))  # the program of the test before
        task, adversary, batch = made(config)
        params, own = tokenizer_shapes(task.config), jax.eval_shape(adversary.init, jax.random.key(1))
        lowered = jax.jit(adversary.gradients).lower(own, params, {}, batch, jax.random.key(5), jnp.int32(3))
        flops.append(lowered.compile().cost_analysis()["flops"])
    assert flops[1] < flops[0] < 1.05 * flops[1]


def test_both_sides_learn_with_every_part_on_and_micro_batches():
    config = tiny.tokenizer(
        adversary=SMALL | {"kind": "residual", "loss": "non_saturating", "gradient_penalty": 1.0, "start": 0.0},
        accumulate=2,
        model=FLAT,
    )
    states = stepped(config)
    for (before, _), (after, metrics) in zip(states, states[1:], strict=False):
        assert int(after.bad_step) == -1
        assert float(metrics["gradient_penalty"]) > 0.0
        assert float(metrics["opponent_gradient_norm"]) > 0.0
        for old, new in ((before.params, after.params), (before.adversary.params, after.adversary.params)):
            assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True))
    np.testing.assert_allclose(
        after.adversary.anchors.real, np.mean([m["real_score"] for _, m in states[1:]]), rtol=1e-5
    )


def test_a_discriminator_that_is_not_finite_changes_nothing():
    def broken(state):
        params = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state.adversary.params)
        return state._replace(adversary=state.adversary._replace(params=params))

    (before, _), (after, _) = stepped(smaller_with(), steps=1, change=broken)
    assert int(after.bad_step) == 0
    equal(after.params, before.params)
    equal(after.adversary, before.adversary)


def test_heads_on_a_fixed_network(monkeypatch):
    """A small one in DINO's place: it is seen through, and does not learn."""
    small = DinoViT(side=32, width=16, depth=3, num_heads=2)
    weights = jax.jit(small.init)(jax.random.key(3), jnp.zeros((1, 8, 8, 3)))["params"]
    monkeypatch.setattr(adversary_module, "DinoViT", lambda dtype: small)
    task, adversary, batch = made(smaller_with(kind="dino"))
    params, own = drawn(task, adversary)
    _, (grads, own_grads) = jax.jit(adversary.gradients)(
        own, params, {"dino": weights}, batch, jax.random.key(5), jnp.int32(5)
    )
    assert jax.tree.structure(own_grads) == jax.tree.structure(own.params)
    assert {name[:6] for name in own.params} == {"head_0", "head_1"}
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((grads, own_grads)))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(own_grads))


def test_heads_on_the_network_of_lpips():
    """Each depth judges the same patches; a picture's patch is seen by the means of what VGG16 says of its pixels."""
    config = tiny.tokenizer(
        adversary=SMALL | {"kind": "vgg", "augment": False, "lecam": 0.0, "weight": 1.0, "adaptive": False},
        model={"channel_multipliers": (1, 1, 2)},
    )
    weights = drawn_lpips()
    task = TokenizerTask(TokenizerConfig.from_fields(**config.model), config.loss)
    adversary = make_adversary(config, task, jnp.float32, config.steps, constant(1e-2))
    images = jax.random.randint(jax.random.key(7), (2, 16, 16, 3), 0, 256).astype(jnp.uint8)
    params, own = drawn(task, adversary)
    (_, (metrics, _)), (grads, own_grads) = jax.jit(adversary.gradients)(
        own, params, {"lpips": weights}, {"images": images}, jax.random.key(5), jnp.int32(5)
    )
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((grads, own_grads)))
    assert all(np.any(layer["kernel"]) for layer in own_grads.values() if "kernel" in layer)
    maps = jax.jit(VGG16().apply)({"params": weights["trunk"]}, normalised(to_signed(images)))[:3]
    seen = [
        each.reshape(2, 4, each.shape[1] // 4, 4, each.shape[2] // 4, -1).mean((2, 4)).reshape(2, 16, -1)
        for each in maps
    ]
    real = adversary._module.apply({"params": own.params}, seen)
    assert real.shape == (2, 3 * 16)
    np.testing.assert_allclose(metrics["real_score"], np.mean(real), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["patch", "residual", "dino"])
def test_full_sizes_split_over_eight_devices_by_the_rules(kind):
    config = _common.tokenizer()
    config.adversary.kind = kind
    task = TokenizerTask(TokenizerConfig.from_fields(**config.model), config.loss, jnp.float32)
    adversary = make_adversary(config, task, jnp.float32, 100, constant(1e-2))
    shapes = {"adversary": jax.eval_shape(adversary.init, jax.random.key(0))}
    placed = shardings(make_mesh(data=1, fsdp=8, tensor=1), config.sharding, shapes)
    split = [place for place in jax.tree.leaves(placed) if "fsdp" in place.spec]
    assert bool(split) == (kind != "dino")  # whose heads are small beside the features they see


def test_perceptual_losses_take_part_by_weight():
    config = tiny.tokenizer(model={"channel_multipliers": (1, 1, 2)}, loss={"lpips": 0.5, "structure": 0.25})
    task = TokenizerTask(TokenizerConfig.from_fields(**config.model), config.loss)
    fixed = {"lpips": drawn_lpips()}
    images = jax.random.randint(jax.random.key(7), (2, 16, 16, 3), 0, 256).astype(jnp.uint8)
    params = random_params(tokenizer_shapes(task.config))
    loss, (metrics, _) = jax.jit(task.loss)(params, fixed, {"images": images}, jax.random.key(0), jnp.int32(0))
    expected = sum(config.loss[name] * metrics[name] for name in ("l1", "l2", "quantizer", "lpips", "structure"))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert min(metrics["lpips"], metrics["structure"]) > 0.0
    batch = {"images": images, "mask": jnp.array([1.0, 0.0])}
    other = {"images": images[jnp.array([0, 0])], "mask": jnp.array([1.0, 0.0])}
    evaluate = jax.jit(task.evaluate)
    figures = [task.summarise(jax.device_get(evaluate(params, fixed, x))) for x in (batch, other)]
    np.testing.assert_allclose(figures[0]["lpips"], figures[1]["lpips"], rtol=1e-4)
    assert figures[0]["lpips"] > 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"adversary": SMALL | {"kind": "gan"}},
            "adversary.kind is 'gan': expected one of patch, residual, vgg, dino or None",
        ),
        ({"adversary": SMALL | {"kind": "dino"}}, "weights of DINO: no file ''; give dino_deitsmall16_pretrain.pth"),
        ({"adversary": SMALL | {"kind": "vgg"}}, "judges features of LPIPS' VGG16; set lpips_weights to its file"),
        ({"adversary": SMALL | {"kind": "vgg", "levels": 5}}, "adversary.levels 5: VGG16 has halvings from 0 to 4"),
        ({"adversary": SMALL | {"loss": "wgan"}}, "adversary.loss is 'wgan': expected one of hinge"),
        ({"adversary": SMALL | {"start": 1.5}}, "adversary.start is 1.5: expected a number from 0 to 1"),
        ({"adversary": SMALL | {"levels": 4}}, r"pictures of \(8, 8\) pixels cannot be halved 4 times"),
        ({"loss": {"lpips": 1.0}}, "weights of LPIPS: no file or folder ''; take vgg16.ckpt out of"),
    ],
)
def test_impossible_configs_leave_no_directory(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(tiny.tokenizer(**changes), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_plain_config_has_no_opponent():
    config = tiny.tokenizer()
    mesh = make_mesh(devices=jax.devices()[:1])
    task = build.make_task(config, mesh, None, None)
    assert build.make_program(config, mesh, task, 6).opponent is None
    assert not build.fixed_arrays(config, None)
