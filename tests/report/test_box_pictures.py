"""Sheets of boxes, curves of precision by recall, and errors by kind: what they show is what was given."""

import numpy as np
import pytest
from PIL import Image

from kzoo.detection import AveragePrecision
from kzoo.detection.average_precision import KINDS
from kzoo.detection.suppression import Detections
from kzoo.images.boxes import draw_boxes
from kzoo.report import box_curves
from kzoo.report.box_curves import draw_errors, draw_precision_recall
from kzoo.report.box_sheets import BoxSheetWriter, draw_box_sheet
from kzoo.report.sheets import GAP, LINE, TOP

NAMES = ("cat", "dog")
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3)).astype("uint8")
TRUTHS = [
    (np.array([[4.0, 6, 30, 40], [10, 20, 60, 44], [0, 0, 0, 0]]), np.array([0, -3, -1])),  # a crowd, and none
    (np.zeros((2, 4)), np.array([-1, -1])),
]
FOUND = [
    Detections(np.array([[5, 7, 31, 41]], "float32"), np.array([0.75], "float32"), np.array([1], "int32")),
    Detections(np.zeros((0, 4), "float32"), np.zeros(0, "float32"), np.zeros(0, "int32")),
]


@pytest.fixture
def figures(monkeypatch):
    """What would be saved."""
    found = []
    monkeypatch.setattr(box_curves, "save_figure", lambda figure, path: found.append(figure))
    return found


@pytest.mark.parametrize("titles", [None, ["one", "two"]])
def test_truth_and_prediction_stand_side_by_side(tmp_path, titles):
    draw_box_sheet(IMAGES, TRUTHS, FOUND, NAMES, tmp_path / "sheet.png", titles)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    line = LINE if titles else 0
    assert sheet.shape == (TOP + 2 * (480 + GAP + line), 2 * (640 + GAP), 3)
    boxes = TRUTHS[0][0][:2]
    for row, (image, count) in enumerate(zip(map(Image.fromarray, IMAGES), (2, 0), strict=True)):
        truth = draw_boxes(image, boxes[:count], np.array([0, 1])[:count], NAMES, dashed=np.array([False, True]))
        mine = FOUND[row]
        prediction = draw_boxes(image, mine.boxes, mine.classes, NAMES, mine.scores)
        top = TOP + row * (480 + GAP + line) + line
        np.testing.assert_array_equal(sheet[top : top + 480, :640], truth)
        np.testing.assert_array_equal(sheet[top : top + 480, 640 + GAP :][:, :640], prediction)
        assert (np.asarray(truth) != np.asarray(prediction)).any() == (row == 0)


def test_an_epoch_leaves_a_sheet_of_what_the_model_finds_then(tmp_path):
    seen = []

    def detect(images):
        seen.append(images)
        return FOUND if len(seen) == 1 else [FOUND[1], FOUND[0]]

    writer = BoxSheetWriter(IMAGES, TRUTHS, NAMES, tmp_path / "sheets", detect)
    for epoch in (0, 11):
        writer.on_epoch_end(epoch)
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["epoch_0001.png", "epoch_0012.png"]
    for name, found in (("epoch_0001.png", FOUND), ("epoch_0012.png", FOUND[::-1])):
        draw_box_sheet(IMAGES, TRUTHS, found, NAMES, tmp_path / name)
        assert (tmp_path / name).read_bytes() == (tmp_path / "sheets" / name).read_bytes()
    assert all(images is IMAGES for images in seen)


def test_curves_are_those_of_the_metric(figures, tmp_path):
    metric = AveragePrecision((*NAMES, "bird"))
    boxes = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])
    found = np.concatenate([boxes[:2], [[80, 80, 90, 90]], boxes[2:3]]).astype("float32")
    scores = np.array([0.9, 0.8, 0.7, 0.6], "float32")
    metric.add(Detections(found, scores, np.array([0, 0, 0, 1], "int32")), boxes, np.array([0, 0, 1, 1]))
    curves, by_class = metric.curves(), metric.scores()["ap50_by_class"]
    draw_precision_recall(curves, by_class, tmp_path / "x.png")
    (axes,) = figures[0].axes
    lines = {line.get_label().split(":")[0]: line for line in axes.lines}
    assert lines.keys() == {"cat", "dog"}  # no picture shows a bird
    for name, recall in (("cat", 1.0), ("dog", 0.5)):
        expected = [1.0 if place / 100 <= recall else 0.0 for place in range(101)]
        np.testing.assert_allclose(lines[name].get_xdata(), np.arange(101) / 100)
        np.testing.assert_allclose(lines[name].get_ydata(), expected, atol=1e-9)
        assert lines[name].get_label() == f"{name}: AP50 {sum(expected) / 101:.4f}"


def test_of_many_classes_the_ten_with_the_lowest_precision_are_shown(figures, tmp_path):
    names = [f"class {number}" for number in range(12)]
    order = np.random.default_rng(0).permutation(12)
    by_class = {name: float(place) / 20 for name, place in zip(names, order, strict=True)}
    curves = {name: np.full(101, value) for name, value in by_class.items()}
    draw_precision_recall(curves, {**by_class, "absent": None}, tmp_path / "x.png")
    shown = [line.get_label().split(":")[0] for line in figures[0].axes[0].lines]
    assert shown == [name for name, place in zip(names, order, strict=True) if place < 10]
    assert figures[0].get_suptitle().endswith("the 10 of 13 classes with the lowest average precision")


def test_errors_are_bars_by_kind(figures, tmp_path):
    errors = dict(missed=1234, duplicate=3, wrong_class=0, loose_box=500, background=88)
    draw_errors(errors, 4888, tmp_path / "x.png")
    (axes,) = figures[0].axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["missed", "duplicate", "wrong class", "loose box", "background"]
    assert [bar.get_width() for bar in axes.patches] == [1234, 3, 0, 500, 88]
    assert [text.get_text() for text in axes.texts] == ["1,234", "3", "0", "500", "88"]
    assert figures[0].get_suptitle() == "1,234 of 4,888 boxes missed; 591 detections wrong"


def test_names_of_any_kind_and_nothing_at_all_are_drawn(tmp_path, recwarn):
    names = ("$\\frac{$", "<b>two\nlines", "犬", "")
    curves = {name: np.linspace(1, 0, 101) for name in names}
    draw_precision_recall(curves, dict.fromkeys(names, 0.5), tmp_path / "curves.png")
    draw_precision_recall({}, {}, tmp_path / "none.png")
    draw_errors(dict.fromkeys(KINDS, 0), 0, tmp_path / "errors.png")
    draw_boxes(Image.new("RGB", (9, 9)), np.ones((4, 4)), np.arange(4), names).save(tmp_path / "boxes.png")
    assert len(list(tmp_path.iterdir())) == 4
    assert not [*recwarn]
