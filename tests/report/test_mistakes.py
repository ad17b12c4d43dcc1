"""The page of mistakes: what it shows, in which order, what it leaves out, and that it is sound HTML for any names."""

import base64
import hashlib
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from kzoo.data.split import File
from kzoo.report import mistakes
from kzoo.report.mistakes import Judged, write_mistakes

VOID = {"meta", "img", "link", "br", "hr", "input"}
HOSTILE = (
    *("<script>alert(1)</script>", "\"><img src=x onerror='alert(1)'>", "two\nlines", "</bdi></main>", "&lt;b&gt;"),
    *("שלום", "evil\u202egpj", "犬と猫", "half \ud800", "  two  spaces ", "</style><p>"),
)


class Element:
    def __init__(self, tag, attributes, parent):
        self.tag, self.attributes, self.parent, self.children = tag, dict(attributes), parent, []

    def every(self, *tags):
        """All elements below with one of these tags, in order."""
        for child in self.children:
            if isinstance(child, Element):
                if child.tag in tags:
                    yield child
                yield from child.every(*tags)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class Reader(HTMLParser):
    """Reads a page into elements; fails where a tag is not closed, or closed twice."""

    def __init__(self, text: str):
        super().__init__()
        self.root = self.current = Element("root", {}, None)
        self.feed(text)
        self.close()
        assert self.current is self.root, f"<{self.current.tag}> is not closed"

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        element = Element(tag, attributes, self.current)
        self.current.children.append(element)
        self.current = self.current if tag in VOID else element

    def handle_endtag(self, tag):
        assert tag == self.current.tag, f"</{tag}> ends <{self.current.tag}>"
        self.current = self.current.parent

    def handle_startendtag(self, tag, attributes):  # of SVG
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_data(self, data):
        self.current.children.append(data)


def made(number: int, classes: int, skill: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities, some of which are equal."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, number)
    scores = rng.normal(0, 1, (number, classes)) + skill * np.eye(classes)[labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    probabilities[10:20], labels[10:20] = probabilities[10], labels[10]
    return labels, probabilities


def image_of(number: int, shape=(5, 7)) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype="uint8")


def page(tmp_path, labels, probabilities, classes=None, files=True, shape=(5, 7), dataset="data") -> Element:
    """The page that is written, in which each file has its number for a name, once and again."""
    classes = classes or tuple(f"class {index}" for index in range(probabilities.shape[1]))
    files = tuple(File(f"{number}.png", "") for number in range(len(labels))) if files is True else files

    def read(numbers):
        assert (np.diff(numbers) > 0).all(), "ascending, and none twice"
        return np.stack([image_of(number, shape) for number in numbers.tolist()])

    texts = []
    for name in ("a.html", "b.html"):
        about = {"file": "runs/m.keras", "dataset": dataset, "split": "test"}
        write_mistakes(read, Judged(labels, probabilities, classes, "test", files), about, tmp_path / name)
        texts.append((tmp_path / name).read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
    return Reader(texts[0]).root


def sections(root: Element) -> dict[str, list[Element]]:
    """Heading -> the figures up to the next."""
    found, current = {}, None
    for element in root.every("h1", "h2", "h3", "figure"):
        if element.tag == "figure":
            found[current].append(element)
        else:
            current = element.text
            assert current not in found
            found[current] = []
    return found


def number_of(figure: Element) -> int:
    (path,) = (each.text for each in figure.every("div"))
    return int(path.removesuffix(".png"))


def pairs_of(labels, probabilities) -> dict[tuple[int, int], list[int]]:
    """In a loop: the mistakes of each pair, the most confident first; the pair with the most first."""
    found: dict = {}
    for number, row in enumerate(probabilities):
        said = max(range(len(row)), key=lambda index: row[index])
        if said != labels[number]:
            found.setdefault((labels[number], said), []).append(number)
    for numbers in found.values():
        numbers.sort(key=lambda number: (-max(probabilities[number]), number))
    first = {pair: (-max(probabilities[numbers[0]]), numbers[0]) for pair, numbers in found.items()}
    return {pair: found[pair] for pair in sorted(found, key=lambda pair: (-len(found[pair]), first[pair]))}


def test_sections_have_the_mistakes_of_their_pair_the_most_confident_first_and_what_is_right_but_unsure(tmp_path):
    labels, probabilities = made(130, 4, 1.5)
    root, pairs = page(tmp_path, labels, probabilities), pairs_of(labels, probabilities)
    assert (len(pairs) > 8, max(map(len, pairs.values())) <= 24) == (True, True)
    found = sections(root)
    *others, unsure = [name for name in found if found[name]]
    assert others == [f"class {true} taken for class {said}" for true, said in pairs]
    assert [[number_of(figure) for figure in found[name]] for name in others] == [*pairs.values()]
    assert unsure == "Right but unsure"
    right = [number for number, row in enumerate(probabilities) if row.argmax() == labels[number]]
    expected = sorted(right, key=lambda number: (probabilities[number].max(), number))[:12]
    assert [number_of(figure) for figure in found[unsure]] == expected
    wrong, total = sum(map(len, pairs.values())), len(labels)
    summary = dict(
        zip((e.text for e in root.every("dt")), (e.text for e in next(root.every("dl")).every("dd")), strict=True)
    )
    assert summary["accuracy"].startswith(f"{1 - wrong / total:.2%} (95 % interval ")
    assert (summary["images"], summary["mistakes"], summary["file"]) == ("130", str(wrong), "runs/m.keras")
    assert "left out" not in root.text


def test_each_picture_stands_with_its_own_classes_and_probabilities(tmp_path):
    labels, probabilities = made(130, 6, 1.0)
    root = page(tmp_path, labels, probabilities)
    figures, fourth = list(root.every("figure")), 0
    assert len(figures) > 60
    for figure in figures:
        number = number_of(figure)
        row, true = probabilities[number], labels[number]
        top = sorted(range(6), key=lambda index: (-row[index], index))[:3]
        fourth += true not in top
        marks = {top[0]: " (predicted)"} | {true: " (true)"}
        told = [*top, *([true] if true not in top else [])]
        expected = [f"class {index}{marks.get(index, '')} {row[index]:.1%}" for index in told]
        assert [line.text for line in figure.every("li")] == expected
        widths = [float(bar.attributes["width"]) for bar in figure.every("rect")]
        assert widths == pytest.approx([row[index] for index in told], abs=6e-4)
        (image,) = figure.every("img")
        taken = "" if top[0] == true else f" taken for class {top[0]}"
        assert image.attributes["alt"] == f"class {true}{taken}"
        kind, data = image.attributes["src"].split(",")
        assert kind == "data:image/png;base64"
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), image_of(number))
        assert (image.attributes["width"], image.attributes["height"]) == ("126", "90"), "whole pixels"
        assert image.attributes["class"] == "enlarged"
    assert fourth > 5, "the true class is told where it is not among the three"


