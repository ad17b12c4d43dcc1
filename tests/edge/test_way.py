"""The way from a picture to an answer, in sentences: its numbers are those that `Pixels` and `Output` compute with."""

import numpy as np
import pytest
from PIL import Image

from kzoo.edge.way import way_in_words
from kzoo.images import Pixels
from kzoo.output import Output

GIVEN = {"dtype": "float32", "values": "pixels of 0 to 255", "preprocessing": "x / 255 is computed by the file"}
CENTRE = Pixels()
SOFTMAX = Output("classification", "softmax", 3)


def sentences(
    pixels: Pixels = CENTRE, shape: tuple = (224, 224, 3), output: Output = SOFTMAX, batch: int = 1, **told
) -> list[str]:
    given = GIVEN | {"shape": [batch, *shape]} | told.get("given", {})
    maps = [*shape[:2]] if output.task == "segmentation" else []
    return way_in_words(
        given, pixels, {"dtype": "float32", "shape": [1, *maps, output.units]} | told.get("wanted", {}), output
    )


def test_the_crop_of_the_field():
    found = sentences(Pixels("crop", 0.875, "bicubic"))
    assert found[2].startswith(
        "Resize the shorter side to 256 pixels and the longer one in proportion, rounded down: bicubic"
    )
    assert found[3].startswith(
        "Cut out the central 224 x 224 pixels (height x width): top = round((its height - 224) / 2)"
    )


@pytest.mark.parametrize(
    ("pixels", "size", "shape", "wanted"),
    [
        (Pixels("crop", 0.875), (301, 199), (45, 45), "the shorter side to 51 pixels"),
        (Pixels("crop", 0.7), (301, 199), (45, 31), "to cover 64 x 44 pixels (height x width)"),
        (Pixels("pad"), (301, 199), (45, 31), "to fit into 45 x 31 pixels (height x width)"),
        (Pixels("stretch"), (301, 199), (45, 31), "the whole picture to 45 x 31 pixels (height x width)"),
    ],
)
def test_a_picture_goes_the_way_that_the_sentences_tell(pixels, size, shape, wanted):
    """The way is gone here with Pillow, by the words alone, and ends in the pixels of `Pixels`."""
    height, width = shape
    found = " ".join(sentences(pixels, (*shape, 3)))
    assert wanted in found
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), dtype="uint8"))
    if pixels.resize == "stretch":
        expected = picture.resize((width, height), Image.Resampling.BILINEAR)
    else:
        tall, wide = {"the": (51, 51), "to": (64, 44)}[wanted.split()[0]] if pixels.resize == "crop" else shape
        scales = [wide / picture.width, tall / picture.height]
        scale = max(scales) if pixels.resize == "crop" else min(scales)
        sides = [int(side * scale + 1e-9) for side in picture.size]
        resized = picture.resize(sides, Image.Resampling.BILINEAR)
        left, top = round((sides[0] - width) / 2), round((sides[1] - height) / 2)
        assert f"top = round((its height - {height}) / 2), left = round((its width - {width}) / 2)" in found
        expected = Image.new("RGB", (width, height))
        expected.paste(resized, (-left, -top))
    np.testing.assert_array_equal(pixels.apply(picture, (*shape, 3)), np.asarray(expected))


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "fed"),
    [
        (
            "float32",
            None,
            0,
            "Feed the pixels as they are, 0 to 255, as float32 of shape [1, 9, 13, 1]: rows, columns, channels (grey)",
        ),
        ("uint8", 1.0, 0, "Feed the pixels as they are, 0 to 255, as uint8 of"),
        ("int8", 1.0, -128, "Feed each pixel of 0 to 255 minus 128, as int8 of"),
        (
            "int16",
            0.0077,
            0,
            "Feed round(pixel / 0.0077) + 0, halves rounded to the even number and clipped, as int16 of",
        ),
    ],
)
def test_what_to_feed(dtype, scale, zero_point, fed):
    given = {"dtype": dtype} | ({"scale": scale, "zero_point": zero_point} if scale else {})
    found = sentences(shape=(9, 13, 1), given=given)
    assert any(sentence.startswith(fed) for sentence in found)
    assert "Normalise nothing yourself: x / 255 is computed by the file." in found
    assert "0.299 R + 0.587 G + 0.114 B" in found[0]


def test_a_batch_and_an_unknown_range_are_told():
    found = sentences(batch=4, given={"values": "as in training"})
    assert "The file takes 4 images at once: fill up fewer with zeros." in found
    assert any(sentence.startswith("The values are to be as in training; kzoo itself feeds") for sentence in found)


@pytest.mark.parametrize(
    ("output", "end"),
    [
        (
            SOFTMAX,
            "in the order of the 3 classes; the class is that of the largest, of equal ones the first.",
        ),
        (
            Output("classification", "logits", 3),
            "exp(x - m) / sum of all exp(x - m), where m is the largest, are the probabilities.",
        ),
        (Output("classification", "sigmoid", 3), "each by itself: from 0.5 on a class is there."),
        (Output("classification", "sigmoid", 1, ("no", "yes")), "From x = 0.5 on class 1 is the class."),
        (Output("classification", "logits", 1), "is the probability of class 1; from x = 0 on it is the class."),
        (
            Output("classification", "unknown", 1),
            "one number x, of unknown meaning, of class 1, '1', against class 0, '0'.",
        ),
        (Output("unknown", "unknown", 3), "what it means is not told."),
    ],
)
def test_what_an_answer_means(output, end):
    assert sentences(output=output)[-1].endswith(end)


def test_integers_of_the_output_are_told_with_their_scale():
    found = sentences(wanted={"dtype": "int8", "scale": 0.00390625, "zero_point": -128})
    assert "An integer of the output, int8, stands for 0.00390625 * (integer + 128)." in found
    found = sentences(wanted={"dtype": "uint8", "scale": 0.5, "zero_point": 7})
    assert "An integer of the output, uint8, stands for 0.5 * (integer - 7)." in found


def test_a_mask_comes_back_to_the_size_of_the_picture():
    output = Output("segmentation", "softmax", 3)
    found = sentences(Pixels("pad"), (40, 60, 3), output, wanted={"shape": [1, 32, 52, 3]})
    assert found[-3:-1] == [
        "The map of 32 x 52 is the centre of the image of 40 x 60.",
        "Cut off what lies on the black border.",
    ]
    assert found[-1].startswith("Resize the probabilities of each class to the size of the picture")
    assert "Cut off" not in " ".join(sentences(Pixels("stretch"), (40, 60, 3), output))
