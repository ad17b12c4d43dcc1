"""Reading pictures as timm and torchvision do."""

import numpy as np
import pytest
from images.pictures import ORIENTATION, PHOTOGRAPHS, noise, saved
from PIL import Image

from kzoo.errors import InvalidValueError
from kzoo.images import Pixels, find_pictures

PLACES = [(0, 0), (17, 101), (112, 112), (200, 50), (223, 223)]

# size, crop, interpolation -> means of the channels and the pixels at PLACES (scaled to the size) of china.jpg, from
# timm 1.0.31's create_transform and, for the two with bilinear resizing, torchvision's evaluation preset, which agree
REFERENCE = {
    (224, 0.875, "bilinear"): (
        (148.4256, 145.0351, 141.0573),
        [(189, 214, 244), (210, 231, 251), (190, 193, 199), (34, 86, 84), (32, 32, 28)],
    ),
    (224, 0.965, "bilinear"): (
        (146.7525, 144.9985, 141.1822),
        [(186, 213, 242), (209, 228, 253), (190, 195, 201), (148, 119, 50), (18, 18, 13)],
    ),
    (224, 0.95, "bicubic"): (
        (146.4447, 144.4197, 140.465),
        [(187, 214, 244), (211, 229, 253), (201, 184, 188), (200, 143, 62), (35, 42, 31)],
    ),
    (299, 0.875, "bicubic"): (
        (148.1794, 144.8087, 140.8284),
        [(188, 213, 243), (210, 230, 254), (199, 149, 144), (14, 77, 79), (62, 63, 55)],
    ),
    (384, 1.0, "bicubic"): (
        (146.2931, 145.0964, 141.3565),
        [(186, 213, 243), (209, 229, 254), (194, 189, 200), (89, 108, 41), (15, 16, 8)],
    ),
}