def test_the_matrix_and_the_list_count_as_a_loop_does_and_lead_to_the_sections(tmp_path):
    labels, probabilities = made(200, 5, 1.0)
    labels[labels == 3] = 2  # a class that never occurs
    root, pairs = page(tmp_path, labels, probabilities), pairs_of(labels, probabilities)
    headings = {element.attributes["id"]: element.text for element in root.every("h3")}
    (table,) = root.every("table")
    header, *rows = table.every("tr")
    assert [cell.text for cell in header.every("th")] == [f"class {index}" for index in range(5)]
    assert {cell.attributes["scope"] for cell in header.every("th")} == {"col"}
    for true, row in enumerate(rows):
        (name,) = row.every("th")
        assert (name.text, name.attributes["scope"]) == (f"class {true}", "row")
        for said, cell in enumerate(row.every("td")):
            right = sum(probabilities[labels == true].argmax(axis=1) == true)
            count = len(pairs.get((true, said), ())) if true != said else right
            assert cell.text == (str(count) if count else "")
            links = [headings[link.attributes["href"][1:]] for link in cell.every("a")]
            assert links == ([f"class {true} taken for class {said}"] if (true, said) in pairs else [])
    listed = list(next(root.every("ol")).every("li"))
    for item, ((true, said), numbers) in zip(listed, list(pairs.items())[:10], strict=True):
        share = len(numbers) / sum(labels == true)
        name = f"class {true} taken for class {said}"
        assert item.text == f"{name}: {len(numbers)} of its {sum(labels == true)} images ({share:.1%})"
        assert [headings[link.attributes["href"][1:]] for link in item.every("a")] == [name]


