"""Loss, metrics and class weights of every pixel, against loops; void counts in none of them."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from kzoo.data.split import VOID, IndexedSplit
from kzoo.losses import ClassificationLoss, SegmentationLoss, balanced_weights, centre, class_weights
from kzoo.metrics import Confusion, MeanIoU

CLASSES = 4


@pytest.fixture
def scene():
    """Masks (3, 5, 7) with void, one class nowhere in image 2, and logits (3, 5, 7, 4)."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, CLASSES, (3, 5, 7)).astype("uint8")
    masks[2][masks[2] == 3] = 0
    masks[rng.random(masks.shape) < 0.2] = VOID
    return masks, rng.normal(0, 2, (*masks.shape, CLASSES)).astype("float32")


def loss_by_hand(masks, logits, dice_weight, weights, smoothing):
    """The definition, pixel by pixel."""
    total, divisor = 0.0, 0.0
    overlap, sizes = np.zeros(CLASSES), np.zeros(CLASSES)
    for place in np.ndindex(masks.shape):
        label = masks[place]
        if label == VOID:
            continue
        powers = [math.exp(value) for value in logits[place]]
        for index in range(CLASSES):
            probability = powers[index] / sum(powers)
            target = (index == label) * (1 - smoothing) + smoothing / CLASSES
            total -= weights[label] * target * math.log(probability)
            overlap[index] += probability * (index == label)
            sizes[index] += probability + (index == label)
        divisor += weights[label]
    dice = np.mean([1 - 2 * overlap[index] / (sizes[index] + 1e-7) for index in range(CLASSES)])
    return total / divisor + dice_weight * dice


def sample_weights():
    """Weights of images in the shapes that Keras hands over, and of pixels, each with those of all pixels."""
    by_image = np.array([2.0, 0.0, 0.5], "float32")
    by_pixel = np.random.default_rng(3).uniform(0, 2, (3, 5, 7)).astype("float32")
    spread = np.broadcast_to(by_image[:, None, None], by_pixel.shape)
    return [(by_image, spread), (by_image[:, None], spread), (by_image[:, None, None], spread), (by_pixel, by_pixel)]


@pytest.mark.parametrize("kind", range(4))
def test_loss_weighs_images_and_pixels_as_a_loop_does(scene, kind):
    masks, logits = scene
    given, spread = sample_weights()[kind]
    classes, smoothing, dice_weight = (1.0, 3.0, 0.5, 2.0), 0.1, 0.7
    total = divisor = 0.0
    overlap, sizes = np.zeros(CLASSES), np.zeros(CLASSES)
    for place in np.ndindex(masks.shape):
        label, weight = masks[place], float(spread[place])
        if label == VOID:
            continue
        powers = [math.exp(value) for value in logits[place]]
        for index in range(CLASSES):
            probability = powers[index] / sum(powers)
            target = (index == label) * (1 - smoothing) + smoothing / CLASSES
            total -= weight * classes[label] * target * math.log(probability)
            overlap[index] += weight * probability * (index == label)
            sizes[index] += weight * (probability + (index == label))
        divisor += weight * classes[label]
    expected = total / divisor + dice_weight * np.mean(1 - 2 * overlap / sizes)
    loss = SegmentationLoss(dice_weight, classes, smoothing)
    assert float(loss(masks, logits, given)) == pytest.approx(expected, rel=1e-5)
    assert abs(float(loss(masks, logits)) - expected) > 1e-3


def test_an_image_of_weight_0_is_as_if_it_were_not_there_and_one_of_weight_2_as_if_twice(scene):
    masks, logits = scene
    loss = SegmentationLoss(1.0, label_smoothing=0.1)
    for weights, chosen in (([1.0, 0.0, 1.0], [0, 2]), ([2.0, 1.0, 1.0], [0, 0, 1, 2])):
        expected = float(loss(masks[chosen], logits[chosen]))
        assert float(loss(masks, logits, np.array(weights))) == pytest.approx(expected, rel=1e-5)
        metric, alone = MeanIoU(CLASSES), MeanIoU(CLASSES)
        metric.update_state(masks, logits, np.array(weights))
        alone.update_state(masks[chosen], logits[chosen])
        np.testing.assert_allclose(metric.total_cm, alone.total_cm)
        metric.update_state(masks, logits)
        assert float(metric.result()) != pytest.approx(float(alone.result()), rel=1e-4)


@pytest.mark.parametrize("kind", range(4))
def test_mean_iou_weighs_images_and_pixels_as_a_loop_does(scene, kind):
    masks, logits = scene
    given, spread = sample_weights()[kind]
    counts = np.zeros((CLASSES, CLASSES))
    for place in np.ndindex(masks.shape):
        if masks[place] != VOID:
            counts[masks[place], np.argmax(logits[place])] += spread[place]
    metric = MeanIoU(CLASSES)
    metric.update_state(masks, logits, given)
    np.testing.assert_allclose(metric.total_cm, counts, rtol=1e-5, atol=1e-5)


