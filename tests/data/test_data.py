"""Datasets by name: splits that never mix, pixels of 0 to 255, one clear error for what cannot be read."""

import dataclasses
import shutil
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image
from sklearn.datasets import load_digits

from kzoo.data.augment import Augmentation
from kzoo.data.batches import evaluation_batches
from kzoo.data.datasets import load_dataset
from kzoo.data.seeds import StepSeeds
from kzoo.data.split import readable_images
from kzoo.data.tfds_sets import _need_files_by_hand
from kzoo.errors import DatasetError
from kzoo.images import Pixels
from kzoo.recipe import Augment
from kzoo.recipe.parts import AUGMENTATIONS


def rows(split) -> set[bytes]:
    return {image.tobytes() for image in split.arrays()["image"]}


@pytest.mark.quick
def test_digits_splits_are_disjoint_and_complete():
    data = load_dataset("digits")
    assert (data.train.size, data.validation.size, data.test.size) == (1293, 144, 360)
    train, validation, test = (rows(split) for split in (data.train, data.validation, data.test))
    assert not train & test
    assert not validation & test
    assert not train & validation
    images, labels = data.test.arrays().values()
    assert images.shape == (360, 32, 32, 3)
    assert images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    assert np.bincount(labels).tolist() == [36, 36, 35, 37, 36, 37, 36, 36, 35, 36]


def test_digits_are_resized_digits():
    digits = load_digits()
    data = load_dataset("digits", image_size=8)
    images, labels = data.test.arrays().values()
    originals = np.round(digits.images * 255 / 16)
    for image, label in zip(images[:20], labels[:20], strict=True):
        assert digits.target[np.abs(originals - image[..., 0]).sum(axis=(1, 2)).argmin()] == label
        assert np.abs(originals - image[..., 2]).max(axis=(1, 2)).min() == 0


def test_test_images_do_not_depend_on_seed_or_fraction():
    one, other = load_dataset("digits", seed=1), load_dataset("digits", seed=2, validation_fraction=0.3)
    assert rows(one.test) == rows(other.test)
    assert rows(one.validation) != rows(load_dataset("digits", seed=2).validation)
    assert other.validation.size == 432


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "alternating_flip"])  # same images alike
def test_augmentation_changes_images_one_by_one_and_stays_in_range(name):
    digit = load_dataset("digits").train.arrays(1)["image"]
    images = np.repeat(digit, 32, axis=0) * np.array([1, 0.8, 0.5], "float32")
    changed = Augmentation(Augment((name,)))(images, StepSeeds(0, 0, 0)).numpy()
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= 255.01
    assert len({image.tobytes() for image in changed}) > 1


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """A gray TFDS classification set, one without labels, and one of images of any size, made on disk."""
    directory = tmp_path_factory.mktemp("tfds")

    def store(name, features, splits):
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name, version="1.0.0", data_dir=directory, features=tfds.features.FeaturesDict(features), **splits
        )

    def examples(count, **fixed):
        values = np.arange(count)
        return tf.data.Dataset.from_tensor_slices(
            {"image": np.repeat(values.astype("uint8"), 144).reshape(-1, 12, 12, 1), **fixed}
        )

    image = tfds.features.Image(shape=(12, 12, 1), dtype=np.uint8)
    label = tfds.features.ClassLabel(names=["even", "odd"])
    splits = {split: examples(n, label=np.arange(n) % 2) for split, n in (("train", 50), ("test", 10))}
    store("tiny_gray", {"image": image, "label": label}, {"split_datasets": splits})

    def labelled(name, **labels):
        splits = {split: examples(len(values), label=np.array(values)) for split, values in labels.items()}
        store(name, {"image": image, "label": label}, {"split_datasets": splits})

    labelled("hidden_labels", train=[0, 1] * 10, validation=[0, 1] * 4, test=[-1] * 6)
    labelled("only_hidden", train=[0, 1] * 10, test=[-1] * 6)
    labelled("some_hidden", train=[0, 1] * 10, test=[0, 1, 0, 1, 0, 1, -1])
    labelled("in_order", train=[0, 1] * 10, test=[0] * 20 + [1] * 20)
    store("no_label", {"image": image}, {"split_datasets": {"train": examples(3), "test": examples(2)}})
    anysize = {"image": tfds.features.Image(shape=(None, None, 3), dtype=np.uint8), "label": label}
    splits = {
        split: examples(4, label=np.arange(4) % 2).map(
            lambda e: {"image": tf.image.grayscale_to_rgb(e["image"]), "label": e["label"]}
        )
        for split in ("train", "validation")
    }
    store("any_size", anysize, {"split_datasets": splits})
    return str(directory)


