"""The object that notebooks hold: a model on the device, which encodes, decodes, draws and edits pictures."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from var_jax.cpu.backend import backend_for
from var_jax.errors import InputError
from var_jax.generation import editing, sampler, upscaling
from var_jax.generation.batching import batches, picture_keys
from var_jax.generation.checks import (
    checked_images,
    checked_keep_mask,
    checked_key,
    checked_labels,
    checked_picture,
    checked_tokens,
)
from var_jax.generation.guidance import Schedule
from var_jax.generation.known import KnownPicture
from var_jax.generation.settings import DEFAULTS, PerScale, Settings
from var_jax.model_directory import bundled_model, fingerprint
from var_jax.models.baselines import make_transformer
from var_jax.models.net import Net, Nets
from var_jax.models.pictures import decode_pictures, encode_pictures
from var_jax.models.reproducible import own_settings
from var_jax.models.tokenizer import Tokenizer
from var_jax.parallel.mesh import batch_sharding, replicated
from var_jax.training_directory import read_any_model

__all__ = ["Bundle", "load"]

_WINDOWS_AT_A_TIME = 8  # of a picture that is edited in several

Labels = Sequence[int | str | None] | np.ndarray | jax.Array


def load(path: str | os.PathLike[str] | None = None, dtype: Any = None) -> Bundle:
    """Loads a model directory onto the default device.

    Args:
      path: the directory; None: the small model that comes with the package.
      dtype: compute type of decoder and transformer; None is float32 on CPU and bfloat16 on TPU and
        GPU. Parameters, the tokenizer's encoder and its quantizer are float32 whatever it is.

    Raises:
      InputError: if the directory is not a whole model directory.
    """
    if dtype is None:
        dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    model = read_any_model(bundled_model() if path is None else path)
    backend, transformer = backend_for(), None
    tokenizer = Net(Tokenizer(model.tokenizer_config, dtype, backend=backend), jax.device_put(model.tokenizer_params))
    if model.transformer_config is not None:
        module = make_transformer(model.transformer_config, dtype, backend)
        transformer = Net(module, jax.device_put(model.transformer_params))
    return Bundle(tokenizer, transformer, model.class_names)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A model ready to be used: networks with their parameters on the device.

    Attributes:
      tokenizer: module and parameters, see `Net`; `tokenizer.config` is the config.
      transformer: the same, or None where the directory has only a tokenizer.
      class_names: of its classes, by id; empty where nobody named them.
      mesh: the devices that a batch is split over, see `over`; None: the default device.
    """

    tokenizer: Net
    transformer: Net | None = None
    class_names: tuple[str, ...] = ()
    mesh: jax.sharding.Mesh | None = None

    def over(self, mesh: jax.sharding.Mesh) -> Bundle:
        """The same model on every device of a mesh, each of which draws its part of a batch.

        A batch has to divide over the mesh's axes data x fsdp.
        """
        backend = backend_for(mesh)
        nets = (
            net and Net(net.module.clone(backend=backend), net.params) for net in (self.tokenizer, self.transformer)
        )
        tokenizer, transformer = jax.device_put(tuple(nets), replicated(mesh))
        return dataclasses.replace(self, tokenizer=tokenizer, transformer=transformer, mesh=mesh)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of config and weights of each part, computed anew, as a model directory records them."""
        parts = {"tokenizer": self.tokenizer, "transformer": self.transformer}
        return {
            part: fingerprint(net.config.to_dict(), jax.tree.map(np.asarray, net.params))
            for part, net in parts.items()
            if net is not None
        }

    def encode(self, images: np.ndarray | jax.Array) -> jax.Array:
        """Pictures -> tokens [B, L] int32, scales coarse to fine.

        Args:
          images: [B, H, W, 3] uint8, or float in [0, 1]; H = W = `tokenizer.config.image_size`.

        Raises:
          InputError: for another shape, type or range.
        """
        return encode_pictures(self.tokenizer, jnp.asarray(checked_images(images, self.tokenizer.config.image_size)))

    def decode(self, tokens_BxL: np.ndarray | jax.Array, scales: int | None = None) -> jax.Array:
        """Tokens -> pictures [B, H, W, 3] float32 in [0, 1], from all scales or the first `scales`.

        Raises:
          InputError: for another length, a token that is no code, or a number of scales out of range.
        """
        total = len(self.tokenizer.config.pyramid)
        if scales is None:
            scales = total
        if not isinstance(scales, (int, np.integer)) or not 1 <= scales <= total:
            raise InputError(f"scales {scales}: expected 1 to {total}")
        return decode_pictures(self.tokenizer, checked_tokens(tokens_BxL, self.tokenizer.config), int(scales))

    def logits(self, labels: Labels, tokens_BxL: np.ndarray | jax.Array) -> jax.Array:
        """Teacher-forced logits [B, L, V] float32: the prediction of the transformer at every position.

        Args:
          labels: [B] class ids; `num_classes` is "no class".
          tokens_BxL: the picture's own tokens.

        Raises:
          InputError: without a transformer, or for labels or tokens that cannot be.
        """
        labels_B, tokens_BxL = self._checked_labels(labels), checked_tokens(tokens_BxL, self.tokenizer.config)
        if labels_B.shape[0] != tokens_BxL.shape[0]:
            raise InputError(f"{labels_B.shape[0]} labels for {tokens_BxL.shape[0]} rows of tokens")
        return _logits(Nets(self.tokenizer, self._required_transformer), labels_B, tokens_BxL)

    def generate(
        self,
        labels: Labels,
        key: jax.Array,
        guidance: float = DEFAULTS.guidance,
        top_k: PerScale = DEFAULTS.top_k,
        top_p: PerScale = DEFAULTS.top_p,
        temperature: PerScale = DEFAULTS.temperature,
        smooth: bool = DEFAULTS.smooth,
        schedule: Schedule | str = DEFAULTS.schedule,
    ) -> jax.Array:
        """Draws pictures [B, H, W, 3] float32 in [0, 1], one for each label.

        Changing anything but `smooth`, and guidance between none and some, recompiles nothing.

        Args:
          labels: [B] class ids or names; `num_classes` or None is "no class".
          key: from `jax.random.key`: a scalar key is folded with the row index, an array of B keys is
            used as it is. A picture depends on its own key and label alone.
          guidance: classifier-free guidance strength in the reference's convention: logits are
            (1 + t) cond - t uncond, t rising from 0 at the coarsest scale to this; **0 is none**.
          top_k: draw from the k likeliest tokens only; 0 is off. This and the next two are one number,
            or one for each scale.
          top_p: draw from the likeliest tokens that make up this probability only; 0 is off.
          temperature: divides the logits before both; above 0 (top_k=1 is the greedy choice).
          smooth: mix codes by Gumbel softmax instead of drawing one; for looks, not for figures.
          schedule: how t goes over the scales: "linear" as above, "constant", "interval:LOW,HIGH" or
            "power:EXPONENT", see `Schedule`.

        Raises:
          InputError: without a transformer, or naming the setting that cannot be.
        """
        strengths = {"guidance": guidance, "top_k": top_k, "top_p": top_p, "temperature": temperature}
        arguments = self.sampler_arguments(labels, key, **strengths, smooth=smooth, schedule=schedule)
        return sampler.generate(*arguments).images

    def grow(self, labels: Labels, key: jax.Array, **settings: Any) -> jax.Array:
        """As `generate`, with its settings, but [S, B, H, W, 3]: each picture as it is after every scale.

        Raises:
          InputError: as `generate`.
        """
        return sampler.grow(*self.sampler_arguments(labels, key, **settings))

    def redraw(
        self,
        images: np.ndarray | jax.Array,
        keep_mask_BxL: np.ndarray | jax.Array,
        labels: Labels,
        key: jax.Array,
        reencode: bool = True,
        **settings: Any,
    ) -> jax.Array:
        """Pictures [B, H, W, 3] float32 in [0, 1] that keep the tokens of `images` where the mask says so.

        All other tokens are drawn.

        Args:
          images: [B, H, W, 3] as for `encode`.
          keep_mask_BxL: bool; True where the token of the picture stays, see `generation.masks`.
          labels, key, **settings: as for `generate`.
          reencode: encode the kept tokens anew at each scale, from the residual that the scales before it leave,
            drawn ones included; False takes the tokens of `encode`, as the reference does.

        Raises:
          InputError: as `encode` and `generate`, or for a mask of another shape.
        """
        images, length = checked_images(images, self.tokenizer.config.image_size), self.tokenizer.config.pyramid.length
        arguments = self.sampler_arguments(labels, key, **settings)
        keep_mask_BxL = checked_keep_mask(keep_mask_BxL, (len(images), length), len(arguments[1]))
        known = KnownPicture(jnp.asarray(images), keep_mask_BxL, reencode)
        return sampler.generate(*arguments, known).images

    def edit(
        self,
        image: np.ndarray,
        task: str,
        key: jax.Array,
        mask: np.ndarray | None = None,
        label: int | str | None = None,
        keep_scales: int | None = None,
        dilate: int = 0,
        edge: int | None = None,
        factor: int = 2,
        **settings: Any,
    ) -> np.ndarray:
        """One picture of any size, edited: uint8 [H, W, 3], and [factor H, factor W, 3] for "upscale".

        Args:
          image: uint8 [H, W, 3].
          task: "inpaint" redraws the marked region, "outpaint" all but it, "class" the region as `label`, "vary"
            the finer scales (of the region, or of everything), "upscale" enlarges.
          key: a scalar key.
          mask: bool [H, W], True where marked; not for "upscale".
          label: class id or name; None is "no class", which "class" refuses.
          keep_scales: scales that are kept everywhere; None: half of them for "vary", all
            for "upscale", which then draws nothing, else none.
          dilate: tokens around the region that are redrawn with it.
          edge: width in pixels of the soft edge around the region; None: a 32nd of the window that the model sees.
            Beyond it every byte stays.
          factor: of "upscale".
          **settings: as for `generate`; without a label guidance changes nothing.

        Raises:
          InputError: naming the argument that cannot be.
        """
        image, config = checked_picture(image), self.tokenizer.config
        if task not in editing.TASKS:
            raise InputError(f"task '{task}': there is no such task; expected one of {', '.join(editing.TASKS)}")
        if task == "class" and label is None:
            raise InputError("task class: needs the class that the region is to become")
        calls, one_key = itertools.count(), checked_key(key)

        def redraw(images: np.ndarray, keep_mask: np.ndarray) -> np.ndarray:
            keys = picture_keys(jax.random.fold_in(one_key, next(calls)), len(images))
            return self._redraw_windows(images, keep_mask, label, keys, settings)

        shape = redraw, config.pyramid, config.image_size
        if task == "upscale":
            return upscaling.upscale(*shape, image[None], factor, keep_scales)[0]
        region = editing.region_of(task, mask, image.shape[:2])
        if keep_scales is None:
            keep_scales = len(config.pyramid) // 2 if task == "vary" else 0
        return editing.edit(*shape, image, region, keep_scales, dilate, edge)

    def _redraw_windows(
        self, images: np.ndarray, keep_mask: np.ndarray, label: Any, keys: jax.Array, settings: dict[str, Any]
    ) -> np.ndarray:
        """`redraw` in batches of a few windows, without the transformer where every token stays."""
        parts = []
        for rows, new in batches(len(images), _WINDOWS_AT_A_TIME):
            if keep_mask.all():
                drawn = self.decode(self.encode(images[rows]))
            else:
                drawn = self.redraw(images[rows], keep_mask[rows], [label] * len(rows), keys[rows], **settings)
            parts.append(np.asarray(drawn)[:new])
        return np.concatenate(parts)

    def sampler_arguments(
        self, labels: Labels, key: jax.Array, **settings: Any
    ) -> tuple[Nets, jax.Array, jax.Array, Settings]:
        """The arguments of `sampler.generate`, checked, and on the mesh where there is one.

        Raises:
          InputError: as `generate`.
        """
        labels_B, config = self._checked_labels(labels), self._required_transformer.config
        laid_out, key = Settings.create(config.pyramid, **settings), checked_key(key, labels_B.shape[0])
        if np.all(np.asarray(labels_B) == config.no_class):  # both halves of guidance are equal
            laid_out = laid_out.unguided()
        if self.mesh is not None:
            rows = batch_sharding(self.mesh)
            labels_B = jax.device_put(labels_B, rows)
            key = jax.device_put(picture_keys(key, labels_B.shape[0]), rows)
        return self._nets, labels_B, key, laid_out

    @functools.cached_property
    def _nets(self) -> Nets:
        """The networks as the sampler runs them, prepared once."""
        return sampler.prepared(self.tokenizer, self._required_transformer)

    @property
    def _required_transformer(self) -> Net:
        if self.transformer is None:
            raise InputError("this model has a tokenizer only: import a transformer with it to sample")
        return self.transformer

    def _checked_labels(self, labels: Labels) -> jax.Array:
        return checked_labels(labels, self._required_transformer.config.num_classes, self.class_names)


@jax.jit
@own_settings()
def _logits(model: Nets, labels_B: jax.Array, tokens_BxL: jax.Array) -> jax.Array:
    inputs = model.teacher_inputs(tokens_BxL)
    return model.transformer.apply(labels_B, inputs)