def test_at_most_200_mistakes_are_shown_24_of_a_pair_first_one_of_each(tmp_path):
    labels, probabilities = made(900, 7, 1.0)
    labels[:300] = 6  # of which many pairs have more
    root, pairs = page(tmp_path, labels, probabilities), pairs_of(labels, probabilities)
    assert len(pairs) == 42
    assert sum(len(numbers) > 24 for numbers in pairs.values()) > 4
    firsts = [numbers[0] for numbers in pairs.values()]
    others = [number for numbers in pairs.values() for number in numbers[1:24]]
    others.sort(key=lambda number: (-probabilities[number].max(), number))
    chosen = {*firsts, *others[: 200 - len(firsts)]}
    found = sections(root)
    for (true, said), numbers in pairs.items():
        name = f"class {true} taken for class {said}"
        expected = [number for number in numbers if number in chosen]
        assert [number_of(figure) for figure in found[name]] == expected
        told = f" {len(expected)} shown, {len(numbers) - len(expected)} left out."
        assert (f"; {told.strip()}" in root.text) or len(expected) == len(numbers)
    assert len(list(root.every("figure"))) == 212
    wrong = sum(map(len, pairs.values()))
    assert f"200 of the {wrong} mistakes are shown, and {wrong - 200} are left out" in root.text


def test_of_300_classes_the_matrix_has_40_and_pairs_without_pictures_no_link(tmp_path):
    labels, probabilities = made(1500, 300, 2.0)
    root, pairs = page(tmp_path, labels, probabilities, files=None), pairs_of(labels, probabilities)
    headings = [element.text for element in root.every("h3")]
    assert headings == [f"class {true} taken for class {said}" for true, said in list(pairs)[:200]]
    counts: dict = {}
    for (true, said), numbers in pairs.items():
        for index in (true, said):
            counts[index] = counts.get(index, 0) + len(numbers)
    kept = sorted(sorted(counts, key=lambda index: (-counts[index], index))[:40])
    (table,) = root.every("table")
    header, *rows = table.every("tr")
    assert [cell.text for cell in header.every("th")] == [f"class {index}" for index in kept]
    assert "The 40 of 300 classes with the most mistakes; confusion.csv has all." in root.text
    cells = [list(row.every("td")) for row in rows]
    shown = {*list(pairs)[:200]}
    for row, true in enumerate(kept):
        for column, said in enumerate(kept):
            if true != said:
                assert cells[row][column].text == str(len(pairs.get((true, said), "")) or "")
                assert len(list(cells[row][column].every("a"))) == ((true, said) in shown)
    assert f"{len(pairs) - 200:,} pairs with few mistakes have no picture here." in root.text
    first = next(root.every("figure"))
    assert next(first.every("div")).text == f"test image {pairs[next(iter(pairs))][0] + 1}"


