"""Losses of detectors: against loops written from the papers, and torchvision's values of 200 scenes."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from detection.loops import box_overlap, deltas, fcos_loop, focal, moved, retinanet_loop
from detection.torchvisions import GOLDENS, places_of
from goldens.scenes import batches, outputs
from keras import ops

from kzoo.detection.coding import (
    LARGEST_GROWTH,
    centerness,
    decode_deltas,
    decode_distances,
    encode_deltas,
    encode_distances,
)
from kzoo.detection.losses import FCOSLoss, FocalLoss, RetinaNetLoss, focal_loss
from kzoo.detection.overlaps import generalized_overlap, overlap
from kzoo.errors import InvalidValueError

LOSSES = {
    "fcos": ("fcos", FCOSLoss, {}),
    "retinanet_l1": ("retinanet", RetinaNetLoss, {"box_loss": "l1"}),
    "retinanet_giou": ("retinanet", RetinaNetLoss, {"box_loss": "giou"}),
}


def a_loss(name: str, size: tuple[int, int]):
    detector, kind, options = LOSSES[name]
    return kind(places_of(detector, size), **options)


def of_batch(name: str, number: int = 0):
    """Loss, truth and outputs of a batch, and its scenes as lists."""
    batch = next(itertools.islice(batches(), number, None))
    detector = LOSSES[name][0]
    raw = outputs(detector, number, len(batch.boxes), places_of(detector, batch.size).count)
    scenes = [
        [(box, int(one)) for box, one in zip(boxes.tolist(), classes, strict=True) if one >= 0]
        for boxes, classes in zip(batch.boxes, batch.classes, strict=True)
    ]
    return a_loss(name, batch.size), batch.truth(), raw, scenes


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_torchvisions_in_200_scenes(name):
    losses = {}
    for number, (batch, expected) in enumerate(zip(batches(), GOLDENS[f"{name}_losses"], strict=True)):
        if batch.size not in losses:
            losses[batch.size] = tf.function(a_loss(name, batch.size).parts)
        detector = LOSSES[name][0]
        raw = outputs(detector, number, len(batch.boxes), places_of(detector, batch.size).count)
        parts = losses[batch.size](batch.truth(), raw)
        names = ("classes", "boxes", "centerness")[: len(expected)]
        np.testing.assert_allclose([parts[each] for each in names], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_a_loop(name):
    loss, truth, raw, scenes = of_batch(name, 4)
    truth, raw = ({key: array[:2] for key, array in arrays.items()} for arrays in (truth, raw))
    scenes = scenes[:2]
    parts = loss.parts(truth, raw)
    detector = LOSSES[name][0]
    places = places_of(detector, loss.places.image)
    if detector == "fcos":
        expected = fcos_loop(scenes, raw, places.centres, places.strides, places.level_of)
    else:
        expected = retinanet_loop(scenes, raw, places.anchors.astype(float), loss.box_loss)
    names = ("classes", "boxes", "centerness")[: len(expected)]
    np.testing.assert_allclose([float(parts[each]) for each in names], expected, rtol=1e-5)
    np.testing.assert_allclose(float(loss(truth, raw)), sum(expected), rtol=1e-5)


@pytest.mark.parametrize("name", ["fcos", "retinanet_giou"])
def test_xla_half_precision_and_unknown_batch_sizes_change_nothing(name):
    loss, truth, raw, _ = of_batch(name, 2)
    expected = float(loss(truth, raw))
    signature = [
        {key: tf.TensorSpec((None, *array.shape[1:]), array.dtype) for key, array in arrays.items()}
        for arrays in (truth, raw)
    ]
    traced = tf.function(loss, input_signature=signature)
    np.testing.assert_allclose(float(traced(truth, raw)), expected, rtol=1e-5)
    np.testing.assert_allclose(float(tf.function(loss, jit_compile=True)(truth, raw)), expected, rtol=1e-5)
    half = {key: tf.cast(array, "float16") for key, array in raw.items()}
    whole = {key: tf.cast(array, "float32") for key, array in half.items()}
    assert loss(truth, half).dtype == "float32"
    np.testing.assert_allclose(float(loss(truth, half)), float(loss(truth, whole)), rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_at_any_output_also_without_boxes(name):
    loss, truth, raw, _ = of_batch(name, 3)
    empty = {"boxes": truth["boxes"] * 0, "classes": truth["classes"] * 0 - 1}
    for targets in (truth, empty):
        for scale in (0.0, 1.0, 1e4):
            tensors = {key: tf.constant(array * np.float32(scale)) for key, array in raw.items()}
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                value = loss(targets, tensors)
            gradients = tape.gradient(value, tensors)
            assert np.isfinite(float(value))
            assert all(np.isfinite(tf.convert_to_tensor(gradient)).all() for gradient in gradients.values())
            if targets is empty:
                assert not np.any(gradients["offsets"])


@pytest.mark.parametrize("name", LOSSES)
def test_an_image_without_boxes_teaches_that_nothing_is_there(name):
    loss, truth, raw, _ = of_batch(name)
    truth = {"boxes": truth["boxes"], "classes": np.full_like(truth["classes"], -1)}
    parts = loss.parts(truth, raw)
    images = len(raw["logits"]) if LOSSES[name][0] == "retinanet" else 1
    expected = sum(focal(logit, False) for logit in raw["logits"].ravel().tolist()) / images
    np.testing.assert_allclose(float(parts["classes"]), expected, rtol=1e-5)
    assert all(float(part) == 0 for key, part in parts.items() if key != "classes")


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_goes_through_its_config(name):
    loss, truth, raw, _ = of_batch(name)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert float(again(truth, raw)) == float(loss(truth, raw))


@pytest.mark.parametrize("name", ["retinanet_l1", "fcos"])
def test_truth_without_room_for_a_box_is_none(name):
    loss, truth, raw, _ = of_batch(name)
    none = {"boxes": np.zeros((4, 0, 4), "float32"), "classes": np.zeros((4, 0), "int32")}
    padded = {"boxes": truth["boxes"], "classes": np.full_like(truth["classes"], -1)}
    assert float(loss(none, raw)) == float(loss(padded, raw)) > 0


def test_options_change_the_loss():
    loss, truth, raw, _ = of_batch("retinanet_l1")
    config = loss.get_config()
    values = {float(loss(truth, raw))}
    for option, value in dict(alpha=0.5, gamma=1.0, foreground=0.7, background=0.2, low_quality=False).items():
        values.add(float(RetinaNetLoss.from_config({**config, option: value})(truth, raw)))
    assert len(values) == 6
    fcos, truth, raw, _ = of_batch("fcos")
    wide = FCOSLoss.from_config({**fcos.get_config(), "radius": 2.5})
    assert float(wide(truth, raw)) != float(fcos(truth, raw))


def test_bad_options_and_weights_are_one_line():
    loss, truth, raw, _ = of_batch("fcos")
    with pytest.raises(InvalidValueError, match="box_loss='ciou' is not accepted; use one of 'l1', 'giou'"):
        RetinaNetLoss(loss.places, box_loss="ciou")
    for wrong in (dict(alpha=1.5), dict(alpha=float("nan")), dict(gamma=-1), dict(gamma="a")):
        with pytest.raises(InvalidValueError, match="alpha is at most 1"):
            FocalLoss(**wrong)
    for overlaps in ((0.2, 0.9), (0.5, -1), ("a", 0.4), (2, 1)):
        with pytest.raises(InvalidValueError, match="must be overlaps from 0 to 1"):
            RetinaNetLoss(loss.places, foreground=overlaps[0], background=overlaps[1])
    for places in (None, "x", 3):
        with pytest.raises(InvalidValueError, match=r"must be kzoo\.places\.Places"):
            FCOSLoss(places)
    with pytest.raises(InvalidValueError, match="sample weights are not accepted"):
        loss(truth, raw, sample_weight=np.ones(4))


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.25, 0.0), (0.6, 0.5), (-1.0, 2.0)])
def test_focal_loss_is_the_papers_equation(alpha, gamma):
    logits = np.float32([-9, -2, -0.5, 0, 1, 4, 8])
    for there in (0, 1):
        found = ops.convert_to_numpy(focal_loss(np.full_like(logits, there), logits, alpha, gamma))
        scale = 1 if alpha >= 0 else 2  # both weights are a half of one
        expected = [
            scale * focal(logit, bool(there), alpha if alpha >= 0 else 0.5, gamma) for logit in logits.tolist()
        ]
        np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_focal_loss_in_compile_is_the_mean_of_sums():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(5, 3)).astype("float32"), rng.integers(0, 2, (5, 3)).astype("float32")
    expected = sum(focal(float(x), bool(t)) for x, t in zip(logits.ravel(), targets.ravel(), strict=True)) / 5
    np.testing.assert_allclose(float(FocalLoss()(targets, logits)), expected, rtol=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(FocalLoss(0.3, 1.5)))
    assert (again.alpha, again.gamma) == (0.3, 1.5)


def random_boxes(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 30, (count, 2))
    return np.concatenate([corners, corners + rng.uniform(1, 30, (count, 2))], axis=1).astype("float32")


def test_overlaps_are_those_of_a_loop():
    boxes, others = random_boxes(7), random_boxes(9, 1)
    expected = [[box_overlap(box, other) for other in others.tolist()] for box in boxes.tolist()]
    np.testing.assert_allclose(overlap(boxes, others), expected, rtol=1e-5, atol=1e-7)
    others = np.concatenate([others[:3], boxes[3:] + np.float32([1, -2, 0, 1])])
    expected = [box_overlap(*pair, True) for pair in zip(boxes.tolist(), others.tolist(), strict=True)]
    assert min(expected) < 0 < max(expected)
    np.testing.assert_allclose(generalized_overlap(boxes, others), expected, rtol=1e-5, atol=1e-6)
    none = np.zeros((1, 4), "float32")
    assert overlap(none, np.concatenate([none, boxes])).numpy().tolist() == [[0.0] * 8]


def test_boxes_and_deltas_are_those_of_a_loop_and_go_back():
    boxes, anchors = random_boxes(20), random_boxes(20, 1)
    found = encode_deltas(boxes, anchors)
    expected = [deltas(*pair) for pair in zip(boxes.tolist(), anchors.tolist(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(decode_deltas(found, anchors), boxes, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(moved(expected[3], anchors[3].tolist()), boxes[3], rtol=1e-5)
    huge = np.float32([[0, 0, 99, LARGEST_GROWTH]])
    sides = decode_deltas(huge, anchors[:1])
    np.testing.assert_allclose((sides[:, 2:] - sides[:, :2]) / (anchors[:1, 2:] - anchors[:1, :2]), 62.5, rtol=1e-5)


def test_distances_are_in_strides_and_go_back():
    boxes = np.float32([[2, 4, 34, 20]])
    points, step = np.float32([[10, 12]]), np.float32([8])
    found = encode_distances(boxes, points, step)
    assert found.numpy().tolist() == [[1, 1, 3, 1]]
    np.testing.assert_array_equal(decode_distances(found, points, step), boxes)
    np.testing.assert_allclose(centerness(found), [(1 / 3) ** 0.5], rtol=1e-6)
    assert centerness(np.float32([[1, 1, 1, 1], [-1, 2, 3, 4], [0, 0, 0, 0]])).numpy().tolist() == [1, 0, 0]
