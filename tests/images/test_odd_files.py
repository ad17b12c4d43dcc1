"""The rules of reading hold for every format: rotation, transparency, 16 bits, limits; what cannot be read says so."""

import io
import logging
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from images.pictures import ORIENTATION, noise, saved
from PIL import Image

from kzoo.errors import InvalidValueError
from kzoo.images import Pixels, find_in, find_pictures, reading
from kzoo.images.reading import check_header, read_numbers, read_picture

# EXIF orientation -> upright pixels of the stored ones; the standard names the sides where row and column 0 lie
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


def turned(path, picture: Image.Image, orientation: int, **options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    picture.save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_every_orientation_is_followed_in_every_format_and_mode(orientation, tmp_path):
    colour, grey = noise(6, 9), noise(6, 9, 1)
    upright = UPRIGHT[orientation](colour)
    for name, options in (("x.png", {}), ("x.tif", {}), ("x.webp", {"lossless": True})):
        path = turned(tmp_path / name, Image.fromarray(colour), orientation, **options)
        np.testing.assert_array_equal(np.asarray(read_picture(path, 3)), upright, err_msg=name)
    # JPEG loses a little: compared with itself, unturned
    Image.fromarray(colour).save(tmp_path / "plain.jpg")
    plain = np.asarray(read_picture(tmp_path / "plain.jpg", 3))
    found = np.asarray(read_picture(turned(tmp_path / "x.jpg", Image.fromarray(colour), orientation), 3))
    np.testing.assert_array_equal(found, UPRIGHT[orientation](plain))

    transparent = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(np.full_like(grey, 0))])
    transparent.putpixel((8, 0), (7, 255))  # all white but the upper right corner
    expected = np.full((6, 9), 255, "uint8")
    expected[0, 8] = 7
    path = turned(tmp_path / "la.png", transparent, orientation)
    np.testing.assert_array_equal(np.asarray(read_picture(path, 1)), UPRIGHT[orientation](expected))
    path = turned(tmp_path / "mask.png", Image.fromarray(grey), orientation)
    np.testing.assert_array_equal(np.asarray(read_numbers(path)), UPRIGHT[orientation](grey))


def test_nonsense_in_place_of_exif_turns_nothing(tmp_path):
    pixels = noise(5, 7)
    for content in (b"Exif\0\0nonsense", b"", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\0" * 40):
        Image.fromarray(pixels).save(tmp_path / "x.png", exif=content)
        np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "x.png", 3)), pixels)
    for orientation in (0, 9, 65535):
        path = turned(tmp_path / "x.png", Image.fromarray(pixels), orientation)
        np.testing.assert_array_equal(np.asarray(read_picture(path, 3)), pixels)


def test_transparency_becomes_white_however_it_is_stored(tmp_path):
    """RGBA, LA, a palette with an opacity for each colour, and colours declared transparent (tRNS)."""
    grey, opacity = noise(6, 9, 1), noise(6, 9, 1)[::-1].copy()

    def on_white(colours, opacities):
        share = opacities.astype("float64") / 255
        share = share if share.ndim == colours.ndim else share[..., None]
        return colours * share + 255 * (1 - share)

    pictures = {}
    pictures["la.png"] = (Image.merge("LA", [Image.fromarray(grey), Image.fromarray(opacity)]), {}, (grey, opacity))
    palette = Image.fromarray(noise(6, 9)).quantize(8)
    opacities = np.array([0, 255, 10, 100, 200, 30, 90, 255], "uint8")
    colours = np.asarray(palette.convert("RGB"))
    shown = opacities[np.asarray(palette)]
    pictures["palette.png"] = (palette, {"transparency": bytes(opacities)}, (colours, shown))
    pictures["palette.webp"] = (palette.convert("RGBA"), {"lossless": True}, (colours, np.full_like(grey, 255)))
    first = tuple(int(value) for value in colours[0, 0])
    clear = np.where((colours == first).all(-1), 0, 255).astype("uint8")
    pictures["rgb.png"] = (Image.fromarray(colours), {"transparency": first}, (colours, clear))
    clear = np.where(grey == grey[2, 3], 0, 255).astype("uint8")
    pictures["grey.png"] = (Image.fromarray(grey), {"transparency": int(grey[2, 3])}, (grey, clear))
    index = int(np.asarray(palette)[2, 3])
    clear = np.where(np.asarray(palette) == index, 0, 255).astype("uint8")
    pictures["x.gif"] = (palette, {"transparency": index}, (colours, clear))
    for name, (picture, options, (colours, opacities)) in pictures.items():
        picture.save(tmp_path / name, **options)
        expected = on_white(colours, opacities)
        expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, axis=-1)
        found = np.asarray(read_picture(tmp_path / name, 3))
        np.testing.assert_allclose(found, expected, atol=1.01, err_msg=name)  # Pillow blends in integers
    deep = grey.astype("uint16") * 257
    Image.fromarray(deep).save(tmp_path / "deep.png", transparency=int(deep[2, 3]))
    found = np.asarray(read_picture(tmp_path / "deep.png", 1))
    np.testing.assert_array_equal(found, np.where(grey == grey[2, 3], 255, grey))