def check_sound(root: Element) -> None:
    """Nothing runs or is loaded, links lead somewhere, and a screen reader finds its way."""
    tags = {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "h3",
        "p",
        "strong",
        "dl",
        "dt",
        "dd",
    }
    tags |= {"div", "table", "thead", "tbody", "tr", "th", "td", "a", "ol", "ul", "li", "bdi", "span", "figure", "img"}
    tags |= {"figcaption", "svg", "rect"}
    every = list(root.every(*tags))
    assert len(every) == sum(1 for _ in walk(root)), "no other element"
    known = {"lang", "charset", "http-equiv", "content", "name", "id", "class", "href", "title", "role", "tabindex"}
    known |= {"aria-labelledby", "aria-hidden", "scope", "dir", "src", "alt", "width", "height", "viewbox"}
    assert {name for element in every for name in element.attributes} <= known | {"preserveaspectratio"}
    ids = [element.attributes["id"] for element in every if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    assert {element.attributes["href"] for element in root.every("a")} <= {f"#{name}" for name in ids}
    for image in root.every("img"):
        assert re.fullmatch(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", image.attributes["src"])
        assert image.attributes["alt"].strip()
    levels = [int(element.tag[1]) for element in root.every("h1", "h2", "h3")]
    assert levels[0] == 1
    assert all(1 < after <= before + 1 for before, after in itertools.pairwise(levels))
    (style,) = root.every("style")
    digest = base64.b64encode(hashlib.sha256(style.text.encode()).digest()).decode()
    policies = [meta.attributes["content"] for meta in root.every("meta") if "http-equiv" in meta.attributes]
    expected = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert policies == [expected]
    assert not re.search(r"url\(|@import|http", style.text)


def walk(element: Element):
    for child in element.children:
        if isinstance(child, Element):
            yield child
            yield from walk(child)


def test_hostile_names_are_text_in_a_sound_page(tmp_path):
    labels, probabilities = made(400, len(HOSTILE), 1.0)
    files = [File(f"{HOSTILE[number % 11]}/{number}.png", "") for number in range(400)]
    root = page(tmp_path, labels, probabilities, HOSTILE, files, dataset="<b>'data\"\n\u202e")
    check_sound(root)
    shown = [*HOSTILE]
    for index, code in ((2, "two\\nlines"), (6, "evil\\u202egpj"), (8, "half \\ud800")):
        shown[index] = code
    (table,) = root.every("table")
    for scope in ("col", "row"):
        cells = [cell for cell in table.every("th") if cell.attributes["scope"] == scope]
        assert [cell.text for cell in cells] == [cell.attributes["title"] for cell in cells] == shown
    for figure in root.every("figure"):
        path = next(figure.every("div")).text
        name, number = path.rsplit("/", 1)
        true, row = labels[int(number[:-4])], probabilities[int(number[:-4])]
        assert name == shown[int(number[:-4]) % 11]
        taken = "" if row.argmax() == true else f" taken for {shown[row.argmax()]}"
        assert next(figure.every("img")).attributes["alt"] == f"{shown[true]}{taken}"
    assert next(root.every("title")).text == "Mistakes of m.keras on <b>'data\"\\n\\u202e"


def test_without_mistakes_it_says_so_and_all_may_be_wrong(tmp_path):
    labels = np.arange(30) % 3
    root = page(tmp_path, labels, np.eye(3)[labels])
    check_sound(root)
    assert "No mistakes: all 30 images are right." in root.text
    assert "Most confused pairs" not in root.text
    assert "Underlined" not in root.text
    assert len(list(root.every("figure"))) == 12
    root = page(tmp_path, labels, np.eye(3)[(labels + 1) % 3])
    check_sound(root)
    assert "Right but unsure" not in root.text
    assert [len(figures) for name, figures in sections(root).items() if "taken" in name] == [10, 10, 10]


def test_probabilities_that_are_no_numbers_are_told_and_come_last(tmp_path):
    labels, probabilities = made(60, 3, 1.0)
    probabilities[4], labels[4] = np.nan, 1
    probabilities[7, 2], labels[7] = np.nan, 0
    probabilities[9], labels[9] = (0.2, 0.1, np.inf), 1
    root = page(tmp_path, labels, probabilities)
    check_sound(root)
    found = {number_of(figure): figure for figure in root.every("figure")}
    assert [line.text for line in found[4].every("li")] == [
        *("class 0 (predicted) nan%", "class 1 (true) nan%", "class 2 nan%"),
    ]
    assert next(found[7].every("li")).text == "class 2 (predicted) nan%"
    assert next(found[7].every("rect")).attributes["width"] == "0.000"
    assert next(found[9].every("rect")).attributes["width"] == "1.000"
    for name, number in (("class 1 taken for class 0", 4), ("class 0 taken for class 2", 7)):
        assert number_of(sections(root)[name][-1]) == number
    assert number_of(sections(root)["class 1 taken for class 2"][0]) == 9


@pytest.mark.parametrize(("shape", "size"), [((300, 500), (224, 134)), ((65, 40), (40, 65)), ((64, 2), (2, 64))])
def test_large_pictures_are_shrunk_and_those_of_up_to_64_pixels_are_stored_whole(shape, size, tmp_path):
    labels = np.array([0, 1, 1])
    root = page(tmp_path, labels, np.eye(2)[[1, 1, 1]], shape=shape)
    for image in root.every("img"):
        kind, data = image.attributes["src"].split(",")
        assert kind == f"data:image/{'png' if max(shape) <= 64 else 'jpeg'};base64"
        picture = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (picture.size, picture.mode) == (size, "RGB")
        factor = 2 if max(shape) <= 64 else 1
        assert (int(image.attributes["width"]), int(image.attributes["height"])) == tuple(factor * s for s in size)
        assert ("class" in image.attributes) == (factor > 1)


def test_pages_of_the_noisiest_large_pictures_have_a_few_megabytes(tmp_path, monkeypatch):
    """Of noise, which no file format makes smaller; of photographs it is a third."""
    monkeypatch.setattr(mistakes, "PICTURES", 20)
    labels, probabilities = made(300, 5, 0.5)
    page(tmp_path, labels, probabilities, shape=(224, 224))
    assert (tmp_path / "a.html").stat().st_size / 32 < 60_000
