"""Fitting pictures to a model's input: three named ways, their values checked wherever they come from."""

import numpy as np
import pytest
from PIL import Image

from kzoo.errors import InvalidValueError
from kzoo.images import Pixels


def test_pixels_survive_json():
    for pixels in (Pixels(), Pixels("stretch"), Pixels("pad", interpolation="bicubic"), Pixels("crop", 0.875)):
        assert Pixels.from_json(pixels.to_json()) == pixels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": "squash"}, "resize='squash' is not accepted"),
        ({"resize": ["crop"]}, "resize="),
        ({"interpolation": None}, "interpolation=None is not accepted"),
        ({"crop": "a"}, "crop='a' must be a number"),
        ({"crop": float("nan")}, "crop=nan"),
        ({"crop": True}, "crop=True"),
        ({"crop": []}, "crop="),
        ({"crop": None}, "crop=None"),
        ({"crop": -1}, "crop=-1"),
        ({"crop": 1e-4}, "crop=0.0001"),
        ({"crop": 5}, "crop=5 must be a number from 0.05 to 1"),
        ({"resize": "pad", "crop": 0.5}, "crop=0.5 goes with resize='crop'"),
        ({"mean": 3}, "'mean', which is unknown"),
    ],
)
def test_hostile_values_are_refused_by_the_name_of_the_field(changes, message):
    with pytest.raises(InvalidValueError, match=message) as refused:
        Pixels.from_json(Pixels().to_json() | changes)
    assert len(str(refused.value).splitlines()) == 1


def test_what_is_no_object_or_lacks_a_field_is_refused():
    for value in (None, [], "crop", 3, {"resize": "crop"}, {}):
        with pytest.raises(InvalidValueError, match="pixels"):
            Pixels.from_json(value)


def test_padding_shows_the_whole_picture_in_the_centre_of_black():
    picture = Image.fromarray(np.full((20, 80, 3), 200, "uint8"))
    padded = Pixels("pad").apply(picture, (32, 32, 3))
    expected = np.zeros((32, 32, 3), "uint8")
    expected[12:20] = 200  # 80×20 becomes 32×8
    np.testing.assert_array_equal(padded, expected)
    tall = Pixels("pad").apply(picture.transpose(Image.Transpose.ROTATE_90), (32, 32, 3))
    np.testing.assert_array_equal(tall, expected.transpose(1, 0, 2))
