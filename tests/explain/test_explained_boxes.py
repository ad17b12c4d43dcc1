"""Boxes as targets: their number against the heads' own, D-RISE against a loop, the map on which a box stands."""

import keras
import numpy as np
import pytest
from helpers import in_float64, pixels, randomise

import kzoo
from kzoo.detection import Suppression
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.explain import (
    Box,
    attention_rollout,
    explained_layer,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    integrated_gradients,
    judge_maps,
    layer_cam,
    layer_statistics,
    occlusion,
    rise,
    score_cam,
    smooth_grad,
)
from kzoo.explain.boxes import similarity
from kzoo.explain.cams import as_tensor, features
from kzoo.explain.replay import Replay
from kzoo.models.detector import raw_outputs

TINY = dict(backbone="resnet18", backbone_options=dict(widths=(4, 6, 8, 10), depths=(1, 1, 1, 1)), channels=8)
TINY |= dict(head_depth=1, head_groups=4, num_classes=3, input_shape=(48, 64, 3))
IMAGES = pixels(2, 48, 64, 3)
ALL = Suppression(score=0.0, candidates=1000, overlap=0.5, most=20)
GRIDS = [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]  # of 64×64 padded pixels, at strides of 8 to 128
OVER_IMAGE = [(6, 8), (3, 4), (2, 2), (1, 1), (1, 1)]  # of those the places over 48×64


@pytest.fixture(scope="module", params=["fcos", "retinanet"])
def model(request) -> keras.Model:
    return randomise(kzoo.build(request.param, **TINY))


def surest(model, images=IMAGES) -> list[Box]:
    return [Box.of(found)[0] for found in kzoo.detect(model, list(images.astype("uint8")), suppression=ALL)]


def overlap(a, b) -> float:
    sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
    shared = sides[0] * sides[1] if min(sides) > 0 else 0.0
    both = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - shared
    return shared / both if both > 0 else 0.0


def found_again(box, own, boxes, scores) -> float:
    """D-RISE by a loop over all places: overlap × cosine of the classes × the surest of them."""
    best = 0.0
    for other, given in zip(boxes, scores, strict=True):
        cosine = sum(p * q for p, q in zip(own, given, strict=True))
        cosine /= sum(p * p for p in own) ** 0.5 * sum(q * q for q in given) ** 0.5
        best = max(best, overlap(box, other) * cosine * max(given))
    return best


