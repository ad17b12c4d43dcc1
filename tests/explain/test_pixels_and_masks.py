"""Maps on pixels, with gradients and without, for Keras models and for LiteRT files."""

import keras
import numpy as np
import pytest
from helpers import pixels, randomise
from PIL import Image

import kzoo
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.explain import (
    Region,
    eigen_cam,
    integrated_gradients,
    occlusion,
    perturbation,
    rise,
    score_cam,
    smooth_grad,
)
from kzoo.explain.cams import as_tensor
from kzoo.explain.replay import Replay

IMAGES = pixels(3, 12, 9, 3)
WEIGHTS = np.random.default_rng(5).standard_normal((12 * 9 * 3, 4)).astype("float32") / 100


def linear() -> keras.Model:
    inputs = keras.Input((12, 9, 3))
    dense = keras.layers.Dense(4, activation="softmax")
    model = keras.Model(inputs, dense(keras.layers.Flatten()(inputs)))
    dense.set_weights([WEIGHTS, np.array([1, 2, 3, 4], "float32")])
    return model


def curved() -> keras.Model:
    inputs = keras.Input((12, 9, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", activation="gelu")(keras.layers.Rescaling(1 / 64, -2)(inputs))
    x = keras.layers.Conv2D(5, 3, strides=2, activation="tanh", name="last")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return randomise(keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x)))


def test_a_linear_model_is_its_weights():
    model, kernel = linear(), WEIGHTS.reshape(12, 9, 3, 4)
    expected = (IMAGES * kernel[..., 2]).sum(axis=-1)
    np.testing.assert_allclose(integrated_gradients(model, IMAGES, 2, steps=3), expected, rtol=1e-3, atol=1e-4)
    gradient = np.broadcast_to(kernel[..., 2].sum(axis=-1), (3, 12, 9))
    np.testing.assert_allclose(smooth_grad(model, IMAGES, 2, samples=2), gradient, rtol=1e-3, atol=1e-5)
    filled = ((IMAGES - IMAGES.mean(axis=(1, 2, 3), keepdims=True)) * kernel[..., 2]).sum(axis=-1)
    np.testing.assert_allclose(occlusion(model, IMAGES, 2, size=1, stride=1), filled, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("baseline", [0.0, 127.0, np.linspace(0, 255, 9)[:, None]])
def test_integrated_gradients_are_complete(baseline):
    """Their sum is the difference of the scores of picture and baseline, of logits up to what all classes share."""
    model = curved()
    found = integrated_gradients(model, IMAGES, [1, 2, 0], baseline, steps=60)
    plain = keras.Model(model.input, model.layers[-1].input)
    kernel, bias = model.layers[-1].get_weights()
    empty = np.broadcast_to(np.asarray(baseline, "float32"), IMAGES.shape)
    scores = [(np.array(plain(each)) @ kernel + bias)[np.arange(3), [1, 2, 0]] for each in (IMAGES, empty)]
    difference = scores[0] - scores[1]
    np.testing.assert_allclose(found.sum(axis=(1, 2)), difference, atol=0.01 * np.abs(difference).max())


def test_noise_is_that_of_the_seed():
    model = curved()
    np.testing.assert_array_equal(smooth_grad(model, IMAGES, 1, seed=3), smooth_grad(model, IMAGES, 1, seed=3))
    assert not np.allclose(smooth_grad(model, IMAGES, 1, seed=3), smooth_grad(model, IMAGES, 1, seed=4))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (integrated_gradients, dict(target=[2, 0, 1], steps=3)),
        (smooth_grad, dict(target=[2, 0, 1], samples=3)),
        (occlusion, dict(target=[2, 0, 1], size=4)),
        (rise, dict(target=[2, 0, 1], masks=40)),
        (score_cam, dict(target=[2, 0, 1])),
        (eigen_cam, {}),
    ],
)
def test_each_image_is_explained_by_itself(method, options):
    model = curved()
    together = method(model, IMAGES, **options)
    for index, image in enumerate(IMAGES):
        own = options | ({"target": options["target"][index]} if "target" in options else {})
        alone = method(model, image[None], **own)[0]
        np.testing.assert_allclose(together[index], alone, atol=1e-5 * np.abs(alone).max())


def test_occlusion_by_a_loop():
    model = curved()
    found = occlusion(model, IMAGES, 1, size=4, stride=3, value=10.0)
    total, count = np.zeros((2, 3, 12, 9))
    for y in (0, 3, 6, 8):
        for x in (0, 3, 5):
            hidden = IMAGES.copy()
            hidden[:, y : y + 4, x : x + 4] = 10
            total[:, y : y + 4, x : x + 4] += (score(model, IMAGES) - score(model, hidden))[:, None, None]
            count[:, y : y + 4, x : x + 4] += 1
    np.testing.assert_allclose(found, total / count, atol=1e-4)


def score(model, images, index=1) -> np.ndarray:
    """The logit of a class, as it is before the softmax."""
    kernel, bias = model.layers[-1].get_weights()
    return (np.array(keras.Model(model.input, model.layers[-1].input)(images)) @ kernel + bias)[:, index]


