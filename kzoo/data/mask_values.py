"""What the numbers in mask files mean."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image

from kzoo.data.split import VOID
from kzoo.errors import DatasetError, InvalidValueError, counted

UNKNOWN = 254  # while reading: a value that nobody declared
NUMBERED = ("L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of one number for each pixel
GREY_OF_COLOURS = ("RGB", "RGBA", "RGBX", "LA")  # its modes that may hold grey all the same
NOTES = {
    "1": "; it has one bit for each pixel: black is 0, and white is 1, or 255 where that is declared and 1 is not",
    "P": "; it has a palette, and its values are the numbers of the colours in it",
}


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
        if len(set(self._declared)) != len(self._declared) or not all(0 <= value <= 255 for value in self._declared):
            raise InvalidValueError(
                f"the values {self.values} of the classes and {self.void} of void must differ and be 0 to 255"
            )
        if not 2 <= len(self.classes) < UNKNOWN:
            raise InvalidValueError(
                f"{counted(len(self.classes), 'class', 'classes')}; 2 to {UNKNOWN - 1} can be told apart: name "
                "each on a line of its own"
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

    def classes_of(self, mask: Image.Image, name: str) -> np.ndarray:
        """(height, width) uint8: the class of each pixel of a mask as it was read, or `VOID`.

        Grey is taken as such where it was saved as RGB, and a palette for the numbers of its colours.

        Raises:
            DatasetError: it has colours, or values that were not declared; the message begins with `name`.
        """
        values = self._numbers(mask, name)
        inside = np.clip(values, 0, 255)
        found = self.table[inside]
        unknown = np.unique(values[(found == UNKNOWN) | (values != inside)])
        if len(unknown):
            raise DatasetError(f"{name} {self.complaint(unknown.tolist())}{NOTES.get(mask.mode, '')}")
        return found

    def _numbers(self, mask: Image.Image, name: str) -> np.ndarray:
        """The number that a mask gives each pixel."""
        pixels = np.asarray(mask)
        if mask.mode == "1":
            return pixels * np.uint8(255 if 255 in self._declared and 1 not in self._declared else 1)
        if mask.mode in NUMBERED:
            return pixels
        if mask.mode in GREY_OF_COLOURS:
            bands = dict(zip(mask.getbands(), np.moveaxis(pixels, -1, 0), strict=True))
            if (bands.pop("A", np.uint8(255)) != 255).any():
                raise DatasetError(f"{name} is transparent in places; a mask gives each pixel the value of its class")
            bands.pop("X", None)
            first, *others = bands.values()
            if all((other == first).all() for other in others):
                return first
        raise DatasetError(
            f"{name} has colours ({mask.mode}); a mask has one channel with the number of the class of each pixel: "
            "translate its colours to numbers and save it as a grey PNG"
        )

    @property
    def _declared(self) -> tuple[int, ...]:
        return (*self.values, *self.void)

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
