"""The examples of a dataset in their splits, whatever they come from.

example: a dict of one picture and what is known of it: `image`, uint8 (height, width, 3), and `label`, the number of
its class, or `mask`, uint8 (height, width), the number of the class of each pixel.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from kzoo.errors import DatasetError, InvalidValueError

VOID = 255  # in masks, of pixels that are neither trained on nor counted
Example = dict[str, np.ndarray]  # of one example, or of a batch
DRAWN_FROM = 20_000  # images at the beginning of a split among which a few are chosen


class File(NamedTuple):
    """Where an example lies, as text that can be written anywhere.

    Attributes:
        path: from the dataset's folder, with `/` between folders.
        label: name of its class, or path of its mask.
    """

    path: str
    label: str


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one split, in an order of their own, decoded only when they are asked for.

    Attributes:
        source: `tf.data.Dataset` of dicts: what is known of each example before it is decoded, under the names that it
            has afterwards.
        size: number of examples.
        read: function that makes an example of an element of `source`; None where it is one already.
        files: of the examples, in their order; None where they are no files.
    """

    source: Any
    size: int
    read: Callable | None = None
    files: tuple[File, ...] | None = None

    @property
    def dataset(self):
        """A `tf.data.Dataset` of examples, decoded in parallel, in the order of the split."""
        return self.decoded(self.source)

    def decoded(self, source):
        """The examples of `source`, which holds elements of the split's own in any order."""
        import tensorflow as tf

        return source if self.read is None else source.map(self.read, num_parallel_calls=tf.data.AUTOTUNE)

    def take(self, count: int, seed: int = 0) -> "Split":
        """`count` examples drawn by `seed`, of each class its share; of a huge split from its beginning alone."""
        if count >= self.size:
            return self
        return self.pick(draw(self._classes(max(count, DRAWN_FROM)), count, seed))

    def pick(self, numbers: np.ndarray) -> "Split":
        """The examples with these numbers, in the order of the split; no other is decoded."""
        import tensorflow as tf

        chosen = np.zeros(self.size, bool)
        chosen[numbers] = True
        table, count = tf.constant(chosen), int(chosen.sum())
        source = self.source.enumerate().filter(lambda index, example: table[index])
        source = source.map(lambda index, example: example).take(count)
        files = self.files and tuple(self.files[index] for index in np.flatnonzero(chosen))
        return dataclasses.replace(self, source=source, size=count, files=files)

    def arrays(self, count: int | None = None, seed: int = 0) -> Example:
        """The examples in memory, an array (n, ...) for each name: all, or those of `take`.

        Raises:
            DatasetError: a file that cannot be read, which it names.
        """
        split = self if count is None else self.take(count, seed)
        with readable_images():
            examples = list(split.dataset.as_numpy_iterator())
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

    def labels(self) -> np.ndarray:
        """The class of each example, (size,), read without decoding pictures."""
        return self._classes(self.size)

    def _classes(self, most: int) -> np.ndarray:
        """The class of each of the first images; the same for all that have no label."""
        if "label" not in self.source.element_spec:
            return np.zeros(min(self.size, most), int)
        labels = self.source.take(most).map(lambda example: example["label"])
        return np.fromiter(labels.as_numpy_iterator(), int)


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """A dataset. `validation` is held out of the training images; `test` is apart from both."""

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Split
    validation: Split
    test: Split


def draw(classes: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws `count` of the images with these classes by `seed`: of each class its share, rounded up or down.

    Returns:
        Their numbers, ascending.

    Example:
        >>> np.bincount(classes[draw(classes := np.repeat([0, 1], 50), 10, seed=0)])
        array([5, 5])
    """
    rng = np.random.default_rng(seed)
    known, ranks = np.unique(classes, return_inverse=True)
    ranks = rng.permutation(len(known))[ranks]
    shuffled = rng.permutation(len(classes))
    by_class = shuffled[np.argsort(ranks[shuffled], kind="stable")]
    # one of each `count`-th part of the line in which the classes stand one behind the other
    places = ((np.arange(count) + rng.random()) * (len(classes) / count)).astype(int)
    return np.sort(by_class[np.minimum(places, len(classes) - 1)])


def decoder(decode: Callable[..., Mapping[str, Any]], **specs: tuple[tuple[int, ...], str]) -> Callable:
    """A function for `Split.read` that decodes with Python.

    Args:
        decode: takes the entries of an element of `Split.source` by name, as NumPy values, and returns an example; an
            `InvalidValueError` of it names the file.
        specs: (shape, type) of each array of the example.
    """
    import tensorflow as tf

    def read(element):
        def run(*values):
            try:
                example = decode(**dict(zip(element, values, strict=True)))
            except InvalidValueError as error:
                raise DatasetError(f"{error}; repair or remove it") from error
            return [example[name] for name in specs]

        arrays = tf.numpy_function(run, list(element.values()), [tf.as_dtype(dtype) for _, dtype in specs.values()])
        shaped = zip(specs, arrays, specs.values(), strict=True)
        return {name: tf.ensure_shape(array, shape) for name, array, (shape, _) in shaped}

    return read


@contextlib.contextmanager
def readable_images() -> Iterator[None]:
    """Gives back the error that names a file where TensorFlow hid it in one of its own while the block runs."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        hidden = re.search(r"DatasetError: (.*)", str(error))
        if hidden is None:
            raise
        raise DatasetError(hidden[1]) from error
