"""Every number that judges probabilities, against a loop written from its definition."""

import math

import numpy as np
import pytest

from kzoo.errors import InvalidValueError
from kzoo.report.judging import confusion_matrix, fit_temperature, interval_of_share, reliability, scaled
from kzoo.report.probabilities import Probabilities


def drawn(seed: int, images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that know a little of the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)) + 1.5 * np.eye(classes)[labels]
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype("float32"), labels


def tied(images: int = 60, classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of quarters, most of which are equal to another."""
    rng = np.random.default_rng(5)
    return rng.multinomial(4, np.ones(classes) / classes, images).astype("float32") / 4, rng.integers(
        0, classes, images
    )


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = {"two": drawn(0, 41, 2), "five": drawn(1, 37, 5), "twelve": drawn(2, 90, 12), "one image": drawn(3, 1, 7)}
    found["ties"] = tied()
    found["two tied"] = (np.array([[0.5, 0.5], [0.25, 0.75], [0.5, 0.5], [0.75, 0.25]]), np.array([0, 1, 1, 1]))
    probabilities, labels = drawn(4, 50, 6)
    found["a class that never occurs"] = (probabilities, np.where(labels == 3, 4, labels))
    probabilities = probabilities.copy()
    probabilities[:, 2] = 0
    found["a class that is never predicted"] = (probabilities, labels)
    found["a class that neither occurs nor is predicted"] = (probabilities, np.where(labels == 2, 1, labels))
    found["one true class of two"] = (drawn(6, 9, 2)[0], np.zeros(9, int))
    return found


CASES = cases()


def best(row) -> int:
    """The first of the largest."""
    return max(range(len(row)), key=lambda index: (row[index], -index))


def counted(pairs, index: int) -> tuple[int, int, int]:
    """True positives, false positives and false negatives of a class."""
    both = sum(truth == index and said == index for truth, said in pairs)
    return both, sum(said == index for _, said in pairs) - both, sum(truth == index for truth, _ in pairs) - both


def share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def mean(values) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None


def area(truth, scores) -> float | None:
    """Share of pairs of a 1 and a 0 in which the 1 has the larger score; equal ones are half."""
    pairs = [(scores[one], scores[none]) for one in np.flatnonzero(truth == 1) for none in np.flatnonzero(truth == 0)]
    return mean((one > none) + 0.5 * (one == none) for one, none in pairs)


def average_precision(truth, scores) -> float | None:
    """Sum over thresholds, from the highest, of the gain of recall times the precision."""
    ones, total, before = int(truth.sum()), 0.0, 0.0
    if not ones:
        return None
    for threshold in sorted(set(scores.tolist()), reverse=True):
        taken = scores >= threshold
        recall = truth[taken].sum() / ones
        total += (recall - before) * truth[taken].sum() / taken.sum()
        before = recall
    return total


def calibration_error(probabilities, labels) -> float:
    total = 0.0
    for number in range(1, 16):
        inside = [
            row for row in range(len(labels)) if (number - 1) / 15 < float(max(probabilities[row])) <= number / 15
        ]
        if inside:
            accuracy = sum(best(probabilities[row]) == labels[row] for row in inside) / len(inside)
            confidence = sum(float(max(probabilities[row])) for row in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


def wilson(right: int, number: int) -> list[float]:
    """Both roots of (p - right / number)² = z² p (1 - p) / number."""
    z, p = 1.959963984540054, right / number
    middle, half = p + z * z / (2 * number), z * math.sqrt(p * (1 - p) / number + z * z / (4 * number * number))
    return [(middle - half) / (1 + z * z / number), (middle + half) / (1 + z * z / number)]


def approx(value):
    return None if value is None else pytest.approx(value, rel=1e-6, abs=1e-9)


def check_classes(found: dict, counts: list[tuple[int, int, int]], names) -> None:
    """Compares what is told of each class, and the macro scores, with counts of each class."""
    precision = [share(tp, tp + fp) for tp, fp, _ in counts]
    recall = [share(tp, tp + fn) for tp, _, fn in counts]
    f1 = [share(2 * tp, 2 * tp + fp + fn) for tp, fp, fn in counts]
    support = [tp + fn for tp, _, fn in counts]
    for key, values in (("precision", precision), ("recall", recall), ("f1", f1), ("support", support)):
        assert list(found[f"{key}_by_class"]) == list(names)
        for name, value in zip(names, values, strict=True):
            assert found[f"{key}_by_class"][name] == approx(value), (key, name)
    occurs = [index for index, number in enumerate(support) if number]
    for key, values in (("balanced_accuracy", recall), ("macro_precision", precision), ("macro_f1", f1)):
        assert found[key] == approx(mean(values[index] or 0.0 for index in occurs)), key


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("error")
def test_scores_of_images_with_one_class_are_their_definitions(case):
    probabilities, labels = CASES[case]
    classes = probabilities.shape[1]
    names = tuple(f"class {index}" for index in range(classes))
    scorer = Probabilities(names)
    for start in range(0, len(labels), 16):
        part = slice(start, start + 16)
        scorer.add(probabilities[part], {"label": labels[part]})
    found = scorer.scores()

    pairs = [(int(truth), best(row)) for truth, row in zip(labels, probabilities, strict=True)]
    right = sum(truth == said for truth, said in pairs)
    assert found["accuracy"] == approx(right / len(labels))
    assert found["accuracy_interval"] == approx(wilson(right, len(labels)))
    assert found["loss"] == approx(
        mean(-math.log(max(float(row[truth]), 1e-7)) for truth, row in zip(labels, probabilities, strict=True))
    )
    assert found["ece"] == approx(calibration_error(probabilities, labels))
    first = [sorted(range(classes), key=lambda index: (-row[index], index))[:5] for row in probabilities]
    in_five = mean(truth in five for truth, five in zip(labels, first, strict=True))
    assert found["top5_accuracy"] == (approx(in_five) if classes > 5 else None)
    check_classes(found, [counted(pairs, index) for index in range(classes)], names)
    for key, compute in (("roc_auc", area), ("average_precision", average_precision)):
        assert found[key] == (approx(compute(labels, probabilities[:, 1])) if classes == 2 else None)
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), classes)
    for truth in range(classes):
        for said in range(classes):
            assert matrix[truth, said] == sum(pair == (truth, said) for pair in pairs)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.filterwarnings("error")
def test_scores_of_images_with_several_labels_are_their_definitions(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (31, 4))
    labels[:, 2] = seed  # none has it, or all
    probabilities = np.round(np.clip(0.4 * labels + 0.8 * rng.random((31, 4)), 0, 1), 1)  # with ties, 0.5, 0 and 1
    names = ("a", "b", "c", "d")
    scorer = Probabilities(names, multi_label=True)
    scorer.add(probabilities[:20], {"label": labels[:20]})
    scorer.add(probabilities[20:], {"label": labels[20:].astype("float32")})
    found = scorer.scores()

    said = [[int(value >= 0.5) for value in row] for row in probabilities]
    right = [[one == other for one, other in zip(*rows, strict=True)] for rows in zip(said, labels, strict=True)]
    assert found["accuracy"] == approx(mean(all(row) for row in right))
    assert found["accuracy_interval"] == approx(wilson(sum(all(row) for row in right), 31))
    assert found["label_accuracy"] == approx(mean(one for row in right for one in row))
    truth_and_value = zip(labels.ravel(), probabilities.ravel(), strict=True)
    assert found["loss"] == approx(
        mean(-math.log(max(value if truth else 1 - value, 1e-7)) for truth, value in truth_and_value)
    )
    counts = []
    for index in range(4):
        both = sum(row[index] and truth[index] for row, truth in zip(said, labels, strict=True))
        counts.append((both, sum(row[index] for row in said) - both, labels[:, index].sum() - both))
    check_classes(found, counts, names)
    precisions = [average_precision(labels[:, index], probabilities[:, index]) for index in range(4)]
    assert list(found["average_precision_by_class"].values()) == [approx(value) for value in precisions]
    assert found["average_precision"] == approx(mean(value for value in precisions if value is not None))
    areas = [area(labels[:, index], probabilities[:, index]) for index in range(4)]
    assert found["roc_auc"] == approx(mean(value for value in areas if value is not None))


def test_labels_that_do_not_fit_are_refused():
    two = np.full((3, 2), 0.5)
    with pytest.raises(
        InvalidValueError, match=r"shape \(3,\); 0 and 1 for each class, of shape \(3, 2\), are needed"
    ):
        Probabilities("ab", multi_label=True).add(two, {"label": np.zeros(3, int)})
    with pytest.raises(InvalidValueError, match="labels other than 0 and 1"):
        Probabilities("ab", multi_label=True).add(two, {"label": two})
    with pytest.raises(InvalidValueError, match=r"shape \(3, 2\); the number of a class, of shape \(3,\), are needed"):
        Probabilities("ab").add(two, {"label": np.zeros((3, 2), int)})


def test_classes_of_one_name_are_told_apart():
    scorer = Probabilities(("crane", "cat", "crane"))
    scorer.add(np.eye(3), {"label": np.array([0, 1, 1])})
    assert scorer.scores()["recall_by_class"] == {"crane (0)": 1.0, "cat": 0.5, "crane (2)": None}


def test_what_diverged_is_judged_without_an_error():
    """A run of weights that are no numbers still gets its report."""
    scorer = Probabilities(("a", "b"))
    scorer.add(np.full((4, 2), np.nan, "float32"), {"label": np.array([0, 1, 0, 1])})
    found = scorer.scores()
    assert (found["accuracy"], found["roc_auc"], found["average_precision"]) == (0.5, None, None)
    assert "ece_after" in scorer.with_temperature(scorer)


def test_images_that_are_all_right_fit_no_temperature():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.51, 0.49]])
    held_out, judged = Probabilities("ab"), Probabilities("ab")
    held_out.add(probabilities, {"label": np.array([0, 1, 0])})
    judged.add(probabilities, {"label": np.array([0, 1, 1])})
    assert fit_temperature(held_out.probabilities, held_out.labels) is None
    assert judged.with_temperature(held_out) is None
    assert held_out.with_temperature(judged)["temperature"] > 0.1, "one mistake is enough"


def test_a_confidence_at_an_edge_is_in_the_bin_below():
    """(0, 1/15], (1/15, 2/15], ... (14/15, 1]."""
    confidences = np.array([1.0, 14 / 15, 9 / 15, 0.9, 0.6 + 1e-9])
    bins = reliability(np.stack([confidences, 1 - confidences], axis=1), np.zeros(5, int))
    assert np.flatnonzero(bins.counts).tolist() == [8, 9, 13, 14]
    assert bins.counts[13] == 2
    np.testing.assert_allclose(bins.confidence[13], (14 / 15 + 0.9) / 2)
    assert np.isnan(bins.accuracy[0])


@pytest.mark.parametrize(("right", "number"), [(0, 1), (1, 1), (0, 40), (40, 40), (359, 360), (9000, 10000)])
def test_the_interval_is_that_of_wilson(right, number):
    assert interval_of_share(right, number) == pytest.approx(wilson(right, number), abs=1e-12)


def loss_at(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    rows = [row / temperature for row in logits.astype("float64")]
    return mean(
        -(row[truth] - max(row)) + math.log(sum(np.exp(row - max(row))))
        for row, truth in zip(rows, labels, strict=True)
    )


@pytest.mark.parametrize("sharper", [0.4, 1.0, 3.0])
def test_the_temperature_is_where_the_cross_entropy_is_smallest(sharper):
    rng = np.random.default_rng(7)
    logits = 1.5 * rng.normal(size=(400, 5))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(5, p=row) for row in true])
    logits = sharper * logits
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = fit_temperature(probabilities, labels)
    assert found == pytest.approx(sharper, rel=0.15), "the labels are drawn at 1 / sharper of these logits"
    grid = found * np.linspace(0.8, 1.25, 46)
    losses = [loss_at(logits, labels, temperature) for temperature in grid]
    assert grid[np.argmin(losses)] == pytest.approx(found, rel=0.011)  # a step of the grid
    assert loss_at(logits, labels, found) <= min(losses) + 1e-9
    expected = np.exp(logits / found) / np.exp(logits / found).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scaled(probabilities, found), expected, atol=1e-12)

    held_out, judged = Probabilities("abcde"), Probabilities("abcde")
    held_out.add(probabilities[:300], {"label": labels[:300]})
    judged.add(probabilities[300:], {"label": labels[300:]})
    told = judged.with_temperature(held_out)
    temperature = fit_temperature(probabilities[:300], labels[:300])
    after = scaled(probabilities[300:], temperature)
    assert told == {
        "temperature": temperature,
        "fitted_on": 300,
        "loss_before": approx(loss_at(logits[300:], labels[300:], 1.0)),
        "loss_after": approx(loss_at(logits[300:], labels[300:], temperature)),
        "ece_before": approx(calibration_error(probabilities[300:], labels[300:])),
        "ece_after": approx(calibration_error(after, labels[300:])),
    }


def test_a_probability_of_0_counts_as_the_smallest_of_the_others():
    """An int8 file gives multiples of 1 / 256, and a single 0 at a true class would be an infinite loss."""
    rounded = np.array([[1.0, 0, 0], [0.75, 0.25, 0], [0.5, 0.25, 0.25]])
    np.testing.assert_allclose(scaled(rounded, 1.0)[0], np.array([4, 1, 1]) / 6)
    assert 1 < fit_temperature(rounded, np.array([1, 0, 2])) < 20
