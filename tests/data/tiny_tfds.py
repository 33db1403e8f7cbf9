"""A TFDS data set of a few flat pictures, written as ArrayRecord files without TensorFlow."""

from __future__ import annotations

import io

import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

NAMES = ("ash", "birch", "cedar")


def flat_picture(value, mode="RGB"):
    """A PNG file of 9 x 7 pixels of one colour; TFDS needs TensorFlow to encode arrays, but not to store files."""
    file = io.BytesIO()
    Image.new(mode, (9, 7), (value,) * 3 if mode == "RGB" else value).save(file, "PNG")
    file.seek(0)
    return file


class TinyTrees(tfds.core.GeneratorBasedBuilder):
    """24 training examples, picture i having the colour i and the class i modulo 3; a validation split of 5."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = {"train": 24, "validation": 5}
    code_path = epath.Path(__file__)  # TFDS would look it up by a package that it does not install itself

    def _info(self):
        features = {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=NAMES),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(count) for split, count in self.SPLITS.items()}

    def _generate_examples(self, count):
        for i in range(count):
            mode = "L" if i % 4 == 3 else "RGB"
            yield str(i), {"image": flat_picture(i, mode), "label": i % 3, "file_name": f"{i}.png"}


class TinyTreesWithoutValidation(TinyTrees):
    """The same with "train" and "test" only."""

    SPLITS = {"train": 24, "test": 5}


class TinySounds(TinyTrees):
    """Examples without a picture."""

    def _info(self):
        features = {"sound": tfds.features.Text(), "label": tfds.features.ClassLabel(names=NAMES)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, count):
        for i in range(count):
            yield str(i), {"sound": "moo", "label": i % 3}


class TinyDrawings(TinyTrees):
    """Needs TensorFlow to be prepared, as most published data sets do."""

    def _generate_examples(self, count):
        import tensorflow

        yield "0", {"image": tensorflow.io.gfile.GFile("0.png", "rb"), "label": 0, "file_name": "0.png"}
