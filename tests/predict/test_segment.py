"""Classes of pixels: masks, their files, and `kzoo predict` with models for segmentation."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import fails
from images.pictures import ORIENTATION, saved
from keras import layers
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.errors import InvalidValueError, WeightsError
from kzoo.images import read_picture
from kzoo.images.overlay import CAMVID, OPACITY, PAPER, colours, draw_overlay
from kzoo.predict.classifier import open_model
from kzoo.predict.segmenter import ENDINGS, as_segmenter, class_areas, most_probable, output_paths

HEIGHT, WIDTH = 24, 32  # of the models


def strongest(activation=None, size=(HEIGHT, WIDTH), **options) -> keras.Model:
    """A model that gives each pixel the strongest of its three colours, by logits or probabilities."""
    image = keras.Input((*size, 3), name="image")
    conv = layers.Conv2D(3, 1, use_bias=False, activation=activation, name="head", **options)
    model = keras.Model(image, conv(image))
    conv.set_weights([np.eye(3, dtype="float32")[None, None] * 0.05])
    return model


def blocks(height, width, side=4, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """A mask of three classes in squares, and the picture whose strongest colours it holds."""
    random = np.random.default_rng(seed)
    squares = random.integers(0, 3, (-(-height // side), -(-width // side)))
    mask = squares.repeat(side, axis=0).repeat(side, axis=1)[:height, :width].astype("uint8")
    return mask, np.eye(3, dtype="uint8")[mask] * 150 + random.integers(0, 90, (height, width, 3), dtype="uint8")


def save(model: keras.Model, path: Path) -> str:
    model.save(path)
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The model as every kind of file, and one of a network without padding."""
    root = tmp_path_factory.mktemp("segment")
    images = np.stack([blocks(HEIGHT, WIDTH, seed=seed)[1] for seed in range(8)]).astype("float32")
    for name, activation in (("logits", None), ("softmax", "softmax")):
        model = strongest(activation)
        model.save(root / f"{name}.keras")
        kzoo.export_all(model, root, ("float32", "int8"), images, name=name)
    image = keras.Input((HEIGHT + 6, WIDTH + 6, 3))
    keras.Model(image, layers.Cropping2D(3)(strongest("softmax", (HEIGHT + 6, WIDTH + 6))(image))).save(
        root / "unpadded.keras"
    )
    return root


MODELS = [
    "logits.keras",
    "softmax.keras",
    "logits_float32.tflite",
    "softmax_float32.tflite",
    "logits_int8.tflite",
    "softmax_int8.tflite",
    "unpadded.keras",
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tiles", [False, True])
def test_every_kind_of_file_finds_the_classes(files, name, tiles):
    segmenter = as_segmenter(open_model(str(files / name)))
    assert (segmenter.map_size, segmenter.channels, segmenter.class_names) == ((HEIGHT, WIDTH), 3, ("0", "1", "2"))
    mask, pixels = blocks(HEIGHT, WIDTH)
    np.testing.assert_array_equal(segmenter.segment(Image.fromarray(pixels), tiles), mask)
    for height, width in ((3 * HEIGHT, 3 * WIDTH), (101, 55), (7, 5)):
        mask, pixels = blocks(height, width, side=height // 6 + 1)
        found = segmenter.segment(Image.fromarray(pixels), tiles)
        assert (found.shape, found.dtype) == ((height, width), "uint8")
        wrong = (found != mask).mean()
        assert wrong == 0 if tiles else wrong < 0.25  # resizing blurs the borders


def test_the_probabilities_are_resized_not_the_classes():
    """Against a loop that mixes the four nearest probabilities of each pixel, which lie half a pixel off."""
    maps = np.random.default_rng(2).dirichlet((1, 1, 1), (HEIGHT, WIDTH))
    height, width = 53, 71
    expected = np.zeros((height, width), "uint8")
    for row in range(height):
        for column in range(width):
            y = np.clip((row + 0.5) * HEIGHT / height - 0.5, 0, HEIGHT - 1)
            x = np.clip((column + 0.5) * WIDTH / width - 0.5, 0, WIDTH - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, HEIGHT - 1), min(left + 1, WIDTH - 1)
            upper = maps[top, left] * (1 - x + left) + maps[top, right] * (x - left)
            lower = maps[bottom, left] * (1 - x + left) + maps[bottom, right] * (x - left)
            expected[row, column] = np.argmax(upper * (1 - y + top) + lower * (y - top))
    found = most_probable(maps, (width, height))
    np.testing.assert_array_equal(found, expected)
    nearest = np.asarray(Image.fromarray(maps.argmax(-1).astype("uint8")).resize((width, height), 0))
    assert (nearest != expected).mean() > 0.1


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("activation", [None, "sigmoid"])
@pytest.mark.parametrize("kind", ["keras", "tflite"])
def test_one_channel_is_the_second_of_two_classes(tmp_path, tiles, activation, kind):
    """The model calls bright what is above 100; it gives logits or the probability."""
    image = keras.Input((16, 16, 1))
    conv = layers.Conv2D(1, 1, activation=activation)
    model = keras.Model(image, conv(image))
    conv.set_weights([np.full((1, 1, 1, 1), 0.1, "float32"), np.array([-10.05], "float32")])
    path = tmp_path / f"model.{kind}"
    model.save(path) if kind == "keras" else kzoo.export(model, path)
    segmenter = as_segmenter(open_model(str(path)))
    assert segmenter.class_names == ("0", "1")
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16), dtype="uint8")
    found = segmenter.segment(Image.fromarray(pixels), tiles)
    np.testing.assert_array_equal(found, pixels > 100)


