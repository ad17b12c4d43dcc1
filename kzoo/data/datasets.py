"""Classification datasets by name: embedded digits, TFDS sets, image folders."""

from pathlib import Path

from kzoo.data.digits import load_digits
from kzoo.data.folders import load_folder
from kzoo.data.split import ImageDataset
from kzoo.data.tfds_sets import load_tfds
from kzoo.errors import DatasetError
from kzoo.images import STRETCHED, Pixels

DIGITS = "digits"


def load_dataset(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    pixels: Pixels = STRETCHED,
    validation_fraction: float = 0.1,
    seed: int = 0,
) -> ImageDataset:
    """Loads a classification dataset as RGB pixels of 0 to 255.

    Args:
        name: `"digits"` (1,797 handwritten digits that ship with scikit-learn, at 32×32), the name of a TFDS
            set with an image and a label, or a folder with `train/CLASS/*` and `test/CLASS/*` (and
            `validation/CLASS/*`, else it is held out of train).
        data_dir: where TFDS keeps its sets. A set that is not there is downloaded.
        image_size: (height, width) of the images, or one number for both.
        pixels: how they are fitted to it.
        validation_fraction: share of the training images that is held out where the set names no validation.
        seed: of that choice, for digits and folders; TFDS sets hold out their last training images.

    Raises:
        DatasetError: unknown, absent, or not a classification set.

    Example:
        >>> data = load_dataset("digits")
        >>> data.train.size, data.validation.size, data.test.size
        (1293, 144, 360)
    """
    image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if name == DIGITS:
        return load_digits(image_size or (32, 32), pixels, validation_fraction, seed)
    if name and Path(name).is_dir():
        return load_folder(Path(name), image_size, pixels, validation_fraction, seed)
    if not name or name.startswith(("/", ".", "~")):
        raise DatasetError(f"no folder at {name!r}")
    return load_tfds(name, data_dir, image_size, pixels, validation_fraction)
