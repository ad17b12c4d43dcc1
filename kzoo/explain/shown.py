"""What a page of `kzoo explain` shows: pictures, each with what a model makes of it, and the model."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from kzoo.explain.boxes import Box
from kzoo.explain.inside import LayerStatistics
from kzoo.explain.interior import Inside
from kzoo.explain.methods import Map
from kzoo.explain.trust import Trust


@dataclass(frozen=True, eq=False)
class Explained:
    """A picture with what a model says of it, and where it sees that.

    Attributes:
        path: of the picture.
        image: (height, width, channels) of 0 to 255, as the model gets it.
        predictions: the first classes, best first: "class" and "index", and "probability", or the "share" of the area;
            of a detector rows of `kzoo.explain.detections.found_boxes`, with boxes in pixels of the image.
        maps: what `kzoo.explain.methods.maps_of` gives.
        mask: the image with the classes of its pixels, of a model for segmentation, or with the boxes of a detector.
        inside: what `kzoo.explain.interior.inside_of` gives; None leaves it out.
    """

    path: str
    image: np.ndarray
    predictions: Sequence[dict]
    maps: Sequence[Map]
    mask: Image.Image | None = None
    inside: Inside | None = None

    def row(self, target: Box) -> dict:
        """The row of a detection."""
        return next(row for row in self.predictions if Box(row["place"], row["index"]) == target)


@dataclass(frozen=True, eq=False)
class Shown:
    """A model with all that a page shows of it.

    Attributes:
        name: what it is called.
        scores: what a score is, in words, such as "logits".
        class_names: names of the classes.
        pictures: what is shown, in this order.
        card: name of a fact -> the fact.
        trust: what `kzoo.explain.trust.trust_of` gives; without any there is no such section.
        statistics: what `kzoo.explain.interior.statistics_of` gives.
        kernels: what `kzoo.explain.draw_kernels` gives.
        whole: whether the page tells of the inside of the model.
    """

    name: str
    scores: str
    class_names: Sequence[str]
    pictures: Sequence[Explained]
    card: dict[str, str] = field(default_factory=dict)
    trust: Sequence[Trust] = ()
    statistics: dict[str, LayerStatistics] | None = None
    kernels: Image.Image | None = None
    whole: bool = False

    def label(self, picture: Explained, target: int | Box | None) -> str:
        """What a target of a picture is called."""
        if isinstance(target, Box):
            return f"{picture.row(target)['number']}: {self.class_names[target.class_index]}"
        return "no class" if target is None else self.class_names[target]
