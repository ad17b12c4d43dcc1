"""What a training step sees is a function of (seed, epoch, step): of no thread, no moment and no step before."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kzoo.layers
from kzoo.data import batches
from kzoo.data.augment import Augmentation
from kzoo.data.batches import evaluation_batches, training_batches
from kzoo.data.seeds import EpochSeeds, balanced_order, epoch_order, random_states
from kzoo.data.split import IndexedSplit, Split, StreamedSplit
from kzoo.recipe import Augment

SIZE, BATCH = 43, 8
STEPS = SIZE // BATCH


@pytest.fixture(params=["in memory", "as a stream"])
def split(request, monkeypatch) -> Split:
    """Images whose pixels are the number of the image, with that number as label; kept in memory, or not."""
    if request.param == "as a stream":
        monkeypatch.setattr(batches, "CACHE_LIMIT_BYTES", 0)
    numbers = np.arange(SIZE)
    images = np.broadcast_to(numbers.astype("uint8")[:, None, None, None], (SIZE, 6, 5, 3)).copy()
    return IndexedSplit.of_arrays({"image": images, "label": numbers})


def labels(split, seed, epochs) -> np.ndarray:
    """(epochs, steps * batch) labels in the order of training; each of the image that it came with."""
    dataset = training_batches(
        split, BATCH, lambda examples, _: (examples["image"], examples["label"]), seed=seed, epochs=epochs
    )
    found = list(dataset.as_numpy_iterator())
    assert len(found) == len(epochs) * STEPS
    for images, numbers in found:
        np.testing.assert_array_equal(images[:, 3, 2, 1], numbers)
    return np.concatenate([numbers for _, numbers in found]).reshape(len(epochs), STEPS * BATCH)


def test_every_epoch_has_an_order_of_its_own_that_follows_from_the_seed(split):
    orders = labels(split, 1, range(4))
    np.testing.assert_array_equal(labels(split, 1, range(4)), orders)
    assert len({order.tobytes() for order in orders}) == 4, "shuffled anew in each epoch"
    for order in orders:
        assert len(set(order)) == STEPS * BATCH, "no image twice in an epoch"
    assert set(orders.ravel()) == set(range(SIZE)), "whom the last, smaller batch leaves out changes"
    assert (labels(split, 2, range(4)) != orders).mean() > 0.9


def test_an_epoch_is_the_same_whether_or_not_the_ones_before_were_run(split):
    whole = labels(split, 5, range(4))
    for done in (1, 3):
        np.testing.assert_array_equal(labels(split, 5, range(done, 4)), whole[done:])


def test_an_order_has_no_memory_of_the_order_of_the_examples():
    """Uniform: over many epochs every image is as often early as late."""
    places = np.array([np.argsort(epoch_order(0, epoch, 50)) for epoch in range(400)])
    # the mean of 400 uniform places has a standard deviation of 50 / sqrt(12) / 20 = 0.72
    assert np.abs(places.mean(axis=0) - 24.5).max() < 5 * 0.72
    assert (np.diff(places, axis=0) == 0).mean() < 0.05


CLASSES = np.repeat([7, 0, 2], [30, 9, 4])  # of the 43 images; class 1 never occurs


def balanced(split, seed, epochs) -> np.ndarray:
    """(epochs, steps * batch) numbers of images in the order of training, each class equally often."""
    dataset = training_batches(
        split, BATCH, lambda examples, _: examples["label"], seed=seed, epochs=epochs, labels=CLASSES
    )
    return np.concatenate(list(dataset.as_numpy_iterator())).reshape(len(epochs), STEPS * BATCH)


def test_each_class_comes_equally_often_and_each_image_of_it(split):
    orders = balanced(split, 1, range(4))
    for order in orders:
        assert sorted(np.bincount(CLASSES[order], minlength=8)[[0, 2, 7]]) == [13, 13, 14], "of 40 images"
        for label in (7, 0, 2):
            times = np.bincount(order, minlength=SIZE)[label == CLASSES]
            assert np.ptp(times) <= 1, "of a class no image comes again before all others came"
    assert len({order.tobytes() for order in orders}) == 4
    np.testing.assert_array_equal(balanced(split, 1, range(2, 4)), orders[2:])
    assert (balanced(split, 2, range(4)) != orders).any()


def test_no_class_always_gets_the_images_that_are_left_over():
    most = [np.bincount(CLASSES[balanced_order(0, epoch, CLASSES, 40)]).argmax() for epoch in range(100)]
    assert {label: 15 < most.count(label) < 55 for label in (0, 2, 7)} == dict.fromkeys((0, 2, 7), True)


def test_changes_do_not_depend_on_the_number_of_threads(split):
    augment = Augmentation(Augment(("flip", "translate")))

    def prepare(examples, seeds):
        return augment(tf.cast(examples["image"], tf.float32) + tf.range(5.0)[:, None], seeds), examples["label"]

    dataset = training_batches(split, BATCH, prepare, seed=3, epochs=range(3))
    reference = [images for images, _ in dataset.as_numpy_iterator()]
    assert len({images.tobytes() for images in reference}) == 3 * STEPS
    for threads in (1, 2, 7):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        again = [images for images, _ in dataset.with_options(options).as_numpy_iterator()]
        np.testing.assert_array_equal(again, reference)
    later = training_batches(split, BATCH, prepare, seed=3, epochs=range(1, 3))
    np.testing.assert_array_equal([images for images, _ in later.as_numpy_iterator()], reference[STEPS:])


def test_evaluation_sees_all_images_in_their_order(split):
    found = list(evaluation_batches(split, BATCH, lambda examples: examples).as_numpy_iterator())
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in found]), np.arange(SIZE))
    np.testing.assert_array_equal(np.concatenate([batch["image"] for batch in found]), split.arrays()["image"])


def test_dropout_and_stochastic_depth_start_each_epoch_from_its_seed():
    inputs = keras.Input((40,))
    x = keras.layers.Dropout(0.5, name="first")(inputs)
    x = keras.layers.Dropout(0.5, name="second")(x)
    model = keras.Model(inputs, kzoo.layers.DropPath(0.5, name="path")(x))
    model.compile("sgd", "mse", metrics=["mae"])
    ones = np.ones((16, 40), "float32")

    def masks(seed, epoch):
        callback = EpochSeeds(seed)
        callback.set_model(model)
        callback.on_epoch_begin(epoch)
        return np.stack([model(ones, training=True) for _ in range(2)])

    assert len(random_states(model)) == 3
    first = masks(0, 0)
    assert not np.array_equal(*first), "a step later they differ"
    np.testing.assert_array_equal(masks(0, 0), first)
    for other in (masks(0, 1), masks(1, 0)):
        assert not np.array_equal(other, first)
    names = ("first", "second")
    drawn = [np.asarray(model.get_layer(name)(ones, training=True)) for name in names]
    assert not np.array_equal(*drawn), "each layer has a seed of its own"


def test_keras_knows_how_many_batches_an_evaluation_has(split):
    batches = evaluation_batches(split, BATCH, lambda examples: examples["label"])
    assert len(batches) == len(list(batches)) == -(-SIZE // BATCH)


@pytest.mark.parametrize("first", [0, 3])
def test_a_stream_gives_other_backends_the_batches_of_tensorflow(first, monkeypatch):
    """TFDS sets that do not fit into memory; an iteration that begins anew begins with the first batch again."""
    pytest.importorskip("jax")
    monkeypatch.setattr(batches, "CACHE_LIMIT_BYTES", 0)
    source = tf.data.Dataset.from_tensor_slices(
        {"image": np.zeros((SIZE, 6, 5, 3), "uint8"), "label": np.arange(SIZE)}
    )
    stream = StreamedSplit(source, SIZE, {"image": ((6, 5, 3), "uint8"), "label": ((), "int64")})

    def numbers() -> list:
        options = dict(seed=2, epochs=range(1, 3), first=first)
        training = training_batches(stream, BATCH, lambda examples, _: (examples["label"],) * 2, **options)
        evaluation = evaluation_batches(stream, BATCH, lambda examples: (examples["label"],) * 2)
        return [[np.asarray(labels).tolist() for labels, _ in found] for found in (training, evaluation, evaluation)]

    expected = numbers()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert numbers() == expected
    assert [len(found) for found in expected] == [2 * STEPS - first, STEPS + 1, STEPS + 1]


def test_images_are_decoded_into_memory_once():
    read = []

    def decode(label):
        read.append(int(label))
        return {"image": np.full((6, 5, 3), label, "uint8"), "label": label}

    split = IndexedSplit({"label": np.arange(SIZE)}, {"image": ((6, 5, 3), "uint8"), "label": ((), "int64")}, decode)
    for _ in range(2):
        next(iter(evaluation_batches(split, BATCH, lambda examples: examples)))
        next(iter(training_batches(split, BATCH, lambda examples, _: examples, seed=0, epochs=range(1))))
    assert sorted(read) == list(range(SIZE))
