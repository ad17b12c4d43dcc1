"""One picture on a page of `kzoo explain`, with what one model makes of it, or two beside each other."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kzoo.escape import html
from kzoo.explain.boxes import Box
from kzoo.explain.drawing import colour_end, draw_map
from kzoo.explain.figures import Figures, legend, table
from kzoo.explain.methods import METHODS, Map
from kzoo.explain.perturbation import enlarged
from kzoo.explain.randomisation import rank_correlation
from kzoo.explain.sections import inside_section
from kzoo.explain.shown import Explained, Shown
from kzoo.images.overlay import shown_size

PLACES = ("top", "middle", "bottom"), ("left", "centre", "right")


def heading(shown: Shown, models: Sequence[Shown]) -> Iterator[str]:
    """The name of a model, where a page has two."""
    if len(models) > 1:
        yield f"<h3><bdi>{html(shown.name)}</bdi></h3>\n"


class PictureWriter:
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
            yield from heading(shown, self.models)
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
                yield from heading(shown, self.models)
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
        boxes = bool(picture.predictions) and "box" in picture.predictions[0]
        if boxes and picture.mask is not None:
            alt = f"{self.name} with numbered boxes; the table tells what they hold"
            yield self.figures.add(picture.mask, "boxes", alt, "what was found", "wide")[1]
            rows = [_boxed(row) for row in picture.predictions]
            heads = ["box", "class", "score", "left, top, right, bottom"]
            yield table("What the model finds, in pixels of the image", heads, rows) + "</div>\n"
            return
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
            target = first.target
            told = self.pictures[0].row(target)["number"] if isinstance(target, Box) else target
            found.append({"method": first.method, "target": told, "correlation": round(correlation, 4)})
        return found

    def _in_pairs(self) -> Iterator[str]:
        if len(self.models) == 1:
            return
        rows = [
            [
                html(METHODS[each.method].title),
                f"<bdi>{html(self.models[0].label(self.pictures[0], each.target))}</bdi>",
                f"{told['correlation']:.2f}",
            ]
            for each, told in zip(self.pictures[0].maps, self.told["compared"]["correlations"], strict=True)
        ]
        yield "<h3>How alike the maps of the two models are</h3>\n"
        yield (
            '<p class="faint">Correlation of the ranks of places: 1 where both models order them alike, 0 where the '
            "order of one says nothing of the other, negative where it is turned around.</p>\n"
        )
        yield table("Correlation of the maps", ["method", "class", "correlation"], rows)

    def _maps(self, index: int, name: str, layer: str | None, maps: Sequence[Map]) -> Iterator[str]:
        """The maps of a method and a layer, on one scale of colours."""
        shown, picture = self.models[index], self.pictures[index]
        method, end = METHODS[name], colour_end([each.values for each in maps])
        of_layer = "" if layer is None else f" of <bdi>{html(layer)}</bdi>"
        of_model = "" if len(self.models) == 1 else f": <bdi>{html(shown.name)}</bdi>"
        yield f'<div>\n<h3>{html(method.title)}{of_layer}{of_model}</h3>\n<p class="faint">{html(method.tells)}</p>\n'
        yield legend(end, *(("against", "for") if maps[0].target is not None else ("less", "more")))
        yield '<div class="cards">\n'
        for each in maps:
            label = shown.label(picture, each.target)
            alt = f"{method.title} for {label} over {self.name}, largest at the {_place_in_words(each.values)}"
            low, high, mean = (float(getattr(each.values, f)()) for f in ("min", "max", "mean"))
            score = "" if each.score is None else f"score {each.score:.3g}<br>"
            caption = (
                f"<strong><bdi>{html(label)}</bdi></strong><br>{score}from {low:.3g} to {high:.3g}, mean {mean:.3g}"
            )
            if each.stands_on is not None:
                caption += f"<br>of <bdi>{html(each.stands_on)}</bdi>"
            of_target, box = "" if each.target is None else f"_class{each.target}", None
            if isinstance(each.target, Box):
                row = picture.row(each.target)
                of_target, box = f"_box{row['number']}", row["box"]
            drawing = draw_map(picture.image, each.values, end, box)
            what = name.replace("++", "_plus_plus") + of_target
            file, figure = self.figures.add(drawing, what, alt, caption)
            yield figure
            self.views[index]["maps"].append(
                {
                    "method": name,
                    "target": self._target_told(picture, each.target, label),
                    "layer": layer or each.stands_on,
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

    @staticmethod
    def _target_told(picture: Explained, target: int | Box | None, label: str) -> dict[str, Any] | None:
        """What maps.json tells of a target."""
        if isinstance(target, Box):
            return {key: each for key, each in picture.row(target).items() if key != "score"}
        return None if target is None else {"index": target, "class": label}


def _boxed(row: dict[str, Any]) -> list[str]:
    """A detection in the table."""
    box = ", ".join(f"{side:.0f}" for side in row["box"])
    return [str(row["number"]), f"<bdi>{html(row['class'])}</bdi>", f"{row['score']:.2%}", box]


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
