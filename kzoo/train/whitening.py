"""A first convolution that whitens patches of the training images, and does not learn."""

import keras
import numpy as np

from kzoo.errors import InvalidValueError

IMAGES, AT_ONCE = 1000, 100  # whose patches are looked at
FLOOR = 5e-4  # added to variances, so that what is always the same is not made noise


def whitening_stem(model: keras.Model) -> keras.layers.Conv2D:
    """The first convolution of a model, which has two filters for each number in a patch.

    Raises:
        InvalidValueError: the model begins with something else.
    """
    stem = next((layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)), None)
    shape = None if stem is None else tuple(stem.kernel.shape)
    if shape is None or shape[3] != 2 * shape[0] * shape[1] * shape[2]:
        raise InvalidValueError(
            f"whiten_stem needs a first convolution with two filters for each number in its patch, as airbench94 has; "
            f"{model.name} has a kernel of {shape}"
        )
    assert stem is not None
    return stem


def whiten(model: keras.Model, images: np.ndarray) -> None:
    """Makes the first convolution the principal components of patches, each scaled to variance 1, and their negatives.

    Args:
        model: with a `whitening_stem`.
        images: training images (n, height, width, channels) as the model eats them.

    Reference: Page 2019, "How to train your ResNet 8"; Jordan 2024, arXiv:2404.00498, section 3.2.
    """
    stem = whitening_stem(model)
    height, width, channels, _ = stem.kernel.shape
    before = keras.Model(model.input, stem.input)
    products, count = 0.0, 0
    for start in range(0, len(images), AT_ONCE):
        seen = keras.ops.convert_to_numpy(before(images[start : start + AT_ONCE].astype("float32")))
        patches = np.lib.stride_tricks.sliding_window_view(seen, (height, width), axis=(1, 2))  # (n, y, x, c, h, w)
        patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, height * width * channels)
        products, count = products + (patches.T @ patches).astype("float64"), count + len(patches)
    values, vectors = np.linalg.eigh(products / count)
    filters = vectors / np.sqrt(values + FLOOR)  # a column for each component
    stem.kernel.assign(np.concatenate([filters, -filters], axis=1).reshape(stem.kernel.shape))