def test_rise_finds_the_pixels_that_count():
    """A model that reads one corner alone."""
    inputs = keras.Input((12, 9, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs[:, 8:, :3])
    model = randomise(keras.Model(inputs, keras.layers.Dense(2)(x)))
    model.layers[-1].set_weights([np.array([[1, -1]] * 3, "float32") / 50, np.zeros(2, "float32")])
    found = rise(model, IMAGES, 0, masks=600, cells=3)
    corner = np.zeros((12, 9), bool)
    corner[8:, :3] = True
    assert (found[:, corner].mean(axis=1) > 3 * np.abs(found[:, ~corner].mean(axis=1))).all()
    np.testing.assert_array_equal(rise(model, IMAGES, 0, masks=40, seed=2), rise(model, IMAGES, 0, masks=40, seed=2))
    np.testing.assert_allclose(rise(model, IMAGES, 1, masks=40), -rise(model, IMAGES, 0, masks=40), atol=1e-4)


def test_what_rise_hides_fades_to_a_value():
    """Of a picture as bright as the value nothing is hidden; black pixels that are hidden by black neither."""
    model = curved()
    for value, brightness in ((0.0, 0), (90.0, 90), (None, 40)):
        same = np.full_like(IMAGES[:1], brightness)
        np.testing.assert_allclose(rise(model, same, 1, masks=40, value=value), 0, atol=1e-5)
        assert np.abs(rise(model, IMAGES[:1], 1, masks=40, value=value)).max() > 1e-3
    shifted = keras.Sequential([keras.Input((12, 9, 3)), keras.layers.Rescaling(1, 90), model])
    expected = rise(shifted, IMAGES - 90.0, 1, masks=40)
    np.testing.assert_allclose(rise(model, IMAGES, 1, masks=40, value=90.0), expected, atol=1e-4)


def test_score_cam_by_a_loop():
    model = curved()
    maps = np.array(keras.Model(model.input, model.get_layer("last").output)(IMAGES))
    expected = np.zeros(maps.shape[:3])
    for i, image in enumerate(IMAGES):
        scores = []
        for k in range(maps.shape[-1]):
            channel = maps[i, :, :, k]
            scaled = (channel - channel.min()) / np.ptp(channel)
            large = np.asarray(Image.fromarray(scaled).resize((9, 12), Image.Resampling.BILINEAR))
            scores.append(score(model, (image * large[..., None])[None])[0])
        weights = np.exp(scores) / np.exp(scores).sum()
        expected[i] = (maps[i] * weights).sum(axis=-1)
    np.testing.assert_allclose(score_cam(model, IMAGES, 1, layer="last"), expected, atol=1e-4)


def test_a_file_is_explained_as_its_model(tmp_path):
    """Files give probabilities; of the model they are explained by a function as target."""
    model = curved()
    kzoo.export(model, tmp_path / "model.tflite")
    lite = LiteRTModel(tmp_path / "model.tflite")
    logit = keras.Model(model.input, keras.layers.Identity()(keras.ops.log(model.output)))
    for method, options in ((rise, dict(masks=200, cells=3)), (occlusion, dict(size=3))):
        expected = method(logit, IMAGES, lambda x: keras.ops.exp(x[:, 1]), **options)
        found = method(lite, IMAGES, 1, **options)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max() + 1e-7, err_msg=method.__name__)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (integrated_gradients, dict(steps=0), "steps=0 must be a positive integer"),
        (
            integrated_gradients,
            dict(baseline=np.zeros(5)),
            r"baseline of shape \(5,\) must be a finite number, or pixels that fit images of",
        ),
        (integrated_gradients, dict(baseline="black"), "baseline 'black' must be a finite number, or pixels"),
        (integrated_gradients, dict(baseline=None), "baseline None must be a finite number, or pixels"),
        (occlusion, dict(target=[0]), "1 targets: the index of a class is needed, or one for each of the 3 images"),
        (rise, dict(target="cat"), "'cat': the index of a class is needed"),
        (smooth_grad, dict(seed=-1), "seed=-1 must be an integer, 0 or more"),
        (smooth_grad, dict(noise="loud"), "noise='loud' must be a number at least 0"),
        (rise, dict(seed=1.5), "seed=1.5 must be an integer, 0 or more"),
        (rise, dict(target=lambda x: x[0]), r"the target <lambda> gives numbers of shape \(4,\) for 32 images"),
        (occlusion, dict(value="x"), "value='x' must be a number of the pixels' scale"),
        (rise, dict(value="grey"), "value='grey' must be a number of the pixels' scale"),
        (occlusion, dict(value=float("nan")), "value=nan must be a number of the pixels' scale"),
        (smooth_grad, dict(samples=0), "samples=0 must be a positive integer"),
        (smooth_grad, dict(noise=-1), "noise=-1 must be a number at least 0"),
        (occlusion, dict(size=0), "size=0 and stride=None must be positive integers"),
        (occlusion, dict(size=2, stride=3), "stride=3 must be at most size=2"),
        (rise, dict(keep="a"), "keep='a' must be a number between 0 and 1"),
        (rise, dict(masks=1), "masks=1 must be an integer of at least 2"),
        (score_cam, dict(target=9), "target=9: .* has classes 0 to 3"),
        (occlusion, dict(target=Region(1)), "a Region is of a model that gives maps"),
    ],
)
def test_mistakes(method, options, message):
    with pytest.raises(InvalidValueError, match=message):
        method(curved(), IMAGES, **options)


