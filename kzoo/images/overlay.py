"""Drawing over a picture: the classes of its pixels, with a legend, or where a class is seen."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kzoo.escape import printable

# of the CamVid dataset: https://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/
CAMVID = {
    "Sky": (128, 128, 128),
    "Building": (128, 0, 0),
    "Pole": (192, 192, 128),
    "Road": (128, 64, 128),
    "Pavement": (0, 0, 192),
    "Tree": (128, 128, 0),
    "SignSymbol": (192, 128, 128),
    "Fence": (64, 64, 128),
    "Car": (64, 0, 128),
    "Pedestrian": (64, 64, 0),
    "Bicyclist": (0, 128, 192),
}
PALETTE = (
    (31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40), (148, 103, 189), (255, 221, 51), (23, 190, 207),
    (227, 119, 194), (140, 86, 75), (170, 220, 60), (0, 60, 140), (250, 170, 150), (0, 110, 90), (170, 255, 195),
    (110, 0, 60), (200, 180, 255), (128, 128, 0), (127, 127, 127), (60, 40, 20), (240, 50, 230),
)  # fmt: skip
OPACITY = 0.55
SMALLEST, LARGEST = 640, 4096  # pixels of the longer side between which a picture is shown as it is
FEWEST_ROWS = 12  # of the legend, beside a flat picture too
HEAT = (255, 30, 0)
PAPER, INK = (255, 255, 255), (33, 33, 33)


def colours(class_names: Sequence[str]) -> np.ndarray:
    """A colour (red, green, blue) of 0 to 255 for each class: CamVid's own for its classes, else from a fixed list.

    >>> colours(["cat", "dog"]).tolist()
    [[31, 119, 180], [255, 127, 14]]
    """
    if set(class_names) <= set(CAMVID):
        return np.array([CAMVID[name] for name in class_names], "uint8")
    turns = (index * 0.618034 for index in range(len(PALETTE), len(class_names)))  # the golden section never repeats
    more = [
        tuple(
            round(255 * part)
            for part in colorsys.hsv_to_rgb(turn % 1, 0.9 - 0.5 * (index % 2), 0.95 - 0.2 * (index % 3))
        )
        for index, turn in enumerate(turns)
    ]
    return np.array([*PALETTE, *more][: len(class_names)], "uint8")


def draw_overlay(picture: Image.Image, mask: np.ndarray, class_names: Sequence[str]) -> Image.Image:
    """The picture tinted by class, with lines between the classes, and a legend with their shares of the area.

    Args:
        picture: picture in any mode.
        mask: (height, width) of the picture, index of the class of each pixel.
        class_names: names of the classes.

    Returns:
        The picture, enlarged by a whole number if it is small and reduced if it is huge, with a legend to the right
        of those classes that it has, the largest first.
    """
    size = shown_size(picture)
    shown = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BICUBIC), "float32")
    large = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    tints = colours(class_names)
    blend = (1 - OPACITY) * shown + OPACITY * tints[large]
    blend[_borders(large)] = PAPER
    areas = np.bincount(mask.ravel(), minlength=len(class_names)) / mask.size
    legend = _draw_legend(
        [(printable(class_names[index]), tints[index], areas[index]) for index in np.argsort(-areas) if areas[index]],
        size[1],
    )
    sheet = Image.new("RGB", (size[0] + legend.width, max(size[1], legend.height)), PAPER)
    sheet.paste(Image.fromarray(blend.astype("uint8")), (0, 0))
    sheet.paste(legend, (size[0], 0))
    return sheet


def draw_heatmap(image: np.ndarray, heatmap: np.ndarray) -> Image.Image:
    """The image in grey, with what speaks for a class tinted red, the more the more it does.

    Args:
        image: (height, width, channels) of 0 to 255, RGB or grey.
        heatmap: (rows, columns), how much each place adds to the class; what is below zero speaks against it.

    Returns:
        The image as `draw_overlay` enlarges it. The strongest place has the tint at `OPACITY`; between places it is
        interpolated.
    """
    picture = Image.fromarray(np.squeeze(image.astype("uint8"))).convert("L").convert("RGB")
    size, strength = shown_size(picture), np.maximum(heatmap, 0).astype("float32")
    strength /= max(float(strength.max()), 1e-30)
    smooth = np.asarray(Image.fromarray(strength).resize(size, Image.Resampling.BILINEAR))[..., None]
    shown = np.asarray(picture.resize(size, Image.Resampling.BICUBIC), "float32")
    return Image.fromarray((shown + OPACITY * smooth * (np.array(HEAT) - shown)).round().astype("uint8"))


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height in which a picture is drawn: enlarged by a whole number if it is small, reduced if huge."""
    longer = max(picture.size)
    factor = max(1, round(SMALLEST / longer)) * min(1, LARGEST / longer)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    return width, height


def text_size(height: int) -> int:
    """Pixels of the letters beside or in a drawing of this height: legible in a small one, in proportion in others."""
    return int(np.clip(height / 28, 14, 60))


def load_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of matplotlib, which knows Greek and Cyrillic too."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), size)


def _borders(mask: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour is of another class."""
    borders = np.zeros(mask.shape, bool)
    borders[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    borders[:-1] |= mask[:-1] != mask[1:]
    return borders


def _draw_legend(entries: list[tuple[str, np.ndarray, float]], height: int) -> Image.Image:
    """Swatch, name and share of each entry, in as many columns as `height` makes necessary."""
    size = text_size(height)
    font = load_font(size)
    shares = [f"{share:.1%}" if share >= 0.0005 else "< 0.1%" for _, _, share in entries]
    line, gap = round(1.6 * size), size // 2
    names_width = max(font.getlength(name) for name, _, _ in entries)
    shares_width = max(font.getlength(share) for share in shares)
    rows = max(FEWEST_ROWS, (height - 2 * gap) // line)
    columns = -(-len(entries) // rows)
    column = round(3 * gap + size + names_width + 2 * gap + shares_width)
    legend = Image.new("RGB", (column * columns + 2 * gap, 2 * gap + line * min(rows, len(entries))), PAPER)
    draw = ImageDraw.Draw(legend)
    for index, ((name, colour, _), share) in enumerate(zip(entries, shares, strict=True)):
        left, top = 2 * gap + index // rows * column, gap + index % rows * line
        draw.rounded_rectangle((left, top, left + size, top + size), size // 5, tuple(colour.tolist()), INK)
        middle = top + size / 2
        draw.text((left + size + gap, middle), name, INK, font, anchor="lm")
        draw.text((left + column - 2 * gap, middle), share, INK, font, anchor="rm")
    return legend
