"""The fields of every config, with their meaning and defaults; a config file sets those that differ.

A config is data: `get_config(argument)` returns a ConfigDict, which the trainer locks. Single fields
change on the command line: `--config.batch_size=64 --config.optimizer.warmup=0.1`.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from var_jax.errors import InputError
from var_jax.generation.settings import DEFAULTS

# (pattern searched in a parameter's path, mesh axis of each array axis); the first found decides,
# none means replicated. "fsdp" splits storage, "tensor" splits heads and hidden widths.
TRANSFORMER_SHARDING = (
    ("blocks/qkv_kernel$", (None, "fsdp", None, "tensor", None)),
    ("blocks/[qv]_bias$", (None, "tensor", None)),
    ("blocks/out_kernel$", (None, "tensor", None, "fsdp")),
    ("blocks/mlp_in_kernel$", (None, "fsdp", "tensor")),
    ("blocks/mlp_in_bias$", (None, "tensor")),
    ("blocks/mlp_out_kernel$", (None, "tensor", "fsdp")),
    ("blocks/adaln_kernel$", (None, "fsdp", None, "tensor")),
    ("blocks/qk_log_scale$", (None, "tensor")),
    ("adaln_kernel$", ("fsdp", None, "tensor")),
    ("head_kernel$", ("fsdp", "tensor")),
    ("head_bias$", ("tensor",)),
    ("class_embedding$|position_embedding$|word_kernel$", (None, "fsdp")),
)
TOKENIZER_SHARDING = (
    ("conv_out/kernel$|quantizer", ()),
    ("(conv_.|conv_in|shortcut|downsample|upsample)/kernel$", (None, None, None, "fsdp")),
)


def chosen(config: str, argument: str, choices: Mapping[str, Any], what: str = "size") -> Any:
    """The choice that a config's argument names.

    Raises:
      InputError: if it names none; the message lists them.
    """
    if argument not in choices:
        raise InputError(f"{config}:{argument}: no such {what}, expected one of {', '.join(choices)}")
    return choices[argument]


def common(stage: str) -> ConfigDict:
    """The fields of both stages."""
    c = ConfigDict()
    c.stage = stage  # "tokenizer" or "transformer"
    c.seed = 0  # seed of initialization, data order and every random draw
    c.dtype = "bfloat16"  # compute type; parameters stay float32 (float64 with "float64", for comparing runs)
    c.batch_size = 768  # pictures per step, over all devices
    c.accumulate = 1  # micro-batches per step
    c.steps = None  # steps of the whole training ...
    c.epochs = None  # ... or passes over the pictures; set one of the two
    c.remat = None  # values kept for the backward pass: "products", a policy of jax.checkpoint_policies; None: all
    c.init_from = None  # directory of a model to start from
    c.ema_decay = 0.0  # moving average of the parameters, used for pictures; 0 is off

    c.data = ConfigDict()
    c.data.kind = "tfds"  # shapes, folder, tfds
    c.data.options = ConfigDict()  # options of the kind; see var-jax data check --help
    c.data.store = None  # stage 2: store of the pictures' tokens, made by var-jax tokenize, read in their place
    c.data.enlarge = 1.125  # shorter side before the crop, over the model's picture size
    c.data.flip = False  # random left-right flip
    c.data.changed = "refuse"  # a data set other than the run's before; "allow": other pictures, never other classes
    c.data.bad_share = 0.05  # share of pictures that may be damaged; they are left out
    c.data.workers = 8  # processes that decode pictures; 0: this process does

    c.optimizer = ConfigDict()  # AdamW
    c.optimizer.learning_rate_per_256 = 1e-4  # peak, for a batch of 256; grows with the batch
    c.optimizer.schedule = "linear"  # cosine, linear, two_slopes, exponential, constant
    c.optimizer.warmup = 0.02  # share of all steps
    c.optimizer.turn = 0.05  # share of the rest before the rate falls
    c.optimizer.final = 0.1  # rate at the end, over the peak
    c.optimizer.betas = (0.9, 0.95)
    c.optimizer.weight_decay = 0.05  # at the first step ...
    c.optimizer.weight_decay_end = 0.05  # ... and at the last
    c.optimizer.clip = 2.0  # global gradient norm; 0 is off

    c.mesh = ConfigDict({"data": -1, "fsdp": 1, "tensor": 1})  # -1: all remaining devices
    c.sharding = TOKENIZER_SHARDING if stage == "tokenizer" else TRANSFORMER_SHARDING

    c.report_every = 50  # steps between lines
    c.evaluate_every = 5000  # steps between validations with pictures; 0: only at the end
    c.evaluate_pictures = 10_000  # most pictures of the validation set to use
    c.evaluate_batch_size = 256
    c.checkpoint_every = 1000
    c.keep_checkpoints = 2  # number of newest checkpoints to keep; the best is kept too
    return c


def tokenizer() -> ConfigDict:
    """Stage 1 with the published tokenizer's shape."""
    c = common("tokenizer")
    c.model = ConfigDict()
    c.model.pyramid = "256"  # 256, 512, 1024, or sides like "1,2,3,4"
    c.model.codebook_size = 4096
    c.model.code_width = 32
    c.model.base_channels = 160
    c.model.channel_multipliers = (1, 1, 2, 2, 4)  # one per level, finest first
    c.model.encoder_blocks = 2
    c.model.decoder_blocks = 3
    c.model.norm_groups = 32
    c.model.num_phis = 4  # None: one per scale
    c.model.phi_ratio = 0.5
    c.model.lookup = "l2"  # or "cosine"
    c.model.commitment_weight = 0.25
    c.model.dropout = 0.05
    c.model.unit_codes = False  # codes of length 1, not only looked up by direction
    c.encoder_dtype = None  # compute type of the encoder in training; None: float32, as always for making tokens
    c.loss = ConfigDict({"l1": 0.2, "l2": 1.0, "quantizer": 1.0})  # weights; pixels are in [-1, 1]
    c.loss.lpips = 0.0  # perceptual, by VGG16: needs the file or folder ...
    c.lpips_weights = ""  # ... of its weights; with it, validation reports LPIPS whatever its weight
    c.inception_weights = ""  # file of the 2015 Inception network; with it, validation reports rFID
    c.loss.structure = 0.0  # edges at several sizes: needs no weights, and is not LPIPS
    c.codebook = ConfigDict()  # against unused codes and empty coarse scales
    c.codebook.dropout = 0.0  # share of pictures encoded with fewer scales in training ...
    c.codebook.fewest_scales = 3  # ... with this many at least
    c.codebook.means = False  # codes are moving means of their queries, instead of learned by gradients
    c.codebook.reset_every = 0  # steps after which dead codes move to current queries; 0 is never
    c.codebook.reset_share = 0.01  # codes used less than this times the average are dead
    c.codebook.warm_start = 0  # batches whose features give the first codebook by k-means; 0: it is drawn
    c.adversary = _adversary()
    c.optimizer.schedule, c.optimizer.warmup, c.optimizer.final = "cosine", 0.01, 0.3
    c.optimizer.betas, c.optimizer.clip = (0.5, 0.9), 10.0
    c.optimizer.weight_decay = c.optimizer.weight_decay_end = 0.005
    c.ema_decay = 0.9999
    return c


