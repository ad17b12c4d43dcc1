"""Naming what pictures show: models of the zoo, files, and the command."""

import json
from functools import partial

import keras
import numpy as np
import pytest
from helpers import fails, randomise
from images.pictures import PHOTOGRAPHS, noise, saved

import kzoo
from kzoo.class_names import imagenet_classes
from kzoo.cli import main
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError, UnknownNameError, WeightsError
from kzoo.images import Pixels, find_pictures
from kzoo.output import Output
from kzoo.predict.classifier import classify, open_classifier, open_model
from kzoo.registry import lookup


def test_names_of_imagenet():
    names = imagenet_classes()
    assert len(set(names)) == 1000
    assert [names[index] for index in (0, 1, 207, 285, 409, 817, 999)] == [
        "tench", "goldfish", "golden retriever", "Egyptian cat", "analog clock", "sports car", "toilet tissue",
    ]  # fmt: skip


TINY = dict(depths=(1, 1), widths=(8, 16), input_shape=(16, 16, 3))


def tiny(**options) -> keras.Model:
    return randomise(kzoo.build("cifar_resnet20", **TINY | options))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model as every kind of file, 40 pictures, and two files that are broken."""
    root = tmp_path_factory.mktemp("predict")
    model = tiny()
    model.save(root / "model.keras")
    logits = tiny(classifier_activation=None)
    logits.save(root / "logits.keras")
    (root / "pictures").mkdir()
    for index, pixels in enumerate(np.random.default_rng(4).integers(0, 256, (40, 20, 24, 3), dtype="uint8")):
        saved(root / "pictures" / f"{index:02}.png", pixels)
    images = np.stack([Pixels().read(path, (16, 16, 3)) for path in sorted((root / "pictures").iterdir())])
    for name, kind in (("model", model), ("logits", logits)):
        kzoo.export_all(kzoo.fold_batch_norm(kind), root, ("float32", "int8"), images, name=name)
    (root / "broken").mkdir()
    (root / "broken" / "1.png").write_bytes(b"nothing")
    (root / "broken" / "2.jpg").write_bytes((root / "pictures" / "00.png").read_bytes()[:60])
    np.save(root / "expected.npy", model.predict(images.astype("float32"), verbose=0))
    return root


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("model.keras", 1e-6),
        ("logits.keras", 1e-6),
        ("model_float32.tflite", 1e-5),
        ("logits_float32.tflite", 1e-5),
        ("model_int8.tflite", 0.06),  # 8 bits in every layer of a random network
        ("logits_int8.tflite", 0.06),
    ],
)
def test_every_kind_of_file_gives_the_same_probabilities(folder, name, tolerance):
    classifier = open_classifier(str(folder / name))
    assert classifier.input_shape == (16, 16, 3)
    assert classifier.pixels == Pixels("crop", 1.0, "bilinear")
    paths = find_pictures([folder / "pictures"])
    results = list(classify(classifier, paths))
    assert [path for path, _ in results] == paths
    np.testing.assert_allclose([result for _, result in results], np.load(folder / "expected.npy"), atol=tolerance)


def test_int8_probabilities_of_many_classes_are_no_logits(tmp_path):
    """Rounded to 1/256, a thousand of them may sum to far from one."""
    model = tiny(num_classes=1000)
    images = np.random.default_rng(5).integers(0, 256, (8, 16, 16, 3)).astype("float32")
    kzoo.export(kzoo.fold_batch_norm(model), tmp_path / "many.tflite", "int8", images)
    classifier, raw = open_classifier(str(tmp_path / "many.tflite")), LiteRTModel(tmp_path / "many.tflite")
    assert np.abs(raw.predict(images).sum(axis=-1) - 1).max() > 0.02
    np.testing.assert_array_equal(classifier.predict(images), raw.predict(images))
    assert classifier.class_names[285] == "Egyptian cat"


def test_formats_that_are_not_read_say_what_runs_them(tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    for name in (str(tmp_path / "model.onnx"), str(tmp_path / "saved")):
        with pytest.raises(InvalidValueError, match=r"is no \.keras or \.tflite file, .* onnxruntime runs ONNX files"):
            open_model(name)


def test_broken_files_keep_their_place(folder):
    paths = [folder / "broken/1.png", folder / "pictures/05.png", folder / "broken/2.jpg", folder / "pictures/03.png"]
    results = dict(classify(open_classifier(str(folder / "model.keras")), paths))
    expected = np.load(folder / "expected.npy")
    assert isinstance(results[paths[0]], InvalidValueError)
    assert isinstance(results[paths[2]], InvalidValueError)
    np.testing.assert_allclose(results[paths[1]], expected[5], atol=1e-6)
    np.testing.assert_allclose(results[paths[3]], expected[3], atol=1e-6)
    assert list(results) == paths


def test_the_checkpoint_says_how_to_resize(monkeypatch, tmp_path):
    donor, narrow = tmp_path / "donor.weights.h5", lookup("resnet18").narrow
    monkeypatch.setattr("kzoo.predict.classifier.build", partial(kzoo.build, **narrow))
    model = randomise(kzoo.build("resnet18", **narrow))
    model.save_weights(donor)
    monkeypatch.setattr("kzoo.weights.specs.fetch_hub", lambda repository: donor)
    classifier = open_classifier("resnet18")
    assert (classifier.pixels, classifier.class_names[1]) == (Pixels("crop", 0.95, "bicubic"), "goldfish")
    path = PHOTOGRAPHS / "china.jpg"
    pixels = Pixels("crop", 0.95, "bicubic").read(path, (224, 224, 3))
    expected = model.predict(pixels[None].astype("float32"), verbose=0)[0]
    ((_, found),) = classify(classifier, [path])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    best = classifier.top(found, 3)
    assert [entry["index"] for entry in best] == np.argsort(-expected)[:3].tolist()
    assert best[0]["probability"] == pytest.approx(expected.max(), abs=1e-6)

    classifier = open_classifier("resnet18", weights="tv_in1k", image_size=64, crop=0.5)
    assert classifier.input_shape == (64, 64, 3)
    assert classifier.pixels == Pixels("crop", 0.5, "bilinear")


def test_labels(folder, tmp_path):
    names = [f"class {index}" for index in range(10)]
    (tmp_path / "labels.txt").write_text("\n".join(names) + "\n\n")
    model = tmp_path / "model.keras"
    model.write_bytes((folder / "model.keras").read_bytes())
    assert open_classifier(str(model)).class_names == tuple("0123456789")
    assert open_classifier(str(model), class_names_file=tmp_path / "labels.txt").class_names == tuple(names)
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"dataset": {"classes": list("abcdefghij")}}))
    assert open_classifier(str(model)).class_names == tuple("abcdefghij")
    assert open_classifier(str(model), class_names_file=tmp_path / "labels.txt").class_names == tuple(names)
    for content in ('{"dataset": {"classes": ["a"]}}', '{"dataset": 1}', "[]"):  # of another model, of other tools
        report.write_text(content)
        assert open_classifier(str(model)).class_names == tuple("0123456789")
    for classes in ('["a"', "[1, 2]}}", '"a"}}'):
        report.write_text('{"dataset": {"classes": ' + classes)
        with pytest.raises(InvalidValueError, match=r"report\.json"):
            open_classifier(str(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0.0}, "crop=0.0 must be a number from 0.05 to 1"),
        ({"crop": 1.1}, "crop=1.1 must be a number from 0.05 to 1"),
        ({"resize": "squash"}, "resize='squash' is not accepted; use one of 'stretch', 'crop', 'pad'"),
        ({"resize": "pad", "crop": 0.9}, "crop=0.9 goes with resize='crop'"),
        ({"interpolation": "nearest"}, "interpolation='nearest' is not accepted; use one of 'bilinear', 'bicubic'"),
        ({"image_size": 0}, "image_size=0 must be at least 1"),
        ({"image_size": 32}, "takes images of 16×16 alone, not image_size=32"),
        ({"weights": "imagenet"}, "has its own weights"),
        ({"class_names_file": "absent.txt"}, "cannot read the labels in absent.txt"),
        ({"class_names_file": __file__}, r"there are labels for \d+ classes, .*model.keras has 10"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(InvalidValueError, match=message):
        open_classifier(str(folder / "model.keras"), **options)


def test_models_that_are_no_classifiers(folder, tmp_path):
    for name, model, message in (
        ("trunk", tiny(include_top=False), "is no classifier"),
        ("four", tiny(input_shape=(16, 16, 4)), "images of 4 channels"),
        ("any", tiny(input_shape=(None, None, 3)), "any size; say which with image_size"),
    ):
        model.save(tmp_path / f"{name}.keras")
        with pytest.raises(InvalidValueError, match=message):
            open_classifier(str(tmp_path / f"{name}.keras"))
    assert open_classifier(str(tmp_path / "any.keras"), image_size=20).input_shape == (20, 20, 3)
    with pytest.raises(InvalidValueError, match=r"no file at absent\.keras"):
        open_classifier("absent.keras")
    with pytest.raises(InvalidValueError, match=r"cannot read absent\.tflite"):
        open_classifier("absent.tflite")
    with pytest.raises(UnknownNameError, match="did you mean 'resnet50'"):
        open_classifier("resnet5O")
    with pytest.raises(WeightsError, match="no checkpoint known for plain18"):
        open_classifier("plain18")


def test_grey_models(tmp_path):
    model = tiny(input_shape=(16, 16, 1))
    model.save(tmp_path / "grey.keras")
    grey = noise(16, 16, 1)
    ((_, found),) = classify(open_classifier(str(tmp_path / "grey.keras")), [saved(tmp_path / "x.png", grey)])
    np.testing.assert_allclose(found, model.predict(grey[None, ..., None].astype("float32"), verbose=0)[0], atol=1e-6)


def test_logits_become_probabilities_however_large_they_are():
    logits = np.array([[1000.0, 1000.0, 0.0], [0.0, np.log(3), -np.inf]])
    found = Output("classification", "logits", 3).probabilities(logits)
    np.testing.assert_allclose(found, [[0.5, 0.5, 0], [0.25, 0.75, 0]])


@pytest.mark.quick
def test_command_prints_json(folder, capsys):
    main(["predict", str(folder / "model.keras"), str(folder / "pictures"), "--json", "--top", "3"])
    printed = json.loads(capsys.readouterr().out)
    expected = np.load(folder / "expected.npy")
    assert [entry["image"] for entry in printed] == [str(path) for path in find_pictures([folder / "pictures"])]
    for entry, probabilities in zip(printed, expected, strict=True):
        best = np.argsort(-probabilities)[:3]
        assert [found["index"] for found in entry["predictions"]] == best.tolist()
        assert [found["class"] for found in entry["predictions"]] == [str(index) for index in best]
        np.testing.assert_allclose(
            [found["probability"] for found in entry["predictions"]], probabilities[best], atol=1e-6
        )


def test_command_prints_tables(folder, capsys, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(f"class [{index}]" for index in range(10)))
    image = folder / "pictures/07.png"
    main(["predict", str(folder / "model_int8.tflite"), str(image), "--labels", str(tmp_path / "labels.txt")])
    text = capsys.readouterr().out
    assert str(image) in text
    assert all(f"\n{rank}\tclass [" in text for rank in range(1, 6))
    assert "\n6\t" not in text
    main(["predict", str(folder / "model.keras"), str(image), "--top", "99"])
    text = capsys.readouterr().out
    best = np.load(folder / "expected.npy")[7]
    assert f"{best.max():.2%}" in text
    assert "\n10\t" in text


def test_command_warns_of_broken_files_and_goes_on(folder, capsys):
    good = str(folder / "pictures/01.png")
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(folder / "model.keras"), str(folder / "broken"), good, "--json"])
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert [entry["image"] for entry in json.loads(printed.out)] == [good]
    warnings = printed.err.splitlines()
    assert len(warnings) == 2
    assert warnings[0].startswith(f"kzoo: warning: {folder}/broken/1.png cannot be read as an image")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["model.keras", "broken"], "no image could be read: "),
        (["model.keras", "absent"], "no file or folder at"),
        (["model.keras", "pictures", "--top", "0"], "--top 0 must be at least 1"),
        (["model.keras", "pictures", "--crop", "2"], "crop=2.0 must be"),
        (["model.keras"], "no image given"),
        (["resnet5O", "pictures"], "did you mean 'resnet50'"),
        (["nat_mini", "pictures"], "published as a pickle alone"),
        (["absent.keras", "pictures"], "no file at"),
    ],
)
def test_mistakes(folder, args, message, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert message in fails(capsys, "predict", *args)
