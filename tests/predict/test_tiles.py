"""Overlap-tile inference against whole images."""

import keras
import numpy as np
import pytest
from helpers import randomise
from keras import layers

import kzoo
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.predict.tiles import default_margin, lay_tiles, predict_tiles, stitch_tiles, total_stride
from kzoo.registry import lookup


def unet(height, width, padding, widths=(4, 6, 8), channels=3) -> keras.Model:
    """A U-Net with three classes, as small as one can be."""
    x = image = keras.Input((height, width, channels))
    skips = []
    for depth, filters in enumerate(widths):
        if depth:
            skips.append(x)
            x = layers.MaxPool2D()(x)
        x = layers.Conv2D(filters, 3, padding=padding, activation="relu")(x)
    for filters, skip in zip(widths[-2::-1], skips[::-1], strict=True):
        x = layers.Conv2DTranspose(filters, 2, strides=2)(x)
        if padding == "valid":
            skip = layers.Cropping2D([(a - b) // 2 for a, b in zip(skip.shape[1:3], x.shape[1:3], strict=True)])(skip)
        x = layers.Conv2D(filters, 3, padding=padding, activation="relu")(layers.Concatenate()([skip, x]))
    return randomise(keras.Model(image, layers.Conv2D(3, 1)(x)))


def pictures(number, height, width, channels=3) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (number, height, width, channels), dtype="uint8")


def whole(images, before, size, build) -> np.ndarray:
    """Maps of mirrored images in one piece, from a model built for `size`."""
    sides = [(0, 0), *((before, side - before - have) for side, have in zip(size, images.shape[1:3], strict=True))]
    mirrored = np.pad(images, [*sides, (0, 0)], mode="reflect")
    return build(*size).predict(mirrored.astype("float32"), verbose=0)


# A net of three levels loses 10 pixels on each side, and takes sizes of which 4 divides size - 2: 54 -> 34. Its total
# stride is 4, so tiles must lie 32 pixels apart, not 34.
LOST, TILE, GIVEN = 10, 54, 34


@pytest.mark.parametrize(
    ("number", "height", "width"),
    [(2, 71, 100), (1, 34, 34), (1, 35, 33), (3, 5, 40), (1, 1, 2)],  # the small ones are mirrored several times
)
def test_a_network_without_padding_gives_what_it_gives_for_the_whole_image(number, height, width):
    model = unet(TILE, TILE, "valid")
    assert model.output_shape == (None, GIVEN, GIVEN, 3)
    images = pictures(number, height, width)
    found = predict_tiles(model, images)
    size = [GIVEN + 2 * LOST + 4 * max(0, -(-(side - GIVEN) // 4)) for side in (height, width)]

    def build(*sides):
        large = unet(*sides, "valid")
        large.set_weights(model.get_weights())
        return large

    expected = whole(images, LOST, size, build)[:, :height, :width]
    assert (found.shape, found.dtype) == ((number, height, width, 3), "float32")
    assert np.ptp(expected, axis=(1, 2)).max() > 1 or height == 1
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    if height > GIVEN:  # every second tile would meet other pooling windows
        wrong = predict_tiles(model, images, stride=34)
        assert np.abs(wrong - expected).max() > 1e-2 * np.abs(expected).max()


REACH = (
    1 + 2 + 4 + 2 + 1 + 3
)  # pixels that the padded net sees to each side: its convolutions, and the place in a window


def padded(height, width):
    model = unet(height, width, "same")
    model.set_weights(unet(48, 64, "same").get_weights())
    return model


def test_reach():
    """What a pixel changes: nothing beyond REACH, and the last pixel before it."""
    model = padded(48, 64)
    image = pictures(1, 48, 64).astype("float32")
    seen = 0
    for row in range(22, 26):  # where in the pooling windows it lies matters
        other = image.copy()
        other[0, row, 32] += 1e4
        changed = np.flatnonzero(np.abs(model(other) - model(image)).max(axis=(0, 2, 3)) > 1e-3)
        seen = max(seen, row - changed[0], changed[-1] - row)
    assert seen == REACH


@pytest.mark.quick
def test_a_padded_network_gives_what_it_gives_for_the_whole_image():
    images = pictures(2, 120, 156)
    found = predict_tiles(padded(48, 64), images, margin=16)
    scale = np.abs(found).max()

    inner = (slice(None), slice(REACH, -REACH), slice(REACH, -REACH))
    expected = padded(120, 156).predict(images.astype("float32"), verbose=0)
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-5 * scale)
    assert np.abs(found - expected).max() > 1e-2 * scale  # at the borders: mirrored, not zero

    expected = whole(images, 16, (160, 196), padded)[:, 16:136, 16:172]  # the mirrored borders are wide enough
    np.testing.assert_allclose(found, expected, atol=1e-5 * scale)

    for other in (dict(margin=4), dict(margin=16, stride=3)):  # seams; windows in other places
        assert np.abs(predict_tiles(padded(48, 64), images, **other) - expected).max() > 1e-2 * scale


def test_the_default_margin_is_a_quarter_in_strides():
    images = pictures(1, 70, 90)
    found = predict_tiles(padded(48, 64), images)  # 12 and 16
    axes = lay_tiles(70, 48, 48, 12, 4), lay_tiles(90, 64, 64, 16, 4)
    model = padded(48, 64)
    np.testing.assert_allclose(found, stitch_tiles(lambda x: model.predict(x, verbose=0), images, *axes), atol=1e-4)
    assert default_margin(60, 60, 4) == 12
    assert default_margin(100, 100, 32) == 25
    assert default_margin(572, 388, 16) == 0


@pytest.mark.parametrize("size", [1, 2, 3, 7, 16, 17, 31, 50])
@pytest.mark.parametrize(
    ("tile", "output", "margin", "stride"), [(8, 8, 0, 1), (9, 5, 1, 2), (16, 10, 2, 4), (7, 7, 2, 8)]
)
def test_every_pixel_comes_from_the_middle_of_one_tile(size, tile, output, margin, stride):
    """A model that only copies gives the image back, and what it sees is NumPy's mirrored image."""
    images, lost = pictures(2, size, 11), (tile - output) // 2
    seen = []

    def copy(tiles):
        seen.extend(tiles)
        return tiles[:, lost : tile - lost]

    rows, columns = lay_tiles(size, tile, output, margin, stride), lay_tiles(11, 4, 4, 0, 1)
    result = stitch_tiles(copy, images, rows, columns, batch_size=3)
    np.testing.assert_array_equal(result, images)
    assert result.dtype == "uint8"
    before = lost + margin
    mirrored = np.pad(images, [(0, 0), (before, 100), (0, 30), (0, 0)], mode="reflect")
    for index, tops in enumerate(rows.starts):
        np.testing.assert_array_equal(seen[index * 3], mirrored[0, tops : tops + tile, :4])
    assert all(start % stride == 0 for start in rows.starts) or output - 2 * margin < stride
    assert (len(rows.starts) - 1) * max(1, output - 2 * margin - stride) <= size  # no tile is idle


def test_memory_is_bound_by_the_batch():
    sizes = []

    def classes(tiles):
        sizes.append(len(tiles))
        return tiles.argmax(-1)[..., None].astype("uint8")

    images = pictures(1, 100, 100)
    axis = lay_tiles(100, 32, 32, 8, 8)
    result = stitch_tiles(classes, images, axis, axis, batch_size=10)
    assert sizes == [10, 10, 10, 10, 9]
    np.testing.assert_array_equal(result[..., 0], images.argmax(-1))
    assert result.dtype == "uint8"


def test_a_litert_file_gives_the_same(tmp_path):
    model = unet(32, 48, "same", widths=(4, 6), channels=1)
    kzoo.export(model, tmp_path / "model.tflite")
    images = pictures(2, 61, 75, 1)
    expected = predict_tiles(model, images, stride=32)
    found = predict_tiles(LiteRTModel(tmp_path / "model.tflite"), images)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    assert found.shape == (2, 61, 75, 3)


def test_models_of_any_size():
    model = padded(None, None)
    images = pictures(1, 60, 70)
    expected = predict_tiles(padded(48, 64), images)
    np.testing.assert_allclose(predict_tiles(model, images, tile_size=(48, 64)), expected, atol=1e-4)
    with pytest.raises(InvalidValueError, match=r"any size; say which with tile_size"):
        predict_tiles(model, images)


@pytest.mark.usefixtures("without_values")
def test_total_stride():
    assert total_stride(unet(TILE, TILE, "valid")) == 4
    assert total_stride(padded(None, None)) == 4
    assert total_stride(kzoo.build("resnet18", include_top=False)) == 32
    image = keras.Input((16, 16, 3))  # down, up by a layer that states no stride, and down again
    up = layers.UpSampling2D()(layers.MaxPool2D()(image))
    assert total_stride(keras.Model(image, layers.MaxPool2D()(layers.Add()([up, image])))) == 2
    assert total_stride(keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 1)])) == 1


