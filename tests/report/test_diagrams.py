"""Pictures and tables of classifiers: what they show, what they leave out, and any names."""

import csv
import warnings

import numpy as np
import pytest

from kzoo.data.split import IndexedSplit
from kzoo.report import diagrams, plots
from kzoo.report.diagrams import draw_confusion, draw_ranking, draw_reliability, write_confusion, write_table
from kzoo.report.judging import ranking, reliability
from kzoo.report.plots import draw_label_sheet, draw_predictions
from kzoo.tasks import Classification, Evaluated
from kzoo.tasks.classification import Probabilities


def draw(examples, scorer, folder) -> dict[str, str]:
    return Classification().draw(Evaluated("m.keras", "data", "test", None, examples, None, scorer), folder)


ODD = ("a|b", "<img src=x>", "two\nlines", "犬と猫", "שלום", "half \ud800", '"quoted", name', "$\\frac{$", "n" * 300)


@pytest.fixture
def figures(monkeypatch):
    """What would be saved."""
    found = []
    monkeypatch.setattr(diagrams, "save_figure", lambda figure, path: found.append(figure))
    return found


def labels_of(axis) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


@pytest.mark.parametrize("classes", [2, 10, 40, 41, 100])
def test_a_matrix_of_up_to_100_classes_is_shown_whole_and_up_to_40_with_counts(figures, classes, tmp_path):
    matrix = np.random.default_rng(0).integers(0, 3, (classes, classes)) + np.diag(np.arange(classes))
    matrix[1] = 0  # it never occurs
    names = [f"class {index}" for index in range(classes)]
    draw_confusion(matrix, names, tmp_path / "x.png")
    (axes,) = figures[0].axes
    assert labels_of(axes.xaxis) == labels_of(axes.yaxis) == names
    shares = np.square(axes.images[0].get_array())
    expected = [[count / max(row.sum(), 1) for count in row] for row in matrix]
    np.testing.assert_allclose(shares, expected, atol=1e-12)
    counts = {tuple(map(int, text.get_position()[::-1])): int(text.get_text()) for text in axes.texts}
    some = {(row, column): matrix[row, column] for row, column in zip(*np.nonzero(matrix), strict=True)}
    assert counts == (some if classes <= 40 else {})
    assert figures[0].get_suptitle().startswith(f"{matrix.trace():,} of {matrix.sum():,} images right")


def test_of_a_matrix_of_1000_classes_the_40_with_the_most_mistakes_are_shown_and_all_are_in_the_table(
    figures, tmp_path
):
    rng = np.random.default_rng(1)
    matrix = np.diag(rng.integers(10, 20, 1000))
    bad = np.sort(rng.permutation(1000)[:40])
    for place, index in enumerate(bad):
        matrix[index, bad[place - 1]] += 3  # it is taken for another of them, and a third one for it
    mild = [index for index in range(1000) if index not in bad][:3]
    matrix[mild[0], mild[1]] = 5
    matrix[bad[7], mild[2]] = 5  # which is not shown, and counts in the share all the same
    names = [f"class {index}" for index in range(1000)]
    draw_confusion(matrix, names, tmp_path / "x.png")
    (axes,) = figures[0].axes
    assert labels_of(axes.yaxis) == [names[index] for index in bad]
    share = matrix[bad[7], bad[7]] / (matrix[bad[7], bad[7]] + 3 + 5)
    assert axes.images[0].get_array()[7, 7] ** 2 == pytest.approx(share)
    assert "the 40 of 1,000 classes with the most mistakes; the table has all" in figures[0].get_suptitle()
    write_confusion(matrix, names, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open() as file:
        header, *rows = csv.reader(file)
    assert (header[1:], [row[0] for row in rows]) == (names, names)
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], int), matrix)


def test_names_of_any_kind_are_drawn_without_a_warning_and_stay_one_cell_of_a_table(tmp_path):
    number = len(ODD)
    rng = np.random.default_rng(2)
    probabilities, labels = rng.dirichlet(np.ones(number), 50), rng.integers(0, number, 50)
    scorer = Probabilities(ODD)
    scorer.add(probabilities, {"label": labels})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captions = draw(lambda numbers: {"image": np.zeros((len(numbers), 8, 8, 3), "uint8")}, scorer, tmp_path)
        draw_ranking(np.eye(number)[labels], probabilities, ODD, tmp_path / "ranking.png")
    assert set(captions) == {"mistakes.html", "predictions.png", "confusion.png", "reliability.png"}
    for name in {*captions, "ranking.png"} - {"mistakes.html"}:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "confusion.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == number + 1
    rows = list(csv.reader(text.splitlines()))
    assert {len(row) for row in rows} == {number + 1}
    assert rows[0][1:] == [row[0] for row in rows[1:]]
    assert rows[0][1:5] == ["a|b", "<img src=x>", "two\\nlines", "犬と猫"]
    assert sum(int(cell) for row in rows[1:] for cell in row[1:]) == 50