def test_a_file_with_a_heat_map_is_explained_by_its_named_answer(tmp_path):
    model = curved()
    kzoo.export(model, tmp_path / "plain.tflite")
    kzoo.export(model, tmp_path / "hot.tflite", heatmap=True)
    with pytest.raises(InvalidValueError, match=r"2 outputs .* LiteRTModel\(file, answer=NAME\)"):
        occlusion(LiteRTModel(tmp_path / "hot.tflite"), IMAGES)
    names = list(LiteRTModel(tmp_path / "hot.tflite").outputs)
    found = occlusion(LiteRTModel(tmp_path / "hot.tflite", answer=names[0]), IMAGES, 1)
    np.testing.assert_allclose(found, occlusion(LiteRTModel(tmp_path / "plain.tflite"), IMAGES, 1), atol=1e-6)


def test_large_pictures_are_computed_a_few_at_a_time(monkeypatch):
    """The maps stay the same, and no more pixels are in memory than those of 32 pictures of 224×224."""
    model, sizes = curved(), []
    many = ((occlusion, dict(size=3)), (rise, dict(masks=37)), (score_cam, {}))
    whole = [method(model, IMAGES, 1, **options) for method, options in many]

    def watched(model, batch):
        sizes.append(len(batch))
        return as_tensor(model, batch)

    monkeypatch.setattr(perturbation, "PIXELS", 5 * 12 * 9 + 1)
    monkeypatch.setattr(perturbation, "as_tensor", watched)
    for (method, options), expected in zip(many, whole, strict=True):
        np.testing.assert_allclose(method(model, IMAGES, 1, **options), expected, rtol=1e-4, atol=1e-6)
    assert max(size for size in sizes if size != len(IMAGES)) == 5
    assert [len(part) for part in perturbation.batched(range(3), (9000, 9000, 3))] == [1, 1, 1]


def test_the_gradient_is_compiled_once_for_all_steps(monkeypatch):
    calls, model = [], curved()
    real = Replay.logits
    monkeypatch.setattr(Replay, "logits", lambda *given: calls.append(1) or real(*given))
    integrated_gradients(model, IMAGES, steps=20)
    smooth_grad(model, IMAGES, samples=20)
    assert len(calls) <= 8


@pytest.mark.parametrize("method", [integrated_gradients, smooth_grad, kzoo.grad_cam, occlusion])
def test_a_model_of_integer_pixels_is_explained_as_one_of_floats(method):
    """Integers have no gradients, and pixels between two of them would be cut off."""
    floats = curved()
    inputs = keras.Input((12, 9, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 64, -2)(inputs)
    rest = keras.Model(floats.layers[1].output, floats.output)
    integers = keras.Model(inputs, rest(scaled))
    images = IMAGES.round()
    expected = method(floats, images, 1)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(method(integers, images, 1), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("images", [np.full((1, 12, 9, 3), "a"), IMAGES + 1j, np.zeros((1, 12, 9, 3), "M8[s]")])
def test_images_that_are_of_no_numbers(images):
    with pytest.raises(InvalidValueError, match=r"images are of type .*; numbers are needed"):
        kzoo.grad_cam(curved(), images)


@pytest.mark.parametrize("of_file", [False, True])
def test_images_that_hold_no_numbers(of_file, tmp_path):
    model = curved()
    if of_file:
        kzoo.export(model, tmp_path / "m.tflite")
        model = LiteRTModel(tmp_path / "m.tflite")
    methods = (occlusion, rise) if of_file else (occlusion, rise, score_cam, integrated_gradients, kzoo.grad_cam)
    for method in methods:
        with pytest.raises(InvalidValueError, match="images hold NaN or infinite pixels"):
            method(model, np.full_like(IMAGES, np.nan))
        with pytest.raises(InvalidValueError, match=r"images are no array: .* resize them to one size"):
            method(model, [IMAGES[0], IMAGES[0][:5]])


def test_a_file_has_no_gradients():
    with pytest.raises(InvalidValueError, match="is no Keras model; of a LiteRT file occlusion and rise make maps"):
        kzoo.grad_cam(object(), IMAGES)


def test_images_without_a_picture():
    for method in (occlusion, rise, score_cam, smooth_grad, integrated_gradients):
        with pytest.raises(InvalidValueError, match=r"takes \(n, 12, 9, 3\)"):
            method(curved(), IMAGES[0])