@pytest.mark.parametrize(
    ("make", "stride"),
    [
        # merging of patches by slices, and a stem that pools inside itself
        (
            lambda: kzoo.build("swin_tiny", **lookup("swin_tiny").narrow, include_top=False, input_shape=(64, 64, 3)),
            32,
        ),
        (lambda: kzoo.build("resnet26_sasa_full", **lookup("resnet26_sasa_full").narrow, include_top=False), 32),
        (lambda: inside(unet(TILE, TILE, "valid")), 4),
        (lambda: inside(padded(None, None)), 4),
        # a mean of the whole map, as squeeze-and-excitation takes, is no coarser map
        (
            lambda: kzoo.build(
                "cifar_resnet20", attention="se", depths=(1, 1, 1), widths=(4, 8, 8), include_top=False
            ),
            4,
        ),
        (lambda: slices(keras.Input((16, 16, 3))), 4),
    ],
)
def test_total_stride_where_no_layer_tells_it(make, stride):
    assert total_stride(make()) == stride


def inside(model: keras.Model) -> keras.Model:
    """A model behind a random layer in a Sequential one in a functional one."""
    image = keras.Input(model.input.shape[1:])
    return keras.Model(
        image, keras.Sequential([keras.Input(model.input.shape[1:]), layers.RandomFlip(), model])(image)
    )


