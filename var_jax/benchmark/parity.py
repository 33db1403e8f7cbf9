"""Measures the difference between this package and the reference at real size, on the same weights and inputs."""

from __future__ import annotations

import math
import os
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.benchmark.reference_worker import build, load_reference
from var_jax.cpu.backend import backend_for
from var_jax.generation import sampler
from var_jax.generation.settings import Settings
from var_jax.interop.tokenizer import import_tokenizer
from var_jax.interop.transformer import import_transformer
from var_jax.models.net import Net
from var_jax.models.presets import transformer_preset
from var_jax.models.quantizer import area_downsample, nearest_codes
from var_jax.models.tokenizer import Tokenizer, TokenizerConfig
from var_jax.models.transformer import Transformer
from var_jax.pyramid import Pyramid

# Buffers that the reference computes itself: no weights are drawn for them.
_COMPUTED = ("ema_vocab_hit_SV", "lvl_1L", "attn_bias_for_masking", "zero_k_bias")


class Row(NamedTuple):
    """One compared quantity.

    Attributes:
      name: the quantity.
      max_abs: largest difference.
      relative: largest difference over the largest magnitude in the reference.
    """

    name: str
    max_abs: float
    relative: float


def compare(name: str, ours: Any, reference: Any) -> Row:
    """Compares two arrays of one shape."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if ours.shape != reference.shape:
        raise AssertionError(f"{name}: shapes {ours.shape} and {reference.shape}")
    largest = float(np.max(np.abs(ours - reference)))
    return Row(name, largest, largest / max(float(np.max(np.abs(reference))), 1e-30))


def tokenizer_parity(
    checkout: str | os.PathLike[str], pyramid: Pyramid, base_channels: int = 160, batch: int = 1, seed: int = 0
) -> list[Row]:
    """Compares the tokenizer on random pictures; tokens as the share that differs.

    Tokens are compared scale by scale on the reference's own residual, so that one tie does not count
    again at every later scale; everything after them is compared on the reference's tokens.
    """
    ref = load_reference(checkout)
    torch = ref.torch
    theirs, _ = build(ref, TokenizerConfig.from_fields(pyramid=pyramid, base_channels=base_channels).to_dict())
    weights = draw_weights(theirs, seed)
    imported = import_tokenizer(weights, pyramid)
    tokenizer, params = Tokenizer(imported.config, backend=backend_for()), jax.device_put(imported.params)
    size = imported.config.image_size
    image = _smooth_pictures(batch, size, seed)
    with torch.no_grad():
        chw = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
        features_ref = theirs.quant_conv(theirs.encoder(chw))
        tokens_list = theirs.quantize.f_to_idxBl_or_fhat(features_ref, to_fhat=False)
        inputs_ref = theirs.quantize.idxBl_to_var_input(tokens_list) if len(pyramid) > 1 else None
        embedded = [
            theirs.quantize.embedding(part).transpose(1, 2).reshape(batch, -1, side, side)
            for part, side in zip(tokens_list, pyramid.sides, strict=True)
        ]
        sums_ref = theirs.quantize.embed_to_fhat(embedded, last_one=False)
        decoded_ref = theirs.decoder(theirs.post_quant_conv(sums_ref[-1]))

    def run(method: str, *args: Any) -> np.ndarray:
        return np.asarray(jax.jit(lambda p, *a: tokenizer.apply({"params": p}, *a, method=method))(params, *args))

    features = _nhwc(features_ref)
    sums = [np.zeros_like(features), *(_nhwc(s) for s in sums_ref)]
    rows = [compare("encoder features", run("features", image), features)]
    differing = 0
    for k, part in enumerate(tokens_list):
        z = area_downsample(features - sums[k], pyramid.sides[k]).reshape(-1, features.shape[-1])
        differing += int(np.sum(np.asarray(nearest_codes(z, params["quantizer"]["codebook"])) != part.numpy().ravel()))
    share = differing / (batch * pyramid.length)
    rows.append(Row(f"tokens that differ ({differing} of {batch * pyramid.length})", float(differing), share))
    tokens = np.concatenate([part.numpy() for part in tokens_list], axis=1).astype(np.int32)
    decode = jax.jit(lambda p, t: tokenizer.bind({"params": p}).quantizer.decode(t))
    rows.append(compare("f_hat of all scales", decode(params, tokens), sums[-1]))
    if inputs_ref is not None:
        rows.append(compare("transformer input", run("transformer_input", tokens), inputs_ref.numpy()))
    rows.append(compare("decoder, not clipped", run("decode_features", sums[-1]), _nhwc(decoded_ref)))
    return rows


def transformer_parity(
    checkout: str | os.PathLike[str], name: str, pyramid: Pyramid, batch: int = 1, seed: int = 0, guidance: float = 1.5
) -> list[Row]:
    """Compares a transformer by preset name: teacher-forced logits on drawn tokens, and a greedy guided run.

    The pictures of the greedy run are compared where their tokens are equal.
    """
    ref = load_reference(checkout)
    torch = ref.torch
    tokenizer_config = TokenizerConfig.from_fields(pyramid=pyramid)
    config = transformer_preset(name, tokenizer_config)
    vae, theirs = build(ref, tokenizer_config.to_dict(), config.to_dict() | {"class_drop": 0.0})
    vae_weights, weights = draw_weights(vae, seed), draw_weights(theirs, seed)
    rng = np.random.default_rng([seed, 2])
    labels = rng.integers(0, config.num_classes, batch).astype(np.int32)
    tokens = rng.integers(0, config.codebook_size, (batch, pyramid.length)).astype(np.int32)
    with torch.no_grad():
        parts = [torch.from_numpy(part.astype(np.int64)) for part in pyramid.split(tokens)]
        inputs = vae.quantize.idxBl_to_var_input(parts)
        labels_ref = torch.from_numpy(labels.astype(np.int64))
        logits_ref = theirs(labels_ref, inputs).numpy()
        drawn, embedding = [], vae.quantize.embedding
        hook = embedding.register_forward_hook(lambda _, given, __: drawn.append(given[0].numpy()))
        image_ref = _nhwc(theirs.autoregressive_infer_cfg(batch, labels_ref, g_seed=0, cfg=guidance, top_k=1))
        hook.remove()
    inputs = inputs.numpy()
    del theirs, vae
    tokenizer, transformer = import_tokenizer(vae_weights, pyramid), import_transformer(weights, tokenizer_config)
    backend = backend_for()
    ours = (
        Net(Tokenizer(tokenizer.config, backend=backend), jax.device_put(tokenizer.params)),
        Net(Transformer(transformer.config, backend=backend), jax.device_put(transformer.params)),
    )
    del weights, vae_weights, tokenizer, transformer
    logits = jax.jit(lambda net, y, x: net.apply(y, x))(ours[1], labels, inputs)
    rows = [compare("teacher-forced logits", logits, logits_ref)]
    settings = Settings.create(pyramid, guidance=guidance, top_k=1, top_p=0.0)
    found = sampler.generate(sampler.prepared(*ours), jnp.asarray(labels), jax.random.key(0), settings)
    return [*rows, *_greedy_rows(found, np.concatenate(drawn, axis=1), image_ref)]


def _greedy_rows(ours: sampler.Generated, tokens_ref: np.ndarray, image_ref: np.ndarray) -> list[Row]:
    """Tokens of the greedy run, and its pictures where their tokens are equal."""
    differing = int(np.sum(np.asarray(ours.tokens) != tokens_ref))
    label = f"greedy tokens that differ ({differing} of {tokens_ref.size}; {len(np.unique(tokens_ref))} codes in use)"
    rows = [Row(label, float(differing), differing / tokens_ref.size)]
    equal = np.all(np.asarray(ours.tokens) == tokens_ref, axis=1)
    if equal.any():
        rows.append(compare("greedy picture in [0, 1]", np.asarray(ours.images)[equal], image_ref[equal]))
    return rows


def _nhwc(tensor: Any) -> np.ndarray:
    return np.ascontiguousarray(tensor.numpy().transpose(0, 2, 3, 1))


def _smooth_pictures(batch: int, size: int, seed: int) -> np.ndarray:
    """Random pictures in [-1, 1] with structure at every scale, float32 [B, size, size, 3]."""
    rng, image, side = np.random.default_rng([seed, 1]), np.zeros((batch, size, size, 3)), 1
    while side <= size:
        noise = rng.standard_normal((batch, side, side, 3))
        image += np.kron(noise, np.ones((1, size // side, size // side, 1))) if size % side == 0 else 0.0
        side *= 2
    return np.tanh(0.5 * image).astype(np.float32)


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