def test_large_transparent_pictures_are_laid_over_white_in_strips(tmp_path, monkeypatch):
    pixels = noise(50, 31, 4)
    whole = np.asarray(read_picture(saved(tmp_path / "x.png", pixels), 3))
    monkeypatch.setattr(reading, "STRIP_PIXELS", 100)  # three rows
    np.testing.assert_array_equal(np.asarray(read_picture(tmp_path / "x.png", 3)), whole)


def png(header: tuple, rows: bytes = b"") -> bytes:
    """A PNG of (width, height, bits, colour type) by hand; Pillow writes no colours of 16 bits."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def untold(monkeypatch):
    monkeypatch.setattr(reading, "_told_of_dark", reading.threading.Event())


def deep_grey(values) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(values, "uint16")).save(file, "PNG")
    return file.getvalue()


def deep_colours(values) -> bytes:
    height, width, _ = np.shape(values)
    return png((width, height, 16, 2), b"".join(b"\0" + np.asarray(row, ">u2").tobytes() for row in values))


@pytest.mark.parametrize("store", [deep_grey, deep_colours])
def test_data_of_12_bits_in_16_is_warned_of_once_with_its_highest_value(store, caplog, untold):
    values = np.full((4, 5), 4095) if store is deep_grey else np.full((4, 5, 3), 4095)
    values[0, 0] = 100
    with caplog.at_level(logging.WARNING, "kzoo"):
        pixels = np.asarray(read_picture(store(values), 3, "scan.png"))
        read_picture(store(values), 3, "another.png")
    assert pixels.max() == 15
    assert pixels.min() == 0
    (message,) = caplog.messages
    highest = 4095 if store is deep_grey else 15 * 257  # Pillow hands the upper 8 bits of colours on alone
    assert message.startswith(f"scan.png has 16 bits and no value above {highest}; 65535 is white")
    assert "Scale its values" in message


@pytest.mark.parametrize("store", [deep_grey, deep_colours])
def test_data_of_16_bits_is_read_over_its_whole_range_without_a_word(store, caplog, untold):
    grey = np.array([[0, 255, 256, 32768], [40000, 65279, 65280, 65535]])
    values = grey if store is deep_grey else np.repeat(grey[..., None], 3, axis=-1)
    with caplog.at_level(logging.WARNING, "kzoo"):
        found = np.asarray(read_picture(store(values), 3))
    np.testing.assert_array_equal(found[..., 1], grey // 256)
    np.testing.assert_array_equal(found[..., 0], found[..., 2])
    assert not caplog.messages
    black = np.zeros_like(values)
    read_picture(store(black), 3)
    assert not caplog.messages  # nothing to scale


def test_numbers_of_no_known_range_are_refused_in_one_line(tmp_path):
    for name, picture, message in (
        ("f.tif", Image.fromarray(np.ones((4, 5), "float32")), "numbers with a fraction, of no known range"),
        ("lab.tif", Image.new("LAB", (5, 4)), "colours of the LAB space"),
        ("i.tif", Image.fromarray(np.full((4, 5), 70_000, "int32")), "its values go from 70000 to 70000"),
        ("negative.tif", Image.fromarray(np.full((4, 5), -3, "int32")), "its values go from -3 to -3"),
    ):
        picture.save(tmp_path / name)
        with pytest.raises(InvalidValueError, match=rf"{name} cannot be read as an image: .*{message}") as refused:
            read_picture(tmp_path / name, 3)
        assert "\n" not in str(refused.value)


def test_colours_of_printers_and_video_and_moving_pictures(tmp_path):
    colours = np.full((16, 16, 3), (200, 100, 30), "uint8")
    Image.fromarray(colours).convert("CMYK").save(tmp_path / "x.jpg", quality=100)
    Image.fromarray(colours).convert("YCbCr").save(tmp_path / "x.tif")
    for name in ("x.jpg", "x.tif"):
        np.testing.assert_allclose(np.asarray(read_picture(tmp_path / name, 3)), colours, atol=2)  # rounded twice
    frames = [Image.fromarray(np.full((9, 7), value, "uint8")) for value in (10, 200)]
    for name in ("x.gif", "x.webp", "x.png", "pages.tif"):
        options = {"interlace": True} if name.endswith("gif") else {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert (np.asarray(read_picture(tmp_path / name, 1)) == 10).all(), name


def test_more_pixels_than_the_limit_are_refused_by_the_header(tmp_path, monkeypatch):
    """169 million pixels of a palette in a few bytes: what they would become is never allocated."""
    for width, height in ((13_000, 13_000), (10_001, 10_000), (60_000, 60_000)):
        (tmp_path / "bomb.png").write_bytes(png((width, height, 8, 3)))
        for read in (lambda path: read_picture(path, 3), check_header, read_numbers):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow's own, before ours
                with pytest.raises(InvalidValueError, match=r"bomb\.png has more than 100 million pixels") as refused:
                    read(tmp_path / "bomb.png")
            assert "\n" not in str(refused.value)
    monkeypatch.setattr(reading, "MOST_PIXELS", 54)
    assert read_picture(saved(tmp_path / "small.png", noise(6, 9)), 3).size == (9, 6)
    monkeypatch.setattr(reading, "MOST_PIXELS", 53)
    with pytest.raises(InvalidValueError, match=r"small\.png has more than"):
        read_picture(tmp_path / "small.png", 3)


def test_a_truncated_file_of_any_format_is_an_error(tmp_path):
    picture = Image.fromarray(noise(64, 64))
    for name in ("x.png", "x.jpg", "x.webp", "x.bmp", "x.gif", "x.tif", "x.ppm", "x.jp2", "x.avif"):
        picture.save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for content in (whole[: len(whole) * 2 // 3], whole[:20], b""):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InvalidValueError, match=f"{name} cannot be read as an image") as refused:
                read_picture(tmp_path / name, 3)
            assert "\n" not in str(refused.value)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InvalidValueError, match=r"folder\.png cannot be read as an image"):
        read_picture(tmp_path / "folder.png", 3)


def test_what_systems_and_tools_leave_is_passed_over(tmp_path):
    names = ["a.png", "b/c.JFIF", "b/d.tiff", "e.gif", "f.Jpeg"]
    litter = [
        "._a.png",
        ".trashed-x.jpg",
        ".ipynb_checkpoints/a.png",
        "Thumbs.db",
        "desktop.ini",
        "__MACOSX/b/._c.jpg",
        "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg",
        "b/@eaDir/thumb.png",
        "#recycle/old.png",
        "$RECYCLE.BIN/S-1/old.jpg",
        "lost+found/#1.png",
    ]
    others = ["notes.txt", "b/labels.csv", "raw.heic"]
    for name in (*names, *litter, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_pictures([tmp_path]) == [tmp_path / name for name in names]
    assert find_in(tmp_path).others == [tmp_path / name for name in sorted(others)]


def test_links_and_pipes_neither_loop_nor_block(tmp_path):
    (tmp_path / "deep").mkdir()
    saved(tmp_path / "deep/a.png", noise(4, 4))
    (tmp_path / "deep/up").symlink_to(tmp_path)
    (tmp_path / "deep/self").symlink_to(tmp_path / "deep/self")
    (tmp_path / "nowhere.png").symlink_to(tmp_path / "absent.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "deep/a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    found = find_in(tmp_path)
    assert found.pictures == [tmp_path / "b.png", tmp_path / "deep/a.png"]
    assert {path.name for path in found.others} == {"nowhere.png", "self", "pipe.png"}


def test_contents_and_files_give_the_same_pixels(tmp_path):
    path = saved(tmp_path / "x.jpg", noise(33, 47))
    shape = (16, 16, 3)
    np.testing.assert_array_equal(
        Pixels("pad").apply(read_picture(path.read_bytes(), 3), shape), Pixels("pad").read(path, shape)
    )
