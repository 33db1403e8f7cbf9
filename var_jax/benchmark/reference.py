"""The PyTorch reference, run from a user's own checkout of FoundationVision/VAR beside this package.

None of its code is part of this package: the user names the checkout, and PyTorch is imported when
used. Weights are drawn from fixed seeds by tensor name, scaled so that every layer contributes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import math
import os
import sys
import types
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from var_jax.errors import InputError

# Buffers that the reference computes itself: no weights are drawn for them.
_COMPUTED = ("ema_vocab_hit_SV", "lvl_1L", "attn_bias_for_masking", "zero_k_bias")


def load_reference(checkout: str | os.PathLike[str]) -> types.SimpleNamespace:
    """Imports the reference's model builders and PyTorch: a namespace with `torch`, `VQVAE`, `VAR`.

    Raises:
      InputError: if the folder is no checkout of the reference or PyTorch is not installed.
    """
    root = Path(checkout).resolve()
    if not (root / "models" / "vqvae.py").is_file():
        raise InputError(f"{checkout}: not a checkout of FoundationVision/VAR (it has no models/vqvae.py)")
    try:
        import torch
    except ImportError:
        raise InputError("PyTorch is not installed here: pip install torch to run the reference beside") from None
    if "huggingface_hub" not in sys.modules and importlib.util.find_spec("huggingface_hub") is None:
        # The reference only names its mixin; a stand-in saves the user an installation.
        stand_in = types.ModuleType("huggingface_hub")
        stand_in.PyTorchModelHubMixin = type("PyTorchModelHubMixin", (), {})
        sys.modules["huggingface_hub"] = stand_in
    sys.path.insert(0, str(root))
    try:
        vqvae, var = importlib.import_module("models.vqvae"), importlib.import_module("models.var")
    except ImportError as error:
        raise InputError(f"{checkout}: the reference cannot be imported ({error})") from None
    finally:
        sys.path.remove(str(root))
    return types.SimpleNamespace(torch=torch, VQVAE=vqvae.VQVAE, VAR=var.VAR)


def build(
    reference: Any, tokenizer: Mapping[str, Any], transformer: Mapping[str, Any] | None = None
) -> tuple[Any, Any]:
    """Builds the autoencoder and, if there is one, the transformer of these configs, with weights drawn by PyTorch."""
    t, c = tokenizer, transformer
    with contextlib.redirect_stdout(io.StringIO()):  # both print
        vae = reference.VQVAE(
            vocab_size=t["codebook_size"],
            z_channels=t["code_width"],
            ch=t["base_channels"],
            quant_resi=t["phi_ratio"],
            share_quant_resi=t["num_phis"] or 0,
            v_patch_nums=tuple(t["pyramid"]),
            test_mode=True,
        )
        if c is None:
            return vae, None
        var = reference.VAR(
            vae_local=vae,
            num_classes=c["num_classes"],
            depth=c["depth"],
            embed_dim=c["width"],
            num_heads=c["num_heads"],
            mlp_ratio=c["mlp_ratio"],
            drop_path_rate=c["drop_path"],
            cond_drop_rate=c["class_drop"],
            shared_aln=c["shared_adaln"],
            attn_l2_norm=c["qk_norm"],
            patch_nums=tuple(c["pyramid"]),
        )
    return vae, var.eval()


def draw_weights(module: Any, seed: int) -> dict[str, np.ndarray]:
    """Draws float32 weights such that every gate, branch and bias matters, and puts them into a reference module.

    Returns them under the reference's names. Buffers that the module computed itself stay.
    """
    state = module.state_dict()
    weights = {
        name: _draw(name, tuple(tensor.shape), np.random.default_rng([seed, zlib.crc32(name.encode())]))
        for name, tensor in state.items()
        if not name.endswith(_COMPUTED)
    }
    tensors = {name: state[name].new_tensor(array) for name, array in weights.items()}
    module.load_state_dict(dict(state) | tensors, strict=True)
    return weights


def _draw(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(shape, np.float32)
    if "scale_mul" in name:
        return np.float32(math.log(4.0)) + 0.3 * noise
    if "norm" in name and name.endswith("weight") and len(shape) == 1:
        return 1.0 + 0.2 * noise
    if name.endswith("bias"):
        return 0.2 * noise
    if name.endswith("quantize.embedding.weight"):
        return 0.5 * noise
    if "embed" in name and len(shape) == 2 and "word" not in name or name.startswith(("class_emb", "pos_")):
        return 0.5 * noise
    if "ada_gss" in name:
        return 0.4 * noise
    fan_in = math.prod(shape[1:])
    return noise / np.float32(math.sqrt(fan_in))
