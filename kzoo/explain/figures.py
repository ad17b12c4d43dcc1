"""Figures of a page: PNGs in its folder, and what stands for them in the page; the scale of colours."""

import base64
import io
import itertools
from pathlib import Path

import numpy as np
from PIL import Image

from kzoo.escape import html
from kzoo.explain.drawing import AGAINST, BRIGHTEST, DARKEST, FOR, OPACITY


class Figures:
    """Writes drawings as PNGs with names in their order.

    Args:
        folder: folder of the page.
        prefix: what their names begin with: the number of a picture, say.
    """

    def __init__(self, folder: Path, prefix: str):
        self.folder, self.prefix, self.numbers = folder, prefix, itertools.count(1)

    def add(self, drawing: Image.Image, what: str, alt: str, caption: str, kind: str = "") -> tuple[str, str]:
        """Writes a drawing; returns the name of its file, and what stands in the page.

        Args:
            drawing: what is seen.
            what: the end of the file's name.
            alt: what it shows, as text.
            caption: HTML below it.
            kind: class of the figure.
        """
        file = f"{self.prefix}_{next(self.numbers):02}_{what}.png"
        drawing.save(self.folder / file)
        data = io.BytesIO()
        drawing.convert("RGB").save(data, "JPEG", quality=88)
        source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
        width, height = drawing.size
        image = f'<img src="{source}" width="{width}" height="{height}" alt="{html(alt)}">'
        return file, f'<figure class="{kind}">\n{image}\n<figcaption>{caption}</figcaption>\n</figure>\n'


def colours() -> str:
    """The colours of the scale as they lie over a grey in the middle, for every `legend`."""
    grey = np.full(3, (DARKEST + BRIGHTEST) / 2)
    ends = [grey + OPACITY * (np.array(tint) - grey) for tint in (AGAINST, FOR)]
    low, middle, high = (f"rgb({','.join(str(round(part)) for part in each)})" for each in (ends[0], grey, ends[1]))
    return (
        '<svg class="colours" aria-hidden="true"><defs><linearGradient id="scale">'
        f'<stop offset="0" stop-color="{low}"/><stop offset=".5" stop-color="{middle}"/>'
        f'<stop offset="1" stop-color="{high}"/></linearGradient>'
        '<linearGradient id="amounts">'
        f'<stop offset="0" stop-color="{middle}"/><stop offset="1" stop-color="{high}"/></linearGradient>'
        "</defs></svg>\n"
    )


def legend(end: float, low: str, high: str) -> str:
    """The scale of colours of signed numbers, and what its ends mean."""
    return _bar(f"{low}: −{end:.3g}", f"{high}: {end:.3g}", f"from blue at −{end:.3g} over none at 0", end, "scale")


def legend_of_amounts(end: float, high: str) -> str:
    """The scale of colours of numbers that are never negative."""
    return _bar("0", f"{high}: {end:.3g}", "from none at 0", end, "amounts")


def _bar(left: str, right: str, beginning: str, end: float, gradient: str) -> str:
    return (
        f'<div class="legend"><span>{left}</span><svg viewBox="0 0 100 10" preserveAspectRatio="none" '
        f'role="img" aria-label="Colours {beginning} to red at {end:.3g}">'
        f'<rect width="100" height="10" fill="url(#{gradient})"/></svg><span>{right}</span></div>\n'
    )


def table(caption: str, heads: list[str], rows: list[list[str]]) -> str:
    """A table of HTML cells, whose first column names the rows; on narrow screens it scrolls by itself.

    Example:
        >>> table("Classes", ["class", "probability"], [["cat", "97.00%"]])
    """
    head = "".join(f'<th scope="col">{each}</th>' for each in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{each}</td>" for each in row[1:])}</tr>\n' for row in rows
    )
    return (
        f'<div class="table" role="region" aria-label="{caption}" tabindex="0">\n<table>\n'
        f"<caption>{caption}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )
