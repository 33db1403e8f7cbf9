"""Data sets prepared by TensorFlow Datasets in ArrayRecord files, read at random and without TensorFlow.

TFDS is imported inside the functions, so that workers and commands for other data do not load it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils import epath

from var_jax.data.images import decode_image
from var_jax.data.sources import IMAGES, Identity, check_share
from var_jax.errors import InputError

# Files that have to be downloaded by hand, since their owner requires a registration.
BY_HAND = {
    "imagenet2012": (
        ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        "https://image-net.org/download-images",
    ),
}


class Tfds:
    """One split of a prepared data set with one picture and one class label per example.

    If the data set has no validation split, the last `validation_share` of its training examples are used as one; a
    split called "test" is not touched.

    Args:
      split: "train" or "validation".
      name: the data set's name in TFDS, like "imagenet2012" or "cifar10"; "name/config:version" works as well.
      data_dir: the folder it was prepared in; by default TFDS's own.
      validation_share: between 0 and 1; has no effect on a data set with a validation split.

    Raises:
      InputError: if the data set is unknown, not prepared, not in ArrayRecord files, or has no picture or label.
    """

    holds = IMAGES

    def __init__(
        self, split: str, name: str, data_dir: str | os.PathLike[str] | None = None, validation_share: float = 0.05
    ) -> None:
        import tensorflow_datasets as tfds

        check_share(validation_share)
        builder = _builder(name, data_dir)
        info = builder.info
        self._name, self._where = name, info.data_dir
        if not info.splits:
            first = _to_fetch_by_hand(builder.name, data_dir)
            raise InputError(
                f"{name}: is not prepared in {data_dir or info.data_dir}, {f'{first}, then ' if first else ''}run "
                f"{_prepare_command(name, data_dir)}"
            )
        sizes = [(key, part.num_examples, part.num_bytes) for key, part in sorted(info.splits.items())]
        self._fingerprint = hashlib.blake2b(repr((info.full_name, sizes)).encode(), digest_size=8).hexdigest()
        self._image_key, self._label_key = _keys(name, info)
        self.class_names = tuple(info.features[self._label_key].names)
        pictures = [key for key, feature in info.features.items() if isinstance(feature, tfds.features.Image)]
        decoders = dict.fromkeys(pictures, tfds.decode.SkipDecoding())  # Pillow reads more modes than TFDS
        try:
            self._records = builder.as_data_source(_instruction(name, split, info, validation_share), decoders=decoders)
        except NotImplementedError:
            raise _not_random_access(name, info) from None

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Picture `index` as uint8 [H, W, 3] at its original size, and its class id; an error names the picture."""
        example = self._records[index]
        picture = decode_image(example[self._image_key], f"{self._name}: picture {index} in {self._where}")
        return np.asarray(picture, np.uint8), int(example[self._label_key])

    def labels(self) -> np.ndarray:
        """[N] int32 class ids of all pictures; reads every record, but decodes no picture."""
        return np.array([self._records[i][self._label_key] for i in range(len(self))], np.int32)

    def identity(self) -> Identity:
        """Number of pictures, and a fingerprint of the data set's name, version and sizes as TFDS recorded them."""
        return {"": (len(self), self._fingerprint)}


def prepare(name: str, data_dir: str | os.PathLike[str], manual_dir: str | os.PathLike[str] | None = None) -> Any:
    """Downloads a data set and writes it as ArrayRecord files under `data_dir`, unless that was done before.

    Args:
      name: the data set's name in TFDS.
      data_dir: the folder to write it to.
      manual_dir: the folder of files downloaded by hand; by default `data_dir`/downloads/manual.

    Returns:
      TFDS's description of the data set (`DatasetInfo`).

    Raises:
      InputError: if the data set is unknown, a file to be downloaded by hand is missing, or TFDS lacks a package to
        prepare this data set: TensorFlow for most, though not to read it afterwards.
    """
    import tensorflow_datasets as tfds

    builder = _builder(name, data_dir)
    if builder.info.splits:
        if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            raise _not_random_access(name, builder.info)
        return builder.info
    if first := _to_fetch_by_hand(builder.name, data_dir, manual_dir):
        raise InputError(f"{name}: {first} first")
    config = tfds.download.DownloadConfig(manual_dir=None if manual_dir is None else os.fspath(manual_dir))
    try:
        with _missing_package(name):
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except (OSError, AssertionError, tfds.download.DownloadError) as error:
        raise InputError(f"{name}: could not be downloaded and prepared ({' '.join(str(error).split())})") from error
    return builder.info


def _builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    import tensorflow_datasets as tfds

    where = None if data_dir is None else os.fspath(data_dir)
    try:
        with _missing_package(name):
            return tfds.builder(name, data_dir=where)
    except tfds.core.registered.DatasetNotFoundError:
        raise InputError(
            f"{name}: TFDS knows no data set of that name, and {where or 'its default folder'} holds none"
        ) from None


@contextlib.contextmanager
def _missing_package(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        package = getattr(error, "name", None) or "tensorflow"
        package = "tensorflow" if package.startswith("tensorflow") else package.split(".")[0]
        raise InputError(
            f"{name}: TFDS needs the package {package} to prepare this data set (not to read it afterwards), "
            f"run 'pip install {package}' where you prepare it"
        ) from None


def _to_fetch_by_hand(
    name: str, data_dir: str | os.PathLike[str] | None, manual_dir: str | os.PathLike[str] | None = None
) -> str:
    """Instructions for files that have to be downloaded by hand and are missing; empty if none are."""
    files, page = BY_HAND.get(name, ((), ""))
    folder = epath.Path(manual_dir or epath.Path(data_dir or "DIR") / "downloads" / "manual")
    missing = [file for file in files if not (folder / file).exists()]
    return f"put {' and '.join(missing)} from {page} into {folder}" if missing else ""


def _not_random_access(name: str, info: Any) -> InputError:
    return InputError(
        f"{name}: was prepared in {info.data_dir} as {info.file_format.value}, which cannot be read at random; "
        f"prepare it in another folder by {_prepare_command(name, None)}"
    )


def _prepare_command(name: str, data_dir: str | os.PathLike[str] | None) -> str:
    return f"'var-jax data prepare --name {name} --data-dir {data_dir or 'DIR'}'"


def _keys(name: str, info: Any) -> tuple[str, str]:
    """The keys of an example's picture and class."""
    import tensorflow_datasets as tfds

    keys = info.supervised_keys or ()
    image_key, label_key = keys if [type(key) for key in keys] == [str, str] else ("image", "label")
    for key, what, feature in (
        (image_key, "picture", tfds.features.Image),
        (label_key, "class", tfds.features.ClassLabel),
    ):
        if not (key in info.features and isinstance(info.features[key], feature)):
            raise InputError(
                f"{name}: its examples have no {what} '{key}' (they have {', '.join(sorted(info.features))})"
            )
    return image_key, label_key


def _instruction(name: str, split: str, info: Any, share: float) -> str:
    """The examples of the split, in TFDS's notation."""
    if split in info.splits and "validation" in info.splits:
        return split
    if "train" not in info.splits:
        raise InputError(f"{name}: was prepared without the split 'train' (it has {', '.join(info.splits)})")
    count = info.splits["train"].num_examples
    if count < 2:
        raise InputError(f"{name}: has {count} training example(s), at least 2 are needed to split off a validation")
    held_out = min(max(round(count * share), 1), count - 1)
    return f"train[:{count - held_out}]" if split == "train" else f"train[{count - held_out}:]"
