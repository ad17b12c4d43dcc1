"""What others report for the settings of a recipe."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """A score that others measured; a recipe file says it in `PUBLISHED`, beside `RECIPE`.

    Attributes:
        score: top-1 accuracy, mean IoU of a recipe that segments, or AP of one that detects.
        source: who measured it, and where they say so.

    Example:
        >>> PUBLISHED = Published(0.7613, "torchvision, ResNet50_Weights.IMAGENET1K_V1")
    """

    score: float
    source: str
