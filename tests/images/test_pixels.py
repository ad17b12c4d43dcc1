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


def triangle(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resizing with antialiasing by its definition: each new pixel weighs those below a triangle."""
    for axis, count in enumerate(size):
        step = pixels.shape[axis] / count
        reach = max(step, 1)
        rows = []
        for index in range(count):
            distances = np.abs(np.arange(pixels.shape[axis]) + 0.5 - (index + 0.5) * step)
            weights = np.maximum(0, 1 - distances / reach)
            rows.append(np.tensordot(weights / weights.sum(), pixels, (0, axis)))
        pixels = np.stack(rows, axis=axis)
    return pixels


@pytest.mark.parametrize("size", [(32, 24), (50, 61), (7, 90)])
def test_resizing_averages_what_it_leaves_out(size):
    pixels = np.random.default_rng(1).integers(0, 256, (64, 60, 3), dtype="uint8")
    found = Pixels("stretch").apply(Image.fromarray(pixels), (*size, 3))
    # Pillow rounds to whole numbers after the rows and after the columns
    assert np.abs(found - triangle(pixels.astype("float64"), size)).max() <= 1


def test_white_noise_and_a_ramp_are_averaged():
    """Sampled without antialiasing, noise would keep most of its deviation of 74."""
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512), dtype="uint8")
    for ways in (Pixels("stretch"), Pixels(), Pixels("pad"), Pixels("stretch", interpolation="bicubic")):
        small = ways.apply(Image.fromarray(pixels), (32, 32, 1))
        assert 2 < small.std() < 8
        assert abs(small.mean() - pixels.mean()) < 1
    ramp = np.broadcast_to(np.arange(160, dtype="uint8"), (40, 160))
    stretched = Pixels("stretch").apply(Image.fromarray(ramp), (32, 32, 1))[..., 0]
    middle = (np.arange(32) + 0.5) * 5 - 0.5  # of the five pixels that became one
    np.testing.assert_allclose(stretched[:, 1:-1], np.broadcast_to(middle, (32, 32))[:, 1:-1], atol=1)
    centre = Pixels().apply(Image.fromarray(ramp), (40, 40, 1))[..., 0]
    np.testing.assert_array_equal(centre, ramp[:, 60:100])


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(40, 160), (160, 40), (33, 97), (1, 500), (500, 1), (32, 32), (9, 7)])
def test_a_mask_is_fitted_as_its_picture_is(resize, size):
    """A picture whose grey is the class: where it is plain, picture and mask agree, and a border is void."""
    mask = np.zeros(size, "uint8")
    mask[size[0] // 2 :, size[1] // 3 :] = 100
    ways, shape = Pixels(resize), (32, 24)
    fitted = ways.apply_to_mask(mask, shape, border=255)
    picture = ways.apply(Image.fromarray(mask + np.uint8(50)), (*shape, 1))[..., 0]
    border = picture == 0  # no pixel of the picture is black
    assert ((fitted == 255) == border).all()
    assert (resize == "pad") or not border.any()
    plain = np.isin(picture, (50, 150))
    np.testing.assert_array_equal(fitted[plain] + 50, picture[plain])
    rows, columns = ways.window(size[::-1], shape)
    inside = np.zeros(shape, bool)
    inside[rows, columns] = True
    np.testing.assert_array_equal(inside, ~border)


def test_a_picture_of_any_mode_may_be_applied():
    clear = Image.new("RGBA", (6, 4), (10, 20, 30, 0))
    assert (Pixels("stretch").apply(clear, (4, 6, 3)) == 255).all()
    assert (Pixels("stretch").apply(Image.new("1", (6, 4), 1), (4, 6, 1)) == 255).all()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, Pixels("crop", 0.875, "bicubic")),
        ({"resize": "stretch"}, Pixels("stretch", 1.0, "bicubic")),
        ({"crop": 0.5}, Pixels("crop", 0.5, "bicubic")),
        ({"interpolation": "bilinear"}, Pixels("crop", 0.875, "bilinear")),
        ({"resize": "crop"}, Pixels("crop", 0.875, "bicubic")),
    ],
)
def test_flags_change_what_they_name(flags, expected):
    assert Pixels("crop", 0.875, "bicubic").changed(**flags) == expected
    assert Pixels("stretch").changed(crop=0.9) == Pixels("crop", 0.9)
    with pytest.raises(InvalidValueError, match=r"crop=0\.5 goes with"):
        Pixels().changed(resize="pad", crop=0.5)
