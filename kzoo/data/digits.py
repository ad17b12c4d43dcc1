"""1,797 handwritten digits that ship with scikit-learn."""

import numpy as np
from PIL import Image

from kzoo.data.split import ImageDataset, IndexedSplit
from kzoo.errors import DatasetError
from kzoo.images import Pixels


def load_digits(size: tuple[int, int], pixels: Pixels, validation_fraction: float, seed: int) -> ImageDataset:
    """Loads the digits, as `load_dataset` says.

    Raises:
        DatasetError: a split without some digit.
    """
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits = datasets.load_digits()
    grey = np.round(digits.images * (255 / 16)).astype("uint8")
    images = np.stack([pixels.apply(Image.fromarray(digit), (*size, 3)) for digit in grey])
    labels = digits.target.astype("int64")
    # the test images are always the same; only what is held out of the rest follows the seed
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    try:
        train, validation = train_test_split(
            train, test_size=validation_fraction, stratify=labels[train], random_state=seed
        )
    except ValueError as error:
        raise DatasetError(f"validation_fraction={validation_fraction} leaves a split without some digit") from error
    splits = (
        IndexedSplit.of_arrays({"image": images[part], "label": labels[part]}) for part in (train, validation, test)
    )
    return ImageDataset("digits", tuple("0123456789"), (*size, 3), *splits)
