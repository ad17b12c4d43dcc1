"""Files of detectors: boxes and scores in each precision, judged by what they find, and the way told by their cards."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import converted_once, pixels, randomise
from PIL import Image

import kzoo
from kzoo.class_names import known_output
from kzoo.cli import main
from kzoo.detection import AveragePrecision
from kzoo.detection.suppression import Detections, Suppression, detect
from kzoo.edge import Card, LiteRTModel, read_card
from kzoo.edge.card import card_path, describe, write_card
from kzoo.edge.compare import agreement, scores
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels
from kzoo.models.detector import raw_outputs
from kzoo.output import Output
from kzoo.surgery import insert_fake_quantization, remove_fake_quantization

SIZE = (48, 64)
TINY = dict(backbone="resnet18", backbone_options=dict(widths=(4, 6, 8, 10), depths=(1, 1, 1, 1)), channels=8)
TINY |= dict(head_depth=1, head_groups=4, extra_levels=0, num_classes=2, input_shape=(*SIZE, 3))
NORMS = {"fcos": None, "retinanet": "batch"}
IMAGES = pixels(24, *SIZE, 3)
STEP = 1 / 255


@pytest.fixture(scope="module", params=["fcos", "retinanet"])
def model(request) -> keras.Model:
    made = randomise(kzoo.build(request.param, **TINY, head_norm=NORMS[request.param]))
    rules = Suppression(score=0.3, candidates=40, overlap=0.5, most=9)
    return kzoo.with_classes(kzoo.fold_batch_norm(made), ["cat", "dog"], Pixels("pad"), suppression=rules)


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """Type of the ends, None for the default -> report of the int8 file."""
    folder = tmp_path_factory.mktemp("files")
    with converted_once():
        return {
            io: kzoo.export(model, folder / f"{io}.tflite", "int8", IMAGES, io=io) for io in (None, "int8", "float32")
        }


def test_boxes_leave_in_float_and_scores_in_integers(files):
    told = {io: LiteRTModel(report.path).outputs for io, report in files.items()}
    types = {io: [detail["dtype"].__name__ for detail in outputs.values()] for io, outputs in told.items()}
    assert types == {None: ["float32", "int8"], "int8": ["int8", "int8"], "float32": ["float32", "float32"]}
    for detail in told["int8"].values():
        assert detail["quantization"] == pytest.approx((STEP, -128))
    assert {report.xnnpack_partitions for report in files.values()} == {1}
    assert {tuple(report.outputs) for report in files.values()} == {("boxes", "scores")}


def test_boxes_are_decoded_in_float(files):
    """What an end of integers rounds is what one of float gives: half a step of 1 / 255 at most, and on no grid."""
    found = {io: LiteRTModel(report.path).predict_each(IMAGES[:8]) for io, report in files.items()}
    boxes = {io: outputs["boxes"] for io, outputs in found.items()}
    np.testing.assert_array_equal(boxes[None], boxes["float32"])
    assert np.abs(boxes[None] - boxes["int8"]).max() <= 0.501 * STEP
    inside = boxes[None][(boxes[None] > 0) & (boxes[None] < 1)]
    assert len(np.unique(inside)) > 400
    np.testing.assert_array_equal(found[None]["scores"], found["int8"]["scores"])


def test_each_precision_is_one_partition(model, tmp_path):
    reports = kzoo.export_all(model, tmp_path, ("float32", "float16", "int8_weights", "int8_dynamic"), IMAGES)
    assert {precision: report.xnnpack_partitions for precision, report in reports.items()} == dict.fromkeys(reports, 1)
    assert reports["float32"].agreement == 1
    assert len(reports) == 4


def by_hand(path: Path, picture: Image.Image) -> list[tuple[float, list[float], int]]:
    """What a file finds in a picture, on the way that its card tells, with the numbers of its sentences."""
    told = json.loads(Path(f"{path}.json").read_text())
    how, (height, width) = " ".join(told["how"]), SIZE
    lite = LiteRTModel(path)
    outputs = lite.predict_each(Pixels.from_json(told["pixels"]).apply(picture, (*SIZE, 3))[None])
    boxes, values = outputs["boxes"][0].astype(float), outputs["scores"][0]
    boxes = boxes * [picture.width, picture.height] * 2 if told["pixels"]["resize"] == "stretch" else boxes
    if told["pixels"]["resize"] == "pad":
        fit = min(width / picture.width, height / picture.height)
        sides = [int(side * fit + 1e-9) for side in picture.size]
        corner = [round((side - whole) / 2) for side, whole in zip(sides, (width, height), strict=True)]
        assert f"left and right are (share * {width} + left) * its width" in how
        assert f"top and bottom (share * {height} + top) * its height" in how
        scale = np.array(picture.size) / sides
        boxes = (boxes * np.tile([width, height], 2) + np.tile(corner, 2)) * np.tile(scale, 2)
        boxes = np.clip(boxes, 0, np.tile(picture.size, 2))
    score = float(re.search(r"if its score is above ([\d.]+)\. ", how)[1])
    sizes = [int(size) for size in re.search(r"one behind the other, ([\d, ]+): keep the", how)[1].split(", ")]
    candidates = int(re.search(r"keep the (\d+) candidates of each", how)[1])
    overlap = float(re.search(r"by more than ([\d.]+):", how)[1])
    most = int(re.search(r"to (\d+) boxes at most", how)[1])
    left, start = [], 0
    for size in sizes:
        some = [
            (-float(values[place, kind]), place, kind)
            for place in range(start, start + size)
            for kind in range(values.shape[1])
            if values[place, kind] > score
        ]
        left += sorted(some, key=lambda each: each[0])[:candidates]
        start += size
    found = []
    for negative, place, kind in sorted(left, key=lambda each: each[0]):
        box = boxes[place].tolist()
        if len(found) < most and all(kind != other or share(box, b) <= overlap for _, b, other in found):
            found.append((-negative, box, kind))
    return found


def share(a, b) -> float:
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both > 0 else 0.0


@pytest.mark.parametrize("way", ["pad", "stretch"])
def test_the_way_of_the_card_ends_in_what_kzoo_finds(way, model, files, tmp_path):
    path, content = tmp_path / "m.tflite", Path(files[None].path).read_bytes()
    told = Card(known_output(files[None].path, LiteRTModel(content)), Pixels(way), "scores")
    content, told = describe(content, told, model, "int8", {}, 0)
    path.write_bytes(content)
    write_card(told, content, card_path(path))
    card = read_card(path)
    picture = Image.fromarray(pixels(1, 71, 40, 3, seed=3)[0].astype("uint8"))
    (found,) = kzoo.detect(LiteRTModel(path), [picture], card.pixels, card.output.suppression)
    expected = by_hand(path, picture)
    assert len(found) == len(expected) > 3
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], atol=1e-5)
    np.testing.assert_allclose(found.boxes, [box for _, box, _ in expected], atol=1e-3)
    assert found.classes.tolist() == [kind for _, _, kind in expected]


def test_the_card_tells_both_outputs(files):
    told = json.loads(Path(f"{files[None].path}.json").read_text())
    assert told["answer"] == "scores"
    assert (told["outputs"]["boxes"]["dtype"], told["outputs"]["scores"]["dtype"]) == ("float32", "int8")
    assert told["outputs"]["boxes"]["meaning"].startswith("left, top, right and bottom of the box of each place")
    assert told["output"]["meaning"].startswith("score of each class at each place")
    assert any("An integer of the output 'scores', int8, stands for" in sentence for sentence in told["how"])
    whole = json.loads(Path(f"{files['int8'].path}.json").read_text())["how"]
    assert any("An integer of the output 'boxes', int8, stands for" in sentence for sentence in whole)


def test_a_card_of_other_levels_is_one_line(files, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(Path(files[None].path).read_bytes())
    told = json.loads(Path(f"{files[None].path}.json").read_text())
    told["output"]["suppression"]["level_sizes"] = [7, 8]
    card_path(path).write_text(json.dumps(told))
    with pytest.raises(InvalidValueError, match=r"m\.tflite cannot be right: level_sizes=\[7, 8\] are 15 places, and"):
        known_output(str(path), LiteRTModel(path))


def test_levels_of_another_model_are_refused_before_work(model, tmp_path):
    rules = Suppression(0.1, 10, 0.5, 10, (3, 4))
    with pytest.raises(InvalidValueError, match=r"level_sizes=\[3, 4\] are 7 places, and (fcos|retinanet) has"):
        kzoo.with_classes(model, ["cat", "dog"], suppression=rules)
    card = Card(Output("detection", "sigmoid", 2, None, rules))
    with pytest.raises(InvalidValueError, match=r"level_sizes=\[3, 4\] are 7 places, and (fcos|retinanet) has"):
        kzoo.export(model, tmp_path / "m.tflite", card=card)
    assert not list(tmp_path.iterdir())


ONE = Output("detection", "sigmoid", 2, None, Suppression(0.5, 10, 0.5, 10))


def outputs(*rows) -> dict[str, np.ndarray]:
    """Of one image, (left, top, right, bottom, score of class 0, of class 1) of each place."""
    array = np.array([rows], "float32")
    return {"boxes": array[..., :4], "scores": array[..., 4:]}


def test_detections_agree_with_partners_of_their_class():
    first, second = (0, 0, 0.2, 0.2, 0.9, 0), (0.5, 0.5, 0.9, 0.9, 0, 0.8)
    expected = outputs(first, second)
    assert agreement(expected, expected, "scores", ONE) == 1
    assert agreement(outputs(first, second[:4] + (0.8, 0)), expected, "scores", ONE) == 0.5  # another class
    assert agreement(outputs(first, (0.5, 0.5, 0.6, 0.9, 0, 0.8)), expected, "scores", ONE) == 0.5  # a quarter of it
    assert agreement(outputs(first, second[:4] + (0, 0.4)), expected, "scores", ONE) == pytest.approx(2 / 3)
    none = outputs(first[:4] + (0, 0), second[:4] + (0, 0))
    assert agreement(none, expected, "scores", ONE) == 0
    assert agreement(none, none, "scores", ONE) is None


def test_scores_are_cocos_numbers(model):
    rng = np.random.default_rng(1)
    found = {name: np.array(values) for name, values in model.predict(IMAGES, verbose=0).items()}
    output = Output.of_model(model)
    truth = {"boxes": np.zeros((24, 3, 4), "float32"), "classes": rng.integers(-1, 2, (24, 3))}
    each = detect(found, [SIZE] * 24, output.suppression)
    for number, detections in enumerate(each):  # some of what is found, moved a little
        boxes = detections.boxes[:3] / (SIZE[::-1] * 2)
        truth["boxes"][number, : len(boxes)] = boxes + rng.uniform(-0.01, 0.01, boxes.shape)
        truth["classes"][number, : len(boxes)] = detections.classes[:3]
    truth["classes"][0] = -1
    metric = AveragePrecision(("cat", "dog"))
    for detections, boxes, classes in zip(each, truth["boxes"], truth["classes"], strict=True):
        wide = Detections(detections.boxes * [5, 2, 5, 2], detections.scores, detections.classes)
        metric.add(wide, boxes * [320, 96, 320, 96], classes)  # the same whatever the unit
    expected = metric.scores()
    told = scores(model.predict_on_batch, IMAGES, truth, output)
    assert told == pytest.approx({"ap50": expected["ap50"], "ap": expected["ap"]}, abs=1e-6)
    assert 0.05 < told["ap"] < told["ap50"] < 1


TRUTH = {"boxes": np.full((24, 2, 4), 0.5, "float32"), "classes": np.zeros((24, 2), int)}


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (np.zeros(24, int), "evaluation of a detector is a pair: images, and a dict of boxes"),
        ({"boxes": TRUTH["boxes"]}, "evaluation of a detector is a pair"),
        (TRUTH | {"classes": np.zeros((24, 3), int)}, r"boxes of shape \(24, 2, 4\), and classes of shape \(24, 3\)"),
        (TRUTH | {"classes": np.zeros((24, 2))}, "and type float64"),
        (TRUTH | {"classes": np.full((24, 2), 2)}, "classes from 2 to 2; 0 to 1 are the model's"),
        (TRUTH | {"classes": np.full((24, 2), -1)}, "some of which must be there; -1 is no box"),
        (TRUTH | {"boxes": TRUTH["boxes"] * 90}, "boxes from 45 to 45; they are relative to the image: 0 to 1"),
    ],
)
def test_a_truth_that_is_none_is_one_line(truth, message, model, tmp_path):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.export(model, tmp_path / "m.tflite", evaluation=(IMAGES, truth))
    assert not list(tmp_path.iterdir())


def test_the_command_evaluates_on_boxes(model, tmp_path, capsys, monkeypatch):
    """Of a table of boxes; the file finds what Keras finds."""
    monkeypatch.chdir(tmp_path)
    Path("cells").mkdir()
    model.save("m.keras")
    rows = ["path,left,top,right,bottom,label,split"]
    for number in range(9):
        Image.fromarray(IMAGES[number].astype("uint8")).save(f"cells/{number}.png")
        split = ("train", "validation", "test")[number // 3]
        rows += [f"{number}.png,{4 + number},5,40,44,{name},{split}" for name in ("cat", "dog")]
    Path("cells/boxes.csv").write_text("\n".join(rows) + "\n")
    command = ["export", "m.keras", "m.tflite", "--dataset", "cells/boxes.csv", "--evaluate", "3", "--images", "3"]
    main([*command, "--json"])
    (told,) = json.loads(capsys.readouterr().out)
    assert list(told["scores"]) == ["ap50", "ap"]
    assert told["scores"]["ap50"]["file"] == pytest.approx(told["scores"]["ap50"]["keras"], abs=1e-6)
    assert told["agreement"] == 1
    card = json.loads(Path("m.tflite.json").read_text())
    assert card["measured"]["ap50"] == {"value": told["scores"]["ap50"]["file"], "images": 3}
    main(command)
    assert "same\nboxes" in capsys.readouterr().out.replace("same boxes", "same\nboxes")


def test_other_formats_compute_boxes_and_scores(model, tmp_path):
    truth = {
        "boxes": np.tile(np.array([0.1, 0.1, 0.7, 0.8], "float32"), (24, 1, 1)),
        "classes": np.zeros((24, 1), int),
    }
    report = kzoo.export_saved_model(model, tmp_path / "m", IMAGES, evaluation=(IMAGES, truth))
    assert max(told["relative_error"] for told in report.outputs.values()) < 1e-5
    assert list(report.outputs) == ["boxes", "scores"]
    assert report.scores["ap"]["file"] == pytest.approx(report.scores["ap"]["keras"], abs=1e-6)
    assert report.agreement > 0.99
    pytest.importorskip("tf2onnx")
    report = kzoo.export_onnx(model, tmp_path / "m.onnx", IMAGES, batch_size=4, evaluation=(IMAGES, truth))
    assert max(told["relative_error"] for told in report.outputs.values()) < 1e-5
    assert read_card(tmp_path / "m.onnx").output == Output.of_model(model)


def test_the_file_computes_what_the_raw_model_was_trained_to(model, tmp_path):
    """Rounded up to the last convolutions, and from there on in float."""
    raw = insert_fake_quantization(raw_outputs(model))
    for batch in np.split(IMAGES, 4):
        raw(batch, training=True)
    raw_outputs(model).set_weights(remove_fake_quantization(raw).get_weights())  # of the detector too
    kzoo.export(model, tmp_path / "m.tflite", "int8", IMAGES)
    found = LiteRTModel(tmp_path / "m.tflite").predict_each(IMAGES[:8])
    expected = decode(model, raw(IMAGES[:8]))
    plain = {name: np.array(values) for name, values in model(IMAGES[:8]).items()}
    for name, values in expected.items():
        near, far = (np.abs(found[name] - each).mean() for each in (values, plain[name]))
        assert near < 0.6 * far, (name, near, far)


def decode(model: keras.Model, raw: dict) -> dict[str, np.ndarray]:
    """Boxes and scores of raw outputs, by the layers of the model itself."""
    offsets = keras.ops.expand_dims(raw["offsets"], 1)
    scores = keras.ops.sigmoid(raw["logits"])
    if "centerness" in raw:
        scores = keras.ops.sqrt(scores * keras.ops.sigmoid(raw["centerness"]))
    return {"boxes": np.array(model.get_layer("head_boxes")(offsets))[:, 0], "scores": np.array(scores)}
