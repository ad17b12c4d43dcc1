"""Flags of the commands that read masks of a data set."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """What the values in mask files mean, as in a recipe."""

    class_names: tuple[str, ...] = ()
    """For segmentation, as in a recipe; default: as in the recipe that wrote the file, if its report is beside it."""
    mask_values: tuple[int, ...] = ()
    """For segmentation: value of each class in the mask files; default as above."""
    void: tuple[int, ...] = ()
    """For segmentation: values in the mask files of pixels that do not count; default as above."""

    @property
    def mask_options(self) -> dict[str, Any]:
        """The flags that were given, for a `Recipe`."""
        names = [field.name for field in dataclasses.fields(MaskOptions)]
        return {name: value for name in names if (value := getattr(self, name))}