def test_tfds_set_by_name_holds_out_the_end_of_train(tfds_dir):
    data = load_dataset("tiny_gray", data_dir=tfds_dir, validation_fraction=0.2)
    assert data.classes == ("even", "odd")
    assert data.image_shape == (12, 12, 3)
    assert (data.train.size, data.validation.size, data.test.size) == (40, 10, 10)
    seen = [split.arrays().values() for split in (data.train, data.validation)]
    values = np.concatenate([images[:, 0, 0, 1] for images, _ in seen])
    assert sorted(values) == list(range(50))
    for images, labels in seen:
        np.testing.assert_array_equal(images[:, 3, 5, 0] % 2, labels)


def test_all_holds_each_image_of_a_tfds_set_once(tfds_dir):
    data = load_dataset("tiny_gray", data_dir=tfds_dir, validation_fraction=0.2)
    parts = [split.arrays() for split in (data.train, data.validation, data.test)]
    found, picked = data.all.arrays(), data.all.pick(np.array([3, 39, 40, 55])).arrays()
    for name, values in found.items():
        expected = np.concatenate([part[name] for part in parts])
        assert len(expected) == data.all.size == 60
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(picked[name], expected[[3, 39, 40, 55]])
    assert data.has_test


def test_tfds_images_are_fitted_as_files_are(tfds_dir):
    pixels = Pixels("pad", interpolation="bicubic")
    data = load_dataset("tiny_gray", data_dir=tfds_dir, image_size=(6, 10), pixels=pixels)
    images, labels = data.test.arrays().values()
    for image, label in zip(images, labels, strict=True):
        value = int(image[3, 5, 0])
        assert value % 2 == label
        expected = pixels.apply(Image.fromarray(np.full((12, 12), value, "uint8")), (6, 10, 3))
        np.testing.assert_array_equal(image, expected)


def test_a_tfds_split_without_labels_is_left_out(tfds_dir):
    """ImageNet's test images have the label -1: its validation images are the test then."""
    data = load_dataset("hidden_labels", data_dir=tfds_dir, validation_fraction=0.25)
    assert (data.train.size, data.validation.size, data.test.size) == (15, 5, 8)
    assert sorted(set(data.test.arrays()["label"].tolist())) == [0, 1]
    with pytest.raises(DatasetError, match=r"only_hidden has splits train; test without labels; train, and test or"):
        load_dataset("only_hidden", data_dir=tfds_dir)


def test_a_single_image_without_a_label_is_an_error(tfds_dir):
    data = load_dataset("some_hidden", data_dir=tfds_dir)
    with pytest.raises(DatasetError, match=r"some_hidden has an image of the label -1; the labels are 0 to 1"):
        data.test.arrays()


def test_a_few_images_of_a_tfds_set_are_drawn_from_all_classes(tfds_dir):
    data = load_dataset("in_order", data_dir=tfds_dir)
    for seed in range(3):
        assert np.bincount(data.test.arrays(10, seed)["label"]).tolist() == [5, 5]


def test_tfds_set_without_test_is_tested_on_its_validation(tfds_dir):
    data = load_dataset("any_size", data_dir=tfds_dir, image_size=6, validation_fraction=0.25)
    assert (data.train.size, data.validation.size, data.test.size) == (3, 1, 4)
    assert data.test.arrays()["image"].shape == (4, 6, 6, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_label", "classification set has an image and a label"),
        ("any_size", "say which to resize to"),
        ("digitz", "did you mean 'digits'"),
        ("./no/such/folder", "no folder"),
        ("", "no folder"),
    ],
)
def test_unusable_datasets_are_refused(name, message, tfds_dir):
    with pytest.raises(DatasetError, match=message):
        load_dataset(name, data_dir=tfds_dir)


