"""The object that notebooks hold: a model on the device, and what can be asked of it."""

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

from var_jax.errors import InputError
from var_jax.generation import editing, sampler, upscaling
from var_jax.generation.classes import class_ids
from var_jax.generation.guidance import LINEAR, Schedule
from var_jax.generation.kernels import for_sampling
from var_jax.generation.many import batches
from var_jax.generation.settings import PerScale, check_settings, make_controls
from var_jax.model_directory import bundled_model, fingerprint
from var_jax.models.inputs import teacher_inputs
from var_jax.models.parameters import Params
from var_jax.models.pictures import decode_pictures, encode_pictures
from var_jax.models.tokenizer import Tokenizer
from var_jax.models.transformer import Transformer
from var_jax.parallel.mesh import batch_sharding
from var_jax.training_directory import read_any_model

__all__ = ["Bundle", "check_settings", "load"]

_WINDOWS_AT_A_TIME = 8  # of a picture that is edited in several


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
    transformer = Transformer(model.transformer_config, dtype) if model.transformer_config else None
    return Bundle(
        tokenizer=Tokenizer(model.tokenizer_config, dtype),
        tokenizer_params=jax.device_put(model.tokenizer_params),
        transformer=transformer,
        transformer_params=jax.device_put(model.transformer_params),
        class_names=model.class_names,
    )


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A model ready to be used: modules and parameters on the device.

    Attributes:
      tokenizer: the tokenizer module, with its compute type.
      tokenizer_params: its parameters.
      transformer: the transformer module, or None where the directory has only a tokenizer.
      transformer_params: its parameters, or None.
      class_names: of its classes, by id; empty where nobody named them.
      mesh: the devices that a batch is split over, see `over`; None: the default device.
    """

    tokenizer: Tokenizer
    tokenizer_params: Params = dataclasses.field(repr=False)
    transformer: Transformer | None = None
    transformer_params: Params | None = dataclasses.field(default=None, repr=False)
    class_names: tuple[str, ...] = ()
    mesh: jax.sharding.Mesh | None = None

    def over(self, mesh: jax.sharding.Mesh) -> Bundle:
        """The same model on every device of a mesh, each of which draws its part of a batch.

        A batch has to divide over the mesh's axes data x fsdp.
        """
        everywhere = jax.sharding.NamedSharding(mesh, jax.P())
        put = lambda params: jax.device_put(params, everywhere)
        return dataclasses.replace(
            self,
            tokenizer_params=put(self.tokenizer_params),
            transformer_params=put(self.transformer_params),
            mesh=mesh,
        )

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of config and weights of each part, computed anew, as a model directory records them."""
        parts = {"tokenizer": (self.tokenizer, self.tokenizer_params)}
        if self.transformer is not None:
            parts["transformer"] = (self.transformer, self.transformer_params)
        return {
            part: fingerprint(module.config.to_dict(), jax.tree.map(np.asarray, params))
            for part, (module, params) in parts.items()
        }

    def encode(self, images: np.ndarray | jax.Array) -> jax.Array:
        """Pictures -> tokens [B, L] int32, scales coarse to fine.

        Args:
          images: [B, H, W, 3] uint8, or float in [0, 1]; H = W = `tokenizer.config.image_size`.

        Raises:
          InputError: for another shape, type or range.
        """
        return encode_pictures(self.tokenizer, self.tokenizer_params, jnp.asarray(self._checked_images(images)))

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
        tokens_BxL = self._checked_tokens(tokens_BxL)
        return decode_pictures(self.tokenizer, self.tokenizer_params, tokens_BxL, int(scales))

    def logits(self, labels: Sequence[int] | np.ndarray | jax.Array, tokens_BxL: np.ndarray | jax.Array) -> jax.Array:
        """Teacher-forced logits [B, L, V] float32: what the transformer expects at every position.

        Args:
          labels: [B] class ids; `num_classes` is "no class".
          tokens_BxL: the picture's own tokens.

        Raises:
          InputError: without a transformer, or for labels or tokens that cannot be.
        """
        labels_B, tokens_BxL = self._checked_labels(labels), self._checked_tokens(tokens_BxL)
        if labels_B.shape[0] != tokens_BxL.shape[0]:
            raise InputError(f"{labels_B.shape[0]} labels for {tokens_BxL.shape[0]} rows of tokens")
        return _logits(
            self.tokenizer, self.transformer, self.tokenizer_params, self.transformer_params, labels_B, tokens_BxL
        )

    def generate(
        self,
        labels: Sequence[int | str | None] | np.ndarray | jax.Array,
        key: jax.Array,
        guidance: float = 1.5,
        top_k: PerScale = 900,
        top_p: PerScale = 0.96,
        temperature: PerScale = 1.0,
        smooth: bool = False,
        schedule: Schedule | str = LINEAR,
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
        given = self._checked(labels, key, guidance, top_k, top_p, temperature, smooth, schedule)
        return sampler.generate(*self._parts, **given).images

    def grow(
        self, labels: Sequence[int | str | None] | np.ndarray | jax.Array, key: jax.Array, **settings: Any
    ) -> jax.Array:
        """As `generate`, with its settings, but [S, B, H, W, 3]: each picture as it is after every scale.

        Raises:
          InputError: as `generate`.
        """
        return sampler.grow(*self._parts, **self._checked(labels, key, **settings))

    def redraw(
        self,
        images: np.ndarray | jax.Array,
        keep_BxL: np.ndarray | jax.Array,
        labels: Sequence[int | str | None] | np.ndarray | jax.Array,
        key: jax.Array,
        retold: bool = True,
        **settings: Any,
    ) -> jax.Array:
        """Pictures [B, H, W, 3] float32 in [0, 1] whose kept tokens tell `images`, and whose others are drawn.

        Args:
          images: [B, H, W, 3] as for `encode`.
          keep_BxL: bool; True where the picture's own token stays, see `generation.masks`.
          labels, key, **settings: as for `generate`.
          retold: kept tokens are told anew at each scale, of what is then still untold; without it they are
            those of `encode`, as in the reference.

        Raises:
          InputError: as `encode` and `generate`, or for a `keep_BxL` of another shape.
        """
        images, length = self._checked_images(images), self.tokenizer.config.pyramid.length
        given = self._checked(labels, key, **settings)
        expected, keep_BxL = (len(images), length), _as_array("keep", keep_BxL)
        if keep_BxL.shape != expected or keep_BxL.dtype != bool or len(given["labels_B"]) != len(images):
            raise InputError(
                f"keep of shape {keep_BxL.shape} and type {keep_BxL.dtype} with {len(given['labels_B'])} labels: "
                f"expected {expected} of bool and {len(images)} labels"
            )
        return editing.redraw(*self._parts, jnp.asarray(images), jnp.asarray(keep_BxL), retold=retold, **given).images

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
        guidance: float = 3.0,
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
          edge: width in pixels of the soft edge around the region; None: a 32nd of what the model is shown. Beyond
            it every byte stays.
          factor: of "upscale".
          guidance, **settings: as for `generate`; without a label guidance changes nothing.

        Raises:
          InputError: naming what cannot be.
        """
        image, config = np.asarray(image), self.tokenizer.config
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise InputError(f"image of shape {image.shape} and type {image.dtype}: expected uint8 [H, W, 3]")
        if task not in editing.TASKS:
            raise InputError(f"task '{task}': there is no such task; expected one of {', '.join(editing.TASKS)}")
        if task == "class" and label is None:
            raise InputError("task class: needs the class that the region is to become")

        calls = itertools.count()

        def redraw(images: np.ndarray, keep: np.ndarray) -> np.ndarray:
            keys = sampler.picture_keys(jax.random.fold_in(key, next(calls)), len(images))

            def redrawn(rows: np.ndarray) -> jax.Array:
                if keep.all():  # nothing is left to the transformer
                    return self.decode(self.encode(images[rows]))
                given = images[rows], keep[rows], [label] * len(rows), keys[rows]
                return self.redraw(*given, guidance=guidance, **settings)

            parts = batches(len(images), _WINDOWS_AT_A_TIME)
            return np.concatenate([np.asarray(redrawn(rows))[:new] for rows, new in parts])

        shape = redraw, config.pyramid, config.image_size
        if task == "upscale":
            return upscaling.upscale(*shape, image[None], factor, keep_scales)[0]
        region = editing.region_of(task, mask, image.shape[:2])
        if keep_scales is None:
            keep_scales = len(config.pyramid) // 2 if task == "vary" else 0
        return editing.edit(*shape, image, region, keep_scales, dilate, edge)

    @functools.cached_property
    def _parts(self) -> tuple[Tokenizer, Transformer | None, Params, Params | None]:
        """Modules and parameters as the programs take them."""
        params = self.transformer_params
        return self.tokenizer, self.transformer, self.tokenizer_params, params and for_sampling(params)

    def _checked(
        self,
        labels: Any,
        key: jax.Array,
        guidance: float = 1.5,
        top_k: PerScale = 900,
        top_p: PerScale = 0.96,
        temperature: PerScale = 1.0,
        smooth: bool = False,
        schedule: Schedule | str = LINEAR,
    ) -> dict[str, Any]:
        """What the sampler takes, by name."""
        labels_B = self._checked_labels(labels)
        config = self.transformer.config
        numbers = (guidance, top_k, top_p, temperature, schedule)
        settings = make_controls(config.pyramid, config.codebook_size, *numbers)
        key = _checked_key(key, labels_B.shape[0])
        # Without a class both halves of guidance are equal, so the batch need not be doubled.
        guided = guidance != 0 and not np.all(np.asarray(labels_B) == config.no_class)
        if self.mesh is not None:
            rows = batch_sharding(self.mesh)
            labels_B = jax.device_put(labels_B, rows)
            key = jax.device_put(sampler.picture_keys(key, labels_B.shape[0]), rows)
        return {"labels_B": labels_B, "key": key, "settings": settings, "guided": guided, "smooth": smooth}

    def _checked_images(self, images: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        size, images = self.tokenizer.config.image_size, _as_array("images", images)
        shape, kind = images.shape, images.dtype
        if len(shape) != 4 or shape[1:] != (size, size, 3) or not shape[0]:
            raise InputError(f"images of shape {shape}: expected [B, {size}, {size}, 3]")
        if kind != np.uint8:
            if not jnp.issubdtype(kind, jnp.floating):
                raise InputError(f"images of type {kind}: expected uint8, or float in [0, 1]")
            low, high = float(jnp.min(images)), float(jnp.max(images))
            if not (low >= 0.0 and high <= 1.0):
                raise InputError(f"float images range from {low:g} to {high:g}: expected [0, 1]")
        return images

    def _checked_tokens(self, tokens_BxL: np.ndarray | jax.Array) -> jax.Array:
        config, tokens_BxL = self.tokenizer.config, _as_array("tokens", tokens_BxL)
        shape = tokens_BxL.shape
        if len(shape) != 2 or shape[1] != config.pyramid.length or not shape[0]:
            raise InputError(f"tokens of shape {shape}: expected [B, {config.pyramid.length}]")
        if not jnp.issubdtype(tokens_BxL.dtype, jnp.integer):
            raise InputError(f"tokens of type {tokens_BxL.dtype}: expected integers")
        low, high = int(tokens_BxL.min()), int(tokens_BxL.max())
        if low < 0 or high >= config.codebook_size:
            raise InputError(f"tokens range from {low} to {high}: the codebook has 0 to {config.codebook_size - 1}")
        return jnp.asarray(tokens_BxL, jnp.int32)

    def _checked_labels(self, labels: Sequence[int] | np.ndarray | jax.Array) -> jax.Array:
        if self.transformer is None:
            raise InputError("this model has a tokenizer only: import a transformer with it to sample")
        classes = self.transformer.config.num_classes
        labels_B = np.asarray(_as_array("labels", class_ids(labels, classes, self.class_names)))
        if labels_B.ndim != 1 or not labels_B.size or not np.issubdtype(labels_B.dtype, np.integer):
            raise InputError(
                f"labels of shape {labels_B.shape} and type {labels_B.dtype}: expected a list of class ids"
            )
        for label in labels_B:
            if not 0 <= label <= classes:
                raise InputError(f"class id {label}: expected 0 to {classes - 1}, or {classes} for no class")
        return jnp.asarray(labels_B, jnp.int32)


def _as_array(name: str, value: Any) -> np.ndarray | jax.Array:
    """The value as an array, numpy's unless it is on a device already: numpy keeps numbers beyond 32 bits."""
    try:
        return value if isinstance(value, jax.Array) else np.asarray(value)
    except ValueError:
        raise InputError(f"{name}: expected an array, got a list with rows of different lengths") from None


def _checked_key(key: jax.Array, batch: int) -> jax.Array:
    if not jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key):
        raise InputError("key: expected one made by jax.random.key(seed), or an array of such keys")
    if key.shape not in ((), (batch,)):
        raise InputError(f"key of shape {key.shape}: expected one key, or {batch} of them")
    return key


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logits(
    tokenizer: Tokenizer,
    transformer: Transformer,
    tokenizer_params: Params,
    transformer_params: Params,
    labels_B: jax.Array,
    tokens_BxL: jax.Array,
) -> jax.Array:
    quantizer = tokenizer.bind({"params": tokenizer_params}).quantizer
    inputs = teacher_inputs(quantizer, tokens_BxL, transformer.config.inputs)
    return transformer.apply({"params": transformer_params}, labels_B, inputs)
