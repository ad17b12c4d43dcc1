"""Images and masks: pairs and splits that never mix, values that mean what was declared, errors that name the file."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from images.pictures import ORIENTATION, noise, saved
from PIL import Image

from kzoo.data.datasets import load_dataset
from kzoo.data.pairs import load_pairs
from kzoo.data.split import VOID
from kzoo.errors import DatasetError, InvalidValueError
from kzoo.images import Pixels

SIZE = (6, 9)


def write_pairs(folder, numbers, mode="L", values=(0, 1, 2, 11)):
    """Images of one colour, their number, and masks of random values."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        rng = np.random.default_rng(number)
        Image.fromarray(np.full((*SIZE, 3), number, "uint8")).save(folder / "images" / f"scene.{number:02}.bmp")
        mask = Image.fromarray(rng.choice(values, SIZE).astype("uint8"))
        if mode == "P":
            mask.putpalette(list(np.random.default_rng(0).integers(0, 256, 768)))
        mask.save(folder / "masks" / f"scene.{number:02}.png")


@pytest.fixture
def folder(tmp_path):
    """`scenes`: train, val and test of three classes, void is 11."""
    root = tmp_path / "scenes"
    for part, numbers in (("train", range(8)), ("val", range(10, 13)), ("test", range(20, 24))):
        write_pairs(root / part, numbers)
    (root / "classes.txt").write_text("sky\nroad\ncar\n\n")
    return root


def expected_mask(number, values=(0, 1, 2, 11), classes=(0, 1, 2, VOID)):
    """By hand, value for value."""
    stored = np.random.default_rng(number).choice(values, SIZE)
    return np.array([[classes[values.index(value)] for value in row] for row in stored])


def numbers(split):
    """Which images a split holds, each with the mask that belongs to it."""
    images, masks = split.arrays().values()
    found = images[:, 0, 0, 0].tolist()
    for number, image, mask in zip(found, images, masks, strict=True):
        assert (image == number).all()
        np.testing.assert_array_equal(mask, expected_mask(number))
    return found


@pytest.mark.quick
def test_folder_with_splits(folder):
    data = load_pairs(str(folder), void=(11,))
    assert data.classes == ("sky", "road", "car")
    assert data.image_shape == (*SIZE, 3)
    assert numbers(data.train) == list(range(8))
    assert numbers(data.validation) == [10, 11, 12]
    assert numbers(data.test) == [20, 21, 22, 23]
    assert (data.train.size, data.validation.size, data.test.size) == (8, 3, 4)


def test_folder_by_its_name_in_the_data_directory(folder, monkeypatch):
    data = load_pairs("scenes", data_dir=str(folder.parent), void=(11,))
    assert (data.name, data.test.size) == ("scenes", 4)
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder.parent))
    assert load_pairs("scenes", void=(11,)).test.size == 4


def test_validation_is_held_out_of_training_by_the_seed(folder):
    shutil.rmtree(folder / "val")
    splits = {}
    for seed in (0, 0, 1, 2):
        data = load_pairs(str(folder), void=(11,), validation_fraction=0.25, seed=seed)
        train, validation = numbers(data.train), numbers(data.validation)
        assert sorted(train + validation) == list(range(8))
        assert len(validation) == 2
        assert numbers(data.test) == [20, 21, 22, 23]
        assert numbers(data.all) == train + validation + [20, 21, 22, 23]
        assert data.has_test
        assert splits.setdefault(seed, validation) == validation
    assert len({tuple(validation) for validation in splits.values()}) > 1


def test_one_folder_is_divided_and_its_test_images_do_not_depend_on_the_seed(tmp_path):
    write_pairs(tmp_path, range(30))
    tests = set()
    for seed in (0, 1):
        data = load_pairs(
            str(tmp_path), class_names="abc", void=(11,), validation_fraction=0.125, test_fraction=0.2, seed=seed
        )
        parts = [numbers(split) for split in (data.train, data.validation, data.test)]
        assert [len(part) for part in parts] == [21, 3, 6]
        assert numbers(data.all) == parts[0] + parts[1] + parts[2]
        assert sorted(numbers(data.all)) == list(range(30))
        assert not data.has_test
        tests.add(tuple(parts[2]))
    assert len(tests) == 1


