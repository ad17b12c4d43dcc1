"""Batches of any dataset, for training in the order of (seed, epoch) and for evaluation."""

import math
from collections.abc import Callable

from kzoo.data.seeds import StepSeeds, epoch_order, shuffle_seed
from kzoo.data.split import Split

CACHE_LIMIT_BYTES = 2 * 2**30
SHUFFLE_BUFFER = 50_000  # examples among which the next one is drawn
SHUFFLE_BYTES = 2**30  # and what they may take: of ImageNet's files of 110 kB, say, 9,800
MEASURED = 64  # examples at the beginning, whose size stands for that of all


def training_batches(split: Split, batch_size: int, prepare: Callable, *, seed: int, epochs: range, first: int = 0):
    """The batches of all `epochs`, one after the other, each epoch in an order of its own and without its last,
    smaller batch.

    Args:
        split: the training images.
        batch_size: images per step.
        prepare: `(examples, seeds) -> (images, targets)`, of a batch and `StepSeeds`; called in parallel.
        seed: of the run. What comes out is a function of it, of the epoch and of the step, for any number of threads.
        epochs: counted from zero, consecutive.
        first: number of batches of the first epoch that are left out, as they were seen.

    Returns:
        A `tf.data.Dataset` of `len(epochs) * (split.size // batch_size) - first` batches.
    """
    import tensorflow as tf

    steps = split.size // batch_size
    examples = _examples(split, steps * batch_size, seed, epochs, first * batch_size)
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


def _examples(split: Split, count: int, seed: int, epochs: range, seen: int):
    """The first `count` examples of each epoch's order, but the first `seen` of the first epoch."""
    import tensorflow as tf

    if not _fits(split):
        buffer = _buffer(split)
        streams = [
            split.source.shuffle(buffer, seed=shuffle_seed(seed, epoch), reshuffle_each_iteration=False)
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
        (indices,) = tf.numpy_function(
            lambda number: epoch_order(seed, int(number), split.size)[seen * (number == epochs.start) : count],
            [epoch],
            [tf.int64],
        )
        return tf.data.Dataset.from_tensor_slices(tf.ensure_shape(indices, (None,)))

    def read(index):
        return {name: array[index] for name, array in arrays.items()}

    numbers = tf.data.Dataset.range(epochs.start, epochs.stop)
    return numbers.flat_map(order).map(read, num_parallel_calls=tf.data.AUTOTUNE)
