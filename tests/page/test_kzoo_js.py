"""kzoo.js in Node, beside Python: the same pixels, the same numbers, the same answers."""

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from kzoo.images import Pixels
from kzoo.output import Output
from kzoo.page import SCRIPT
from kzoo.predict.segmenter import most_probable

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
LEVELS = 0 if int(PIL.__version__.split(".")[0]) >= 13 else 1  # older ones resize rows first, whatever costs less
ANSWERS = Path(__file__).with_name("answers.mjs")


def ask(*questions: tuple) -> list:
    """What functions of kzoo.js return: each question is a name and its arguments."""
    told = json.dumps([{"call": name, "args": args} for name, *args in questions], default=typed)
    done = subprocess.run(["node", ANSWERS, SCRIPT], input=told, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout, object_hook=lambda told: np.array(told["values"]) if "type" in told else told)


def typed(array: np.ndarray) -> dict:
    kind = "Uint8ClampedArray" if array.dtype == np.uint8 else "Float32Array"
    return {"type": kind, "values": array.ravel().tolist()}


def picture(width: int, height: int, seed: int = 0, opaque: bool = True) -> Image.Image:
    """Noise over a ramp, in RGBA, with every alpha if it is not opaque."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (height, width, 4)) // 2 + np.linspace(0, 127, width, dtype=int)[None, :, None]
    values[..., 3] = 255 if opaque else rng.integers(0, 256, (height, width))
    return Image.fromarray(values.astype("uint8"), "RGBA")


def as_picture(source: Image.Image) -> dict:
    return {"width": source.width, "height": source.height, "data": np.asarray(source)}


WAYS = [
    Pixels(resize, crop, interpolation)
    for resize, interpolation in itertools.product(("stretch", "crop", "pad"), ("bilinear", "bicubic"))
    for crop in ((1.0, 0.875) if resize == "crop" else (1.0,))
]
SIZES = [(37, 23), (23, 37), (7, 5), (64, 64), (1, 9), (301, 2), (3, 211), (160, 119)]  # width, height
SHAPES = [(32, 32, 3), (28, 28, 1), (17, 41, 3), (64, 64, 3)]


@pytest.mark.parametrize("pixels", WAYS, ids=lambda way: f"{way.resize}-{way.crop}-{way.interpolation}")
def test_pixels_are_those_of_python(pixels):
    cases = [(picture(*size), shape) for size in SIZES for shape in SHAPES]
    found = ask(*(("toPixels", as_picture(source), shape, pixels.to_json()) for source, shape in cases))
    for (source, shape), values in zip(cases, found, strict=True):
        expected = pixels.apply(source.convert("RGB"), shape).ravel()
        np.testing.assert_allclose(values, expected, rtol=0, atol=LEVELS, err_msg=f"{source.size} to {shape}")


@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_white_as_in_python(channels):
    source, shape = picture(50, 40, seed=1, opaque=False), (40, 50, channels)
    (found,) = ask(("toPixels", as_picture(source), shape, Pixels("stretch").to_json()))
    np.testing.assert_array_equal(found, Pixels("stretch").apply(source, shape).ravel())


@pytest.mark.parametrize(("dtype", "scale", "zero"), [("uint8", 1.0, 0), ("uint8", 0.37, 12), ("uint8", 2.0, 3)])
def test_input_is_quantized_as_python_does(dtype, scale, zero):
    from kzoo.edge.runtime import _dequantize, _quantize

    pixels = np.arange(256, dtype="uint8")
    detail = {"dtype": np.dtype(dtype).type, "quantization": (scale, zero)}
    told = {"dtype": dtype, "scale": scale, "zero_point": zero}
    quantized, floats = ask(("quantize", pixels, told), ("quantize", pixels, {"dtype": "float32"}))
    np.testing.assert_array_equal(quantized, _quantize(pixels.astype("float32"), detail))
    np.testing.assert_array_equal(floats, pixels)
    (back,) = ask(("dequantize", pixels, told))
    np.testing.assert_array_equal(back.astype("float32"), _dequantize(pixels, detail))


OUTPUTS = [
    Output(task, values, units)
    for task in ("classification", "segmentation")
    for values in ("softmax", "sigmoid", "logits")
    for units in (1, 5)
]


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: f"{output.task}-{output.values}-{output.units}")
def test_probabilities_are_those_of_python(output):
    rng = np.random.default_rng(2)
    numbers = (
        30 * rng.standard_normal((12, output.units)) if output.values == "logits" else rng.random((12, output.units))
    )
    numbers = numbers.astype("float32")
    found, several = ask(("toProbabilities", numbers, output.to_json()), ("isMultiLabel", output.to_json()))
    expected = output.probabilities(numbers)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-7)
    assert several is output.multi_label


def test_top_classes_are_ordered_as_in_python():
    probabilities = np.array([0.1, 0.3, 0.3, 0.05, 0.25], "float32")
    (found,) = ask(("topClasses", probabilities, list("abcde"), 4))
    assert [each["name"] for each in found] == ["b", "c", "e", "a"]
    assert [each["index"] for each in found] == [1, 2, 4, 0]
    assert found[0]["probability"] == pytest.approx(0.3)


@pytest.mark.parametrize("resize", ["stretch", "pad"])
@pytest.mark.parametrize("size", [(31, 17), (20, 33), (12, 9)])
def test_masks_are_those_of_python(resize, size):
    pixels, shape = Pixels(resize), (13, 18)
    probabilities = np.random.default_rng(3).dirichlet(np.ones(4), shape).astype("float32")
    told = {"width": size[0], "height": size[1]}
    (mask,) = ask(("toMask", probabilities, (*shape, 4), told, pixels.to_json()))
    expected = most_probable(probabilities[pixels.window(size, shape)], size)
    assert (mask.reshape(expected.shape) == expected).mean() > 0.995  # two classes may be equal to the last bit
    (areas,) = ask(("classAreas", expected.ravel(), list("abcd")))
    counts = np.bincount(expected.ravel(), minlength=4) / expected.size
    assert {each["index"]: each["share"] for each in areas} == pytest.approx(dict(enumerate(counts)))
    assert [each["share"] for each in areas] == sorted(counts, reverse=True)


def test_a_heat_map_lies_over_what_the_model_sees():
    maps, size = np.random.default_rng(4).standard_normal((5, 4, 3)).astype("float32"), (26, 18)
    picture, shape, pixels = {"width": 130, "height": 90}, (29, 41, 3), Pixels("pad")
    heatmap, seen = {"shape": maps.shape, "numbers": maps}, {"width": size[0], "height": size[1]}
    whole, centre, heat = ask(
        ("seenPart", picture, shape, pixels.to_json()),
        ("seenPart", picture, (29, 37, 3), Pixels("crop", 0.875).to_json()),
        ("toHeat", heatmap, 2, shape, picture, pixels.to_json(), seen),
    )
    assert whole == {"left": 0, "top": 0, "width": 1, "height": 1}
    assert (centre["width"], centre["height"]) == pytest.approx((37 / 47, 29 / 33))  # of the picture at 47 × 33
    assert (centre["left"], centre["top"]) == pytest.approx((5 / 47, 2 / 33))
    plane = Image.fromarray(np.maximum(maps[..., 2], 0)).resize((41, 29), Image.Resampling.BILINEAR)
    shown = np.asarray(plane)[pixels.window((130, 90), shape[:2])]
    expected = np.asarray(Image.fromarray(np.ascontiguousarray(shown)).resize(size, Image.Resampling.BILINEAR))
    np.testing.assert_allclose(heat.reshape(18, 26), expected / expected.max(), atol=1e-5)


CARD = {
    "kzoo_card": 3,
    "input": {"shape": [1, 8, 8, 3], "dtype": "float32"},
    "output": {"task": "segmentation", "values": "softmax", "units": 4, "shape": [1, 8, 8, 4]},
}


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("output", {"task": "unknown"}, "not of one picture and its classes"),  # maps of a pyramid, say
        ("output", {"values": "unknown"}, "not of one picture and its classes"),
        ("inputs", {"left": {}, "right": {}}, "not of one picture and its classes"),
        ("input", {"shape": [4, 8, 8, 3]}, "takes 4 pictures at once"),
        ("output", {"shape": [1, 4, 4, 4]}, "gives maps of another size than its image"),
    ],
)
def test_what_is_not_shown_is_told(part, change, message):
    """The sample for Node has no Python before it that refuses such files."""
    (found,) = ask(("checkCard", CARD))
    assert found == CARD
    with pytest.raises(AssertionError, match=message):
        ask(("checkCard", CARD | {part: CARD.get(part, {}) | change}))
