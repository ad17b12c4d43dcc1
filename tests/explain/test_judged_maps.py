"""What is said of maps, each number against a loop written from its paper."""

import itertools

import keras
import numpy as np
import pytest
from helpers import pixels, randomise
from PIL import Image
from scipy.stats import rankdata

import kzoo
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.explain import (
    Difference,
    Region,
    gaussian_maps,
    grad_cam,
    judge_maps,
    mean_with_interval,
    random_maps,
    randomisation_check,
    rise,
)
from kzoo.explain.hiding import imputed

IMAGES = pixels(3, 9, 7, 3)
TARGETS = [2, 0, 3]
MAPS = np.random.default_rng(4).standard_normal((3, 9, 7)).astype("float32")


def network(units=4, activation: str | None = "softmax") -> keras.Model:
    inputs = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="gelu")(keras.layers.Rescaling(1 / 64, -2)(inputs))
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3, activation="relu", name="last")(x))
    return randomise(keras.Model(inputs, keras.layers.Dense(units, activation=activation, name="top")(x)))


@pytest.fixture(scope="module")
def net() -> keras.Model:
    return network()


def probability(model, image, index) -> float:
    return float(model(image[None].astype("float32"))[0, index])


def by_value(values) -> list[tuple[int, int]]:
    return sorted(np.ndindex(values.shape), key=lambda place: -values[place])


def blurred(image) -> np.ndarray:
    """By a window of 11×11 of a bell of 5 pixels; what lies outside is the picture mirrored at its edge."""
    bell = [np.exp(-((i / 5) ** 2) / 2) for i in range(-5, 6)]
    wide = np.pad(image.astype("float64"), ((5, 5), (5, 5), (0, 0)), "symmetric")
    found = np.zeros(image.shape)
    for y, x in np.ndindex(found.shape[:2]):
        for i, j in np.ndindex(11, 11):
            found[y, x] += bell[i] * bell[j] * wide[y + i, x + j] / sum(bell) ** 2
    return found


def test_deletion_and_insertion_by_a_loop(net):
    judged = judge_maps(net, IMAGES, MAPS, TARGETS, steps=5)
    for index, (image, values, target) in enumerate(zip(IMAGES, MAPS, TARGETS, strict=True)):
        gone, back = image.astype("float64"), blurred(image)
        left, curves = by_value(values), {"deletion": [], "insertion": []}
        for step in range(6):
            while 63 - len(left) < round(step / 5 * 63):
                y, x = left.pop(0)
                gone[y, x], back[y, x] = image.mean(axis=(0, 1)), image[y, x]
            curves["deletion"].append(probability(net, gone, target))
            curves["insertion"].append(probability(net, back, target))
        for name, curve in curves.items():
            np.testing.assert_allclose(judged.curves[name][index], curve, rtol=1e-4)
            area = sum((a + b) / 2 / 5 for a, b in itertools.pairwise(curve))
            np.testing.assert_allclose(judged.measures[name].each[index], area, rtol=1e-4)
    np.testing.assert_allclose(judged.shares["insertion"], [0, 0.2, 0.4, 0.6, 0.8, 1])


def test_targets_without_a_probability_are_judged_by_their_logits(net):
    """A difference of two logits is one of two logits with a weight each."""
    judged = judge_maps(net, IMAGES, MAPS, Difference(2, 1), steps=4)
    same = judge_maps(net, IMAGES, MAPS, lambda logits: logits[:, 2] - logits[:, 1], steps=4)
    bare = keras.Model(net.inputs, net.get_layer("top").input)
    kernel, bias = net.get_layer("top").get_weights()
    whole = np.array(bare(IMAGES.astype("float32"))) @ kernel + bias
    np.testing.assert_allclose(judged.curves["deletion"][:, 0], whole[:, 2] - whole[:, 1], rtol=1e-3, atol=1e-4)
    assert not {"average_drop", "average_increase", "average_gain"} & set(judged.measures)
    for name, curve in judged.curves.items():
        np.testing.assert_allclose(curve, same.curves[name], rtol=1e-4, atol=1e-4)


def filled_in(image, gone) -> np.ndarray:
    """ROAD's system of equations, one row after the other."""
    height, width, _ = image.shape
    gone = list(gone)
    system, right = np.zeros((len(gone), len(gone))), np.zeros((len(gone), 3))
    for row, (y, x) in enumerate(gone):
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                near = (y + down, x + across)
                if near == (y, x) or not (0 <= near[0] < height and 0 <= near[1] < width):
                    continue
                weight = 1 / 12 if down and across else 1 / 6
                system[row, row] += weight
                if near in gone:
                    system[row, gone.index(near)] -= weight
                else:
                    right[row] += weight * image[near]
    found = image.astype("float64")
    for place, colour in zip(gone, np.linalg.solve(system, right), strict=True):
        found[place] = colour
    return found