@pytest.mark.parametrize(("size", "crop", "interpolation"), REFERENCE)
def test_a_photograph_is_read_as_by_timm_and_torchvision(size, crop, interpolation):
    means, expected = REFERENCE[size, crop, interpolation]
    image = Pixels("crop", crop, interpolation).read(PHOTOGRAPHS / "china.jpg", (size, size, 3))
    assert (image.shape, image.dtype) == ((size, size, 3), "uint8")
    np.testing.assert_allclose(image.mean((0, 1)), means, atol=0.05)  # a library decodes JPEG a little differently
    found = [image[y * (size - 1) // 223, x * (size - 1) // 223] for y, x in PLACES]
    assert np.abs(np.array(found, int) - expected).max() <= 1


def test_an_image_of_the_right_size_is_left_alone(tmp_path):
    pixels = noise(9, 7)
    for suffix in (".png", ".bmp", ".ppm", ".jp2"):
        np.testing.assert_array_equal(Pixels().read(saved(tmp_path / f"x{suffix}", pixels), (9, 7, 3)), pixels)
    np.testing.assert_array_equal(Pixels().read(saved(tmp_path / "x.webp", pixels, lossless=True), (9, 7, 3)), pixels)


@pytest.mark.quick
def test_the_centre_of_an_oblong_is_kept(tmp_path):
    pixels = noise(8, 20)
    path = saved(tmp_path / "wide.png", pixels)
    np.testing.assert_array_equal(Pixels().read(path, (8, 8, 3)), pixels[:, 6:14])
    np.testing.assert_array_equal(Pixels("crop", 0.5).read(path, (4, 8, 3)), pixels[2:6, 6:14])
    tall = saved(tmp_path / "tall.png", pixels.transpose(1, 0, 2))
    np.testing.assert_array_equal(Pixels().read(tall, (8, 8, 3)), pixels.transpose(1, 0, 2)[6:14])


@pytest.mark.quick
def test_cameras_that_were_turned(tmp_path):
    pixels = noise(8, 8)
    for orientation, turn in ((1, 0), (3, 2), (6, 3), (8, 1)):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        path = saved(tmp_path / "turned.png", pixels, exif=exif)
        np.testing.assert_array_equal(Pixels().read(path, (8, 8, 3)), np.rot90(pixels, turn))


def test_every_mode_becomes_rgb(tmp_path):
    grey, colour, alpha = noise(6, 6, 1), noise(6, 6), noise(6, 6, 4)
    three = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(Pixels().read(saved(tmp_path / "grey.png", grey), (6, 6, 3)), three)
    np.testing.assert_array_equal(Pixels().read(saved(tmp_path / "grey.png", grey), (6, 6, 1)), grey[..., None])
    deep = saved(tmp_path / "deep.png", grey.astype("uint16") * 256 + noise(6, 6, 1)[::-1])
    np.testing.assert_array_equal(Pixels().read(deep, (6, 6, 3)), three)

    over_white = alpha[..., :3] * (alpha[..., 3:] / 255) + 255 - alpha[..., 3:].astype("float64")
    image = Pixels().read(saved(tmp_path / "alpha.png", alpha), (6, 6, 3))
    np.testing.assert_allclose(image, over_white, atol=1)  # Pillow blends in integers

    palette = Image.fromarray(colour).quantize(8)
    palette.save(tmp_path / "palette.png")
    found = Pixels().read(tmp_path / "palette.png", (6, 6, 3))
    np.testing.assert_array_equal(found, np.asarray(palette.convert("RGB")))
    index = int(np.asarray(palette)[2, 3])
    palette.save(tmp_path / "clear.png", transparency=index)
    cleared = Pixels().read(tmp_path / "clear.png", (6, 6, 3))
    assert (cleared[np.asarray(palette) == index] == 255).all()

    cmyk = Image.fromarray(colour).convert("CMYK")
    cmyk.save(tmp_path / "print.jpg")
    assert Pixels().read(tmp_path / "print.jpg", (6, 6, 3)).shape == (6, 6, 3)


def test_slivers_do_not_fill_the_memory(tmp_path):
    """A line of 1×40,000 pixels would be 224 times as wide once it is 224 high."""
    pixels = np.zeros((1, 40_000, 3), "uint8")
    pixels[:, 19_900:20_100] = (1, 2, 3)
    assert (Pixels().read(saved(tmp_path / "line.png", pixels), (224, 224, 3)) == (1, 2, 3)).all()


def test_files_that_are_no_images(tmp_path):
    whole = (PHOTOGRAPHS / "china.jpg").read_bytes()
    for name, content in {"cut.jpg": whole[:5000], "text.png": b"no image", "empty.bmp": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidValueError, match=f"{name} cannot be read as an image"):
            Pixels().read(tmp_path / name, (8, 8, 3))
    Image.fromarray(noise(4, 4)).save(tmp_path / "other.png", format="PCX")
    with pytest.raises(InvalidValueError, match="cannot be read as an image"):
        Pixels().read(tmp_path / "other.png", (8, 8, 3))


def test_finding_images(tmp_path):
    for name in ("b.png", "a.JPG", "deep/er/c.webp", "notes.txt", "deep/d.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = ["a.JPG", "b.png", "deep/d.jpeg", "deep/er/c.webp"]
    assert find_pictures([tmp_path]) == [tmp_path / name for name in names]
    assert find_pictures([tmp_path / "notes.txt", tmp_path / "deep", tmp_path / "deep/d.jpeg"]) == [
        tmp_path / name for name in ("notes.txt", "deep/d.jpeg", "deep/er/c.webp")
    ]
    with pytest.raises(InvalidValueError, match=r"no file or folder at .*absent"):
        find_pictures([tmp_path, tmp_path / "absent"])
    (tmp_path / "none").mkdir()
    with pytest.raises(InvalidValueError, match=r"no image in .*none; pictures are PNG, JPEG"):
        find_pictures([tmp_path / "none"])