@pytest.mark.quick
def test_areas():
    mask = np.array([[0, 2, 2], [2, 2, 0]], "uint8")
    assert class_areas(mask, ("a", "b", "c")) == [
        {"class": "a", "index": 0, "pixels": 2, "share": 2 / 6},
        {"class": "b", "index": 1, "pixels": 0, "share": 0.0},
        {"class": "c", "index": 2, "pixels": 4, "share": 4 / 6},
    ]


def test_colours():
    assert colours(["Road", "Sky"]).tolist() == [list(CAMVID["Road"]), list(CAMVID["Sky"])]
    for count in (1, 2, 11, 21, 256):
        assert len(np.unique(colours(list(map(str, range(count)))), axis=0)) == count


@pytest.mark.quick
def test_overlay():
    """Tints, lines between the classes, and a legend of those that are there, the largest first."""
    mask = np.zeros((400, 700), "uint8")
    mask[:, 500:] = 2
    sheet = np.asarray(draw_overlay(Image.new("RGB", (700, 400), (100, 200, 50)), mask, ["cat", "dog", "cow"]))
    tints = colours(["cat", "dog", "cow"])
    assert sheet.shape[0] == 400
    for column, index in ((0, 0), (498, 0), (501, 2), (699, 2)):
        expected = (1 - OPACITY) * np.array([100, 200, 50]) + OPACITY * tints[index]
        np.testing.assert_allclose(sheet[200, column], expected, atol=1)
    assert (sheet[:, 499] == PAPER).all()
    legend = sheet[:, 700:]
    places = [np.argwhere((legend == tint).all(-1)) for tint in tints]
    assert [len(place) > 50 for place in places] == [True, False, True]
    assert places[0][:, 0].max() < places[2][:, 0].min()

    large = draw_overlay(Image.new("L", (5000, 50)), np.zeros((50, 5000), "uint8"), ["cat"])
    assert 4096 < large.width < 4500  # reduced, and the legend
    small = draw_overlay(Image.new("RGB", (100, 80)), np.zeros((80, 100), "uint8"), ["cat"])
    assert (small.height, small.width > 600) == (480, True)


def run(capsys, *args) -> list[dict]:
    main(["predict", *map(str, args), "--json"])
    return json.loads(capsys.readouterr().out)


