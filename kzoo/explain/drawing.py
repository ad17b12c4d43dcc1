"""Drawing a map over its picture, in colours on both sides of zero."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from kzoo.errors import InvalidValueError
from kzoo.images.overlay import shown_size
from kzoo.layers.checks import check_number

FOR, AGAINST = (220, 20, 10), (10, 80, 235)  # red and blue, which the colour-blind tell apart
OPACITY = 0.75
SHARE = 99  # per cent of the places that have a colour of their own; the few beyond have the last one
LINE, EDGE = (255, 221, 51), (0, 0, 0)  # of a box, which is seen on all colours of a map
DARKEST, BRIGHTEST = 40, 225  # of the picture in grey, so that colours are seen on white and on black


def draw_map(
    image: np.ndarray, heat: np.ndarray, end: float | None = None, box: Sequence[float] | None = None
) -> Image.Image:
    """The image in grey, red where a map speaks for its target, and blue where it speaks against it.

    Args:
        image: (height, width, channels) of 0 to 255, RGB or grey.
        heat: (rows, columns), signed, as `kzoo.grad_cam` gives it for one image; it is stretched over the image, and
            interpolated between places.
        end: number whose colour is the strongest, and so is what is beyond; one for several maps makes them
            comparable. Default: `colour_end` of this map.
        box: (left, top, right, bottom) in pixels of the image, a detection that is explained; its lines are drawn.

    Returns:
        The image, enlarged by a whole number if it is small and reduced if it is huge. Zero has no colour.

    Raises:
        InvalidValueError: another shape, or an end that is not positive.

    Example:
        >>> heat = kzoo.grad_cam(model, image[None])[0]
        >>> draw_map(image, heat).save("map.png")
    """
    image, heat = np.asarray(image), np.asarray(heat, "float32")
    if image.ndim != 3 or image.shape[2] not in (1, 3) or heat.ndim != 2:
        raise InvalidValueError(
            f"image has shape {image.shape} and the map {heat.shape}; one image with its map is needed: (height, "
            "width, channels) of 1 or 3 channels, and (rows, columns)"
        )
    if not np.isfinite(heat).all():
        raise InvalidValueError("the map holds NaN or infinity")
    end = colour_end([heat]) if end is None else check_number("end", end, lambda value: value > 0, "above 0")
    pixels = image.clip(0, 255).astype("uint8")
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("L")
    size = shown_size(picture)
    grey = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), "float32")[..., None]
    grey = DARKEST + grey * (BRIGHTEST - DARKEST) / 255
    smooth = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))[..., None]
    share = np.clip(smooth / end, -1, 1)
    tint = np.where(share > 0, np.array(FOR, "float32"), np.array(AGAINST, "float32"))
    drawn = Image.fromarray((grey + OPACITY * np.abs(share) * (tint - grey)).round().astype("uint8"))
    if box is not None:
        _outline(drawn, np.asarray(box) * np.tile(np.array(size) / image.shape[1::-1], 2))
    return drawn


def _outline(drawing: Image.Image, box: np.ndarray) -> None:
    """Draws a box (left, top, right, bottom) in pixels of the drawing, inside of it."""
    width = max(1, round(max(drawing.size) / 320))
    draw, sides = ImageDraw.Draw(drawing), np.tile(np.subtract(drawing.size, 1), 2)
    left, top, right, bottom = np.clip(np.rint(box), 0, sides).astype(int).tolist()
    for inner, thickness, colour in ((0, 3 * width, EDGE), (width, width, LINE)):
        corners = (left + inner, top + inner, max(left + inner, right - inner), max(top + inner, bottom - inner))
        draw.rectangle(corners, outline=colour, width=thickness)


def colour_end(maps: Sequence[np.ndarray]) -> float:
    """Where the colours of several maps end: 99 % of all their places are not farther from zero.

    A single place that is far beyond all others, as in gradients of pixels, leaves the others visible. 1 for maps
    that are zero everywhere.

    >>> colour_end([np.array([[0.0, -2.0]]), np.array([[2.0, 2.0]])])
    2.0
    """
    sizes = np.abs(np.concatenate([np.ravel(each) for each in maps]))
    return float(np.percentile(sizes, SHARE)) or float(sizes.max()) or 1.0
