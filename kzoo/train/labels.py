"""What the numbers in mask files mean."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kzoo.errors import DatasetError, InvalidValueError
from kzoo.train.data import VOID

UNKNOWN = 254  # while reading: a value that nobody declared


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the values in mask files mean.

    Attributes:
        classes: names.
        values: in the files, of each class; default: 0, 1, ...
        void: values of pixels that belong to no class.
    """

    classes: tuple[str, ...]
    values: tuple[int, ...] = ()
    void: tuple[int, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "values", tuple(self.values) or tuple(range(len(self.classes))))
        if len(self.values) != len(self.classes):
            raise InvalidValueError(
                f"mask_values={self.values} are {len(self.values)} values for the {len(self.classes)} classes "
                f"{', '.join(self.classes)}; give one for each"
            )
        everything = (*self.values, *self.void)
        if len(set(everything)) != len(everything) or not all(0 <= value <= 255 for value in everything):
            raise InvalidValueError(
                f"the values {self.values} of the classes and {self.void} of void must differ and be 0 to 255"
            )
        if not 2 <= len(self.classes) < UNKNOWN:
            raise InvalidValueError(
                f"{len(self.classes)} classes; 2 to {UNKNOWN - 1} can be told apart: name each on a line of its own"
            )
        twice = next((name for name in self.classes if self.classes.count(name) > 1), None)
        if twice is not None:
            raise InvalidValueError(f"several classes are called {twice!r}; give each a name of its own")

    @property
    def table(self) -> np.ndarray:
        """(256,) uint8: value in a file -> class, `VOID`, or 254 for a value that was not declared."""
        table = np.full(256, UNKNOWN, "uint8")
        table[list(self.values)] = np.arange(len(self.classes))
        table[list(self.void)] = VOID
        return table

    def complaint(self, values: Sequence[int]) -> str:
        """Says which values were found that are none of these."""
        found = ", ".join(map(str, values[:8])) + (", ..." if len(values) > 8 else "")
        void = f", void {', '.join(map(str, self.void))}" if self.void else ""
        return (
            f"has pixels of value {found}, which is no class: the {len(self.classes)} classes are "
            f"{_ranges(self.values)}{void}; declare what is to be ignored with --void, or other values with "
            "--mask-values"
        )


def _ranges(values: Sequence[int]) -> str:
    consecutive = list(values) == list(range(values[0], values[0] + len(values)))
    return f"{values[0]} to {values[-1]}" if consecutive else ", ".join(map(str, values))


def declare(classes: Sequence[str], values: Sequence[int], void: Sequence[int], what: str) -> Labels:
    """Labels with names from wherever there are some; `what` begins the message if there are none."""
    names = tuple(classes) or tuple(f"value {value}" for value in values)
    if not names:
        raise DatasetError(
            f"{what} does not say its classes; name them with --class-names, in the order of their values"
        )
    return Labels(names, tuple(values), tuple(void))
