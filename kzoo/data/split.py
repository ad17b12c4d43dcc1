"""The examples of a dataset in their splits, whatever they come from.

example: a dict of one picture and what is known of it: `image`, uint8 (height, width, 3), and `label`, the number of
its class, or of several labels uint8 (classes,) of 0 and 1, or `mask`, uint8 (height, width), the number of the class
of each pixel.
"""

import abc
import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from kzoo.data.division import strata
from kzoo.errors import DatasetError, InvalidValueError, KzooError
from kzoo.images import RandomCrop

VOID = 255  # in masks, of pixels that are neither trained on nor counted
Example = dict[str, np.ndarray]  # of one example, or of a batch
Specs = Mapping[str, tuple[tuple[int, ...], str]]  # shape and type of each array of an example
Fit = Callable[[Image.Image], np.ndarray]  # a picture -> the image
READ_AT_ONCE = 256
DRAWN_FROM = 20_000  # images at the beginning of a split among which a few are chosen


class File(NamedTuple):
    """Where an example lies, as text that can be written anywhere.

    Attributes:
        path: from the dataset's folder, with `/` between folders.
        label: name of its class, or of several with the table's separator between them, or path of its mask.
    """

    path: str
    label: str


class Split(abc.ABC):
    """Examples of one split, in an order of their own, decoded only when they are asked for.

    Attributes:
        size: number of examples.
        specs: (shape, type) of each array of an example, by its name.
        files: of the examples, in their order; None where they are no files.
        decode: what makes an example of an element; None where it is one.
    """

    size: int
    specs: Specs
    decode: Callable[..., Example] | None
    files: tuple[File, ...] | None = None

    @abc.abstractmethod
    def pick(self, numbers: np.ndarray) -> "Split":
        """The examples with these numbers, in the order of the split; no other is decoded."""

    @abc.abstractmethod
    def followed_by(self, other: Any) -> "Split":
        """These examples and then those of another split of the same dataset."""

    @abc.abstractmethod
    def batches(self, batch_size: int) -> Iterator[Example]:
        """All examples in their order, decoded in parallel, `batch_size` at a time and the rest at last.

        Raises:
            DatasetError: a file that cannot be read, which it names.
        """

    @abc.abstractmethod
    def check(self) -> None:
        """Decodes every file of one's own once, and raises what `batches` would; those of TFDS were written by it."""

    @abc.abstractmethod
    def _labels(self, most: int) -> np.ndarray:
        """The label of each of the first images; the same for all that have none."""

    def take(self, count: int, seed: int = 0) -> "Split":
        """`count` examples drawn by `seed`, of each class its share; of a huge split from its beginning alone."""
        if count >= self.size:
            return self
        return self.pick(draw(strata(self._labels(max(count, DRAWN_FROM))), count, seed))

    def arrays(self, count: int | None = None, seed: int = 0) -> Example:
        """The examples in memory, an array (n, ...) for each name: all, or those of `take`.

        Raises:
            DatasetError: a file that cannot be read, which it names.
        """
        split = self if count is None else self.take(count, seed)
        batches = list(split.batches(READ_AT_ONCE))
        return {name: np.concatenate([batch[name] for batch in batches]) for name in self.specs}

    @property
    def crops(self) -> bool:
        """Whether random parts of pictures can be read: from files, not from arrays in memory."""
        return self.decode is not None

    def cropped(self, crop: RandomCrop) -> "Split":
        """Random parts of the pictures; an element has a `draw` more, the number that its part follows from."""
        whole: Any = self  # a dataclass
        decode = functools.partial(_decode_part, self.decode, crop)
        return dataclasses.replace(whole, decode=decode, specs={**self.specs, "image": (crop.shape, "uint8")})

    @functools.cached_property
    def in_memory(self) -> "IndexedSplit":
        """The examples decoded in memory, once however often they are asked for."""
        return IndexedSplit.of_arrays(self.arrays(), self.files)

    def labels(self) -> np.ndarray:
        """The `label` of each example, (size, ...), read without decoding pictures."""
        return self._labels(self.size)


@dataclasses.dataclass(frozen=True)
class IndexedSplit(Split):
    """Examples that can be read in any order: files, or arrays in memory.

    Attributes:
        elements: what is known of each example before it is decoded, an array (size, ...) for each name.
        specs: of the examples.
        decode: function from the entries of one element, by name, to an example; None where they are one. An
            `InvalidValueError` of it names the file. Of images by class it takes `fit` too, a function from a picture
            to the image.
        files: of the examples.
    """

    elements: Mapping[str, np.ndarray]
    specs: Specs
    decode: Callable[..., Example] | None = None
    files: tuple[File, ...] | None = None

    @classmethod
    def of_arrays(cls, arrays: Example, files: tuple[File, ...] | None = None) -> "IndexedSplit":
        """Examples that are in memory."""
        return cls(arrays, {name: (array.shape[1:], array.dtype.name) for name, array in arrays.items()}, files=files)

    @property
    def size(self) -> int:  # type: ignore[override]
        return len(next(iter(self.elements.values())))

    def pick(self, numbers: np.ndarray) -> "IndexedSplit":
        chosen = np.unique(numbers)
        elements = {name: array[chosen] for name, array in self.elements.items()}
        return dataclasses.replace(
            self, elements=elements, files=self.files and tuple(self.files[index] for index in chosen)
        )

    def followed_by(self, other: "IndexedSplit") -> "IndexedSplit":
        elements = {name: np.concatenate([array, other.elements[name]]) for name, array in self.elements.items()}
        files = None if self.files is None or other.files is None else self.files + other.files
        return dataclasses.replace(self, elements=elements, files=files)

    def read(self, number: int) -> Example:
        """One example.

        Raises:
            DatasetError: its file cannot be read.
        """
        element = {name: array[number] for name, array in self.elements.items()}
        return element if self.decode is None else decoded(self.decode, element)

    def gather(self, numbers: np.ndarray) -> Example:
        """The examples with these numbers, in this order, as arrays (n, ...).

        Raises:
            DatasetError: a file that cannot be read.
        """
        if self.decode is None:
            return {name: array[numbers] for name, array in self.elements.items()}
        examples = [self.read(number) for number in numbers]
        return {name: np.stack([example[name] for example in examples]) for name in self.specs}

    def check(self) -> None:
        for _ in self.batches(READ_AT_ONCE) if self.decode else ():
            pass

    def batches(self, batch_size: int) -> Iterator[Example]:
        starts = range(0, self.size, batch_size)
        parts = (np.arange(start, min(start + batch_size, self.size)) for start in starts)
        if self.decode is None:
            yield from map(self.gather, parts)
            return
        with ThreadPoolExecutor() as pool:  # Pillow decodes without Python's lock
            for part in parts:
                examples = list(pool.map(self.read, part))
                yield {name: np.stack([example[name] for example in examples]) for name in self.specs}

    def _labels(self, most: int) -> np.ndarray:
        count = min(self.size, most)
        return self.elements["label"][:count] if "label" in self.elements else np.zeros(count, int)


