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
    seed: int = 0,
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
        seed: of what is held out for validation, for digits and pictures of one's own; TFDS sets hold out their last
            training images.

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
        division = Division(
            test_fraction=test_fraction, validation_fraction=validation_fraction, group_by=group_by, seed=seed
        )
        listing = list_pictures(Path(name)) if Path(name).is_dir() else list_rows(Path(name))
        return load_listing(listing, size, pixels, division)
    if not name or name.startswith(("/", ".", "~")):
        raise DatasetError(f"no folder at {name!r}")
    if group_by is not None:
        raise DatasetError(f"group_by={group_by!r} is for pictures with paths, in folders and tables; {name} has none")
    if name == DIGITS:
        return load_digits(size or (32, 32), pixels, validation_fraction, seed)
    return load_tfds(name, data_dir, size, pixels, validation_fraction)