def _adversary() -> ConfigDict:
    a = ConfigDict()
    # None, "patch" (group norm, blurred halvings), "residual" (StyleGAN's, no norm), or heads on a fixed network's
    # features: "vgg" (the one of lpips_weights) or "dino".
    a.kind = None
    a.dino_weights = ""  # file of DINO's ViT-S/16, for "dino"
    a.loss = "hinge"  # or "non_saturating"
    a.weight = 0.4  # weight of the generator's loss ...
    a.adaptive = True  # ... times the ratio of gradient norms at the decoder's last kernel, ...
    a.adaptive_range = (0.0, 1e4)  # ... clipped to this
    a.start = 0.2  # share of all steps after which the discriminator learns, and its loss counts ...
    a.ramp = 0.02  # ... with a weight that rises over this share of all steps
    a.augment = True  # colours, shifts and holes for both sides (DiffAugment)
    a.lecam = 0.001  # weight of LeCam regularisation; 0 is off
    a.gradient_penalty = 0.0  # weight of R1, for "residual" with "non_saturating": 10; 0 is off
    a.channels = 64  # width of the discriminator's first convolution
    a.levels = 3  # halvings of "patch", and of the deepest features that "vgg" judges
    a.norm_groups = 32  # groups of the norms in "patch", "vgg" and "dino"
    a.rate = 1.0  # learning rate, relative to the tokenizer's at the same step
    a.betas = (0.5, 0.9)
    a.weight_decay = 0.0005
    a.clip = 10.0  # global gradient norm; 0 is off
    return a


