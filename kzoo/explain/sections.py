"""The parts of a page behind its maps: scores, the inside of a model, its card; each as HTML and as JSON values."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from kzoo.errors import counted
from kzoo.escape import html
from kzoo.explain.drawing import colour_end, draw_map
from kzoo.explain.figures import Figures, legend_of_amounts, table
from kzoo.explain.grids import draw_feature_maps
from kzoo.explain.inside import LayerStatistics
from kzoo.explain.interior import Inside, gate_summary, spread
from kzoo.explain.judging import Estimate
from kzoo.explain.methods import METHODS
from kzoo.explain.trust import Trust

ATTENTION_MAPS = 8  # layers whose maps are drawn
NAMED = 12  # layers that stand out
TELLS = {"deletion": "less is better", "insertion": "more is better"}


def trust_section(trust: Sequence[Trust]) -> Iterator[str]:
    """Scores of the maps of a model, and the check of randomised weights."""
    count = trust[0].pictures
    yield (
        f"<p>Means over {counted(count, 'picture')}, of the class that stands first in each. Deletion is the mean "
        "probability of the class while the places of the map are hidden, the most telling first: less is better. Of "
        "a box it is how much of it is still found: overlap times score. Insertion is that while they come back "
        "into a blurred picture: more is better. A map is worth something "
        "where it beats random places and a bell in the middle of the picture, which know nothing of the model. "
        + (
            "Brackets hold 95 % of the means of resampled pictures.</p>\n"
            if count > 1
            else "One picture has no interval.</p>\n"
        )
    )
    for measure, tells in TELLS.items():
        rows = [
            [
                _method(each),
                *(_number(each.scores[measure][what]) for what in ("map", "random", "gaussian")),
                _verdict(each.gains[measure]),
            ]
            for each in trust
        ]
        yield table(
            f"{measure.capitalize()}: {tells}", ["map", "this map", "random", "bell in the middle", "in words"], rows
        )
    checked = [each for each in trust if each.check is not None]
    if not checked:
        yield "<p>The weights of a LiteRT file cannot be put in disorder: no randomisation check.</p>\n"
        return
    yield (
        "<p>Do the maps depend on what the model has learned? Its weights are put in random order from the answer "
        "down, and the map of the first picture is made again. A correlation of ranks near 1 says that the map looks "
        "the same without any learning, near 0 that it does not.</p>\n"
    )
    for each in checked:
        yield _checked(each)


def trust_told(trust: Trust) -> dict[str, Any]:
    """What maps.json tells of it."""
    told: dict[str, Any] = {"method": trust.method, "layer": trust.layer, "pictures": trust.pictures}
    told["scores"] = {key: {what: _told(found) for what, found in each.items()} for key, each in trust.scores.items()}
    told["better_by"] = {
        key: {what: _told(found) for what, found in each.items()} for key, each in trust.gains.items()
    }
    if trust.check is not None:
        told["randomisation"] = {
            "layers": trust.check.layers,
            "correlations": [round(float(each), 4) for each in trust.check.correlations[:, 0]],
            "alike": trust.check.alike,
        }
    return told


def inside_section(image: np.ndarray, name: str, inside: Inside, figures: Figures) -> tuple[list[str], dict[str, Any]]:
    """Attention and feature maps of a picture: HTML, and what maps.json tells of them."""
    parts: list[str] = []
    told: dict[str, Any] = {"attention": [], "features": []}
    gates = {path: values for path, values in inside.attention.items() if values.ndim == 1}
    if inside.attention:
        told["query"] = list(inside.query)
        parts.append("<h3>Attention</h3>\n")
        parts += _attention(image, name, inside, figures, told)
    if gates:
        rows = []
        for path, values in gates.items():
            found = gate_summary(values)
            told["attention"].append({"layer": path, "kind": "channel gates", "channels": len(values), **found})
            numbers = [f"{found[key]:.3g}" for key in ("smallest", "mean", "largest")]
            rows.append([f"<bdi>{html(path)}</bdi>", str(len(values)), *numbers, f"{found['closed']:.0%}"])
        parts.append(
            table(
                "Gates of channels: 0 shuts a channel out, 1 lets it through",
                ["layer", "channels", "smallest", "mean", "largest", "below 0.1"],
                rows,
            )
        )
    if inside.features:
        parts.append(
            '<h3>Feature maps</h3>\n<p class="faint">What layers answer to the picture, a tile for each channel on '
            "its own scale: white is its largest value, black is 0; where values can be negative, 0 is mid grey and "
            'black is below it.</p>\n<div class="cards wider">\n'
        )
        for path, values in inside.features.items():
            most, count = inside.channels[path]
            height, width, _ = values.shape
            which = (
                f"the {len(most)} that answer most of {count} channels" if count > len(most) else f"{count} channels"
            )
            alt = f"Feature maps of {path} for {name}: {which}, {width} by {height} places"
            caption = f"<strong><bdi>{html(path)}</bdi></strong><br>{which}, {width}×{height} places"
            file, figure = figures.add(draw_feature_maps(values, columns=4), "features", alt, caption)
            parts.append(figure)
            shape = [height, width, count]
            told["features"].append({"layer": path, "shape": shape, "channels": most, "file": file})
        parts.append("</div>\n")
    return parts, told


def _attention(image: np.ndarray, name: str, inside: Inside, figures: Figures, told: dict[str, Any]) -> Iterator[str]:
    """Maps of gates of places and of where the query looks, each kind on its own scale."""
    y, x = inside.query
    kinds = {
        2: ("spatial gates", "Gates of places: 0 shuts a place out, 1 lets it through."),
        3: (
            "weights",
            f"Where the pixel of row {y} and column {x} looks, the mean of the heads. The "
            "weights of all places sum to 1, but for what goes to padding.",
        ),
    }
    for rank, (kind, tells) in kinds.items():
        found = {path: values for path, values in inside.attention.items() if values.ndim == rank}
        shown = spread(list(found), ATTENTION_MAPS)
        if not shown:
            continue
        few = "" if len(shown) == len(found) else f" Shown are {len(shown)} of {len(found)} layers."
        yield f'<p class="faint">{tells}{few}</p>\n<div class="cards">\n'
        for path in shown:
            values = found[path]
            flat = values if rank == 2 else values.mean(axis=0)
            end = 1.0 if rank == 2 else colour_end([flat])
            row, column = np.unravel_index(flat.argmax(), flat.shape)
            place = f"row {row + 1} of {flat.shape[0]}, column {column + 1} of {flat.shape[1]}"
            alt = f"{kind} of {path} over {name}, largest at {place}"
            heads = "" if rank == 2 else f"{counted(len(values), 'head')}, "
            caption = (
                f"<strong><bdi>{html(path)}</bdi></strong><br>{heads}from {flat.min():.3g} to {flat.max():.3g}\n"
                + legend_of_amounts(end, "more")
            )
            file, figure = figures.add(draw_map(image, flat, end), "attention", alt, caption)
            yield figure
            entry = {"layer": path, "kind": kind, "shape": list(values.shape), "colours_end": end, "file": file}
            told["attention"].append(entry | {"smallest": float(flat.min()), "largest": float(flat.max())})
        yield "</div>\n"


def statistics_section(statistics: dict[str, LayerStatistics] | None) -> Iterator[str]:
    """Layers that stand out."""
    yield "<h3>Layers that stand out</h3>\n"
    if statistics is None:
        yield (
            "<p>Not asked: it takes a gradient for each layer, which is long at this size. "
            "<code>kzoo.explain.layer_statistics</code> does it.</p>\n"
        )
        return
    out = {path: each.stands_out for path, each in statistics.items() if each.stands_out}
    looked = f"For the first picture, of {counted(len(statistics), 'layer')} with a kernel or an activation"
    if not out:
        yield f"<p>{looked}, none has dead channels, saturated gates, or a gradient far from the others'.</p>\n"
        return
    yield f"<p>{looked}, {len(out)}:</p>\n<ul>\n"
    for path, words in list(out.items())[:NAMED]:
        yield f"<li><bdi>{html(path)}</bdi>: {html(words)}</li>\n"
    yield "</ul>\n" + (f"<p>and {len(out) - NAMED} more, in maps.json</p>\n" if len(out) > NAMED else "")


def statistics_told(statistics: dict[str, LayerStatistics] | None) -> dict[str, Any] | None:
    """What maps.json tells of layers."""
    return None if statistics is None else {path: each._asdict() for path, each in statistics.items()}


def card_section(card: dict[str, str], kernels: Image.Image | None, figures: Figures) -> Iterator[str]:
    """The model card, and the kernels of the first convolution."""
    yield "<dl>\n" + "".join(f"<dt>{html(key)}</dt><dd><bdi>{html(value)}</bdi></dd>\n" for key, value in card.items())
    yield "</dl>\n"
    if kernels is not None:
        caption = "What the first convolution looks for: a kernel in each tile, mid grey is 0"
        yield '<div class="cards">\n'
        yield figures.add(kernels, "kernels", "Kernels of the first convolution, a tile for each channel", caption)[1]
        yield "</div>\n"


def _method(trust: Trust) -> str:
    layer = "" if trust.layer is None else f" of <bdi>{html(trust.layer)}</bdi>"
    return f"{html(METHODS[trust.method].title)}{layer}"


def _number(estimate: Estimate) -> str:
    if math.isnan(estimate.low):
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _verdict(gains: dict[str, Estimate]) -> str:
    """Whether a map beats both of those that know nothing; with an interval only if it leaves zero out."""
    worst = min(gains.values(), key=lambda each: each.mean if math.isnan(each.low) else each.low)
    if math.isnan(worst.low):
        return "better than both" if worst.mean > 0 else "not better than both"
    return "better than both" if worst.low > 0 else "not surely better than both"


def _checked(trust: Trust) -> str:
    assert trust.check is not None
    found = ", ".join(f"{each:.2f}" for each in trust.check.correlations[:, 0])
    told = f"{_method(trust)}: correlation {found}, down to <bdi>{html(trust.check.layers[-1])}</bdi>"
    if trust.check.alike:
        return (
            f'<p class="flag"><strong>Do not trust this map.</strong> {told}: it stays alike when the weights are '
            "random, so it shows the picture more than what the model has learned.</p>\n"
        )
    return f"<p>{told}: it changes with the weights, as it should.</p>\n"


def _told(estimate: Estimate) -> dict[str, float | None]:
    low, high = (None if math.isnan(end) else end for end in (estimate.low, estimate.high))
    return {"mean": estimate.mean, "low": low, "high": high}