def test_road_by_a_loop(net, monkeypatch):
    monkeypatch.setattr("kzoo.explain.hiding.NOISE", 0)
    judged = judge_maps(net, IMAGES, MAPS, TARGETS)
    for index, (image, values, target) in enumerate(zip(IMAGES, MAPS, TARGETS, strict=True)):
        order = by_value(values)
        for name, places in (("road_most", order), ("road_least", order[::-1])):
            shares = [filled_in(image, places[: round(tenth / 10 * 63)]) for tenth in range(1, 10)]
            curve = [probability(net, each, target) for each in shares]
            np.testing.assert_allclose(judged.curves[name][index], curve, rtol=1e-3)
            np.testing.assert_allclose(judged.measures[name].each[index], np.mean(curve), rtol=1e-3)


def test_what_is_filled_in_has_a_little_noise():
    """One hundredth of the deviation of the picture, which a seed gives again; what is kept stays."""
    image = np.random.default_rng(0).normal(100, 20, (40, 30, 3)).astype("float32")
    order = np.random.default_rng(1).permutation(1200)
    (found,) = imputed(image, order, [900], 3)
    noise = (found - filled_in(image, [divmod(pixel, 30) for pixel in order[:900]])).reshape(1200, 3)
    assert np.all(noise[order[900:]] == 0)
    assert 0.9 < noise[order[:900]].std() / (0.01 * image.std()) < 1.1
    np.testing.assert_array_equal(imputed(image, order, [900], 3)[0], found)


