"""The page of `kzoo explain`: one HTML file that needs no network, with its maps as PNG and their numbers as JSON."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kzoo.escape import html
from kzoo.explain.drawing import colour_end, draw_map
from kzoo.explain.figures import Figures, colours, legend, table
from kzoo.explain.inside import LayerStatistics
from kzoo.explain.interior import Inside
from kzoo.explain.methods import METHODS, Map
from kzoo.explain.perturbation import enlarged
from kzoo.explain.randomisation import rank_correlation
from kzoo.explain.sections import (
    card_section,
    inside_section,
    statistics_section,
    statistics_told,
    trust_section,
    trust_told,
)
from kzoo.explain.trust import Trust
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


def check_folder(folder: str | Path) -> None:
    """Raises `OutputError` unless the folder is absent, empty, or a page of `kzoo explain`, which is replaced."""
    check_own(Path(folder).absolute(), TOLD, KEY, "kzoo explain")


def write_page(folder: str | Path, shown: Shown, compared: Shown | None = None) -> dict[str, Any]:
    """Writes index.html, maps.json and a PNG of each map, all or nothing.

    Colours are on one scale for all classes of a method and a layer, so that maps of two classes can be compared.

    Args:
        folder: folder to write; a page that is there is replaced.
        shown: the model and its pictures.
        compared: another model with the same pictures and as many maps in the same order, shown beside it.

    Returns:
        What stands in maps.json.

    Raises:
        OutputError: the folder is something else, or cannot be written.

    Example:
        >>> maps = maps_of(model, image, [3], ["gradcam", "rise"])
        >>> picture = Explained("cat.jpg", image, predictions, maps)
        >>> write_page("cat", Shown("resnet20", "logits", names, [picture]))
    """
    from kzoo import __version__

    folder = Path(folder).absolute()
    check_folder(folder)
    ensure_writable(folder.parent)
    models = [shown] if compared is None else [shown, compared]
    with atomic_folder(folder) as made:
        made.mkdir()
        parts = [
            html_head(f"What {' and '.join(each.name for each in models)} see{'s' * (len(models) == 1)}", _style())
        ]
        parts += [colours(), *_beginning(models)]
        told: dict[str, Any] = {
            KEY: 1,
            "kzoo": __version__,
            "model": shown.name,
            "scores": shown.scores,
            "pictures": [],
        }
        for number in range(1, len(shown.pictures) + 1):
            writer = _Writer(made, number, models)
            parts += writer.section()
            told["pictures"].append(writer.told)
        told |= _model_told(shown)
        if compared is not None:
            told["compared"] = {"model": compared.name, "scores": compared.scores, **_model_told(compared)}
        parts += _of_models(models, made)
        parts.append("</main>\n</body>\n</html>\n")
        (made / PAGE).write_text("".join(parts), encoding="utf-8")
        told["files"] = sorted([TOLD, *(path.name for path in made.iterdir())])
        text = json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False)
        (made / TOLD).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return told


def _style() -> str:
    return resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")


def _beginning(models: Sequence[Shown]) -> Iterator[str]:
    names = [f"Scores of <bdi>{html(each.name)}</bdi> are {html(each.scores)}." for each in models]
    scores = f"Scores are {html(models[0].scores)}." if len(models) == 1 else " ".join(names)
    pair = (
        ""
        if len(models) == 1
        else " Each model has its own scale by the same rule, as their scores are not of one unit; compare where the "
        "colours lie, and the numbers of a legend within one model."
    )
    yield (
        "<p>Red places speak for a class, blue ones against it; places without colour do not matter. The colours of "
        "a method are on one scale for all its classes, which stands above the maps; it ends where 99 % of the places "
        f"lie, and what is beyond has its last colour.{pair} {scores}</p>\n"
    )
    links = {f"picture{number}": Path(each.path).name for number, each in enumerate(models[0].pictures, start=1)}
    if any(each.trust for each in models):
        links["trust"] = "Are the maps any good?"
    links["models"] = "The model" if len(models) == 1 else "The models"
    items = "".join(f'<li><a href="#{place}"><bdi>{html(name)}</bdi></a></li>\n' for place, name in links.items())
    yield f'<nav aria-label="Parts of this page"><ul>\n{items}</ul></nav>\n'


def _of_models(models: Sequence[Shown], folder: Path) -> Iterator[str]:
    """What is told of models rather than of pictures."""
    if any(each.trust for each in models):
        yield '<section id="trust" aria-labelledby="trust-name">\n<h2 id="trust-name">Are the maps any good?</h2>\n'
        for each in models:
            yield from _heading(each, models)
            yield from trust_section(each.trust)
        yield "</section>\n"
    title = "The model" if len(models) == 1 else "The models"
    yield f'<section id="models" aria-labelledby="models-name">\n<h2 id="models-name">{title}</h2>\n'
    for number, each in enumerate(models, start=1):
        yield from _heading(each, models)
        yield from card_section(each.card, each.kernels, Figures(folder, f"model{number}"))
        if each.whole:
            yield from statistics_section(each.statistics)
    yield "</section>\n"


def _heading(shown: Shown, models: Sequence[Shown]) -> Iterator[str]:
    if len(models) > 1:
        yield f"<h3><bdi>{html(shown.name)}</bdi></h3>\n"


def _model_told(shown: Shown) -> dict[str, Any]:
    told = {"card": shown.card, "trust": [trust_told(each) for each in shown.trust]}
    return told | ({"layers": statistics_told(shown.statistics)} if shown.whole else {})


class _Writer:
    """One picture of a page: its files in the folder, its part of the page, and what maps.json tells of it."""

    def __init__(self, folder: Path, number: int, models: Sequence[Shown]):
        self.number, self.models = number, models
        self.pictures = [each.pictures[number - 1] for each in models]
        self.name = Path(self.pictures[0].path).name
        self.figures = Figures(folder, str(number))
        self.views: list[dict[str, Any]] = [
            {"predictions": list(picture.predictions), "maps": []} for picture in self.pictures
        ]
        self.told: dict[str, Any] = {"picture": self.pictures[0].path, **self.views[0]}
        if len(models) > 1:
            self.told["compared"] = self.views[1] | {"correlations": self._correlations()}

    def section(self) -> Iterator[str]:
        title, name = f"picture{self.number}", html(self.name)
        yield f'<section id="{title}" aria-labelledby="{title}-name">\n'
        yield f'<h2 id="{title}-name"><bdi>{name}</bdi></h2>\n'
        yield '<div class="methods">\n'
        for shown, picture in zip(self.models, self.pictures, strict=True):
            yield "<div>\n"
            yield from _heading(shown, self.models)
            yield from self._top(picture)
            yield "</div>\n"
        yield '</div>\n<div class="methods">\n'
        groups = [itertools.groupby(picture.maps, lambda each: (each.method, each.layer)) for picture in self.pictures]
        for row in zip(*groups, strict=True):
            for index, ((method, layer), maps) in enumerate(row):
                yield from self._maps(index, method, layer, list(maps))
        yield "</div>\n"
        yield from self._in_pairs()
        for shown, picture, view in zip(self.models, self.pictures, self.views, strict=True):
            if picture.inside is not None:
                yield from _heading(shown, self.models)
                parts, told = inside_section(picture.image, self.name, picture.inside, self.figures)
                yield from parts
                (self.told if view is self.views[0] else self.told["compared"])["inside"] = told
        yield "</section>\n"

    def _top(self, picture: Explained) -> Iterator[str]:
        height, width, _ = picture.image.shape
        yield '<div class="top">\n'
        alt = f"{self.name} as the model gets it, {width} by {height} pixels"
        yield self.figures.add(
            _as_picture(picture.image), "picture", alt, f"as the model gets it, {width}×{height} pixels"
        )[1]
        if picture.mask is not None:
            alt = f"{self.name} with the class of each pixel; the table tells the shares"
            yield self.figures.add(picture.mask, "classes", alt, "the class of each pixel", "wide")[1]
        key = "share" if picture.mask is not None else "probability"
        rows = [[f"<bdi>{html(each['class'])}</bdi>", f"{each[key]:.2%}"] for each in picture.predictions]
        yield table("What the model says", ["class", key], rows)
        yield "</div>\n"

    def _correlations(self) -> list[dict[str, Any]]:
        """How alike the maps of two models are, in the size of the larger one."""
        found = []
        for first, second in zip(*(picture.maps for picture in self.pictures), strict=True):
            size = max(first.values.shape, second.values.shape)
            correlation = rank_correlation(enlarged(first.values, size), enlarged(second.values, size))
            found.append({"method": first.method, "target": first.target, "correlation": round(correlation, 4)})
        return found

    def _in_pairs(self) -> Iterator[str]:
        if len(self.models) == 1:
            return
        names = self.models[0].class_names
        rows = [
            [
                html(METHODS[each["method"]].title),
                "no class" if each["target"] is None else f"<bdi>{html(names[each['target']])}</bdi>",
                f"{each['correlation']:.2f}",
            ]
            for each in self.told["compared"]["correlations"]
        ]
        yield "<h3>How alike the maps of the two models are</h3>\n"
        yield (
            '<p class="faint">Correlation of the ranks of places: 1 where both models order them alike, 0 where the '
            "order of one says nothing of the other, negative where it is turned around.</p>\n"
        )
        yield table("Correlation of the maps", ["method", "class", "correlation"], rows)

    def _maps(self, index: int, name: str, layer: str | None, maps: Sequence[Map]) -> Iterator[str]:
        """The maps of a method and a layer, on one scale of colours."""
        shown, image = self.models[index], self.pictures[index].image
        method, end = METHODS[name], colour_end([each.values for each in maps])
        of_layer = "" if layer is None else f" of <bdi>{html(layer)}</bdi>"
        of_model = "" if len(self.models) == 1 else f": <bdi>{html(shown.name)}</bdi>"
        yield f'<div>\n<h3>{html(method.title)}{of_layer}{of_model}</h3>\n<p class="faint">{html(method.tells)}</p>\n'
        yield legend(end, *(("against", "for") if maps[0].target is not None else ("less", "more")))
        yield '<div class="cards">\n'
        for each in maps:
            label = "no class" if each.target is None else shown.class_names[each.target]
            alt = f"{method.title} for {label} over {self.name}, largest at the {_place_in_words(each.values)}"
            low, high, mean = (float(getattr(each.values, f)()) for f in ("min", "max", "mean"))
            score = "" if each.score is None else f"score {each.score:.3g}<br>"
            caption = (
                f"<strong><bdi>{html(label)}</bdi></strong><br>{score}from {low:.3g} to {high:.3g}, mean {mean:.3g}"
            )
            drawing = draw_map(image, each.values, end)
            what = name.replace("++", "_plus_plus") + ("" if each.target is None else f"_class{each.target}")
            file, figure = self.figures.add(drawing, what, alt, caption)
            yield figure
            self.views[index]["maps"].append(
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


def _as_picture(image: np.ndarray) -> Image.Image:
    """An image as `draw_map` enlarges it, in its own colours."""
    pixels = np.asarray(image).astype("uint8")
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return picture.resize(shown_size(picture), Image.Resampling.BICUBIC)


def _place_in_words(heat: np.ndarray) -> str:
    """Where a map is largest, in thirds of the picture.

    >>> _place_in_words(np.eye(3)[::-1] * [[0], [0], [1]])
    'bottom left'
    """
    place = np.unravel_index(heat.argmax(), heat.shape)
    row, column = (names[3 * int(at) // side] for names, at, side in zip(PLACES, place, heat.shape, strict=True))
    return f"{row} {column}"
