"""What a model carries of its classes and pixels: through training, files, copies, rewrites, exports, prediction."""

import json
import zipfile

import keras
import numpy as np
import pytest
from helpers import pixels, randomise
from keras import layers
from PIL import Image

import kzoo
from kzoo.cli import main
from kzoo.edge import Card, read_card
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.layers import Meaning
from kzoo.meaning import carried_pixels, with_classes
from kzoo.output import Output
from kzoo.surgery import fold_batch_norm, fold_preprocessing
from kzoo.surgery.fake_quantization import insert_fake_quantization, remove_fake_quantization

NAMES = ("left | right", "два", "<b>")
NARROW = dict(depths=(1, 1), widths=(4, 8), input_shape=(8, 10, 3), num_classes=3)
PIXELS = Pixels("pad", interpolation="bicubic")


@pytest.fixture
def plain() -> keras.Model:
    return randomise(kzoo.build("cifar_resnet20_cbam", **NARROW))


@pytest.fixture
def named(plain) -> keras.Model:
    return kzoo.with_classes(plain, NAMES, PIXELS)


def carries(model: keras.Model) -> bool:
    return Output.of_model(model) == Output("classification", "softmax", 3, NAMES) and carried_pixels(model) == PIXELS


def test_names_change_no_number_and_share_the_weights(plain, named):
    images = pixels(2, 8, 10, 3)
    assert Output.of_model(plain).class_names is None
    assert carries(named)
    np.testing.assert_array_equal(named(images), plain(images))
    assert all(mine is theirs for mine, theirs in zip(named.weights, plain.weights, strict=True))
    assert [type(layer) for layer in named.layers if layer not in plain.layers] == [Meaning]


COPIES = {
    "clone": keras.models.clone_model,
    "config": lambda model: keras.Model.from_config(model.get_config()),
    "in a model": lambda model: keras.Model(image := keras.Input((8, 10, 3)), model(image)),
    "sequential": lambda model: keras.Sequential([keras.Input((8, 10, 3)), model]),
    "dropout behind": lambda model: keras.Model(model.inputs, layers.Dropout(0.5)(model.output)),
    "folded": fold_batch_norm,
    "folded whole": lambda model: fold_preprocessing(fold_batch_norm(model)),
    "fake int8": lambda model: insert_fake_quantization(fold_batch_norm(model), "int8"),
    "real again": lambda model: remove_fake_quantization(insert_fake_quantization(fold_batch_norm(model), "int8")),
    "named again": lambda model: with_classes(with_classes(model, "abc", Pixels("stretch")), NAMES, PIXELS),
}


@pytest.mark.parametrize("copy", COPIES)
def test_every_copy_carries_it(named, copy):
    assert carries(COPIES[copy](named))


def test_what_stands_behind_takes_it_away(named):
    other = keras.Model(named.inputs, layers.Dense(3)(named.output))
    assert Output.of_model(other) == Output("classification", "logits", 3)
    assert carried_pixels(other) is None
    relabelled = with_classes(named, "abc")
    assert (Output.of_model(relabelled).names, carried_pixels(relabelled)) == (("a", "b", "c"), PIXELS)


def test_a_plain_fit_leaves_a_file_that_predicts_by_name(named, tmp_path, capsys):
    named.compile("sgd", "sparse_categorical_crossentropy")
    named.fit(pixels(4, 8, 10, 3), np.array([0, 1, 2, 0]), verbose=0)
    named.save(tmp_path / "own.keras")
    loaded = keras.saving.load_model(tmp_path / "own.keras")
    assert carries(loaded)
    np.testing.assert_array_equal(loaded(pixels(2, 8, 10, 3)), named(pixels(2, 8, 10, 3)))
    Image.fromarray(pixels(1, 30, 20, 3)[0].astype("uint8")).save(tmp_path / "photo.png")
    main(["predict", str(tmp_path / "own.keras"), str(tmp_path / "photo.png"), "--json"])
    (told,) = json.loads(capsys.readouterr().out)
    seen = PIXELS.read(tmp_path / "photo.png", (8, 10, 3))
    expected = np.asarray(loaded(seen[None].astype("float32")))[0]
    assert {row["class"] for row in told["predictions"]} == set(NAMES)
    for row in told["predictions"]:
        assert row["probability"] == pytest.approx(expected[NAMES.index(row["class"])], abs=1e-6)


