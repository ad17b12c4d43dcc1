"""Objects in pictures of any size: boxes in the picture's own pixels, of a model and of its file."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise
from PIL import Image

import kzoo
from kzoo.detection import FCOS, RETINANET
from kzoo.detection.suppression import Suppression
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.images import Pixels

SIZE = (48, 64)
TINY = dict(backbone="resnet18", backbone_options=dict(widths=(4, 6, 8, 10), depths=(1, 1, 1, 1)), channels=8)
TINY |= dict(head_depth=1, head_groups=4, num_classes=3, input_shape=(*SIZE, 3))
ALL = Suppression(score=0.0, candidates=1000, overlap=0.5, most=20)


@pytest.fixture(scope="module", params=["fcos", "retinanet"])
def model(request) -> keras.Model:
    return randomise(kzoo.build(request.param, **TINY))


def whole(*shape) -> np.ndarray:
    return pixels(*shape, 3).astype("uint8")


def by_hand(model, image, suppression, to_picture):
    """The surest box of a class first, each that overlaps none of its class; level by level as the model has them."""
    outputs = {key: np.array(value)[0] for key, value in model(image[None].astype("float32")).items()}
    levels = [level.count for level in model.get_layer("head_boxes").places.levels]
    candidates, start = [], 0
    for count in levels:
        some = [
            (float(outputs["scores"][place, kind]), place, kind)
            for place in range(start, start + count)
            for kind in range(3)
            if outputs["scores"][place, kind] > suppression.score
        ]
        candidates += sorted(some, key=lambda each: -each[0])[: suppression.candidates]
        start += count
    kept = []
    for score, place, kind in sorted(candidates, key=lambda each: -each[0]):
        box = to_picture(outputs["boxes"][place])
        if len(kept) < suppression.most and all(kind != k or share(box, b) <= suppression.overlap for _, b, k in kept):
            kept.append((score, box, kind))
    return kept


def share(a, b) -> float:
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both > 0 else 0.0


def check(found, expected):
    assert len(found) == len(expected) > 3
    np.testing.assert_allclose(found.scores, [score for score, _, _ in expected], rtol=1e-4)
    np.testing.assert_allclose(found.boxes, [box for _, box, _ in expected], atol=1e-2)
    assert found.classes.tolist() == [kind for _, _, kind in expected]


def test_boxes_are_in_the_pixels_of_the_picture(model):
    """Of a picture twice as wide and three times as high, stretched."""
    image = whole(2, *SIZE)[1]
    large = Image.fromarray(image).resize((128, 144), Image.Resampling.BILINEAR)
    fitted = Pixels("stretch").apply(large, (*SIZE, 3))
    assert fitted.shape == (*SIZE, 3)
    [same, found] = kzoo.detect(model, [image, large], suppression=ALL)
    check(same, by_hand(model, image, ALL, lambda box: box * [64, 48, 64, 48]))
    check(found, by_hand(model, fitted, ALL, lambda box: box * [128, 144, 128, 144]))


def test_a_padded_picture_is_found_without_its_border(model):
    """A square of 48 pixels lies between borders of 8 pixels at the left and at the right."""
    square = whole(1, 48, 48)[0]
    framed = np.zeros((*SIZE, 3), "uint8")
    framed[:, 8:56] = square

    def to_picture(box):
        return np.clip(box * [64, 48, 64, 48] - [8, 0, 8, 0], 0, 48)

    [found] = kzoo.detect(model, [square], Pixels("pad"), ALL)
    check(found, by_hand(model, framed, ALL, to_picture))


def test_a_file_finds_what_its_model_does(model, tmp_path):
    kzoo.export(model, tmp_path / "model.tflite")
    images = whole(9, *SIZE)
    Image.fromarray(images[0]).save(tmp_path / "first.png")
    given = [tmp_path / "first.png", *images[1:]]
    rule = Suppression(score=0.0, candidates=10_000, overlap=0.5, most=20)
    ours, theirs = (
        kzoo.detect(model, given, suppression=rule),
        kzoo.detect(LiteRTModel(tmp_path / "model.tflite"), given, suppression=rule),
    )
    assert len(ours) == len(theirs) == 9
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.scores, other.scores, atol=1e-4)
        np.testing.assert_allclose(mine.boxes, other.boxes, atol=0.05)
    [by_card, own] = (kzoo.detect(each, given) for each in (LiteRTModel(tmp_path / "model.tflite"), model))
    assert [len(found) for found in by_card] == [len(found) for found in own]
    alone = LiteRTModel((tmp_path / "model.tflite").read_bytes())
    with pytest.raises(InvalidValueError, match="no card that tells its kind; give suppression=kzoo"):
        kzoo.detect(alone, given)


def test_the_rules_are_those_of_the_kind(monkeypatch):
    for kind, rule in (("fcos", FCOS), ("retinanet", RETINANET)):
        net = randomise(kzoo.build(kind, **TINY))
        image = whole(1, *SIZE)
        [default], [own] = kzoo.detect(net, image), kzoo.detect(net, image, suppression=rule)
        np.testing.assert_array_equal(default.boxes, own.boxes)
        assert (default.scores > rule.score).all()
        assert len(default) <= rule.most


@pytest.mark.parametrize(
    ("pictures", "options", "message"),
    [
        ("cat.jpg", {}, "must be a list of files, arrays or pictures"),
        ([np.zeros((4, 4))], {}, r"picture 0 is an array of shape \(4, 4\)"),
        ([np.zeros((4, 4, 3)), np.full((4, 4, 3), 256)], {}, "picture 1 is an array .* numbers of 0 to 255"),
        ([np.full((4, 4, 3), np.nan)], {}, "numbers of 0 to 255"),
        (["none.jpg"], {}, "none.jpg"),
        ([], {"pixels": "pad"}, "pixels='pad' must be a Pixels, such as kzoo.images"),
        ([], {"suppression": 3}, "suppression=3 must be a Suppression, such as kzoo.detection.FCOS"),
        ([np.zeros((4, 4, 3))], {"pixels": Pixels("crop")}, "a detector tells where things are"),
    ],
)
def test_mistakes(pictures, options, message):
    with pytest.raises(InvalidValueError, match=message):
        kzoo.detect(kzoo.build("fcos", **TINY), pictures, **options)


def test_what_is_no_detector():
    with pytest.raises(InvalidValueError, match="cifar_resnet20 gives no boxes and scores; a detector does"):
        kzoo.detect(kzoo.build("cifar_resnet20"), [])
    with pytest.raises(InvalidValueError, match=r"must be a keras\.Model or a kzoo\.edge\.LiteRTModel"):
        kzoo.detect("fcos", [])
    assert kzoo.detect(kzoo.build("fcos", **TINY), []) == []
