"""Classification datasets by name: embedded digits, TFDS sets, image folders and tables of pictures."""

from pathlib import Path

from kzoo.data.digits import load_digits
from kzoo.data.division import Division
from kzoo.data.folders import list_pictures
from kzoo.data.listing import load_listing
from kzoo.data.split import ImageDataset
from kzoo.data.tables import is_table, list_rows
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
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    group_by: str | None = None,
    label_separator: str | None = None,
    seed: int = 0,
    divided: bool = True,
) -> ImageDataset:
    """Loads a classification dataset as RGB pixels of 0 to 255.

    Every file is looked at before this returns: its header, whether it is there twice, and its class.

    Args:
        name: `"digits"` (1,797 handwritten digits that ship with scikit-learn, at 32×32), the name of a TFDS set with
            an image and a label, or pictures of one's own:

            - a folder with `CLASS/*`, of which a test and a validation set are held out, each class its share;
            - a folder with `train/CLASS/*` and perhaps `val/CLASS/*` (or `valid`, `validation`) and `test/CLASS/*`.
              Without `val` it is held out of train; without `test` what is in `val` is the test, and without both
              the test is held out of train too;
            - a CSV, TSV or Parquet file with the columns `path`, `label` and perhaps `split`; paths go from its
              folder.
        data_dir: where TFDS keeps its sets. A set that is not there is downloaded.
        image_size: (height, width) of the images, or one number for both.
        pixels: how they are fitted to it.
        test_fraction: share that is held out for the test where there is none, the same whatever the seed.
        validation_fraction: share of the training images that is held out where the set names no validation.
        group_by: regular expression of a key in the path from the folder, its first group or all that it matches; all
            pictures of one key are held out together, or none. For pictures of one's own.
        label_separator: what stands between the classes of a picture in a table whose pictures have several, or none:
            `label` of an example is then uint8 (classes,) of 0 and 1. None for one class each.
        seed: of what is held out for validation, for digits and pictures of one's own; TFDS sets hold out their last
            training images.
        divided: False takes all pictures of one's own for training images, whatever else is said of splits.

    Raises:
        DatasetError: unknown, absent, or not a classification set.

    Example:
        >>> data = load_dataset("digits")
        >>> data.train.size, data.validation.size, data.test.size
        (1293, 144, 360)
        >>> data = load_dataset("xrays", image_size=224, group_by=r"patient(\\d+)")
        >>> data.test.files[0]
        File(path='healthy/patient17_left.png', label='healthy')
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if name and (is_table(name) or Path(name).is_dir()):
        fractions = dict(test_fraction=test_fraction, validation_fraction=validation_fraction)
        division = Division(**fractions, group_by=group_by, seed=seed) if divided else None
        if Path(name).is_dir():
            _refuse_separator(label_separator, name)
            listing = list_pictures(Path(name))
        else:
            listing = list_rows(Path(name), label_separator)
        return load_listing(listing, size, pixels, division)
    if not name or name.startswith(("/", ".", "~")):
        raise DatasetError(f"no folder at {name!r}")
    if group_by is not None:
        raise DatasetError(f"group_by={group_by!r} is for pictures with paths, in folders and tables; {name} has none")
    _refuse_separator(label_separator, name)
    if name == DIGITS:
        return load_digits(size or (32, 32), pixels, validation_fraction, seed)
    return load_tfds(name, data_dir, size, pixels, validation_fraction)


def _refuse_separator(label_separator: str | None, name: str) -> None:
    if label_separator is not None:
        raise DatasetError(
            f"label_separator={label_separator!r} is for tables with the columns path and label; {name} is none"
        )