def test_drop_increase_and_gain_by_a_loop(net):
    maps = np.concatenate([MAPS[:2], -np.ones((1, 9, 7), "float32")])  # the last one speaks for nothing
    judged = judge_maps(net, IMAGES, maps, TARGETS)
    for index, (image, values, target) in enumerate(zip(IMAGES, maps, TARGETS, strict=True)):
        mask = np.maximum(values, 0) / max(values.max(), 1e-9)
        whole, part = probability(net, image, target), probability(net, image * mask[..., None], target)
        expected = {
            "average_drop": max(0, whole - part) / whole,
            "average_increase": float(part > whole),
            "average_gain": max(0, part - whole) / (1 - whole),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(judged.measures[name].each[index], value, rtol=1e-3, atol=1e-6)


def test_pointing_energy_and_sparsity_by_a_loop(net):
    boxes = np.array([[0, 0, 5, 4], [1, 2, 7, 9], [3, 3, 4, 4]])
    masks = np.zeros((3, 9, 7), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        for y in range(top, bottom):
            for x in range(left, right):
                mask[y, x] = True
    judged = judge_maps(net, IMAGES, MAPS, TARGETS, where=boxes).measures
    again = judge_maps(net, IMAGES, MAPS, TARGETS, where=masks).measures
    for index, (values, mask) in enumerate(zip(MAPS, masks, strict=True)):
        positive = [(value, mask[place]) for place, value in np.ndenumerate(values) if value > 0]
        share = sum(value for value, inside in positive if inside) / sum(value for value, _ in positive)
        np.testing.assert_allclose(judged["energy"].each[index], share, rtol=1e-5)
        assert judged["pointing"].each[index] == float(mask[by_value(values)[0]])
        sizes = np.abs(values).ravel()  # the Gini index as the mean difference of all pairs
        pairs = sum(abs(a - b) for a in sizes for b in sizes) / (2 * 63 * sizes.sum())
        np.testing.assert_allclose(judged["sparsity"].each[index], pairs, rtol=1e-4)
    for name in ("energy", "pointing"):
        np.testing.assert_array_equal(again[name].each, judged[name].each)


def test_maps_are_enlarged_to_the_picture(net):
    small = np.random.default_rng(8).standard_normal((3, 3, 2)).astype("float32")
    large = np.stack([np.asarray(Image.fromarray(each).resize((7, 9), Image.Resampling.BILINEAR)) for each in small])
    expected = judge_maps(net, IMAGES, large, TARGETS).measures
    for name, found in judge_maps(net, IMAGES, small, TARGETS).measures.items():
        np.testing.assert_array_equal(found.each, expected[name].each)


def test_each_image_is_judged_by_itself_and_by_its_own_class(net):
    together = judge_maps(net, IMAGES, MAPS).measures
    classes = np.array(net(IMAGES.astype("float32"))).argmax(axis=1)
    for index in range(3):
        one = slice(index, index + 1)
        alone = judge_maps(net, IMAGES[one], MAPS[one], int(classes[index])).measures
        for name, found in alone.items():
            np.testing.assert_allclose(found.each, together[name].each[one], rtol=1e-4, atol=1e-6)
            assert np.isnan([found.low, found.high]).all()


def test_probabilities_are_those_of_logits_and_of_one_unit():
    probabilities, logits = network(), network(activation=None)
    logits.set_weights(probabilities.get_weights())
    expected = judge_maps(probabilities, IMAGES, MAPS, 1).measures
    for name, found in judge_maps(logits, IMAGES, MAPS, 1).measures.items():
        np.testing.assert_allclose(found.each, expected[name].each, rtol=1e-3, atol=1e-5)
    single = network(1, "sigmoid")
    both = [judge_maps(single, IMAGES, MAPS, index).curves["insertion"] for index in (0, 1)]
    np.testing.assert_allclose(both[0] + both[1], 1, rtol=1e-5)


def test_maps_of_a_class_of_pixels(net):
    """A region's probability is its mean over the region, of each image in its own mask."""
    inputs = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="tanh")(keras.layers.Rescaling(1 / 64, -2)(inputs))
    model = randomise(keras.Model(inputs, keras.layers.Conv2D(3, 1, activation="softmax")(x)))
    masks = np.random.default_rng(1).random((3, 9, 7)) > 0.5
    judged = judge_maps(model, IMAGES, MAPS, Region(1, masks))
    expected = [np.array(model(IMAGES.astype("float32")))[i, ..., 1][masks[i]].mean() for i in range(3)]
    np.testing.assert_allclose(judged.curves["deletion"][:, 0], expected, rtol=1e-4)


@pytest.mark.slow
def test_a_file_is_judged_as_its_model(net, tmp_path):
    kzoo.export(net, tmp_path / "model.tflite")
    file = LiteRTModel(tmp_path / "model.tflite")
    expected = judge_maps(net, IMAGES, MAPS, TARGETS).measures
    for name, found in judge_maps(file, IMAGES, MAPS, TARGETS).measures.items():
        np.testing.assert_allclose(found.each, expected[name].each, rtol=1e-3, atol=1e-4)


def test_the_truth_is_better_than_maps_that_know_nothing():
    """Where only one corner counts, RISE finds it; less is left of the answer than by random maps, with certainty."""
    inputs = keras.Input((12, 10, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Cropping2D(((0, 7), (0, 6)))(inputs))
    dense = keras.layers.Dense(2, activation="softmax")
    model = keras.Model(inputs, dense(x))
    dense.set_weights([np.array([[0, 0.1]] * 3, "float32"), np.array([0, -30], "float32")])
    images = pixels(12, 12, 10, 3) / 4
    images[:, :5, :4] += 100
    box = np.repeat([[0, 0, 5, 4]], 12, axis=0)
    found = judge_maps(model, images, rise(model, images, 1, masks=100), 1, box).measures
    for other in (random_maps((12, 12, 10)), gaussian_maps((12, 12, 10))):
        known = judge_maps(model, images, other, 1, box).measures
        assert mean_with_interval(known["road_most"].each - found["road_most"].each).low > 0
        assert mean_with_interval(found["energy"].each - known["energy"].each).low > 0
    assert found["pointing"].mean == 1


def test_intervals_hold_the_mean_as_often_as_they_say():
    """Of normal numbers the interval is 1.96 standard errors to each side; the seed gives it again."""
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = mean_with_interval(values)
    error = 1.96 * values.std() / 20
    np.testing.assert_allclose([found.low, found.high], [values.mean() - error, values.mean() + error], atol=0.02)
    assert found.mean == values.mean()
    assert mean_with_interval(values)[1:] == found[1:]


def test_baselines():
    bell = gaussian_maps((2, 9, 6))
    for y, x in np.ndindex(9, 6):
        expected = np.exp(-(((y - 4) / 2.25) ** 2 + ((x - 2.5) / 1.5) ** 2) / 2)
        np.testing.assert_allclose(bell[:, y, x], expected, rtol=1e-5)
    noise = random_maps((50, 20, 20), seed=1)
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    assert not np.array_equal(noise, random_maps((50, 20, 20), seed=2))


def test_a_map_that_does_not_depend_on_the_weights_is_flagged(net):
    def brightness(model, images, target):
        return np.asarray(images).mean(axis=-1)

    before = [weight.copy() for weight in net.get_weights()]
    found = randomisation_check(net, IMAGES, grad_cam)
    edges = randomisation_check(net, IMAGES, brightness)
    assert not found.alike
    assert edges.alike
    np.testing.assert_allclose(edges.correlations, 1)
    assert found.correlations.shape == (4, 3)
    for weight, old in zip(net.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_weights_are_randomised_from_the_top(net):
    """Each step keeps the disorder of those before it, and the values of each weight; the target stays."""
    inner = keras.Model(net.input, net.get_layer("last").output, name="body")
    image = keras.Input((9, 7, 3))
    top = keras.layers.Dense(4, activation="softmax", name="top")
    model = keras.Model(image, top(keras.layers.GlobalAveragePooling2D()(inner(image))))
    top.set_weights(net.get_layer("top").get_weights())
    seen, targets = [], []

    def method(model, images, target):
        seen.append(model.get_weights())
        targets.append(target)
        return np.arange(3 * 20).reshape(3, 4, 5) % (len(seen) + 6)

    found = randomisation_check(model, IMAGES, method, steps=3)
    paths = ["batch_normalization" in found.layers[1], found.layers[0], found.layers[2].startswith("body/conv2d")]
    assert paths == [True, "body/last", True]
    for before, after in itertools.pairwise(seen):
        for old, new in zip(before, after, strict=True):
            np.testing.assert_allclose(np.sort(old, axis=None), np.sort(new, axis=None))
    changed = [[not np.array_equal(a, b) for a, b in zip(seen[0], each, strict=True)] for each in seen[1:]]
    kernels = [index for index, weight in enumerate(seen[0]) if weight.ndim > 1]
    assert [[each[index] for index in kernels] for each in changed] == [
        [False, True, True],
        [False, True, True],
        [True, True, True],
    ]
    classes = np.array(model(IMAGES.astype("float32"))).argmax(axis=1)
    assert all(np.array_equal(target, classes) for target in targets)
    ranks = [rankdata(each % (7 + step), axis=None) for step, each in enumerate([np.arange(20)] * 2)]
    np.testing.assert_allclose(found.correlations[0, 0], np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": MAPS[:2]}, r"maps have shape \(2, 9, 7\)"),
        ({"maps": MAPS[0]}, r"maps have shape \(9, 7\)"),
        ({"maps": MAPS.astype(str)}, "numbers"),
        ({"maps": np.where(MAPS > 2, np.nan, 0)}, "NaN"),
        ({"images": IMAGES[..., :2]}, "images have shape"),
        ({"target": 4}, "classes 0 to 3"),
        ({"target": lambda logits: logits}, "gives numbers of shape"),
        ({"seed": -1}, "seed=-1"),
        ({"steps": 0}, "steps=0"),
        ({"where": MAPS[:2] > 0}, "where has shape"),
        ({"where": np.zeros((3, 4), int)}, "no pixel"),
    ],
)
def test_what_cannot_be_judged(net, change, message):
    with pytest.raises(InvalidValueError, match=message):
        judge_maps(**{"model": net, "images": IMAGES, "maps": MAPS} | change)


def test_other_mistakes(net):
    mistakes = (([], r"values have shape \(0,\)"), (None, "for each|no numbers"), ("a", "no numbers"))
    for given, message in mistakes:
        with pytest.raises(InvalidValueError, match=message):
            mean_with_interval(given)
    with pytest.raises(InvalidValueError, match="method='gradcam' must be a function of model, images and target"):
        randomisation_check(net, IMAGES, "gradcam")
    for shape in (None, 5, (1, 2)):
        with pytest.raises(InvalidValueError, match=r"must be \(n, height, width\)"):
            gaussian_maps(shape)
    with pytest.raises(InvalidValueError, match="whether its outputs are probabilities"):
        judge_maps(network(activation="relu"), IMAGES, MAPS)
    with pytest.raises(InvalidValueError, match="steps=0"):
        randomisation_check(net, IMAGES, grad_cam, steps=0)
    plain = keras.Sequential([keras.Input((9, 7, 3)), keras.layers.GlobalAveragePooling2D()])
    with pytest.raises(InvalidValueError, match="no weights"):
        randomisation_check(plain, IMAGES, grad_cam)
    for make in (random_maps, gaussian_maps):
        with pytest.raises(InvalidValueError, match="shape="):
            make((3, 0, 5))
