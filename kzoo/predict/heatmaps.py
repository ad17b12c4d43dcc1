"""Where in an image a classifier sees what it says: its class activation maps, drawn over the image."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.files import atomic_path, ensure_writable
from kzoo.images.overlay import draw_heatmap
from kzoo.predict.classifier import Classifier, Opened
from kzoo.surgery.heatmap import HEATMAP, with_heatmap

Maps = Callable[[np.ndarray], np.ndarray]
ENDING = "_heatmap.png"


def heatmaps_of(opened: Opened) -> Maps:
    """The function from images (n, height, width, channels) to maps (n, rows, columns, units) of a classifier.

    Raises:
        InvalidValueError: a file without them, or a model that does not end as `kzoo.surgery.with_heatmap` needs.

    Example:
        >>> heatmaps_of(open_model("resnet50"))(images).shape
        (2, 7, 7, 1000)
    """
    model = opened.model
    if not isinstance(model, LiteRTModel):
        with_maps = with_heatmap(model)
        return lambda images: np.asarray(with_maps.predict_on_batch(images)[HEATMAP])
    if HEATMAP not in model.outputs:
        raise InvalidValueError(f"{opened.name} gives no heat map; export it with --heatmap")
    return lambda images: model.predict_each(images)[HEATMAP]


def write_heatmap(classifier: Classifier, maps: Maps, picture: Path, index: int, directory: Path) -> Path:
    """Writes NAME_heatmap.png: the image that the model sees of a picture, and where it sees a class.

    Args:
        classifier: what reads the picture.
        maps: what `heatmaps_of` gives.
        picture: path of the picture.
        index: of the class.
        directory: folder of the drawing; made if need be.

    Returns:
        The path of the drawing.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    ensure_writable(directory)
    image = classifier.pixels.read(picture, classifier.input_shape)
    found = maps(image[np.newaxis].astype("float32"))[0]
    # one unit is that of the second class, and what speaks against it speaks for the first
    chosen = found[..., index] if found.shape[-1] > 1 else found[..., 0] * (1 if index else -1)
    with atomic_path(heatmap_path(picture, directory)) as partial:
        draw_heatmap(image, chosen).save(partial)
    return heatmap_path(picture, directory)


def heatmap_path(picture: Path, directory: Path) -> Path:
    """Where the drawing of a picture goes."""
    return directory / f"{picture.stem}{ENDING}"


def check_heatmap_paths(pictures: Sequence[Path], directory: Path) -> None:
    """Raises `InvalidValueError` if the drawings of two pictures would share a file, or one is a picture itself."""
    inputs = {picture.resolve() for picture in pictures}
    owners: dict[Path, Path] = {}
    for picture in pictures:
        drawing = heatmap_path(picture, directory)
        if (first := owners.setdefault(drawing, picture)) is not picture:
            raise InvalidValueError(f"{first} and {picture} would both be written as {drawing}; name them in two runs")
        if drawing.resolve() in inputs:
            raise InvalidValueError(f"{drawing} would be written over, and is one of the images; leave it out")