@pytest.mark.parametrize("mode", ["L", "P"])
def test_values_are_declared(tmp_path, mode):
    write_pairs(tmp_path, range(10), mode, values=(255, 0, 7))
    data = load_pairs(str(tmp_path), mask_values=(0, 255), class_names=("membrane", "cell"), void=(7,))
    assert data.classes == ("membrane", "cell")
    images, masks = data.test.arrays().values()
    for image, mask in zip(images, masks, strict=True):
        expected = expected_mask(image[0, 0, 0], (255, 0, 7), (1, 0, VOID))
        np.testing.assert_array_equal(mask, expected)
    assert load_pairs(str(tmp_path), mask_values=(0, 255), void=(7,)).classes == ("value 0", "value 255")


def test_resizing_takes_masks_from_the_nearest_pixel(folder):
    columns = np.indices((40, 80))[1]
    mask = ((columns >= 40) * 2).astype("uint8")
    for kind, picture in (("images", np.stack([columns * 3] * 3, -1)), ("masks", mask)):
        suffix = {"images": "bmp", "masks": "png"}[kind]
        Image.fromarray(picture.astype("uint8")).save(folder / "test" / kind / f"scene.20.{suffix}")
    data = load_pairs(str(folder), void=(11,), image_size=(20, 40))
    images, masks = data.test.arrays().values()
    np.testing.assert_array_equal(masks[0], mask[::2, ::2])
    np.testing.assert_allclose(images[0, :, 2:-2, 0], (columns[::2, ::2] * 3 + 1.5)[:, 2:-2], atol=1)
    assert data.train.arrays()["image"].shape == (8, 20, 40, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_and_its_mask_are_turned_alike(tmp_path, orientation):
    """Both files as one camera wrote them; the mask is where the image is bright."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    mask = (noise(6, 10, 1) > 127).astype("uint8")
    for number in range(8):
        saved(tmp_path / f"images/{number}.png", np.repeat(mask[..., None] * 200, 3, -1).astype("uint8"), exif=exif)
        saved(tmp_path / f"masks/{number}.png", mask, exif=exif)
    data = load_pairs(str(tmp_path), class_names=("dark", "bright"))
    assert data.image_shape == ((6, 10, 3) if orientation < 5 else (10, 6, 3))
    images, masks = data.train.arrays().values()
    np.testing.assert_array_equal(images[..., 0], masks * 200)
    if orientation == 6:  # a quarter to the right
        np.testing.assert_array_equal(masks[0], np.rot90(mask, -1))


def test_what_padding_adds_is_void(tmp_path):
    for number in range(8):
        saved(tmp_path / f"images/{number}.png", np.full((10, 40, 3), 90, "uint8"))
        saved(tmp_path / f"masks/{number}.tif", np.ones((10, 40), "uint8"))
    pair = dict(class_names=("a", "b"), image_size=(20, 20))
    images, masks = load_pairs(str(tmp_path), pixels=Pixels("pad"), **pair).test.arrays().values()
    expected = np.full((20, 20), VOID, "uint8")
    expected[8:13] = 1  # 40×10 becomes 20×5
    np.testing.assert_array_equal(masks[0], expected)
    np.testing.assert_array_equal(images[0, ..., 1], np.where(expected == 1, 90, 0))
    with pytest.raises(InvalidValueError, match=r"resize='crop' leaves out the borders .*; use 'stretch' or 'pad'"):
        load_pairs(str(tmp_path), pixels=Pixels("crop"), **pair)


def one_mask(folder, mask, mode=None, **options):
    """Ten pairs with the same mask."""
    for number in range(10):
        saved(folder / f"images/{number}.png", np.zeros((*np.shape(mask)[:2], 3), "uint8"))
        picture = Image.fromarray(np.asarray(mask, "uint8"))
        (folder / "masks").mkdir(exist_ok=True)
        (picture.convert(mode) if mode else picture).save(folder / f"masks/{number}.png", **options)


def masks_of(folder, **options):
    return load_pairs(str(folder), class_names=("a", "b"), **options).test.arrays()["mask"][0]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_that_was_saved_as_colours_is_grey(tmp_path, mode):
    mask = np.array([[0, 255, 255], [255, 0, 7]])
    one_mask(tmp_path, mask, mode)
    found = masks_of(tmp_path, mask_values=(0, 255), void=(7,))
    np.testing.assert_array_equal(found, [[0, 1, 1], [1, 0, VOID]])
    with pytest.raises(DatasetError, match=r"pixels of value 7, which is no class: the 2 classes are 0, 255"):
        masks_of(tmp_path, mask_values=(0, 255))


def test_a_transparent_mask_and_one_of_colours_are_refused(tmp_path):
    one_mask(tmp_path / "clear", np.zeros((4, 5, 4)))
    with pytest.raises(DatasetError, match=r"masks/\d\.png is transparent in places; a mask gives each pixel"):
        masks_of(tmp_path / "clear")
    colours = np.zeros((4, 5, 3))
    colours[0, 0] = (1, 1, 2)
    one_mask(tmp_path / "colours", colours)
    with pytest.raises(DatasetError, match=r"masks/\d\.png has colours \(RGB\); a mask has one channel"):
        masks_of(tmp_path / "colours")


@pytest.mark.parametrize(
    ("values", "void", "classes"),
    [
        ((), (), (0, 1)),
        ((0, 255), (), (0, 1)),
        ((255, 0), (), (1, 0)),
        ((1, 0), (255,), (1, 0)),
        ((1, 2), (0,), (255, 0)),
    ],
)
def test_masks_of_one_bit_have_white_as_1_or_255_whichever_is_declared(tmp_path, values, void, classes):
    mask = np.array([[0, 255, 0], [255, 255, 0]])
    one_mask(tmp_path, mask, "1")
    np.testing.assert_array_equal(
        masks_of(tmp_path, mask_values=values, void=void), np.where(mask, classes[1], classes[0])
    )


def test_masks_of_one_bit_whose_white_is_not_declared_say_so(tmp_path):
    one_mask(tmp_path, np.array([[0, 255, 0]]), "1")
    note = r"one bit for each pixel: black is 0, and white is 1, or 255 where that is declared and 1 is not"
    with pytest.raises(
        DatasetError, match=rf"pixels of value 1, which is no class: the 2 classes are 0, 128; .*{note}"
    ):
        masks_of(tmp_path, mask_values=(0, 128))


def test_a_palette_of_grey_says_that_its_numbers_count(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 1]], "uint8"))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    one_mask(tmp_path, np.zeros((1, 3)))
    for number in range(10):
        picture.save(tmp_path / f"masks/{number}.png")
    np.testing.assert_array_equal(masks_of(tmp_path), [[0, 1, 1]])
    with pytest.raises(DatasetError, match=r"pixels of value 1, .*it has a palette, and its values are the numbers"):
        masks_of(tmp_path, mask_values=(0, 255))


def test_litter_beside_images_and_masks_is_passed_over(folder):
    for part in ("images", "masks"):
        for name in ("._scene.00.png", "Thumbs.db", ".ipynb_checkpoints/a.png"):
            (folder / "train" / part / name).parent.mkdir(exist_ok=True)
            (folder / "train" / part / name).write_bytes(b"x")
    assert load_pairs(str(folder), void=(11,)).train.size == 8


BAD = {
    "image without mask": (lambda f: (f / "val/masks/scene.11.png").unlink(), r"images/scene\.11\.bmp has no mask"),
    "mask without image": (lambda f: (f / "train/images/scene.03.bmp").unlink(), r"masks/scene\.03\.png has no image"),
    "no masks": (lambda f: shutil.rmtree(f / "test/masks"), r"no folder .*test/masks"),
    "no test": (lambda f: shutil.rmtree(f / "test"), "has train/ and no test/"),
    "other size": (
        lambda f: Image.new("L", (9, 7)).save(f / "test/masks/scene.22.png"),
        r"scene\.22\.png is 7×9 and its image scene\.22\.bmp is 6×9; they must be of one size",
    ),
    "sizes that differ": (
        lambda f: [Image.new(m, (4, 4)).save(f / p) for m, p in PAIR_21],
        r"scene\.21\.bmp is 4×4 .* say which size",
    ),
    "unknown value": (
        lambda f: Image.fromarray(np.full(SIZE, 3, "uint8")).save(f / "val/masks/scene.12.png"),
        r"scene\.12\.png has pixels of value 3, which is no class: the 3 classes are 0 to 2, void 11; .*--void",
    ),
    "value of 16 bits": (
        lambda f: Image.fromarray(np.full(SIZE, 256, "uint16")).save(f / "val/masks/scene.12.png"),
        r"scene\.12\.png has pixels of value 256",
    ),
    "colours": (
        lambda f: Image.new("RGB", (9, 6), (1, 1, 2)).save(f / "train/masks/scene.00.png"),
        r"scene\.00\.png has colours \(RGB\); a mask has one channel",
    ),
    "lossy mask": (
        lambda f: (f / "train/masks/scene.00.png").rename(f / "train/masks/scene.00.jpg"),
        r"scene\.00\.jpg is no \.png",
    ),
    "broken image": (lambda f: cut(f / "train/images/scene.05.bmp"), r"scene\.05\.bmp cannot be read"),
    "broken mask": (lambda f: cut(f / "train/masks/scene.05.png"), r"scene\.05\.png cannot be read as a mask"),
    "same name twice": (
        lambda f: shutil.copy(f / "val/images/scene.10.bmp", f / "val/images/scene.10.png"),
        r"scene\.10\.bmp and .*scene\.10\.png have the same name",
    ),
    "empty": (lambda f: [path.unlink() for path in (f / "test/masks").iterdir()], "test/masks is empty"),
    "no classes": (lambda f: (f / "classes.txt").unlink(), "has no classes.txt .*--class-names"),
}
PAIR_21 = (("RGB", "test/images/scene.21.bmp"), ("L", "test/masks/scene.21.png"))


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize("what", BAD)
def test_bad_folders_are_refused_by_the_name_of_the_file(what, folder):
    spoil, message = BAD[what]
    spoil(folder)
    with pytest.raises(DatasetError, match=message):
        load_pairs(str(folder), void=(11,))


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (b"hintergrund\nb\xe4ll\nx\n", r"cannot read the labels in .*classes\.txt"),
        (b" \n\n", r"classes\.txt is empty; it must name the classes"),
        (b"all\n", r"classes\.txt: 1 class; 2 to 253"),
        (b"sky\nroad\nsky\n", r"classes\.txt: several classes are called 'sky'"),
    ],
)
def test_bad_names_of_classes(listed, message, folder):
    (folder / "classes.txt").write_bytes(listed)
    with pytest.raises(ValueError, match=message):
        load_pairs(str(folder), void=(11,))


def test_names_of_classes_as_windows_writes_them(folder):
    (folder / "classes.txt").write_bytes("\ufeffsky\r\nroad\r\ncar\r\n".encode())
    assert load_pairs(str(folder), void=(11,)).classes == ("sky", "road", "car")


def test_a_split_of_nothing_but_void_is_refused(folder):
    for number in range(10, 13):
        Image.fromarray(np.full(SIZE, 11, "uint8")).save(folder / "val" / "masks" / f"scene.{number:02}.png")
    with pytest.raises(DatasetError, match=r"val/masks, 3 masks: every pixel is void \(11\); say with --void"):
        load_pairs(str(folder), void=(11,))


def test_void_must_be_declared(folder):
    with pytest.raises(DatasetError, match="value 11, which is no class"):
        load_pairs(str(folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(mask_values=(1, 2)), "2 values for the 3 classes"),
        (dict(void=(2,)), "must differ"),
        (dict(void=(256,)), "must differ and be 0 to 255"),
        (dict(class_names=("all",)), "1 class; 2 to"),
    ],
)
def test_declarations_that_cannot_be(options, message, folder):
    with pytest.raises(InvalidValueError, match=message):
        load_pairs(str(folder), **options)


def test_the_other_tasks_folders_are_refused(folder, tmp_path):
    with pytest.raises(DatasetError, match="holds images and masks, for models of the task segmentation"):
        load_dataset(str(folder), image_size=8)
    (tmp_path / "train" / "cat").mkdir(parents=True)
    for name, message in ((str(tmp_path), "is no segmentation set"), ("./none", "no folder"), ("digits", "no masks")):
        with pytest.raises(DatasetError, match=message):
            load_pairs(name)


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """`tiny_pets`: images of different sizes with trimaps of 1, 2, 3, as oxford_iiit_pet has them."""
    directory = tmp_path_factory.mktemp("tfds")

    def examples(count):
        def generate():
            for number in range(count):
                shape = (8, 12) if number % 2 else (16, 10)
                mask = np.full((*shape, 1), 1 + number % 3, "uint8")
                yield {
                    "image": np.full((*shape, 3), number, "uint8"),
                    "segmentation_mask": mask,
                    "label": number % 2,
                }

        signature = {name: tf.TensorSpec((None, None, depth), tf.uint8) for name, depth in CHANNELS.items()}
        return tf.data.Dataset.from_generator(
            generate, output_signature=signature | {"label": tf.TensorSpec((), tf.int64)}
        )

    features = {
        name: tfds.features.Image(shape=(None, None, depth), dtype=np.uint8) for name, depth in CHANNELS.items()
    }
    tfds.dataset_builders.store_as_tfds_dataset(
        name="tiny_pets",
        version="1.0.0",
        data_dir=directory,
        features=tfds.features.FeaturesDict(features | {"label": tfds.features.ClassLabel(names=["cat", "dog"])}),
        split_datasets={"train": examples(12), "test": examples(6)},
    )
    return str(directory)


CHANNELS = {"image": 3, "segmentation_mask": 1}
PETS = dict(class_names=("pet", "background", "outline"), mask_values=(1, 2, 3))


def test_tfds_trimaps(tfds_dir):
    data = load_pairs("tiny_pets", data_dir=tfds_dir, image_size=(4, 6), validation_fraction=0.25, **PETS)
    assert (data.train.size, data.validation.size, data.test.size) == (9, 3, 6)
    assert data.classes == PETS["class_names"]
    seen = []
    for split in (data.train, data.validation, data.test):
        images, masks = split.arrays().values()
        assert images.shape[1:] == (4, 6, 3)
        np.testing.assert_array_equal(masks, np.broadcast_to(images[..., 0] % 3, masks.shape))
        seen.append(images[:, 0, 0, 0].tolist())
    assert sorted(seen[0] + seen[1]) == list(range(12))


def test_tfds_mistakes(tfds_dir):
    with pytest.raises(DatasetError, match="say which to resize to"):
        load_pairs("tiny_pets", data_dir=tfds_dir, **PETS)
    with pytest.raises(DatasetError, match=r"tiny_pets, train.*, has pixels of value 3, which is no class"):
        load_pairs("tiny_pets", data_dir=tfds_dir, image_size=(4, 6), class_names="ab", mask_values=(1, 2))
    with pytest.raises(DatasetError, match="does not say its classes"):
        load_pairs("tiny_pets", data_dir=tfds_dir, image_size=(4, 6))


def test_images_of_one_key_are_in_one_split(tmp_path):
    write_pairs(tmp_path, range(30))
    options = dict(class_names="abc", void=(11,), validation_fraction=0.3, test_fraction=0.3)
    pattern = r"(\d)\.bmp"
    data = load_pairs(str(tmp_path), group_by=pattern, **options)
    keys = [{path[-5] for path, _ in split.files} for split in (data.train, data.validation, data.test)]
    assert list(map(len, keys)) == [5, 2, 3]
    assert len(set.union(*keys)) == 10
    assert [path for path, _ in data.test.files] == sorted(path for path, _ in data.test.files)
    for path, mask in data.test.files:
        assert (path.split("/")[0], mask.split("/")[0]) == ("images", "masks")
    with pytest.raises(DatasetError, match="finds no key in 30 of 30 paths"):
        load_pairs(str(tmp_path), group_by="nothing", **options)
    with pytest.raises(DatasetError, match=r"labels\.csv is for models of classes; segmentation takes a folder"):
        load_pairs("labels.csv", **options)


def test_splits_of_a_folder_must_not_divide_a_key(folder):
    load_pairs(str(folder), void=(11,), group_by=r"\d+\.bmp")
    with pytest.raises(DatasetError, match="the key 'bmp' is in two splits of the dataset"):
        load_pairs(str(folder), void=(11,), group_by="bmp")


@pytest.mark.parametrize("split", [True, False])
def test_all_pairs_are_judged_without_being_divided(tmp_path, split):
    parts = ["train", "val", "test"] if split else ["."]
    for number, part in enumerate(parts):
        for kind in ("images", "masks"):
            (tmp_path / part / kind).mkdir(parents=True)
            shape = (6, 7, 3) if kind == "images" else (6, 7)
            Image.fromarray(np.full(shape, number, "uint8")).save(tmp_path / part / kind / "one.png")
    data = load_pairs(str(tmp_path), class_names=("a", "b", "c"), divided=False)
    assert (data.train.size, data.validation.size, data.test.size) == (len(parts), 0, 0)
    assert sorted(data.all.arrays()["mask"][:, 0, 0].tolist()) == list(range(len(parts)))
