"""What a page of `kzoo explain` shows: pictures, each with what a model makes of it, and the model."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

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
        predictions: the first classes, best first: "class" and "index", and "probability", or the "share" of the area.
        maps: what `kzoo.explain.methods.maps_of` gives.
        mask: the image with the classes of its pixels, of a model for segmentation.
        inside: what `kzoo.explain.interior.inside_of` gives; None leaves it out.
    """

    path: str
    image: np.ndarray
    predictions: Sequence[dict]
    maps: Sequence[Map]
    mask: Image.Image | None = None
    inside: Inside | None = None


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