def test_absent_tfds_set_says_where_it_looked(tmp_path, monkeypatch):
    def offline(self, **_):
        raise ConnectionError("no network\nlong story")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", offline)
    with pytest.raises(DatasetError, match=r"mnist is not in .*mnist.* \(ConnectionError: no network\); prepare it"):
        load_dataset("mnist", data_dir=str(tmp_path))


@pytest.fixture
def folder(tmp_path):
    """train and test with two classes of one-coloured PNGs."""
    for part, count in (("train", 10), ("test", 3)):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                image = np.full((9, 7, 3), 100 * label + i, "uint8")
                (tmp_path / part / name / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
    return tmp_path


def test_image_folder(folder):
    data = load_dataset(str(folder), image_size=8, validation_fraction=0.2)
    assert data.classes == ("cat", "dog")
    assert (data.train.size, data.validation.size, data.test.size) == (16, 4, 6)
    images, labels = data.train.arrays().values()
    np.testing.assert_array_equal(images[:, 4, 4, 0] // 100, labels)
    assert not rows(data.train) & rows(data.validation)


def test_image_folder_with_its_own_validation_mixes_the_classes_in_training(folder):
    shutil.copytree(folder / "test", folder / "validation")
    data = load_dataset(str(folder), image_size=8)
    assert (data.train.size, data.validation.size, data.test.size) == (20, 6, 6)
    assert rows(data.validation) == rows(data.test)
    assert 0 < data.train.arrays(10)["label"].sum() < 10


def test_image_folder_errors(folder):
    with pytest.raises(DatasetError, match="say which to resize to"):
        load_dataset(str(folder))
    with pytest.raises(DatasetError, match=r"no table at .*absent\.csv"):
        load_dataset(str(folder / "absent.csv"), image_size=8)
    for name in ("digits", "mnist"):
        with pytest.raises(DatasetError, match="group_by='a' is for pictures with paths, in folders and tables; "):
            load_dataset(name, group_by="a")


def test_broken_image_is_named(folder):
    broken = folder / "train" / "dog" / "3.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:40])  # not even the header, which is read before anything else
    with pytest.raises(DatasetError, match=r"dog/3\.png cannot be read as an image"):
        load_dataset(str(folder), image_size=8)
    broken.write_bytes(whole[:-28])  # some of its pixels
    data = load_dataset(str(folder), image_size=8)
    elements = {
        name: np.concatenate([values, data.validation.elements[name]]) for name, values in data.train.elements.items()
    }
    both = dataclasses.replace(data.train, elements=elements)
    with pytest.raises(DatasetError, match=r"^[^\n]*dog/3\.png cannot be read as an image .*; repair or remove it$"):
        both.arrays()
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile(loss="mse")
    with pytest.raises(DatasetError, match=r"^[^\n]*dog/3\.png cannot be read"), readable_images():
        model.fit(
            evaluation_batches(both, 4, lambda batch: (batch["image"], tf.one_hot(batch["label"], 2))), verbose=0
        )


def test_a_set_whose_files_are_fetched_by_hand_says_where_they_go(tmp_path):
    builder = SimpleNamespace(name="imagenet2012", data_dir=str(tmp_path / "imagenet2012" / "5.1.0"))
    _need_files_by_hand(builder)
    builder.MANUAL_DOWNLOAD_INSTRUCTIONS = "Log in, and fetch two archives."
    manual = tmp_path / "downloads" / "manual"
    with pytest.raises(DatasetError, match=rf"put its archives into {manual} .* or a folder with train/CLASS/\*"):
        _need_files_by_hand(builder)
    manual.mkdir(parents=True)
    (manual / "ILSVRC2012_img_val.tar").touch()
    _need_files_by_hand(builder)
