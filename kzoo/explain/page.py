"""The page of `kzoo explain`: one HTML file that needs no network, with its maps as PNG and their numbers as JSON."""

import json
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from kzoo.escape import html
from kzoo.explain.figures import Figures, colours
from kzoo.explain.picture import PictureWriter, heading
from kzoo.explain.sections import (
    card_section,
    statistics_section,
    statistics_told,
    trust_section,
    trust_told,
)
from kzoo.explain.shown import Shown
from kzoo.files import atomic_folder, ensure_writable
from kzoo.own_folder import check_own
from kzoo.report.head import html_head

PAGE, TOLD = "index.html", "maps.json"
KEY = "kzoo_explain"  # of maps.json, by which a folder is known


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
            writer = PictureWriter(made, number, models)
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
        else " Each model has its own scale by the same rule, as their scores may differ in unit; compare where the "
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
            yield from heading(each, models)
            yield from trust_section(each.trust)
        yield "</section>\n"
    title = "The model" if len(models) == 1 else "The models"
    yield f'<section id="models" aria-labelledby="models-name">\n<h2 id="models-name">{title}</h2>\n'
    for number, each in enumerate(models, start=1):
        yield from heading(each, models)
        yield from card_section(each.card, each.kernels, Figures(folder, f"model{number}"))
        if each.whole:
            yield from statistics_section(each.statistics)
    yield "</section>\n"


def _model_told(shown: Shown) -> dict[str, Any]:
    told = {"card": shown.card, "trust": [trust_told(each) for each in shown.trust]}
    return told | ({"layers": statistics_told(shown.statistics)} if shown.whole else {})