def test_half_precision_leaves_probabilities_as_they_are():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = with_classes(kzoo.build("cifar_resnet20", **NARROW), NAMES)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.output.dtype == "float32"


def test_weights_of_a_named_file_load_into_the_plain_model(named, plain, tmp_path):
    named.save(tmp_path / "own.keras")
    again = kzoo.build("cifar_resnet20_cbam", weights=tmp_path / "own.keras", **NARROW)
    np.testing.assert_array_equal(again(pixels(2, 8, 10, 3)), plain(pixels(2, 8, 10, 3)))


def test_exported_files_have_its_card_and_no_operation_more(plain, named, tmp_path):
    reports = [kzoo.export(model, tmp_path / f"{kind}.tflite") for kind, model in (("a", plain), ("b", named))]
    assert reports[0].ops == reports[1].ops
    card = read_card(tmp_path / "b.tflite")
    assert (card.output.class_names, card.pixels) == (NAMES, PIXELS)
    kzoo.export(plain, tmp_path / "c.tflite", class_names=list("abc"))
    assert read_card(tmp_path / "c.tflite").output.class_names == ("a", "b", "c")
    with pytest.raises(InvalidValueError, match="one of both"):
        kzoo.export(plain, tmp_path / "d.tflite", class_names=NAMES, card=Card(Output.of_model(plain)))
    with pytest.raises(InvalidValueError, match="class_names has 2 names for 3 classes"):
        kzoo.export(plain, tmp_path / "d.tflite", class_names=("a", "b"))


@pytest.mark.parametrize("model", ["unet_padded", "binary", "subclassed last"])
def test_maps_and_models_that_do_not_tell(model):
    image = keras.Input((8, 8, 3))
    if model == "unet_padded":
        model, values = kzoo.build(model, widths=(4, 8), input_shape=(8, 8, 3), num_classes=2), None
    elif model == "binary":
        model, values = keras.Model(image, layers.Dense(1, "sigmoid")(layers.GlobalMaxPooling2D()(image))), None
    else:
        half = layers.Lambda(lambda x: x / keras.ops.sum(x, -1, keepdims=True))
        model, values = keras.Model(image, half(layers.Dense(2, "relu")(layers.Flatten()(image)))), "softmax"
    named = with_classes(model, ("no", "yes"), values=values)
    output = Output.of_model(named)
    assert (output.class_names, output.values) == (("no", "yes"), values or Output.of_model(model).values)
    assert output.task == Output.of_model(model).task


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b"), "class_names has 2 names for 3 classes"),
        ((1, 2, 3), "must be a list of texts"),
        (("a", "b", "c" * 1001), "more than 1000 characters"),
    ],
)
def test_names_that_cannot_be_are_refused(plain, names, message):
    with pytest.raises(InvalidValueError, match=message):
        with_classes(plain, names)


def test_a_model_without_a_graph_is_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(InvalidValueError, match="a subclassed model has none"):
        with_classes(Own(), ("a", "b"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": 4, "class_names": None}, "tells of 4 units for classification, and the model gives 3"),
        ({"units": "3"}, "layer 'meaning' of .* cannot be right: units='3'"),
        ({"class_names": ["a"]}, "class_names has 1 names for 3 classes"),
        ({"task": "captioning"}, "task='captioning'"),
        ({"task": "detection"}, "scores of boxes are 'sigmoid'"),
    ],
)
def test_a_file_that_carries_what_cannot_be_is_one_line(named, tmp_path, change, message):
    damage(named, tmp_path / "own.keras", "output", change)
    with pytest.raises(InvalidValueError, match=message):
        Output.of_model(keras.saving.load_model(tmp_path / "own.keras"))


def test_pixels_that_cannot_be_are_one_line(named, tmp_path):
    damage(named, tmp_path / "own.keras", "pixels", {"crop": 7})
    with pytest.raises(InvalidValueError, match=r"layer 'meaning' of .* cannot be right: crop=7"):
        carried_pixels(keras.saving.load_model(tmp_path / "own.keras"))


def damage(model: keras.Model, path, field: str, change: dict) -> None:
    """Saves a model whose meaning says something else."""
    model.save(path)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][-1]["config"][field] |= change
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
