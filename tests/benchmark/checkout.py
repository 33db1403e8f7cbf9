"""A stand-in for a checkout of the reference: the same names and arguments, tiny networks of PyTorch behind them."""

from __future__ import annotations

from pathlib import Path

_VQVAE = """
import torch


class Quantizer(torch.nn.Module):
    def idxBl_to_var_input(self, parts):
        return torch.cat(parts[1:], dim=1)[..., None].float()


class VQVAE(torch.nn.Module):
    def __init__(self, vocab_size, z_channels, ch, quant_resi, share_quant_resi, v_patch_nums, test_mode):
        super().__init__()
        print("built", vocab_size, v_patch_nums)
        self.sides, self.codes, self.quantize = v_patch_nums, vocab_size, Quantizer()

    def img_to_idxBl(self, pictures):
        assert pictures.shape[1:] == (3, 16 * self.sides[-1], 16 * self.sides[-1]) and pictures.min() < -0.9
        assert not torch.is_grad_enabled()
        return [torch.randint(self.codes, (len(pictures), side * side)) for side in self.sides]
"""
_VAR = """
import torch
from huggingface_hub import PyTorchModelHubMixin


class VAR(torch.nn.Module):
    def __init__(self, vae_local, num_classes, depth, embed_dim, num_heads, mlp_ratio, drop_path_rate, cond_drop_rate,
                 shared_aln, attn_l2_norm, patch_nums):
        super().__init__()
        self.sides, self.codes = patch_nums, vae_local.codes
        self.word, self.head = torch.nn.Linear(1, embed_dim), torch.nn.Linear(embed_dim, self.codes)
        self.steps = []

    def autoregressive_infer_cfg(self, B, label_B, g_seed, cfg, top_k, top_p):
        assert len(label_B) == B
        self.steps.append((cfg, top_k, top_p))
        return torch.zeros(B, 3, 16 * self.sides[-1], 16 * self.sides[-1])

    def forward(self, label_B, inputs):
        assert self.training
        start = torch.zeros(len(label_B), 1, 1)
        return self.head(self.word(torch.cat([start, inputs], dim=1)))
"""


def write_checkout(folder: Path) -> Path:
    """Writes it and returns its path."""
    (folder / "models").mkdir(parents=True)
    (folder / "models" / "__init__.py").write_text("", encoding="utf-8")
    (folder / "models" / "vqvae.py").write_text(_VQVAE, encoding="utf-8")
    (folder / "models" / "var.py").write_text(_VAR, encoding="utf-8")
    return folder
