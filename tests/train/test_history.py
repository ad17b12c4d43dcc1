"""Which epoch was best, and what a history that is not whole is told."""

import pytest

from kzoo.errors import OutputError
from kzoo.train.history import best_epoch, count_rows, cut_history, read_history

NAN = float("nan")


def rows(*scores):
    return [
        dict(epoch=float(epoch), seconds=1.0, loss=1.0, val_loss=loss, accuracy=0.5, val_accuracy=accuracy)
        for epoch, (accuracy, loss) in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(1.0, 0.314), (0.93, 0.157), (1.0, 0.023)], 3),
        ([(0.9, 0.1), (1.0, 0.3), (1.0, 0.3)], 2),
        ([(1.0, NAN), (1.0, 5.0)], 2),
        ([(NAN, 0.1), (0.2, 3.0)], 2),
        ([(0.5, 0.2), (0.6, 9.0)], 2),
    ],
)
def test_the_best_epoch_has_the_best_score_and_among_equals_the_smallest_loss(scores, best):
    assert best_epoch(rows(*scores), "accuracy") == best


def test_a_history_is_cut_and_read_as_it_was_written(tmp_path):
    path = tmp_path / "history.csv"
    written = rows((0.1, 1 / 3), (0.3, 0.2), (0.7, 1e-9))
    cut_history(path, written[:2])
    assert read_history(path, 2, "accuracy") == written[:2]
    with path.open("a") as file:
        file.write("2,0.5,1.")  # a kill while the row is written
    assert read_history(path, 2, "accuracy") == written[:2]
    assert count_rows(path) == 2
    with pytest.raises(OutputError, match=r"no whole row of epoch 3 of 3; put it back, or start again with --no-res"):
        read_history(path, 3, "accuracy")
    with pytest.raises(OutputError, match="no whole row of epoch 1"):
        read_history(path, 1, "mean_iou")
    cut_history(path, [])
    assert not path.exists()
    assert read_history(path, 0, "accuracy") == []
