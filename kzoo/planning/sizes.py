"""Datasets of which a plan knows the size without having them."""

import dataclasses

from kzoo.errors import DatasetError


@dataclasses.dataclass(frozen=True)
class Size:
    """A dataset as it is published.

    Attributes:
        images: number of images in its training split.
        classes: number of classes.
        side: height and width of its images; None if they differ.
    """

    images: int
    classes: int
    side: int | None


# https://www.tensorflow.org/datasets/catalog/NAME; digits: sklearn.datasets.load_digits without the test of kzoo
SIZES = {
    "cifar10": Size(50_000, 10, 32),
    "cifar100": Size(50_000, 100, 32),
    "coco/2017": Size(118_287, 80, None),
    "digits": Size(1_437, 10, 32),
    "fashion_mnist": Size(60_000, 10, 28),
    "imagenet2012": Size(1_281_167, 1000, None),
    "mnist": Size(60_000, 10, 28),
}


def size_of(dataset: str, images: int | None, classes: int | None) -> Size:
    """The size of a dataset: of the table, or as it is told.

    Raises:
        DatasetError: it is not in the table, and the number of images or of classes is not told.
    """
    known = SIZES.get(dataset.split(":")[0])
    if known is None and (images is None or classes is None):
        raise DatasetError(
            f"the size of {dataset!r} is not known without reading it; give --images and --classes (known are "
            f"{', '.join(SIZES)})"
        )
    known = known or Size(0, 0, None)
    return dataclasses.replace(known, images=images or known.images, classes=classes or known.classes)
