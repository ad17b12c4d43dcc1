"""Files of models with several inputs or outputs: names, order, and each output compared by itself."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import converted_once, feature_map, pixels, randomise, relative_error

import kzoo
from kzoo.cli import main
from kzoo.edge import LiteRTModel, read_card
from kzoo.errors import ExportError, InvalidValueError
from kzoo.predict.classifier import as_classifier, open_model

IMAGES = pixels(24, 16, 16, 3)


@pytest.fixture(scope="module")
def pyramid() -> keras.Model:
    """Maps of a net of residual blocks, the coarsest first, which is not the order of the alphabet."""
    net = kzoo.build("cifar_resnet20_se", input_shape=(16, 16, 3), depths=(1, 1, 1), widths=(16, 24, 32))
    return kzoo.pyramid(kzoo.fold_batch_norm(randomise(net)), ["p2", "p0", "p1"])


@pytest.fixture(scope="module")
def files(pyramid, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with converted_once():
        return {
            precision: kzoo.export(pyramid, folder / f"{precision}.tflite", precision, IMAGES, find_layers=True)
            for precision in ("float32", "int8")
        }


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-5), ("int8", 0.3)])  # 8-bit steps of random layers
def test_maps_keep_their_names_and_order(pyramid, files, precision, bound):
    lite = LiteRTModel(files[precision].path)
    assert list(lite.outputs) == ["p2", "p0", "p1"]
    assert files[precision].xnnpack_partitions == 1
    images = pixels(3, 16, 16, 3, seed=5)
    expected, found = pyramid(images), lite.predict_each(images)
    for name, values in expected.items():
        assert relative_error(found[name], values) < bound, name


def test_each_output_has_its_own_errors_and_scale(files):
    report = files["int8"]
    assert list(report.outputs) == ["p2", "p0", "p1"]
    assert report.relative_error == max(told["relative_error"] for told in report.outputs.values()) > 0
    assert len({told["relative_error"] for told in report.outputs.values()}) == 3
    scales = {detail["quantization"][0] for detail in LiteRTModel(report.path).outputs.values()}
    assert len(scales) == 3
    assert "error of 'p1'" in report.to_markdown()
    assert report.agreement is None
    assert report.layers


def test_the_card_tells_all_outputs(files):
    told = json.loads(Path(f"{files['int8'].path}.json").read_text())
    assert told["answer"] is None
    assert {name: tensor["shape"] for name, tensor in told["outputs"].items()} == {
        "p2": [1, 4, 4, 32],
        "p0": [1, 16, 16, 16],
        "p1": [1, 8, 8, 24],
    }
    assert read_card(files["int8"].path).answer is None
    with pytest.raises(InvalidValueError, match=r"has 3 outputs \(p2, p0, p1\); one is needed"):
        open_model(files["int8"].path)


def test_one_output_that_disagrees_is_named(pyramid, tmp_path):
    inputs = keras.Input((16, 16, 3))
    maps = pyramid(inputs)
    other = keras.Model(inputs, maps | {"p1": maps["p1"] * 1.01})
    with pytest.raises(ExportError, match="output 'p1' of the float32 file of"):
        kzoo.export(pyramid, tmp_path / "model.tflite", reference=other)
    assert not list(tmp_path.iterdir())


def test_auxiliary_heads_on_request(tmp_path):
    narrow = kzoo.registry.lookup("googlenet")
    size = (79, 83, 3)
    net = randomise(kzoo.build("googlenet", auxiliary=True, num_classes=7, input_shape=size, **narrow.narrow))
    images = pixels(4, *size)
    report = kzoo.export(net, tmp_path / "model.tflite", auxiliary=True, evaluation=(images, np.arange(4)))
    lite = LiteRTModel(report.path)
    assert list(lite.outputs) == list(net.output)
    for name, values in net(images).items():
        assert relative_error(lite.predict_each(images)[name], values) < 1e-4, name
    assert read_card(report.path).answer == "head"
    accuracy = np.mean(np.argmax(net(images)["head"], axis=-1) == np.arange(4))
    assert report.scores["accuracy"] == {"keras": accuracy, "file": accuracy}
    classifier = as_classifier(open_model(report.path))
    np.testing.assert_allclose(classifier.predict(images), net(images)["head"], atol=1e-4)


@pytest.mark.parametrize("structure", [list, dict])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_several_inputs(structure, precision, tmp_path):
    image, vector = keras.Input((7, 5, 3), name="the image"), keras.Input((4,), name="a_vector")
    x = keras.layers.Conv2D(6, 3, activation="relu")(image)
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(x), vector])
    inputs = [image, vector] if structure is list else {"the image": image, "a_vector": vector}
    model = randomise(keras.Model(inputs, keras.layers.Dense(5)(x)))
    given = {"the_image": pixels(6, 7, 5, 3), "a_vector": feature_map(6, 4)}
    report = kzoo.export(model, tmp_path / "model.tflite", precision, given, batch_size=4)
    lite = LiteRTModel(report.path)
    assert {name: list(detail["shape"]) for name, detail in lite.inputs.items()} == {
        name: [4, *given[name].shape[1:]] for name in given
    }
    fed = [given["the_image"], given["a_vector"]]
    expected = model(fed if structure is list else {"the image": fed[0], "a_vector": fed[1]})
    bound = 1e-5 if precision == "float32" else 0.05  # 8-bit steps
    assert relative_error(lite.predict_each(given)["output_0"], expected) < bound
    with pytest.raises(InvalidValueError, match=r"takes (the_image, a_vector|a_vector, the_image), got other"):
        lite.predict_each({"other": given["a_vector"]})
    with pytest.raises(InvalidValueError, match=r"\[3, 6\] images; each needs as many"):
        lite.predict_each(given | {"a_vector": given["a_vector"][:3]})
    with pytest.raises(InvalidValueError, match="calibration must be a dict with an array for each of"):
        kzoo.export(model, tmp_path / "model.tflite", "int8", given["the_image"])


def test_outputs_within_outputs_are_refused(tmp_path):
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, {"a": [inputs + 1, inputs + 2]})
    with pytest.raises(ExportError, match="outputs within outputs; a tensor, or a dict or list of them, is exported"):
        kzoo.export(model, tmp_path / "model.tflite")


def test_a_list_of_outputs_is_numbered(tmp_path):
    inputs = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(2, 1)(inputs)
    model = randomise(keras.Model(inputs, [x, keras.layers.Conv2D(3, 1)(x)]))
    lite = LiteRTModel(kzoo.export(model, tmp_path / "model.tflite").path)
    assert {name: int(detail["shape"][-1]) for name, detail in lite.outputs.items()} == {"output_0": 2, "output_1": 3}


def test_the_command_writes_all_outputs(pyramid, tmp_path, capsys):
    pyramid.save(tmp_path / "maps.keras")
    main(["export", str(tmp_path / "maps.keras"), str(tmp_path / "maps.tflite"), "--json"])
    (report,) = json.loads(capsys.readouterr().out)
    assert list(report["outputs"]) == ["p2", "p0", "p1"]
    assert json.loads((tmp_path / "maps.tflite.json").read_text())["answer"] is None


def test_the_command_names_the_classes_of_the_answer(tmp_path, capsys):
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3)(image)
    answer = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    randomise(keras.Model(image, {"map": x, "answer": answer})).save(tmp_path / "both.keras")
    (tmp_path / "labels.txt").write_text("cat\ndog\ncow\n")
    lite = tmp_path / "both.tflite"
    main(["export", str(tmp_path / "both.keras"), str(lite), "--labels", str(tmp_path / "labels.txt")])
    card = read_card(lite)
    assert (card.answer, card.output.class_names) == ("answer", ("cat", "dog", "cow"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "labels.txt"], "gives p2, p0, p1, none of which answers what is in a picture; leave --labels, "),
        (
            ["--values", "logits"],
            "none of which answers what is in a picture; leave --labels, --values and --evaluate",
        ),
    ],
)
def test_the_command_names_no_classes_of_maps(pyramid, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    pyramid.save("maps.keras")
    with pytest.raises(SystemExit):
        main(["export", "maps.keras", "maps.tflite", *arguments])
    assert message in capsys.readouterr().err


def test_the_command_calibrates_one_input(tmp_path, capsys):
    pair = [keras.Input((8, 8, 3), name=name) for name in ("left", "right")]
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()(pair))
    keras.Model(pair, keras.layers.Dense(2)(x)).save(tmp_path / "pair.keras")
    files = [str(tmp_path / name) for name in ("pair.keras", "pair.tflite")]
    with pytest.raises(SystemExit):
        main(["export", *files, "--precision", "int8", "--dataset", "digits"])
    told = capsys.readouterr().err
    assert (
        "takes left, right, and a dataset gives one image at a time; leave --dataset out, or export in Python" in told
    )
