"""Random parts of pictures in training: of the files themselves, and a function of (seed, epoch, step)."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import make_recipe
from PIL import Image

from kzoo.data import load_dataset
from kzoo.data.batches import training_batches
from kzoo.data.engine import ArrayBatches
from kzoo.data.seeds import epoch_order, part_draws
from kzoo.data.split import StreamedSplit
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels, RandomCrop
from kzoo.tasks import task_of

SHAPE, BATCH, COUNT = (6, 8, 3), 4, 18
CROP = RandomCrop((0.1, 0.6), SHAPE, "bicubic")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of two classes, 30×40."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(30):
        picture = rng.integers(0, 256, (30, 40, 3), "uint8")
        path = root / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(path)
    return root


def load(folder):
    return load_dataset(str(folder), image_size=12, pixels=Pixels("crop"), validation_fraction=0.25)


def as_stream(split):
    """The same examples one after the other, from the bytes of their files."""
    paths, labels = split.elements["image"], split.elements["label"]
    source = tf.data.Dataset.from_tensor_slices({"image": paths.tolist(), "label": labels})
    return StreamedSplit(source, split.size, split.specs, split.decode)


def parts(split, epochs, first=0, seed=3):
    def prepare(examples, seeds):
        return examples["image"], examples["label"]

    batches = training_batches(split, BATCH, prepare, seed=seed, epochs=epochs, first=first, crop=CROP)
    return [tuple(map(np.asarray, batch)) for batch in batches.as_numpy_iterator()]


def test_each_part_is_of_its_file_by_the_number_of_its_place(folder):
    split = load(folder).train
    assert split.size == COUNT
    steps = COUNT // BATCH
    found = parts(split, range(2))
    assert len(found) == 2 * steps
    for number, (images, labels) in enumerate(found):
        epoch, step = divmod(number, steps)
        mine = slice(step * BATCH, (step + 1) * BATCH)
        order, draws = epoch_order(3, epoch, COUNT)[mine], part_draws(3, epoch, steps * BATCH)[mine]
        for image, label, index, draw in zip(images, labels, order, draws, strict=True):
            path = split.elements["image"][index].decode()
            np.testing.assert_array_equal(image, CROP(Image.open(path), int(draw)))
            assert label == split.elements["label"][index]
    assert len({image.tobytes() for images, _ in found for image in images}) == 2 * steps * BATCH


def test_parts_are_the_same_wherever_a_run_goes_on_and_on_every_engine(folder):
    split = load(folder).train
    whole = parts(split, range(3))
    steps = COUNT // BATCH
    for one, other in zip(parts(split, range(1, 3), first=2), whole[steps + 2 :], strict=True):
        np.testing.assert_array_equal(one[0], other[0])
    engine = ArrayBatches(
        split.cropped(CROP),
        BATCH,
        range(3 * steps),
        steps,
        lambda epoch: epoch_order(3, epoch, COUNT),
        lambda number, examples: (examples["image"], examples["label"]),
        lambda epoch: part_draws(3, epoch, steps * BATCH),
    )
    for number, (images, labels) in enumerate(whole):
        np.testing.assert_array_equal(engine[number][0], images)
        np.testing.assert_array_equal(engine[number][1], labels)
    streamed = parts(as_stream(split), range(2))
    again = parts(as_stream(split), range(1, 2), first=1)
    for (images, _), (others, _) in zip(again, streamed[steps + 1 :], strict=True):
        np.testing.assert_array_equal(images, others)
    assert len({image.tobytes() for images, _ in streamed for image in images}) == 2 * steps * BATCH


def test_training_takes_parts_of_files_and_validation_the_centre(folder):
    recipe = make_recipe(
        "test",
        "resnet18",
        str(folder),
        interpolation="bicubic",
        batch_size=BATCH,
        augmentation=("resized_crop",),
        crop_area=(0.1, 0.6),
        train_size=(6, 8),
        epochs=1,
        seed=3,
    )
    task, data = task_of(recipe), load(folder)
    found = [images for images, _ in task.training(recipe, data, 0).as_numpy_iterator()]
    for images, (expected, _) in zip(found, parts(data.train, range(1)), strict=True):
        np.testing.assert_array_equal(images, expected)
    images = next(iter(task.validation(recipe, data)))[0]
    assert images.shape[1:] == (12, 12, 3)


def test_a_flip_that_alternates_does_not_go_with_parts():
    with pytest.raises(InvalidValueError, match="which resized_crop changes; take flip"):
        make_recipe("test", "resnet18", "digits", augmentation=("alternating_flip", "resized_crop"))
