"""The page of `kzoo explain`: one HTML file that needs no network, with its maps as PNG and their numbers as JSON."""

import base64
import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kzoo.escape import html
from kzoo.explain.drawing import AGAINST, BRIGHTEST, DARKEST, FOR, OPACITY, colour_end, draw_map
from kzoo.explain.methods import METHODS, Map
from kzoo.files import atomic_folder, ensure_writable
from kzoo.images.overlay import shown_size
from kzoo.own_folder import check_own
from kzoo.report.head import html_head

PAGE, TOLD = "index.html", "maps.json"
KEY = "kzoo_explain"  # of maps.json, by which a folder is known
PLACES = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True, eq=False)
class Explained:
    """A picture with what a model says of it, and where it sees that.

    Attributes:
        path: of the picture.
        image: (height, width, channels) of 0 to 255, as the model gets it.
        predictions: the first classes, best first: "class" and "index", and "probability", or the "share" of the area.
        maps: what `kzoo.explain.methods.maps_of` gives.
        mask: the image with the classes of its pixels, of a model for segmentation.
    """

    path: str
    image: np.ndarray
    predictions: Sequence[dict]
    maps: Sequence[Map]
    mask: Image.Image | None = None


def check_folder(folder: str | Path) -> None:
    """Raises `OutputError` unless the folder is absent, empty, or a page of `kzoo explain`, which is replaced."""
    check_own(Path(folder).absolute(), TOLD, KEY, "kzoo explain")


def write_page(
    folder: str | Path, model: str, scores: str, class_names: Sequence[str], pictures: Sequence[Explained]
) -> dict[str, Any]:
    """Writes index.html, maps.json and a PNG of each map, all or nothing.

    Colours are on one scale for all classes of a method and a layer, so that maps of two classes can be compared.

    Args:
        folder: folder to write; a page that is there is replaced.
        model: what the model is called.
        scores: what a score is, in words, such as "logits".
        class_names: names of the classes.
        pictures: what is shown, in this order.

    Returns:
        What stands in maps.json.

    Raises:
        OutputError: the folder is something else, or cannot be written.

    Example:
        >>> maps = maps_of(model, image, [3], ["gradcam", "rise"])
        >>> write_page("cat", "resnet20", "logits", names, [Explained("cat.jpg", image, predictions, maps)])
    """
    from kzoo import __version__

    folder = Path(folder).absolute()
    check_folder(folder)
    ensure_writable(folder.parent)
    with atomic_folder(folder) as made:
        made.mkdir()
        parts = [html_head(f"What {model} sees", _style()), _colours(), *_beginning(scores, pictures)]
        told: dict[str, Any] = {KEY: 1, "kzoo": __version__, "model": model, "scores": scores, "pictures": []}
        for number, picture in enumerate(pictures, start=1):
            writer = _Writer(made, number, picture, class_names)
            parts += writer.section()
            told["pictures"].append(writer.told)
        parts.append("</main>\n</body>\n</html>\n")
        (made / PAGE).write_text("".join(parts), encoding="utf-8")
        told["files"] = sorted([TOLD, *(path.name for path in made.iterdir())])
        text = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False)
        (made / TOLD).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return told


def _style() -> str:
    return resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")


def _beginning(scores: str, pictures: Sequence[Explained]) -> Iterator[str]:
    yield (
        "<p>Red places speak for a class, blue ones against it; places without colour do not matter. The colours of "
        "a method are on one scale for all its classes, which stands above the maps; it ends where 99 % of the places "
        f"lie, and what is beyond has its last colour. Scores are {html(scores)}.</p>\n"
    )
    if len(pictures) > 1:
        links = "".join(
            f'<li><a href="#picture{number}"><bdi>{html(Path(picture.path).name)}</bdi></a></li>\n'
            for number, picture in enumerate(pictures, start=1)
        )
        yield f'<nav aria-label="Pictures"><ul>\n{links}</ul></nav>\n'


