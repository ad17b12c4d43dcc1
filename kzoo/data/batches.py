"""Batches of any dataset, for training in the order of (seed, epoch) and for evaluation."""

import math
from collections.abc import Callable

import numpy as np

from kzoo.data.seeds import StepSeeds, balanced_order, epoch_order, shuffle_seed
from kzoo.data.split import Split

CACHE_LIMIT_BYTES = 2 * 2**30
SHUFFLE_BUFFER = 50_000  # examples among which the next one is drawn
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
):
    """The batches of all `epochs`, one after the other, each epoch in an order of its own and without its last,
    smaller batch.

    Args:
        split: the training images.
        batch_size: images per step.
        prepare: `(examples, seeds) -> (images, targets)`, of a batch and `StepSeeds`; called in parallel.
        seed: of the run. What comes out is a function of it, of the epoch and of the step, for any number of threads.
        epochs: counted from zero, consecutive.
        first: number of batches of the first epoch that are left out, as they were seen.
        labels: class of each image, for each class to come equally often; None to see each image once.

    Returns:
        A `tf.data.Dataset` of `len(epochs) * (split.size // batch_size) - first` batches.
    """
    import tensorflow as tf

    steps = split.size // batch_size
    examples = _examples(split, steps * batch_size, seed, epochs, first * batch_size, labels)
    numbers = tf.data.Dataset.range(epochs.start * steps + first, epochs.stop * steps)

    def numbered(number, batch):
        return prepare(batch, StepSeeds(seed, number // steps, number % steps))

    dataset = tf.data.Dataset.zip(numbers, examples.batch(batch_size, drop_remainder=True))
    return dataset.map(numbered, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(split: Split, batch_size: int, prepare: Callable):
    """A `tf.data.Dataset` of what `prepare` makes of batches of examples: all of them, in their order."""
    import tensorflow as tf

    dataset = split.dataset.cache() if _fits(split) else split.dataset
    return dataset.batch(batch_size).map(prepare, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _fits(split: Split) -> bool:
    """Whether the images are kept in memory."""
    height, width, channels = split.dataset.element_spec["image"].shape
    return split.size * height * width * channels < CACHE_LIMIT_BYTES


def _buffer(split: Split) -> int:
    """How many examples, not yet decoded, are kept to draw the next one from."""
    first = [
        sum(len(value) if isinstance(value, bytes) else value.nbytes for value in element.values())
        for element in split.source.take(MEASURED).as_numpy_iterator()
    ]
    return max(1, min(split.size, SHUFFLE_BUFFER, SHUFFLE_BYTES // max(1, math.ceil(sum(first) / len(first)))))


def _examples(split: Split, count: int, seed: int, epochs: range, seen: int, labels: np.ndarray | None):
    """The first `count` examples of each epoch's order, but the first `seen` of the first epoch."""
    import tensorflow as tf

    def order_of(epoch: int) -> np.ndarray:
        if labels is None:
            return epoch_order(seed, epoch, split.size)[:count]
        return balanced_order(seed, epoch, labels, count)

    def computed(numbers: Callable[[int], np.ndarray], epoch):
        """A dataset of the numbers of an epoch, which are computed when it comes."""
        (found,) = tf.numpy_function(lambda number: numbers(int(number)), [epoch], [tf.int64])
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(found, (None,)))

    def source_of(epoch: int):
        """The elements that an epoch sees, in the order of the split."""
        if labels is None:
            return split.source
        times = tf.data.Dataset.from_tensors(epoch).flat_map(
            lambda epoch: computed(lambda number: np.bincount(order_of(number), minlength=split.size), epoch)
        )
        pairs = tf.data.Dataset.zip(split.source, times)
        return pairs.flat_map(lambda element, count: tf.data.Dataset.from_tensors(element).repeat(count))

    if not _fits(split):
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
        return split.decoded(shuffled)  # so that the buffer holds names of files and no pixels

    with tf.device("CPU"):
        arrays = {name: tf.constant(array) for name, array in split.arrays().items()}

    def order(epoch):
        return computed(lambda number: order_of(number)[seen * (number == epochs.start) :], epoch)

    def read(index):
        return {name: array[index] for name, array in arrays.items()}

    numbers = tf.data.Dataset.range(epochs.start, epochs.stop)
    return numbers.flat_map(order).map(read, num_parallel_calls=tf.data.AUTOTUNE)
