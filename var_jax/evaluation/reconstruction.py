"""Quality of reconstructions: PSNR and SSIM per picture, and a tokenizer's figures by number of scales."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.losses.perceptual import lpips
from var_jax.models.parameters import Params
from var_jax.models.pictures import to_signed
from var_jax.models.quantizer import code_counts, codebook_perplexity, codebook_usage
from var_jax.models.tokenizer import Tokenizer

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03


def psnr(a_BxHxWx3: jax.Array, b_BxHxWx3: jax.Array) -> jax.Array:
    """[B] peak signal-to-noise ratio in dB of pictures in [0, 1]; 100 where they are equal."""
    error = jnp.mean(jnp.square(a_BxHxWx3 - b_BxHxWx3), axis=(1, 2, 3))
    return -10.0 * jnp.log10(jnp.maximum(error, 1e-10))


def ssim(a_BxHxWx3: jax.Array, b_BxHxWx3: jax.Array) -> jax.Array:
    """[B] structural similarity of pictures in [0, 1] (Wang et al. 2004).

    Gaussian window of 11 with sigma 1.5 (as large as the picture allows), no padding, per channel,
    then the mean.
    """
    size = min(_WINDOW, a_BxHxWx3.shape[1], a_BxHxWx3.shape[2])
    offsets = np.arange(size) - (size - 1) / 2
    window = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    window = (window / window.sum()).astype(np.float32)

    def blur(x: jax.Array) -> jax.Array:
        for axis in (1, 2):
            valid = x.shape[axis] - size + 1
            x = sum(w * jax.lax.slice_in_dim(x, i, i + valid, axis=axis) for i, w in enumerate(window))
        return x

    mean_a, mean_b = blur(a_BxHxWx3), blur(b_BxHxWx3)
    var_a = blur(a_BxHxWx3**2) - mean_a**2
    var_b = blur(b_BxHxWx3**2) - mean_b**2
    covariance = blur(a_BxHxWx3 * b_BxHxWx3) - mean_a * mean_b
    c1, c2 = _K1**2, _K2**2
    quality = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    quality /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return jnp.mean(quality, axis=(1, 2, 3))


def reconstruction_sums(
    tokenizer: Tokenizer,
    params: Params,
    images_BxHxWx3: jax.Array,
    mask_B: jax.Array,
    lpips_params: Params | None = None,
    pictures: bool = False,
) -> dict[str, jax.Array]:
    """Sums over one batch; added up over all batches they are the input of `reconstruction_figures`.

    Args:
      images_BxHxWx3: uint8.
      mask_B: 1 for a picture, 0 for padding, which does not count.
      lpips_params: weights of LPIPS, if it is to be measured; see `pretrained.lpips_file`.
      pictures: return the reconstructions too, which are no sum: "pictures", uint8 [S, B, H, W, 3], from
        1 .. S scales, by truncation.

    Returns:
      "count"; "psnr", "ssim", "l1" and "lpips" [S] by number of scales; "quantizer"; "codes" [S, V].
    """
    config, bound = tokenizer.config, tokenizer.bind({"params": params})
    images = to_signed(images_BxHxWx3)
    quantized = bound.quantizer(bound.features(images))
    original = (images + 1.0) / 2.0

    def by_scales(scales: jax.Array) -> dict[str, jax.Array]:
        shown = bound.decode(quantized.tokens, scales)
        picture = (shown + 1.0) / 2.0
        error = jnp.mean(jnp.abs(picture - original), axis=(1, 2, 3))
        found = {"psnr": psnr(picture, original), "ssim": ssim(picture, original), "l1": error}
        if lpips_params is not None:
            found["lpips"] = lpips(lpips_params, shown, images)
        return found | ({"pictures": (picture * 255.0).astype(jnp.uint8)} if pictures else {})

    found = jax.lax.map(by_scales, jnp.arange(1, len(config.pyramid) + 1))
    shown = {"pictures": found.pop("pictures")} if pictures else {}
    tokens = jnp.where(mask_B[:, None] > 0, quantized.tokens, config.codebook_size)
    return {
        "count": jnp.sum(mask_B),
        **{name: values_SxB @ mask_B for name, values_SxB in found.items()},
        "quantizer": quantized.loss * jnp.sum(mask_B),
        "codes": code_counts(tokens, config.pyramid, config.codebook_size),
        **shown,
    }


def reconstruction_figures(sums: dict[str, np.ndarray]) -> dict[str, Any]:
    """Figures from the sums over a set; lists are by number of scales, those of codes by scale.

    Returns:
      psnr, ssim, l1 and perhaps lpips from all scales; quantizer, the quantizer's loss; psnr_by_scales and perhaps
      lpips_by_scales; ssim_by_scales; codes_used, usage (see `codebook_usage`) and perplexity.
    """
    count, codes = sums["count"], jnp.asarray(sums["codes"])
    by_scales = {name: np.asarray(sums[name] / count) for name in ("psnr", "ssim", "l1", "lpips") if name in sums}
    return {
        **{name: float(values[-1]) for name, values in by_scales.items()},
        "quantizer": float(sums["quantizer"] / count),
        **{f"{name}_by_scales": by_scales[name] for name in ("psnr", "ssim", "lpips") if name in by_scales},
        "codes_used": np.sum(np.asarray(codes) > 0, axis=-1),
        "usage": np.asarray(codebook_usage(codes)),
        "perplexity": np.asarray(codebook_perplexity(codes)),
    }