class _Writer:
    """One picture of a page: its files in the folder, its part of the page, and what maps.json tells of it."""

    def __init__(self, folder: Path, number: int, picture: Explained, class_names: Sequence[str]):
        self.folder, self.number, self.picture, self.class_names = folder, number, picture, class_names
        self.name = Path(picture.path).name
        self.files = itertools.count(1)
        self.told: dict[str, Any] = {
            "picture": picture.path,
            "predictions": list(picture.predictions),
            "maps": [],
        }

    def section(self) -> Iterator[str]:
        title, name = f"picture{self.number}", html(self.name)
        yield f'<section id="{title}" aria-labelledby="{title}-name">\n'
        yield f'<h2 id="{title}-name"><bdi>{name}</bdi></h2>\n<div class="top">\n'
        height, width, _ = self.picture.image.shape
        shown = _as_picture(self.picture.image)
        alt = f"{self.name} as the model gets it, {width} by {height} pixels"
        yield self._figure(shown, "picture", alt, f"as the model gets it, {width}×{height} pixels")[1]
        if self.picture.mask is not None:
            alt = f"{self.name} with the class of each pixel; the table tells the shares"
            yield self._figure(self.picture.mask, "classes", alt, "the class of each pixel", "wide")[1]
        yield from self._predictions()
        yield '</div>\n<div class="methods">\n'
        for (method, layer), maps in itertools.groupby(self.picture.maps, lambda each: (each.method, each.layer)):
            yield from self._maps(method, layer, list(maps))
        yield "</div>\n</section>\n"

    def _predictions(self) -> Iterator[str]:
        key = "share" if self.picture.mask is not None else "probability"
        yield "<table>\n<caption>What the model says</caption>\n"
        yield f'<thead><tr><th scope="col">class</th><th scope="col">{key}</th></tr></thead>\n<tbody>\n'
        for each in self.picture.predictions:
            yield f'<tr><th scope="row"><bdi>{html(each["class"])}</bdi></th><td>{each[key]:.2%}</td></tr>\n'
        yield "</tbody>\n</table>\n"

    def _maps(self, name: str, layer: str | None, maps: Sequence[Map]) -> Iterator[str]:
        """The maps of a method and a layer, on one scale of colours."""
        method, end = METHODS[name], colour_end([each.values for each in maps])
        of_layer = "" if layer is None else f" of <bdi>{html(layer)}</bdi>"
        yield f'<div>\n<h3>{html(method.title)}{of_layer}</h3>\n<p class="faint">{html(method.tells)}</p>\n'
        yield _legend(end, *(("against", "for") if maps[0].target is not None else ("less", "more")))
        yield '<div class="cards">\n'
        for each in maps:
            label = "no class" if each.target is None else self.class_names[each.target]
            alt = f"{method.title} for {label} over {self.name}, largest at the {_place_in_words(each.values)}"
            low, high, mean = (float(getattr(each.values, f)()) for f in ("min", "max", "mean"))
            score = "" if each.score is None else f"score {each.score:.3g}<br>"
            caption = (
                f"<strong><bdi>{html(label)}</bdi></strong><br>{score}from {low:.3g} to {high:.3g}, mean {mean:.3g}"
            )
            drawing = draw_map(self.picture.image, each.values, end)
            what = name.replace("++", "_plus_plus") + ("" if each.target is None else f"_class{each.target}")
            file, figure = self._figure(drawing, what, alt, caption)
            yield figure
            self.told["maps"].append(
                {
                    "method": name,
                    "target": None if each.target is None else {"index": each.target, "class": label},
                    "layer": layer,
                    "score": each.score,
                    "smallest": low,
                    "largest": high,
                    "mean": mean,
                    "colours_end": end,
                    "shape": list(each.values.shape),
                    "seconds": round(each.seconds, 4),
                    "file": file,
                }
            )
        yield "</div>\n</div>\n"

    def _figure(self, drawing: Image.Image, what: str, alt: str, caption: str, kind: str = "") -> tuple[str, str]:
        """Writes a drawing as PNG; returns the name of its file, and what stands in the page."""
        file = f"{self.number}_{next(self.files):02}_{what}.png"
        drawing.save(self.folder / file)
        data = io.BytesIO()
        drawing.convert("RGB").save(data, "JPEG", quality=88)
        source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
        width, height = drawing.size
        image = f'<img src="{source}" width="{width}" height="{height}" alt="{html(alt)}">'
        return file, f'<figure class="{kind}">\n{image}\n<figcaption>{caption}</figcaption>\n</figure>\n'


def _as_picture(image: np.ndarray) -> Image.Image:
    """An image as `draw_map` enlarges it, in its own colours."""
    pixels = np.asarray(image).astype("uint8")
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return picture.resize(shown_size(picture), Image.Resampling.BICUBIC)


def _colours() -> str:
    """The colours of the scale as they lie over a grey in the middle, for every `_legend`."""
    grey = np.full(3, (DARKEST + BRIGHTEST) / 2)
    ends = [grey + OPACITY * (np.array(tint) - grey) for tint in (AGAINST, FOR)]
    low, middle, high = (f"rgb({','.join(str(round(part)) for part in each)})" for each in (ends[0], grey, ends[1]))
    return (
        '<svg class="colours" aria-hidden="true"><defs><linearGradient id="scale">'
        f'<stop offset="0" stop-color="{low}"/><stop offset=".5" stop-color="{middle}"/>'
        f'<stop offset="1" stop-color="{high}"/></linearGradient></defs></svg>\n'
    )


def _legend(end: float, low: str, high: str) -> str:
    """The scale of colours with its numbers, and what its ends mean."""
    return (
        f'<div class="legend"><span>{low}: −{end:.3g}</span><svg viewBox="0 0 100 10" preserveAspectRatio="none" '
        f'role="img" aria-label="Colours from blue at −{end:.3g} over none at 0 to red at {end:.3g}">'
        f'<rect width="100" height="10" fill="url(#scale)"/></svg><span>{high}: {end:.3g}</span></div>\n'
    )


def _place_in_words(heat: np.ndarray) -> str:
    """Where a map is largest, in thirds of the picture.

    >>> _place_in_words(np.eye(3)[::-1] * [[0], [0], [1]])
    'bottom left'
    """
    place = np.unravel_index(heat.argmax(), heat.shape)
    row, column = (names[3 * int(at) // side] for names, at, side in zip(PLACES, place, heat.shape, strict=True))
    return f"{row} {column}"