def test_how_much_is_found_again_is_what_a_loop_finds():
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(size=(3, 40, 2, 2)), axis=2)
    boxes, scores = corners.reshape(3, 40, 4), rng.uniform(0.01, 1, (3, 40, 4))
    found = similarity(boxes[0, 7], scores[0, 7], boxes, scores)
    expected = [found_again(boxes[0, 7], scores[0, 7], *each) for each in zip(boxes, scores, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found[0] >= scores[0, 7].max() - 1e-9


def test_a_box_without_area_and_places_without_scores_are_found_nowhere():
    boxes, scores = np.zeros((1, 2, 4)), np.zeros((1, 2, 3))
    assert similarity(boxes[0, 0], scores[0, 0], boxes, scores).tolist() == [0]


def test_gradients_are_of_the_logit_of_the_class_at_the_place(model):
    """Each image has its box; all pixels together are the difference of the heads' logits to those of the baseline."""
    boxes, dim = surest(model), 0.8 * IMAGES
    logits = raw_outputs(model)
    expected = [
        float(own[box.place, box.class_index] - base[box.place, box.class_index])
        for own, base, box in zip(logits(IMAGES)["logits"], logits(dim)["logits"], boxes, strict=True)
    ]
    found = integrated_gradients(model, IMAGES, boxes, dim, steps=50).sum(axis=(1, 2))
    np.testing.assert_allclose(found, expected, rtol=0.03, atol=0.01 * np.abs(expected).max())
    one = integrated_gradients(model, IMAGES[:1], boxes[0], dim[:1], steps=50).sum()
    np.testing.assert_allclose(one, found[0], rtol=1e-3)


@pytest.mark.parametrize("kind", ["fcos", "retinanet"])
def test_gradients_in_the_pyramid_are_those_of_finite_differences(kind):
    model = in_float64(randomise(kzoo.build(kind, **TINY)))
    box = surest(model)[0]
    found = features(model, IMAGES[:1], box, None)
    replay = Replay(model)
    place = replay.place(explained_layer(model, box))
    (maps,) = map(np.asarray, replay.run(as_tensor(model, IMAGES[:1]), [place]))
    way = np.random.default_rng(0).standard_normal(maps.shape)

    def logit(step):
        (logits,) = replay.logits(
            as_tensor(model, IMAGES[:1]), {place: keras.ops.convert_to_tensor(maps + step * way)}
        )
        return float(logits[0, box.place, box.class_index])

    slope = (logit(1e-6) - logit(-1e-6)) / 2e-6
    np.testing.assert_allclose((found.gradients * way).sum(), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", range(3))
def test_a_box_is_explained_on_its_own_map_where_it_stands(level):
    """Without normalisation over places a head of two 3×3 convolutions reads 5×5 places around its own."""
    model = randomise(kzoo.build("retinanet", **TINY))
    start = sum(9 * rows * columns for rows, columns in GRIDS[:level])
    rows, columns = OVER_IMAGE[level]
    y, x = rows // 2, columns // 2
    box = Box(start + 9 * (y * GRIDS[level][1] + x) + 4, 1)
    assert explained_layer(model, box) == f"fpn_p{level + 3}"
    found = hires_cam(model, IMAGES[:1], box)[0]
    assert found.shape == (rows, columns)
    far = [(i, j) for i in range(rows) for j in range(columns) if max(abs(i - y), abs(j - x)) > 2]
    assert all(found[place] == 0 for place in far)
    assert found[y, x] != 0


@pytest.mark.parametrize("kind", ["fcos", "retinanet", "retinanet_v2"])
def test_every_level_has_its_map(kind):
    """Whatever the model went through, and whatever stands between heads and pyramid."""
    options = TINY | dict(head_norm="batch") if kind == "retinanet_v2" else TINY
    model = kzoo.build(kind, **options)
    each = 1 if kind == "fcos" else 9
    ends = np.cumsum([each * rows * columns for rows, columns in GRIDS])
    folded = kzoo.fold_batch_norm(kzoo.with_classes(model, ["a", "b", "c"]))
    for one in (model, folded):
        for level, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            assert {explained_layer(one, Box(int(at), 0)) for at in (start, end - 1)} == {f"fpn_p{level + 3}"}


@pytest.mark.parametrize("method", [grad_cam, hires_cam, layer_cam, grad_cam_plus_plus, score_cam])
def test_maps_lie_over_the_image_without_its_padding(method, model):
    assert method(model, IMAGES[:1], Box(0, 1)).shape == (1, 6, 8)
    assert method(model, IMAGES[:1], Box(0, 1), layer="p4").shape == (1, 3, 4)


def test_occlusion_is_how_much_less_is_found(model):
    """Squares that do not overlap: of each the loop's number."""
    (box,) = surest(model, IMAGES[:1])
    image = IMAGES[0].astype("float32")
    found = occlusion(model, image[None], box, size=16, stride=16, value=0.0)[0]
    own = {name: np.asarray(each)[0] for name, each in model(image[None]).items()}
    for y in range(0, 48, 16):
        for x in range(0, 64, 16):
            hidden = image.copy()
            hidden[y : y + 16, x : x + 16] = 0
            seen = {name: np.asarray(each)[0] for name, each in model(hidden[None]).items()}
            target = own["boxes"][box.place], own["scores"][box.place]
            expected = found_again(*target, own["boxes"], own["scores"])
            expected -= found_again(*target, seen["boxes"], seen["scores"])
            np.testing.assert_allclose(found[y : y + 16, x : x + 16], expected, atol=1e-5)


def test_a_file_is_explained_as_its_model(model, tmp_path):
    kzoo.export(model, tmp_path / "model.tflite")
    box = surest(model)[1]
    of_model, of_file = (
        rise(each, IMAGES[1:], box, masks=40, cells=3) for each in (model, LiteRTModel(tmp_path / "model.tflite"))
    )
    assert np.abs(of_model).max() > 1e-3
    np.testing.assert_allclose(of_file, of_model, atol=1e-5)


def test_maps_of_boxes_are_judged(model):
    (box,) = surest(model, IMAGES[:1])
    judged = judge_maps(model, IMAGES[:1], occlusion(model, IMAGES[:1], box), box, steps=4)
    own = {name: np.asarray(each)[0] for name, each in model(IMAGES[:1]).items()}
    whole = found_again(own["boxes"][box.place], own["scores"][box.place], own["boxes"], own["scores"])
    np.testing.assert_allclose(judged.curves["deletion"][0, 0], whole, rtol=1e-4)
    np.testing.assert_allclose(judged.curves["insertion"][0, -1], whole, rtol=1e-4)


def test_what_else_takes_a_box(model):
    box = surest(model)[0]
    assert smooth_grad(model, IMAGES[:1], box, samples=2).shape == (1, 48, 64)
    assert layer_statistics(model, IMAGES[:1], box)["head_class_logits"].gradient_norm > 0


@pytest.mark.slow
def test_attention_speaks_for_a_box():
    narrow = dict(channels=8, head_depth=1, num_classes=2, input_shape=(64, 96, 3))
    model = randomise(kzoo.build("retinanet", backbone="swin_tiny", **narrow))
    found = attention_rollout(model, pixels(1, 64, 96, 3), Box(40, 1), gradients=True)
    assert found.shape == (1, 16, 24)
    assert found.max() > 0


@pytest.mark.parametrize("method", [hires_cam, occlusion, integrated_gradients])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, r"give (a|of a detector a) kzoo\.explain\.Box|finds boxes|of a detector a kzoo\.explain\.Box"),
        (1, r"kzoo\.explain\.Box"),
        (Box(100_000, 0), r"place=100000 of the Box: \w+ has 0 to \d+"),
        (Box(-1, 0), "place=-1 of the Box"),
        (Box(0, 3), r"class_index=3 of the Box: \w+ has 0 to 2"),
        (Box(0, True), "class_index=True of the Box"),
        ([Box(0, 0)] * 3, r"3 (boxes|targets)"),
    ],
)
def test_a_target_that_cannot_be_is_one_line(method, target, message, model):
    with pytest.raises(InvalidValueError, match=message) as error:
        method(model, IMAGES, target)
    assert "\n" not in str(error.value)


def test_boxes_of_several_maps_are_one_line(model):
    last = model.output["boxes"].shape[1] - 1
    with pytest.raises(InvalidValueError, match=r"stand on maps of several sizes; .* as layer one of fpn_p3, fpn_p4"):
        hires_cam(model, IMAGES, [Box(0, 0), Box(last, 0)])
    assert hires_cam(model, IMAGES, [Box(0, 0), Box(last, 0)], layer="fpn_p3").shape == (2, 6, 8)
    with pytest.raises(InvalidValueError, match="finds boxes on several maps"):
        explained_layer(model)


def test_a_box_is_of_a_detector():
    classes = kzoo.build("simple_cnn", input_shape=(16, 16, 3), num_classes=3)
    with pytest.raises(InvalidValueError, match=r"a Box is of a detector, and simple_cnn gives \(2, 3\)"):
        grad_cam(classes, pixels(2, 16, 16, 3), Box(0, 0))
    with pytest.raises(InvalidValueError, match="detections that tell their places are needed"):
        Box.of([1, 2])