def test_command_writes_overlay_mask_and_areas(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    mask, pixels = blocks(3 * HEIGHT, 3 * WIDTH, side=12)
    saved(tmp_path / "in/one.png", pixels)
    rotated = Image.Exif()
    rotated[ORIENTATION] = 6
    saved(tmp_path / "in/two.png", np.rot90(pixels), exif=rotated)
    Path("labels.txt").write_text("red\ngr[e]en\nblue\n")
    printed = run(capsys, files / "softmax.keras", "in", "--labels", "labels.txt")
    assert sorted(path.name for path in Path("predictions").iterdir()) == [
        f"{name}_{end}"
        for name in ("one", "two")
        for end in ("areas.json", "overlay.png", "predicted_mask.png")
    ]  # fmt: skip
    for entry, name in zip(printed, ("one", "two"), strict=True):
        assert entry["image"] == f"in/{name}.png"
        assert entry["overlay"] == f"predictions/{name}_overlay.png"
        with Image.open(entry["mask"]) as file:
            assert (file.mode, file.size) == ("L", (3 * WIDTH, 3 * HEIGHT))
            found = np.asarray(file)
        assert (found != mask).mean() < 0.01  # squares of 4 pixels at the model's size, with rounded corners
        assert json.loads(Path(f"predictions/{name}_areas.json").read_text()) == entry
        assert [area["class"] for area in entry["classes"]] == ["red", "gr[e]en", "blue"]
        assert [area["pixels"] for area in entry["classes"]] == np.bincount(found.ravel()).tolist()
        assert sum(area["share"] for area in entry["classes"]) == pytest.approx(1)

    main(["predict", str(files / "softmax.keras"), "in/one.png", "--labels", "labels.txt"])  # again, as a table
    text = capsys.readouterr().out
    assert "in/one.png → predictions/one_overlay.png" in text
    with Image.open("predictions/one_predicted_mask.png") as file:
        shares = np.array(file.histogram()[:3]) / mask.size
    lines = [line for line in text.splitlines() if "%" in line]
    order = np.argsort(-shares)
    assert [line.split("\t")[0] for line in lines] == [("red", "gr[e]en", "blue")[index] for index in order]
    assert [line.split("\t")[2] for line in lines] == [f"{shares[index]:.2%}" for index in order]


def test_class_names_of_the_recipe(files, tmp_path, capsys):
    model = tmp_path / "model.keras"
    model.write_bytes((files / "logits.keras").read_bytes())
    image = saved(tmp_path / "x.png", blocks(9, 9)[1])
    (tmp_path / "report.json").write_text(json.dumps({"dataset": {"classes": ["Sky", "Road", "Tree"]}}))
    (entry,) = run(capsys, model, image, "--output-dir", tmp_path / "out")
    assert [area["class"] for area in entry["classes"]] == ["Sky", "Road", "Tree"]


def test_tiles_see_the_picture_at_its_own_size(files, tmp_path, capsys):
    """Single pixels are lost where the picture is resized."""
    mask, pixels = blocks(61, 83, side=1)
    image = saved(tmp_path / "x.png", pixels)
    for name, options, right in (
        ("logits_int8.tflite", ["--tiles"], 1),
        ("unpadded.keras", ["--tiles"], 1),
        ("logits.keras", [], 0.7),
    ):
        (entry,) = run(capsys, files / name, image, "--output-dir", tmp_path / "out", *options)
        found = np.asarray(Image.open(entry["mask"]))
        assert (found == mask).mean() == 1 if right == 1 else (found == mask).mean() < right


def test_grey_pictures(tmp_path, capsys):
    image = keras.Input((8, 8, 1))
    conv = layers.Conv2D(2, 1, use_bias=False)
    model = keras.Model(image, layers.Rescaling(1 / 100, -1)(conv(image)))
    conv.set_weights([np.array([0.0, 1.0], "float32")[None, None, None]])
    pixels = np.kron(np.eye(2, dtype="uint8") * 200, np.ones((4, 4), "uint8"))
    (entry,) = run(
        capsys, save(model, tmp_path / "grey.keras"), saved(tmp_path / "x.png", pixels), "--output-dir", tmp_path
    )
    np.testing.assert_array_equal(np.asarray(Image.open(entry["mask"])), pixels // 200)


def test_models_of_any_size(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(strongest(size=(None, None)), tmp_path / "any.keras")
    mask, pixels = blocks(40, 40, side=4)
    saved(tmp_path / "x.png", pixels)
    assert "any size; say which with image_size" in fails(capsys, "predict", "any.keras", "x.png")
    for options in ((), ("--tiles",)):
        (entry,) = run(capsys, "any.keras", "x.png", "--image-size", 20, *options)
        np.testing.assert_array_equal(np.asarray(Image.open(entry["mask"])), mask)


def test_broken_files_are_named_and_the_rest_goes_on(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "good.png", blocks(9, 9)[1])
    Path("text.png").write_text("no image")
    Path("empty.jpg").write_bytes(b"")
    model = str(files / "logits.keras")
    with pytest.raises(SystemExit) as stop:
        main(["predict", model, "text.png", "good.png", "empty.jpg", "--json"])
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert [entry["image"] for entry in json.loads(printed.out)] == ["good.png"]
    warnings = printed.err.splitlines()
    assert [warning.split(" cannot")[0] for warning in warnings] == [
        "kzoo: warning: text.png",
        "kzoo: warning: empty.jpg",
    ]
    assert len(list(Path("predictions").iterdir())) == 3
    assert "no image could be read: text.png" in fails(capsys, "predict", model, "text.png", "--output-dir", "new")
    assert not Path("new").exists()


def test_no_image_is_overwritten(tmp_path):
    one, two = Path("a/x.png"), Path("b/x.jpg")
    with pytest.raises(InvalidValueError, match=r"a/x\.png and b/x\.jpg would both be written as out/x_overlay"):
        output_paths([one, two], Path("out"), ENDINGS)
    images = [tmp_path / "x.png", tmp_path / "x_overlay.png"]
    with pytest.raises(InvalidValueError, match=r"x\.png would overwrite the image .*x_overlay\.png; choose another"):
        output_paths(images, tmp_path / ".." / tmp_path.name, ENDINGS)
    with pytest.raises(InvalidValueError, match=r"x_overlay\.png is the result of a former run; leave"):
        output_paths(images[1:], tmp_path, ENDINGS)
    assert len(output_paths(images, tmp_path / "out", ENDINGS)) == 2


def two_inputs() -> keras.Model:
    images = [keras.Input((8, 8, 3)) for _ in range(2)]
    return keras.Model(images, layers.Add()(images))


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        ("logits", ["--top", "3"], "--top goes with a classifier, which logits.keras is not"),
        ("logits", ["--crop", "0.9"], "--crop goes with a classifier, which logits.keras is not"),
        ("logits", ["--tiles", "--interpolation", "bicubic"], "--interpolation is of the resizing, and --tiles"),
        ("logits", ["--output-dir", "x.png/y"], "cannot write to"),
        ("logits", ["--output-dir", "x.png"], "x.png; choose another output directory"),
        ("logits", ["--image-size", "64"], "takes images of 24×32 alone"),
        ("logits", ["--labels", "labels.txt"], "there are labels for 2 classes, logits.keras has 3"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.MaxPool2D(4)]), [], "maps of 2×2 for images of 8×8"),
        (lambda: keras.Sequential([keras.Input((9, 9, 3)), layers.MaxPool2D(2)]), [], "tiles of 9 pixels give 4"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(257, 1)]), [], "257 classes; a mask of 8"),
        (two_inputs, [], "m.keras has 2 inputs and 1 outputs"),
        (
            lambda: keras.Sequential([keras.Input((8, 3)), layers.Dense(2)]),
            [],
            "m.keras is no classifier: its output is (None, 8, 2)",
        ),
        (
            lambda: kzoo.build("cifar_resnet20"),
            ["--tiles"],
            "--tiles goes with a model for segmentation, which m.keras",
        ),
        (lambda: kzoo.build("cifar_resnet20"), ["--output-dir", "o"], "--output-dir goes with a model for segm"),
    ],
)
def test_mistakes(files, tmp_path, capsys, monkeypatch, model, args, message):
    monkeypatch.chdir(tmp_path)
    saved(Path("x.png"), blocks(9, 9)[1])
    Path("labels.txt").write_text("a\nb\n")
    name = f"{model}.keras" if isinstance(model, str) else "m.keras"
    if isinstance(model, str):
        Path(name).write_bytes((files / name).read_bytes())
    else:
        model().save(name)
    before = sorted(tmp_path.iterdir())
    assert message in fails(capsys, "predict", name, "x.png", *args)
    assert sorted(tmp_path.iterdir()) == before


def test_a_name_of_the_zoo_needs_weights(tmp_path):
    for name in ("unet", "fpn"):
        with pytest.raises(WeightsError, match=f"no checkpoint known for {name}; train one .* or give --weights FILE"):
            open_model(name)


def test_pictures_keep_their_size(tmp_path):
    path = saved(tmp_path / "x.png", blocks(9, 5)[1])
    assert (read_picture(path, 3).size, read_picture(path, 1).mode) == ((5, 9), "L")
