"""Batches of any dataset, for training in the order of (seed, epoch) and for evaluation, for Keras' backend.

With TensorFlow they are a `tf.data.Dataset`, which computes beside the training step; otherwise a
`keras.utils.PyDataset` of `kzoo.data.engine`, and what is random is computed where the model is.
"""

import math
from collections.abc import Callable

import keras
import numpy as np

from kzoo.data.engine import ArrayBatches, StreamBatches
from kzoo.data.seeds import StepSeeds, balanced_order, epoch_order, part_draws, shuffle_seed
from kzoo.data.split import IndexedSplit, Split, StreamedSplit, decoder
from kzoo.images import RandomCrop

CACHE_LIMIT_BYTES = 2 * 2**30
SHUFFLE_BUFFER = 50_000  # examples of a stream among which the next one is drawn
SHUFFLE_BYTES = 2**30  # and what they may take: of ImageNet's files of 110 kB, say, 9,800
MEASURED = 64  # examples at the beginning, whose size stands for that of all


def training_batches(
    split: Split,
    batch_size: int,
    prepare: Callable,
    *,
    seed: int,
    epochs: range,
    first: int = 0,
    labels: np.ndarray | None = None,
    crop: RandomCrop | None = None,
):
    """The batches of all `epochs`, one after the other, each epoch in an order of its own and without its last,
    smaller batch.

    Args:
        split: the training images.
        batch_size: images per step.
        prepare: `(examples, seeds) -> (images, targets)`, of a batch and `StepSeeds`, with Keras' operations; called
            in parallel, and traced.
        seed: of the run. What comes out is a function of it, of the epoch and of the step, for any number of threads.
        epochs: counted from zero, consecutive.
        first: number of batches of the first epoch that are left out, as they were seen.
        labels: class of each image, for each class to come equally often; None to see each image once.
        crop: what reads a random part of each picture, of a split that `crops`; None for whole ones, which are kept
            in memory where they fit.

    Returns:
        `len(epochs) * (split.size // batch_size) - first` batches.
    """
    split = split.cropped(crop) if crop else in_memory(split)
    assert isinstance(split, IndexedSplit | StreamedSplit)
    steps = split.size // batch_size
    numbers = range(epochs.start * steps + first, epochs.stop * steps)

    def order_of(epoch: int) -> np.ndarray:
        if labels is None:
            return epoch_order(seed, epoch, split.size)[: steps * batch_size]
        return balanced_order(seed, epoch, labels, steps * batch_size)

    def draws_of(epoch: int) -> np.ndarray:
        return part_draws(seed, epoch, steps * batch_size)

    def numbered(number, examples):
        return prepare(examples, StepSeeds(seed, number // steps, number % steps))

    draws = draws_of if crop else None
    if isinstance(split, IndexedSplit):
        if keras.backend.backend() != "tensorflow":
            return ArrayBatches(split, batch_size, numbers, steps, order_of, numbered, draws)
        examples = _indexed(split, epochs, first * batch_size, order_of, draws)
    else:
        repeats = None if labels is None else lambda epoch: np.bincount(order_of(epoch), minlength=split.size)
        examples = _streamed(split, steps * batch_size, seed, epochs, first * batch_size, repeats, draws)
    import tensorflow as tf

    dataset = tf.data.Dataset.zip(
        tf.data.Dataset.range(numbers.start, numbers.stop), examples.batch(batch_size, drop_remainder=True)
    )
    if keras.backend.backend() != "tensorflow":
        return StreamBatches(dataset, len(numbers), numbered)
    return dataset.map(numbered, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(split: Split, batch_size: int, prepare: Callable):
    """What `prepare` makes of batches of examples, with Keras' operations: of all of them, in their order."""
    split = in_memory(split)
    count = math.ceil(split.size / batch_size)

    def order_of(epoch: int) -> np.ndarray:
        return np.arange(split.size)

    def numbered(number, examples):
        return prepare(examples)

    if isinstance(split, IndexedSplit):
        if keras.backend.backend() != "tensorflow":
            return ArrayBatches(split, batch_size, range(count), count, order_of, numbered)
        examples = _indexed(split, range(1), 0, order_of)
    else:
        examples = split.decoded(split.source)
    import tensorflow as tf

    batches = examples.batch(batch_size).apply(tf.data.experimental.assert_cardinality(count))
    if keras.backend.backend() != "tensorflow":
        return StreamBatches(batches.enumerate(), count, numbered)
    return batches.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def in_memory(split: Split) -> IndexedSplit | StreamedSplit:
    """The examples decoded in memory, once however often they are asked for, if they are few enough."""
    assert isinstance(split, IndexedSplit | StreamedSplit)
    height, width, channels = split.specs["image"][0]
    fits = split.size * height * width * channels < CACHE_LIMIT_BYTES
    return split.in_memory if fits else split


def _buffer(split: StreamedSplit) -> int:
    """How many examples, not yet decoded, are kept to draw the next one from."""
    first = [
        sum(len(value) if isinstance(value, bytes) else value.nbytes for value in element.values())
        for element in split.source.take(MEASURED).as_numpy_iterator()
    ]
    return max(1, min(split.size, SHUFFLE_BUFFER, SHUFFLE_BYTES // max(1, math.ceil(sum(first) / len(first)))))


def _computed(numbers: Callable[[int], np.ndarray], epoch):
    """A `tf.data.Dataset` of the numbers of an epoch, which are computed when it comes."""
    import tensorflow as tf

    (found,) = tf.numpy_function(lambda number: numbers(int(number)), [epoch], [tf.int64])
    return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(found, (None,)))


def _each_epoch(numbers_of: Callable[[int], np.ndarray], epochs: range, seen: int):
    """A `tf.data.Dataset` of the numbers of each epoch, but the first `seen` of the first."""
    import tensorflow as tf

    def of(epoch):
        return _computed(lambda number: numbers_of(number)[seen * (number == epochs.start) :], epoch)

    return tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(of)


def _with_draws(elements, draws: Callable[[int], np.ndarray] | None, epochs: range, seen: int):
    """Elements with the number that the part of each follows from, where there are such."""
    import tensorflow as tf

    if draws is None:
        return elements
    pairs = tf.data.Dataset.zip(elements, _each_epoch(draws, epochs, seen))
    return pairs.map(lambda element, draw: {**element, "draw": draw})


def _indexed(
    split: IndexedSplit,
    epochs: range,
    seen: int,
    order_of: Callable[[int], np.ndarray],
    draws: Callable[[int], np.ndarray] | None = None,
):
    """A `tf.data.Dataset` of the examples in each epoch's order, but the first `seen` of the first epoch."""
    import tensorflow as tf

    with tf.device("CPU"):
        elements = {name: tf.constant(array) for name, array in split.elements.items()}
    read = decoder(split.decode, split.specs) if split.decode else lambda element: element
    chosen = _each_epoch(order_of, epochs, seen).map(
        lambda index: {name: array[index] for name, array in elements.items()}
    )
    return _with_draws(chosen, draws, epochs, seen).map(read, num_parallel_calls=tf.data.AUTOTUNE)


def _streamed(
    split: StreamedSplit,
    count: int,
    seed: int,
    epochs: range,
    seen: int,
    repeats: Callable | None,
    draws: Callable[[int], np.ndarray] | None,
):
    """The first `count` examples of each epoch, drawn from a buffer, but the first `seen` of the first epoch."""
    import tensorflow as tf

    def source_of(epoch: int):
        """The elements that an epoch sees, in the order of the split."""
        if repeats is None:
            return split.source
        times = tf.data.Dataset.from_tensors(epoch).flat_map(lambda epoch: _computed(repeats, epoch))
        pairs = tf.data.Dataset.zip(split.source, times)
        return pairs.flat_map(lambda element, count: tf.data.Dataset.from_tensors(element).repeat(count))

    buffer = _buffer(split)
    streams = [
        source_of(epoch).shuffle(buffer, seed=shuffle_seed(seed, epoch), reshuffle_each_iteration=False)
        for epoch in epochs
    ]
    parts = [stream.take(count).skip(seen if number == 0 else 0) for number, stream in enumerate(streams)]
    variants = tf.stack([tf.data.experimental.to_variant(part) for part in parts])
    structure = split.source.element_spec
    shuffled = tf.data.Dataset.from_tensor_slices(variants).flat_map(
        lambda variant: tf.data.experimental.from_variant(variant, structure)
    )
    return split.decoded(
        _with_draws(shuffled, draws, epochs, seen)
    )  # so that the buffer holds what is not yet decoded
