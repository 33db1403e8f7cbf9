r"""Models of several sizes on one data set, for scaling laws; see docs/scaling.md.

    var-jax scaling run scaling --out runs/scaling --config.tokenizer=models/tokenizer --config.data.store=TOKENS
    var-jax scaling fit runs/scaling --out laws

Without an argument: twelve depths from 6 to 30 on ImageNet, the width 64 times the depth, as in the paper (which does
not list its depths). `scaling:shapes` and `scaling:digits` are eight small models for a laptop, with 4,608 to 995,328
parameters in their blocks.
"""

from ml_collections import ConfigDict

from var_jax.configs import _common
from var_jax.models.presets import initial_gate, published_drop_path
from var_jax.scaling.algebra import Point, axis, named, zipped

DEPTHS = (6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 27, 30)
SMALL = ((1, 16), (1, 24), (2, 24), (2, 32), (3, 40), (3, 56), (4, 72), (6, 96))  # (depth, width), heads of width 8
STEPS = {"shapes": 1500, "digits": 800}


def get_config(argument: str = "") -> ConfigDict:
    """The config that all sizes share. Argument: nothing, "shapes" or "digits"."""
    c = _common.transformer("d16")
    if not argument:
        c.data.kind, c.data.options = "tfds", ConfigDict({"name": "imagenet2012", "data_dir": ""})
        c.batch_size, c.epochs = 768, 200
        c.evaluate_every = 10_000
        c.remat = "nothing_saveable"
        return c
    c.steps = STEPS[argument]
    c.data.kind, c.data.workers = ("shapes", 0) if argument == "shapes" else ("folder", 0)
    c.data.options = ConfigDict({"size": 32, "variety": 0.15} if argument == "shapes" else {"path": ""})
    c.data.enlarge = 1.0 if argument == "shapes" else 1.125
    c.model.depth, c.model.width, c.model.num_heads, c.model.drop_path = 1, 16, 2, 0.0
    c.model.gate_init, c.model.input_init = 0.1, 10.0
    c.dtype, c.batch_size = "float32", 32
    # With a constant rate and a moving average, every evaluation represents a training of that length.
    c.optimizer.schedule, c.optimizer.warmup = "constant", 0.02
    c.ema_decay = 0.99
    c.report_every, c.evaluate_every, c.checkpoint_every = 100, c.steps // 20, c.steps // 4
    c.evaluate_pictures, c.evaluate_batch_size = 1000, 200
    c.sample_classes = 0
    return c


def get_sweep(argument: str = "") -> list[Point]:
    """The sizes."""
    if not argument:
        sizes = zipped(
            axis("model.depth", *DEPTHS),
            axis("model.width", *(64 * depth for depth in DEPTHS)),
            axis("model.num_heads", *DEPTHS),
            axis("model.drop_path", *(published_drop_path(depth) for depth in DEPTHS)),
            axis("model.gate_init", *(initial_gate(depth) for depth in DEPTHS)),
        )
        return named(sizes, "d{model.depth}")
    sizes = zipped(
        axis("model.depth", *(depth for depth, _ in SMALL)),
        axis("model.width", *(width for _, width in SMALL)),
        axis("model.num_heads", *(width // 8 for _, width in SMALL)),
        # The rate falls with the root of the width; that of 96 is the one `shapes_var` was tuned to.
        axis("optimizer.learning_rate_per_256", *(round(0.05 * (96 / width) ** 0.5, 4) for _, width in SMALL)),
    )
    return named(sizes, "d{model.depth}_w{model.width}")