def test_names_are_no_formulas_in_a_spreadsheet_and_numbers_stay_numbers(tmp_path):
    names = ["=1+1", "+cat", "-dog", "@SUM(A1)", " =1", "a=b", "'quoted"]
    text = ["'=1+1", "'+cat", "'-dog", "'@SUM(A1)", "' =1", "a=b", "'quoted"]
    write_confusion(np.arange(49).reshape(7, 7), names, tmp_path / "confusion.csv")
    write_table(tmp_path / "x.csv", ["class", "gain"], [["=A1", -0.5], ["b", None]])
    with (tmp_path / "confusion.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert (header[1:], [row[0] for row in rows]) == (text, text)
    np.testing.assert_array_equal([[int(cell) for cell in row[1:]] for row in rows], np.arange(49).reshape(7, 7))
    assert (tmp_path / "x.csv").read_text() == "class,gain\n'=A1,-0.5\nb,\n"


def test_the_diagram_of_calibration_shows_each_bin_with_images(figures, tmp_path):
    confidences = np.array([0.95, 0.99, 0.6, 0.62, 0.61, 0.8])
    bins = reliability(np.stack([confidences, 1 - confidences], axis=1), np.array([0, 1, 0, 0, 1, 0]))
    draw_reliability(bins, tmp_path / "x.png")
    upper, lower = figures[0].axes
    assert [bar.get_height() for bar in upper.patches] == pytest.approx([1.0, 0.5, 1.0, 0.5])
    assert [bar.get_height() for bar in lower.patches if bar.get_height()] == [1, 2, 1, 2]
    gaps = (abs(1 - 0.6) + 2 * abs(0.5 - 0.615) + abs(1 - 0.8) + 2 * abs(0.5 - 0.97)) / 6
    assert figures[0].get_suptitle() == f"expected calibration error {gaps:.4f}, 15 bins"


def test_curves_pass_through_their_thresholds_and_the_lowest_ten_classes_are_shown(figures, tmp_path):
    truth, scores = np.array([[0], [1], [0], [1]]), np.array([[0.1], [0.4], [0.5], [0.9]])
    draw_ranking(truth, scores, ["dog"], tmp_path / "x.png")
    left, right = figures[0].axes
    roc = left.lines[0].get_xydata().tolist()
    assert roc == [[0.0, 0.0], [0.0, 0.5], [0.5, 0.5], [0.5, 1.0], [1.0, 1.0]]
    assert left.lines[0].get_label() == "dog: area 0.7500"
    assert [0.5, 1.0] in right.lines[0].get_xydata().tolist()
    assert [1.0, 2 / 3] in right.lines[0].get_xydata().tolist()
    assert right.lines[0].get_label() == f"dog: average precision {0.5 + 0.5 * 2 / 3:.4f}"

    truth = np.random.default_rng(0).integers(0, 2, (40, 13))
    truth[:, 5] = 0  # no curve
    scores = truth * np.linspace(0.7, 0.1, 13) + np.random.default_rng(1).random((40, 13))
    draw_ranking(truth, scores, [f"class {index}" for index in range(13)], tmp_path / "x.png")
    shown = [line.get_label().split(":")[0] for line in figures[1].axes[1].lines]
    assert len(shown) == 10
    precisions = {f"class {index}": ranking(truth[:, index], scores[:, index])[1] for index in range(13) if index != 5}
    assert set(shown) == set(sorted(precisions, key=precisions.get)[:10])
    assert figures[1].get_suptitle() == "the 10 of 13 classes with the lowest average precision"


def sheet_of(monkeypatch, tmp_path, labels, predicted, names):
    """The figure of predictions in which each image is grey by its number, less sure the higher it is."""
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    probabilities = np.full((len(labels), len(names)), 0.1 / len(names))
    probabilities[np.arange(len(labels)), predicted] = 0.9 - np.arange(len(labels)) / 1000
    draw_predictions(
        lambda numbers: np.stack([np.full((4, 4, 3), number) for number in numbers]),
        *(np.array(labels), probabilities, names, tmp_path / "x.png"),
    )
    (axes,) = drawn[0].axes
    return drawn[0], axes, [int(picture.get_array()[0, 0, 0]) for picture in axes.images]


@pytest.mark.parametrize(
    ("wrong", "images", "title", "rows"),
    [
        (3, 96, "3 of 96 images wrong: these first, most confident first; then 37 that are right", 5),
        (0, 96, "0 of 96 images wrong: 40 that are right", 5),
        (0, 9, "0 of 9 images wrong: 9 that are right", 2),
        (1, 3, "1 of 3 images wrong: this one first; then 2 that are right", 1),
        (30, 96, "30 of 96 images wrong: 20 of these first, most confident first; then 20 that are right", 5),
        (90, 96, "90 of 96 images wrong: 34 of these first, most confident first; then 6 that are right", 5),
        (60, 60, "60 of 60 images wrong: 40 of these first, most confident first", 5),
    ],
)
def test_the_sheet_of_predictions_says_what_it_shows_and_has_no_empty_rows(
    wrong, images, title, rows, monkeypatch, tmp_path
):
    labels = np.arange(images) * 4 // images  # in the order of their classes
    mistaken = np.arange(images) % max(images // max(wrong, 1), 1) == 0
    mistaken &= np.cumsum(mistaken) <= wrong
    predicted = np.where(mistaken, (labels + 1) % 4, labels)
    figure, axes, shown = sheet_of(monkeypatch, tmp_path, labels, predicted, "abcd")
    assert figure.get_suptitle() == title
    assert (axes.get_ylim(), len(shown)) == ((rows, 0), min(images, 40))
    assert figure.get_figheight() == pytest.approx(1.8 * rows + 0.4)
    assert len({*shown}) == len(shown)
    first = [index for index in shown if mistaken[index]]
    assert shown[: len(first)] == np.flatnonzero(mistaken)[: len(first)].tolist()
    if images - wrong > 20:
        assert {labels[index] for index in shown[len(first) :]} == {0, 1, 2, 3}, "no class is left out"


def test_names_on_the_sheet_of_predictions_are_cut_to_their_cell(monkeypatch, tmp_path):
    names = ("n" * 300, "a name of twenty-one c", "fourteen chars")
    _, axes, _ = sheet_of(monkeypatch, tmp_path, [0, 1, 2], [1, 1, 2], names)
    assert [text.get_text() for text in axes.texts] == [
        "a name of twe… 90%\nis nnnnnnnnnnnnn…",
        "a name of twe… 90%",
        "fourteen chars 90%",
    ]


def test_of_all_images_only_those_that_are_shown_are_read(tmp_path, monkeypatch):
    read = []

    def decode(number):
        read.append(int(number))
        return {"image": np.full((4, 4, 3), number % 251, "uint8")}

    split = IndexedSplit({"number": np.arange(500)}, {"image": ((4, 4, 3), "uint8")}, decode)
    rng = np.random.default_rng(3)
    probabilities, labels = rng.dirichlet(np.ones(3), 500), rng.integers(0, 3, 500)
    scorer, drawn = Probabilities(("a", "b", "c")), []
    scorer.add(probabilities, {"label": labels})
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    draw(lambda numbers: split.pick(numbers).arrays(), scorer, tmp_path)
    said = probabilities.argmax(axis=1)
    wrong = [index for index in range(500) if said[index] != labels[index]]
    worst = sorted(wrong, key=lambda index: -probabilities[index].max())[:20]
    right = [index for index in range(500) if index not in wrong]
    others = [right[round(place * (len(right) - 1) / 19)] for place in range(20)]
    pairs: dict = {}
    for index in sorted(wrong, key=lambda index: -probabilities[index].max()):
        pairs.setdefault((labels[index], said[index]), []).append(index)
    mistakes = [index for numbers in pairs.values() for index in numbers[:24]]
    unsure = sorted({*range(500)} - {*wrong}, key=lambda index: probabilities[index].max())[:12]
    assert len(pairs) == 6
    assert sorted(read) == sorted(worst + others + mistakes + unsure)
    shown = [int(picture.get_array()[0, 0, 0]) for picture in drawn[0].axes[0].images]
    assert shown == [index % 251 for index in worst + others], "each picture stands with its own title"


def test_the_sheet_of_several_labels_begins_with_the_worst_label_of_an_image(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    labels = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 1]])
    probabilities = np.array([[0.9, 0.1, 0.2], [0.6, 0.2, 0.1], [0.9, 0.5, 0.4], [0.7, 0.1, 0.3]])
    draw_label_sheet(
        lambda numbers: np.stack([np.full((4, 4, 3), number) for number in numbers]),
        *(labels, probabilities, ("cat", "dog", "$x$"), tmp_path / "x.png"),
    )
    (axes,) = drawn[0].axes
    assert [int(picture.get_array()[0, 0, 0]) for picture in axes.images] == [3, 1, 0, 2]
    assert [text.get_text() for text in axes.texts] == [
        "dog 10%\nis there, 2 more",
        "cat 60%\nis not there",
        "cat",
        "cat, dog",
    ]
    assert drawn[0].get_suptitle() == "2 of 4 images wrong: these first, most confident first; then 2 that are right"
    assert [text.get_color() for text in axes.texts] == [plots.WRONG] * 2 + [plots.RIGHT] * 2
