"""A page that shows what a classifier gets wrong: one HTML file with its pictures inside, for any browser."""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from kzoo.data.split import File
from kzoo.escape import html
from kzoo.files import write_text
from kzoo.report.diagrams import choose_classes
from kzoo.report.head import html_head
from kzoo.report.judging import confusion_matrix, interval_of_share

PICTURES, OF_A_PAIR, UNSURE = 200, 24, 12  # most of all mistakes, of those of a pair, and of what is right
LISTED, BEST = 10, 3  # pairs of the list, and classes of a picture
LARGEST, LOSSLESS = 224, 64  # pixels of the longer side that is stored, and up to which it is stored without loss
ENLARGED = 128  # pixels of the longer side up to which a small picture is enlarged
SHADES = 9  # of a cell, in mistakes.css

Pair = tuple[int, int]  # the true class and the predicted one


class Judged(NamedTuple):
    """What a classifier said of images.

    Attributes:
        labels: (n,) true classes.
        probabilities: (n, classes).
        classes: names.
        split: name of the split.
        files: of the images; None where they are no files.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    classes: Sequence[str]
    split: str
    files: Sequence[File] | None

    def name(self, index: int) -> str:
        """The name of a class as HTML, which turns no text around it."""
        return f"<bdi>{html(self.classes[index])}</bdi>"

    def place(self, number: int) -> str:
        """Where an image lies, as HTML."""
        if self.files is None:
            return f"{'' if self.split == 'all' else html(self.split)} image {number + 1}".lstrip()
        return f'<bdi dir="ltr">{html(self.files[number].path)}</bdi>'


def write_mistakes(
    read: Callable[[np.ndarray], np.ndarray], judged: Judged, about: Mapping[str, str], path: Path
) -> None:
    """Writes the page: accuracy, confusion matrix, mistakes by pair of classes, and what is right but unsure.

    It shows at most 200 mistakes, 24 of a pair: the most confident one of each pair, then the most confident of all;
    and the 12 least sure of the images that are right. It loads nothing and runs no script. A picture is stored with
    at most 224 pixels a side, so the page has a few megabytes at most.

    Args:
        read: function from numbers of images, ascending, to their pixels of 0 to 255, (numbers, height, width, 3); it
            is asked once, for those that are shown alone.
        judged: the images, and what the classifier said of them.
        about: what stands at the top; its `file` and `dataset` name the page.
        path: of the page.
    """
    predicted, confidence = judged.probabilities.argmax(axis=1), judged.probabilities.max(axis=1)
    pairs = group_mistakes(judged.labels, predicted, confidence)
    shown = _choose(pairs, confidence)
    right = np.flatnonzero(predicted == judged.labels)
    unsure = right[np.argsort(confidence[right], kind="stable")][:UNSURE].tolist()
    numbers = np.array(sorted([*unsure, *(number for chosen in shown.values() for number in chosen)]))
    images = dict(zip(numbers.tolist(), read(numbers), strict=True))

    def figures(chosen: Sequence[int]) -> Iterator[str]:
        yield '<div class="cards">\n'
        yield from (_figure(judged, number, images[number]) for number in chosen)
        yield "</div>\n"

    matrix = confusion_matrix(judged.labels, predicted, len(judged.classes))
    title = f"Mistakes of {Path(about['file']).name} on {about['dataset']}"
    parts = [_head(title), *_summary(matrix, about, pairs, shown)]
    parts += _table(judged, matrix, shown)
    if pairs:
        parts += _list(judged, matrix, pairs)
        parts.append("<h2>Mistakes</h2>\n<p>The most confident first.</p>\n")
    for pair, chosen in shown.items():
        parts += [_heading(judged, matrix, pair, len(chosen)), *figures(chosen)]
    if unsure:
        parts.append(
            "<h2>Right but unsure</h2>\n<p>The least sure of the images that are right, the least sure first: "
            "a doubtful label is often among them.</p>\n"
        )
        parts += figures(unsure)
    parts.append("</main>\n</body>\n</html>\n")
    write_text(path, "".join(parts))


def group_mistakes(labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> dict[Pair, list[int]]:
    """(true, predicted) -> the numbers of its mistakes, the most confident first.

    The pair with the most mistakes comes first; of pairs with as many, that of the most confident one.

    >>> group_mistakes(np.array([0, 1, 1, 1]), np.array([0, 2, 0, 2]), np.array([0.9, 0.6, 0.8, 0.7]))
    {(1, 2): [3, 1], (1, 0): [2]}
    """
    wrong = np.flatnonzero(predicted != labels)
    pairs: dict[Pair, list[int]] = {}
    for number in wrong[np.argsort(-confidence[wrong], kind="stable")].tolist():
        pairs.setdefault((int(labels[number]), int(predicted[number])), []).append(number)
    return dict(sorted(pairs.items(), key=lambda pair: -len(pair[1])))


def _choose(pairs: Mapping[Pair, list[int]], confidence: np.ndarray) -> dict[Pair, list[int]]:
    """The mistakes that are shown, of the pairs that have one among them."""
    firsts = [numbers[0] for numbers in pairs.values()]
    others = np.sort([number for numbers in pairs.values() for number in numbers[1:OF_A_PAIR]]).astype(int)
    others = others[np.argsort(-confidence[others], kind="stable")]
    chosen = {*[*firsts, *others.tolist()][:PICTURES]}
    shown = {pair: [number for number in numbers if number in chosen] for pair, numbers in pairs.items()}
    return {pair: numbers for pair, numbers in shown.items() if numbers}


def _head(title: str) -> str:
    return html_head(title, resources.files(__package__).joinpath("mistakes.css").read_text(encoding="utf-8"))


def _summary(matrix: np.ndarray, about: Mapping[str, str], pairs: Mapping, shown: Mapping) -> Iterator[str]:
    """How many are right, and how many mistakes are shown."""
    right, number = int(matrix.trace()), int(matrix.sum())
    low, high = interval_of_share(right, number)
    rows = {name: f"<bdi>{html(value)}</bdi>" for name, value in about.items()} | {
        "images": f"{number:,}",
        "accuracy": f"{right / number:.2%} (95 % interval {low:.2%} to {high:.2%})",
        "mistakes": f"{number - right:,}",
    }
    yield "<dl>\n" + "".join(f"<dt>{html(name)}</dt><dd>{value}</dd>\n" for name, value in rows.items()) + "</dl>\n"
    wrong, some = number - right, sum(map(len, shown.values()))
    if not wrong:
        yield f"<p><strong>No mistakes: all {number:,} images are right.</strong></p>\n"
    elif some < wrong:
        yield (
            f"<p>{some:,} of the {wrong:,} mistakes are shown, and {wrong - some:,} are left out: at most {OF_A_PAIR} "
            f"of a pair of classes and {PICTURES} in all are shown, first the most confident one of each pair, then "
            "the most confident of all.</p>\n"
        )
    if len(shown) < len(pairs):
        yield f"<p>{len(pairs) - len(shown):,} pairs with few mistakes have no picture here.</p>\n"


def _table(judged: Judged, matrix: np.ndarray, shown: Mapping[Pair, list[int]]) -> Iterator[str]:
    """The confusion matrix, with links to the mistakes."""
    kept = choose_classes(matrix).tolist()
    yield '<h2 id="matrix">Confusion matrix</h2>\n'
    if len(kept) < len(matrix):
        yield f"<p>The {len(kept)} of {len(matrix):,} classes with the most mistakes; confusion.csv has all.</p>\n"
    yield "<p>A row for each true class, a column for each predicted one; the colour is the share of the true class."
    yield " Underlined counts lead to the pictures.</p>\n" if shown else "</p>\n"
    yield '<div class="wide" role="region" aria-labelledby="matrix" tabindex="0">\n<table aria-labelledby="matrix">\n'
    yield "<thead>\n<tr><td></td>"
    yield from (f'<th scope="col" title="{html(judged.classes[index])}">{judged.name(index)}</th>' for index in kept)
    yield "</tr>\n</thead>\n<tbody>\n"
    for true in kept:
        name, total = html(judged.classes[true]), max(int(matrix[true].sum()), 1)
        yield f'<tr><th scope="row" title="{name}">{judged.name(true)}</th>'
        for said in kept:
            count = int(matrix[true, said])
            style = " right" if true == said else ""
            shade = f"s{int(np.ceil(SHADES * np.sqrt(count / total)))}" if count else "s0"
            text = f"{count:,}" if count else ""
            if (true, said) in shown:
                title = f"{name} taken for {html(judged.classes[said])}"
                text = f'<a href="#{_id((true, said))}" title="{title}">{text}</a>'
            yield f'<td class="{shade}{style}">{text}</td>'
        yield "</tr>\n"
    yield "</tbody>\n</table>\n</div>\n"


def _list(judged: Judged, matrix: np.ndarray, pairs: Mapping) -> Iterator[str]:
    """The pairs with the most mistakes, with links to them."""
    yield "<h2>Most confused pairs</h2>\n<ol>\n"
    for pair in list(pairs)[:LISTED]:
        yield f'<li><a href="#{_id(pair)}">{_pair(judged, pair)}</a>: {_share(matrix, pair)}</li>\n'
    yield "</ol>\n"


def _heading(judged: Judged, matrix: np.ndarray, pair: Pair, some: int) -> str:
    """The heading of a pair, and how many of its mistakes follow."""
    left_out = "" if some == matrix[pair] else f"; {some} shown, {matrix[pair] - some:,} left out"
    return (
        f'<h3 id="{_id(pair)}">{_pair(judged, pair)}</h3>\n'
        f'<p class="faint">{_share(matrix, pair)}{left_out}. <a href="#matrix">To the matrix</a></p>\n'
    )


def _figure(judged: Judged, number: int, image: np.ndarray) -> str:
    """A picture with its most probable classes and the true one."""
    row, true = judged.probabilities[number], int(judged.labels[number])
    order = np.argsort(-np.where(np.isnan(row), np.inf, row), kind="stable").tolist()
    said, told = order[0], order[:BEST] + [true] * (true not in order[:BEST])
    lines = ""
    for index in told:
        kind = "true" if index == true else "said" if index == said else "other"
        word = {"true": " (true)", "said": " (predicted)", "other": ""}[kind]
        lines += (
            f'<li class="{kind}"><span>{judged.name(index)}{word}</span> <span>{row[index]:.1%}</span>'
            f'<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect width="{np.clip(np.nan_to_num(row[index]), 0, 1):.3f}" height="1"/></svg></li>\n'
        )
    alt = html(judged.classes[true]) + ("" if said == true else f" taken for {html(judged.classes[said])}")
    return (
        f'<figure>\n{_picture(image, alt)}\n<figcaption><div class="path">{judged.place(number)}</div>\n'
        f"<ul>\n{lines}</ul></figcaption>\n</figure>\n"
    )


def _picture(image: np.ndarray, alt: str) -> str:
    """Pixels as an element with the file inside: a small one whole and enlarged, a large one shrunk."""
    picture, file = Image.fromarray(np.asarray(image, "uint8")), io.BytesIO()
    picture.thumbnail((LARGEST, LARGEST))
    kind, options = ("png", {}) if max(picture.size) <= LOSSLESS else ("jpeg", {"quality": 85})
    picture.save(file, kind, **options)
    factor = max(1, ENLARGED // max(picture.size))
    width, height = (factor * side for side in picture.size)
    style = ' class="enlarged"' if factor > 1 else ""
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/{kind};base64,{data}" width="{width}" height="{height}"{style} alt="{alt}">'


def _id(pair: Pair) -> str:
    return f"true-{pair[0]}-predicted-{pair[1]}"


def _pair(judged: Judged, pair: Pair) -> str:
    return f"{judged.name(pair[0])} taken for {judged.name(pair[1])}"


def _share(matrix: np.ndarray, pair: Pair) -> str:
    count, total = int(matrix[pair]), int(matrix[pair[0]].sum())
    return f"{count:,} of its {total:,} images ({count / total:.1%})"