def slices(image) -> keras.Model:
    """Every second pixel, twice, and one of the maps enlarged again by a plain operation."""
    half = image[:, ::2, ::2]
    up = keras.ops.repeat(keras.ops.repeat(half[:, ::2, ::2], 2, axis=1), 2, axis=2)
    return keras.Model(image, layers.Conv2D(2, 1)(layers.Concatenate()([half, up])))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(margin=24), "a margin of 24 on both sides leaves nothing of the 48 pixels .* less than 24"),
        (dict(margin=-1), "margin=-1 must be an integer of at least 0"),
        (dict(margin=1.5), "margin=1.5 must be an integer"),
        (dict(stride=0), "stride=0 must be an integer of at least 1"),
        (dict(batch_size=0), "batch_size=0 must be an integer of at least 1"),
        (dict(tile_size=(32, 32)), r"takes tiles of 48×64 alone, not tile_size=\(32, 32\)"),
        (dict(tile_size=48), r"tile_size=48 must be \(height, width\)"),
        (dict(tile_size=(48, 0)), r"must be \(height, width\)"),
        (dict(images=pictures(1, 9, 9, 1)), r"images of shape \(1, 9, 9, 1\) do not fit; .* 3\) is needed"),
        (dict(images=pictures(1, 9, 9)[0]), r"images of shape \(9, 9, 3\) do not fit"),
        (dict(images=pictures(1, 0, 9)), r"images of shape \(1, 0, 9, 3\) do not fit"),
        (dict(model="unet"), "'unet' is no Keras model or kzoo.edge.LiteRTModel"),
    ],
)
def test_mistakes(options, message):
    model = options.pop("model", None) or padded(48, 64)
    images = options.pop("images", None)
    with pytest.raises(InvalidValueError, match=message):
        predict_tiles(model, pictures(1, 9, 9) if images is None else images, **options)


def test_models_that_give_no_maps():
    image = keras.Input((9, 9, 3))
    for output, message in (
        (layers.GlobalAveragePooling2D()(image), r"maps \(9, 9, 3\) to \(3,\)"),
        (layers.MaxPool2D(2)(image), "tiles of 9 pixels give 4; .* fewer by an even number"),
        (layers.UpSampling2D(2)(image), "tiles of 9 pixels give 18"),
        ([image, image], "with one input and one output"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            predict_tiles(keras.Model(image, output), pictures(1, 9, 9))
