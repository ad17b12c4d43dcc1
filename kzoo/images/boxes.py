"""Drawing boxes over a picture, each in the colour of its class, with its name and how sure the detector is."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kzoo.escape import short
from kzoo.images.overlay import INK, PAPER, colours, load_font, shown_size, text_size

BRIGHT = 140  # luminance of 0 to 255 from which dark letters are read better than bright ones
DASH = 5  # length of a dash and of the gap behind it, in widths of the line

Rectangle = tuple[int, int, int, int]  # the first and the last column and row: left, top, right and bottom


def draw_boxes(
    picture: Image.Image,
    boxes: np.ndarray,
    classes: np.ndarray,
    class_names: Sequence[str],
    scores: np.ndarray | None = None,
    dashed: np.ndarray | None = None,
) -> Image.Image:
    """The picture with boxes in the colours of `kzoo.images.overlay.colours`, each with its name.

    The name stands above its box; below its top edge or under the box where there is no room or another name stands.
    The first boxes choose first, and their names lie uppermost: give the surest ones first.

    Args:
        picture: picture in any mode.
        boxes: (n, 4) left, top, right and bottom, in pixels of the picture; what lies outside is cut off.
        classes: (n,) numbers of their classes.
        class_names: names of the classes.
        scores: (n,) from 0 to 1, which stand behind the names; None: names alone.
        dashed: (n,) whether the line of a box has gaps; None: of none.

    Returns:
        The picture, enlarged by a whole number if it is small and reduced if it is huge, as `draw_overlay` does; white
        at the right or below where it is too slim for a name.

    Example:
        >>> found = kzoo.detect(model, ["cells.jpg"])[0].above(0.5)
        >>> draw_boxes(read_picture("cells.jpg", 3), found.boxes, found.classes, names, found.scores).save("boxes.png")
    """
    size = shown_size(picture)
    rectangles = _rectangles(boxes, picture.size, size)
    thickness, height = max(2, round(max(size) / 320)), text_size(size[1])
    font, pad = load_font(height), height // 4
    texts = [
        short(class_names[number]) + ("" if scores is None else f" {scores[index]:.2f}")
        for index, number in enumerate(classes.tolist())
    ]
    labels = [(round(font.getlength(text)) + 2 * pad, height + 2 * pad) for text in texts]
    sheet = Image.new("RGB", tuple(map(max, size, *labels)) if labels else size, PAPER)
    sheet.paste(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), (0, 0))
    draw, tints = ImageDraw.Draw(sheet), colours(class_names)[classes]
    for index in reversed(range(len(rectangles))):
        gaps = dashed is not None and dashed[index]
        _draw_box(draw, rectangles[index], tuple(tints[index].tolist()), thickness, gaps)
    places = _place(rectangles, labels, sheet.size)
    for index in reversed(range(len(rectangles))):
        _draw_label(draw, places[index], texts[index], tuple(tints[index].tolist()), font, pad)
    return sheet


def _rectangles(boxes: np.ndarray, size: tuple[int, int], shown: tuple[int, int]) -> list[Rectangle]:
    """Boxes in pixels of a picture of (width, height) as those of its drawing, one pixel wide at least."""
    sides = np.tile(shown, 2)
    edges = (
        np.rint(np.asarray(boxes, "float64").reshape(-1, 4) * (sides / np.tile(size, 2))).clip(0, sides).astype(int)
    )
    first = np.minimum(edges[:, :2], np.subtract(shown, 1))
    last = np.maximum(edges[:, 2:] - 1, first)
    return [(left, top, right, bottom) for left, top, right, bottom in np.hstack([first, last]).tolist()]


def _draw_box(
    draw: ImageDraw.ImageDraw, box: Rectangle, colour: tuple[int, ...], thickness: int, dashed: bool
) -> None:
    """The outline of a box, inside it."""
    left, top, right, bottom = box
    low, high = min(top + thickness - 1, bottom), max(bottom - thickness + 1, top)
    for start, end in _runs(left, right, thickness * DASH, dashed):
        draw.rectangle((start, top, end, low), colour)
        draw.rectangle((start, high, end, bottom), colour)
    low, high = min(left + thickness - 1, right), max(right - thickness + 1, left)
    for start, end in _runs(top, bottom, thickness * DASH, dashed):
        draw.rectangle((left, start, low, end), colour)
        draw.rectangle((high, start, right, end), colour)


def _runs(first: int, last: int, dash: int, dashed: bool) -> Iterator[tuple[int, int]]:
    """The first and the last pixel of each part of a line that is drawn: all of it, or every other dash."""
    if not dashed:
        yield first, last
        return
    for start in range(first, last + 1, 2 * dash):
        yield start, min(start + dash - 1, last)


def _place(
    rectangles: Sequence[Rectangle], labels: Sequence[tuple[int, int]], size: tuple[int, int]
) -> list[Rectangle]:
    """Where the label of each box goes, of this width and height, inside the drawing."""
    taken: list[Rectangle] = []
    for (left, top, _, bottom), (width, height) in zip(rectangles, labels, strict=True):
        x = min(left, size[0] - width)
        room = [y for y in (top - height, top, bottom + 1, bottom + 1 - height) if 0 <= y <= size[1] - height]
        ways = [(x, y, x + width - 1, y + height - 1) for y in room or [min(top, size[1] - height)]]
        taken.append(next((way for way in ways if not any(_meet(way, other) for other in taken)), ways[0]))
    return taken


def _meet(one: Rectangle, other: Rectangle) -> bool:
    return all(one[axis] <= other[axis + 2] and other[axis] <= one[axis + 2] for axis in (0, 1))


def _draw_label(
    draw: ImageDraw.ImageDraw,
    place: Rectangle,
    text: str,
    colour: tuple[int, ...],
    font: ImageFont.FreeTypeFont,
    pad: int,
) -> None:
    """The text on its colour, in the ink that is read better on it."""
    draw.rectangle(place, colour)
    luminance = np.dot(colour, (0.299, 0.587, 0.114))
    middle = (place[1] + place[3] + 1) / 2
    draw.text((place[0] + pad, middle), text, INK if luminance >= BRIGHT else PAPER, font, anchor="lm")