@dataclasses.dataclass(frozen=True)
class StreamedSplit(Split):
    """Examples that come one after the other, of TFDS.

    Attributes:
        source: `tf.data.Dataset` of dicts: what is known of each example before it is decoded, by name.
        size: number of examples.
        specs: of the examples.
        decode: as of `IndexedSplit`.
    """

    source: Any
    size: int
    specs: Specs
    decode: Callable[..., Example] | None = None

    def decoded(self, source):
        """A `tf.data.Dataset` of the examples of `source`, which holds elements of the split's own in any order."""
        import tensorflow as tf

        if self.decode is None:
            return source
        return source.map(decoder(self.decode, self.specs), num_parallel_calls=tf.data.AUTOTUNE)

    def pick(self, numbers: np.ndarray) -> "StreamedSplit":
        import tensorflow as tf

        chosen = np.zeros(self.size, bool)
        chosen[numbers] = True
        table, count = tf.constant(chosen), int(chosen.sum())
        source = self.source.enumerate().filter(lambda index, example: table[index])
        return dataclasses.replace(self, source=source.map(lambda index, example: example).take(count), size=count)

    def check(self) -> None:
        pass

    def followed_by(self, other: "StreamedSplit") -> "StreamedSplit":
        source = self.source.concatenate(other.source)
        return dataclasses.replace(self, source=source, size=self.size + other.size)

    def batches(self, batch_size: int) -> Iterator[Example]:
        with readable_images():
            yield from self.decoded(self.source).batch(batch_size).as_numpy_iterator()

    def _labels(self, most: int) -> np.ndarray:
        if "label" not in self.source.element_spec:
            return np.zeros(min(self.size, most), int)
        labels = self.source.take(most).map(lambda example: example["label"])
        return np.fromiter(labels.as_numpy_iterator(), int)


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """A dataset. `validation` is held out of the training images; `test` is apart from both.

    `has_test` tells whether the dataset says itself which images are for the test; if not, kzoo drew them.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Split
    validation: Split
    test: Split
    has_test: bool = dataclasses.field(default=True, kw_only=True)

    @classmethod
    def undivided(
        cls, name: str, classes: tuple[str, ...], image_shape: tuple[int, int, int], whole: Split
    ) -> "ImageDataset":
        """All examples as those of training; validation and test are empty."""
        none = whole.pick(np.empty(0, int))
        return cls(name, classes, image_shape, whole, none, none)

    @property
    def all(self) -> Split:
        """Every example once: those of training, of validation and of the test."""
        return self.train.followed_by(self.validation).followed_by(self.test)


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


def _decode_part(decode: Any, crop: RandomCrop, draw: Any, **element: Any) -> Example:
    return decode(**element, fit=lambda picture: crop(picture, int(draw)))


def decoded(decode: Callable[..., Example], element: Mapping[str, Any]) -> Example:
    """The example of an element.

    Raises:
        DatasetError: its file cannot be read.
    """
    try:
        return decode(**element)
    except InvalidValueError as error:
        raise DatasetError(f"{error}; repair or remove it") from error


def decoder(decode: Callable[..., Example], specs: Specs) -> Callable:
    """A function for `tf.data.Dataset.map` that decodes with Python.

    Args:
        decode: as of `IndexedSplit`.
        specs: of what it returns.
    """
    import tensorflow as tf

    def read(element):
        def run(*values):
            example = decoded(decode, dict(zip(element, values, strict=True)))
            return [example[name] for name in specs]

        arrays = tf.numpy_function(run, list(element.values()), [tf.as_dtype(dtype) for _, dtype in specs.values()])
        shaped = zip(specs, arrays, specs.values(), strict=True)
        return {name: tf.ensure_shape(array, shape) for name, array, (shape, _) in shaped}

    return read


@contextlib.contextmanager
def readable_images() -> Iterator[None]:
    """Gives back the error that names a file where TensorFlow hid it in one of its own while the block runs."""
    try:
        yield
    except KzooError:
        raise
    except Exception as error:
        hidden = re.search(r"DatasetError: (.*)", str(error))
        if hidden is None:
            raise
        raise DatasetError(hidden[1]) from error