def test_weights_of_pixels_are_cut_as_the_masks_are(scene):
    masks, logits = scene
    weights = np.random.default_rng(3).uniform(0, 2, masks.shape)
    inner = np.s_[:, 1:4, 2:5]
    loss = SegmentationLoss(0.5)
    expected = float(loss(masks[inner], logits[inner], weights[inner]))
    assert float(loss(masks, logits[inner], weights)) == pytest.approx(expected, rel=1e-6)


def test_fit_hands_weights_of_images_to_loss_and_metric(scene):
    masks, logits = scene
    model = keras.Sequential([keras.Input(logits.shape[1:]), keras.layers.Identity()])
    model.compile(loss=SegmentationLoss(), weighted_metrics=[MeanIoU(CLASSES)])
    weights = np.array([0.0, 3.0, 0.0])
    found = model.evaluate(logits, masks, sample_weight=weights, return_dict=True, verbose=0)
    alone = model.evaluate(logits[1:2], masks[1:2], return_dict=True, verbose=0)
    assert found["mean_iou"] == pytest.approx(alone["mean_iou"], rel=1e-5)
    assert found["loss"] == pytest.approx(alone["loss"], rel=1e-5)


@pytest.mark.quick
@pytest.mark.parametrize("dice_weight", [0.0, 0.7])
@pytest.mark.parametrize("weights", [None, (1.0, 3.0, 0.5, 2.0)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_its_definition(scene, dice_weight, weights, smoothing):
    masks, logits = scene
    loss = SegmentationLoss(dice_weight, weights, smoothing)
    expected = loss_by_hand(masks, logits, dice_weight, weights or [1] * CLASSES, smoothing)
    assert float(loss(masks, logits)) == pytest.approx(expected, rel=1e-5)
    again = SegmentationLoss.from_config(loss.get_config())
    assert float(again(masks, logits)) == pytest.approx(expected, rel=1e-5)


def test_loss_is_that_of_keras_without_void(scene):
    masks, logits = scene
    masks = masks % CLASSES
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(masks, logits)
    expected += 2 * keras.losses.Dice(axis=(0, 1, 2))(np.eye(CLASSES)[masks], keras.ops.softmax(logits))
    assert float(SegmentationLoss(2.0)(masks, logits)) == pytest.approx(float(expected), rel=1e-5)


def test_void_pixels_have_no_loss_no_gradient_and_no_score(scene):
    masks, logits = scene
    loss, metric = SegmentationLoss(1.0, [1.0, 2.0, 3.0, 4.0], 0.1), MeanIoU(CLASSES)
    other = np.where((masks == VOID)[..., None], logits[..., ::-1] * 50, logits)
    assert (other.argmax(-1) != logits.argmax(-1)).any()
    assert float(loss(masks, logits)) == float(loss(masks, other))
    scores = []
    for values in (logits, other):
        metric.reset_state()
        metric.update_state(masks, values)
        scores.append(float(metric.result()))
    assert scores[0] == scores[1]
    values = tf.Variable(other)
    with tf.GradientTape() as tape:
        result = loss(masks, values)
    gradient = tape.gradient(result, values).numpy()
    assert np.abs(gradient[masks == VOID]).max() == 0
    assert np.abs(gradient[masks != VOID]).min() > 0


def test_nothing_but_void_is_no_loss_and_no_nan(scene):
    _, logits = scene
    values = tf.Variable(logits)
    with tf.GradientTape() as tape:
        loss = SegmentationLoss()(np.full(logits.shape[:3], VOID, "uint8"), values)
    assert float(loss) == 0
    assert np.abs(tape.gradient(loss, values).numpy()).max() == 0


def iou_by_hand(masks, predicted):
    """IoU and Dice of each class that occurs or is predicted, and the share of right pixels."""
    pixels = [(m, p) for m, p in zip(masks.ravel(), predicted.ravel(), strict=True) if m != VOID]
    iou, dice = {}, {}
    for index in range(CLASSES):
        both = sum(m == index and p == index for m, p in pixels)
        either = sum(m == index or p == index for m, p in pixels)
        if either:
            iou[index], dice[index] = both / either, 2 * both / (either + both)
    return iou, dice, sum(m == p for m, p in pixels) / len(pixels)


@pytest.mark.quick
@pytest.mark.parametrize("absent", [False, True])
def test_scores_are_counted_pixel_by_pixel(scene, absent):
    masks, logits = scene
    if absent:  # from truth and prediction: such a class is no class with IoU 0
        masks[masks == 3], logits[..., 3] = 1, -100
    iou, dice, accuracy = iou_by_hand(masks, logits.argmax(-1))
    metric, scorer = MeanIoU(CLASSES), Confusion("abcd")
    for part in (slice(0, 2), slice(2, 3)):
        metric.update_state(masks[part], logits[part])
        scorer.add(logits[part], {"mask": masks[part]})
    scores = scorer.scores()
    assert float(metric.result()) == pytest.approx(np.mean(list(iou.values())), rel=1e-6)
    assert scores["mean_iou"] == pytest.approx(np.mean(list(iou.values())), rel=1e-9)
    assert scores["dice"] == pytest.approx(np.mean(list(dice.values())), rel=1e-9)
    assert scores["accuracy"] == pytest.approx(accuracy, rel=1e-9)
    for index, name in enumerate("abcd"):
        assert scores["iou_by_class"][name] == (pytest.approx(iou[index]) if index in iou else None)
        assert scores["dice_by_class"][name] == (pytest.approx(dice[index]) if index in dice else None)
    for index, value in enumerate(scorer.mean_iou_by_image()):
        one = iou_by_hand(masks[index], logits[index].argmax(-1))[0]
        assert value == pytest.approx(np.mean(list(one.values())), rel=1e-9)


def test_metric_survives_saving_xla_and_bfloat16(scene):
    masks, logits = scene
    metric = MeanIoU.from_config(MeanIoU(CLASSES).get_config())
    step = tf.function(lambda m, x: metric.update_state(m, x), jit_compile=True)
    step(tf.constant(masks), tf.cast(logits, tf.bfloat16))
    rounded = tf.cast(tf.cast(logits, tf.bfloat16), tf.float32).numpy()
    expected = np.mean(list(iou_by_hand(masks, rounded.argmax(-1))[0].values()))
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_smaller_predictions_are_compared_with_the_centre(scene):
    masks, logits = scene
    cut = masks[:, 1:4, 2:5]
    np.testing.assert_array_equal(centre(masks, np.zeros((3, 3, 3, 1))), cut)
    np.testing.assert_array_equal(centre(masks, np.zeros((3, 4, 4, 1))), masks[:, :4, 1:5])
    small = logits[:, :3, :3]
    assert float(SegmentationLoss(1.0)(masks, small)) == float(SegmentationLoss(1.0)(cut, small))
    metrics = MeanIoU(CLASSES), MeanIoU(CLASSES)
    for metric, truth in zip(metrics, (masks, cut), strict=True):
        metric.update_state(truth, small)
    assert float(metrics[0].result()) == float(metrics[1].result())


def test_class_weights_are_those_of_the_papers():
    masks = np.zeros((2, 2, 4), "uint8")
    masks[0, 0] = (1, 1, 1, VOID)
    masks[1, 0, 0] = 2
    split = IndexedSplit.of_arrays({"image": np.zeros((2, 2, 4, 3), "uint8"), "mask": masks})
    # image 1: 4 × 0, 3 × 1, a void; image 2: 7 × 0, 1 × 2; class 3 nowhere
    frequency = np.array([11 / 15, 3 / 7, 1 / 8])
    expected = [*(np.median(frequency) / frequency), 0]
    np.testing.assert_allclose(class_weights(split, 4, "median_frequency"), expected, rtol=1e-9)
    expected = [*(1 / np.log(1.02 + np.array([11, 3, 1]) / 15)), 0]
    np.testing.assert_allclose(class_weights(split, 4, "log"), expected, rtol=1e-9)


def image_loss_by_hand(targets, logits, binary, smoothing, weights):
    """The definition, class by class."""
    total = 0.0
    for target, outputs in zip(targets, logits, strict=True):
        powers = [math.exp(value) for value in outputs]
        loss = 0.0
        for share, value, power in zip(target, outputs, powers, strict=True):
            share = share * (1 - smoothing) + smoothing / CLASSES
            if binary:
                probability = 1 / (1 + math.exp(-value))
                loss -= (share * math.log(probability) + (1 - share) * math.log(1 - probability)) / CLASSES
            else:
                loss -= share * math.log(power / sum(powers))
        total += loss * sum(share * weight for share, weight in zip(target, weights, strict=True))
    return total / len(targets)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 1.5]])
def test_loss_of_images_with_hard_and_mixed_targets(binary, smoothing, weights):
    rng = np.random.default_rng(0)
    targets = np.concatenate([np.eye(CLASSES), rng.dirichlet(np.ones(CLASSES), 3)]).astype("float32")
    logits = rng.normal(0, 2, targets.shape).astype("float32")
    loss = ClassificationLoss(binary, smoothing, weights)
    expected = image_loss_by_hand(targets, logits, binary, smoothing, weights or [1.0] * CLASSES)
    assert float(loss(targets, logits)) == pytest.approx(expected, rel=1e-5)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert float(again(targets, logits)) == float(loss(targets, logits))
    if not binary and weights is None:
        theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        assert float(loss(targets, logits)) == float(theirs(targets, logits)), "to the bit what runs had before"


def test_balanced_weights_are_scikit_learns():
    labels = np.repeat([0, 1, 3], [11, 5, 2])
    theirs = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    assert balanced_weights(labels, 5) == pytest.approx([*theirs[:2], 0, theirs[2], 0])