def transformer(preset: str) -> ConfigDict:
    """Stage 2 by the published recipe; a field of `model` that is None takes the preset's value."""
    c = common("transformer")
    c.tokenizer = ""  # directory of a trained or imported tokenizer
    c.model = ConfigDict({"preset": preset})
    for name in ("depth", "width", "num_heads", "mlp_ratio", "shared_adaln", "qk_norm", "adaln", "inputs"):
        c.model[name] = None
    c.model.drop_path = c.model.class_drop = c.model.gate_init = c.model.input_init = None
    c.label_smoothing = 0.0
    c.progressive = ConfigDict()  # train on the coarsest scales first
    c.progressive.until = 0.0  # share of all steps after which all scales are trained; 0: all from the start
    c.progressive.first_scales = 5  # number of scales during the warm-up
    c.progressive.ramp = 1 / 300  # share of all steps over which a new scale's loss weight rises to its full value
    c.attention = "xla"  # or a kernel: "splash" on TPUs, "cudnn" on NVIDIA GPUs; "plain" serves to compare with
    c.attention_blocks = (384, 768)  # most queries and keys per block of "splash"; multiples of 128
    c.sample_classes = 10  # rows of the sample grid at evaluations, at most; 0: no grid
    c.sample_guidance = DEFAULTS.guidance  # of the sample grid; 0 is none
    return c


def small_tokenizer(multipliers: tuple[int, ...], base_channels: int, batch_size: int, steps: int) -> ConfigDict:
    """Stage 1 for small pictures or few of them: a narrow network, float32, many small steps."""
    c = tokenizer()
    c.data.workers = 0
    c.model.pyramid = "1,2,3,5,8"
    c.model.codebook_size, c.model.code_width = 512, 8
    # One group: with few channels, more groups would lose the colours.
    c.model.base_channels, c.model.channel_multipliers, c.model.norm_groups = base_channels, multipliers, 1
    c.model.encoder_blocks = c.model.decoder_blocks = 1
    c.model.dropout = 0.0
    c.dtype, c.batch_size, c.steps = "float32", batch_size, steps  # many small steps learn most per minute here
    # 1.5e-3 at the peak, whatever the batch: a higher one is unstable.
    c.optimizer.learning_rate_per_256 = 1.5e-3 * 256 / batch_size
    c.optimizer.warmup, c.optimizer.final = 0.05, 0.05
    c.optimizer.betas = (0.9, 0.99)
    c.ema_decay = 0.995
    return c


def small_transformer(steps: int) -> ConfigDict:
    """Stage 2 for a tokenizer like `small_tokenizer`'s."""
    c = transformer("d3")
    c.data.workers = 0
    c.model.width, c.model.num_heads = 96, 2
    c.model.gate_init, c.model.input_init = 0.1, 10.0  # blocks near the identity would learn slowly at first
    c.dtype, c.batch_size, c.steps = "float32", 24, steps
    c.optimizer.learning_rate_per_256, c.optimizer.warmup = 0.05, 0.05
    c.optimizer.turn, c.optimizer.final = 0.3, 0.02
    c.ema_decay = 0.995
    c.evaluate_batch_size = 50
    c.sample_guidance = 3.0
    return c
