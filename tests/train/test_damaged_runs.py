"""A run's directory that is damaged: one line that says what to do, or recovery; nothing of the user's is lost.

Everything is tried on copies of one run of two epochs that was made once.
"""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
from helpers import make_recipe, slow_but

from kzoo import registry
from kzoo.errors import KzooError, OutputError
from kzoo.tasks.classification import Classification
from kzoo.train import loop, train
from kzoo.train.checkpoints import Mark
from kzoo.train.history import AGAIN, best_epoch
from kzoo.train.loop import compiled_model
from kzoo.train.run_directory import checkpoints_of, missing_bytes


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A recipe of two epochs whose run is on disk, its data, and a compiled model of it."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        entry = registry.lookup("cifar_resnet20")
        config = dataclasses.replace(entry.config, depths=(1, 1), widths=(4, 8))
        patch.setitem(registry._ENTRIES, "tiny", dataclasses.replace(entry, name="tiny", config=config))
        patch.setattr(loop, "finish", lambda *_: {})
        recipe = make_recipe(
            name="test",
            model="tiny",
            dataset="digits",
            image_size=16,
            epochs=2,
            batch_size=16,
            smoke=True,
            output_dir=folder / "run",
        )
        train(recipe)
        data = Classification().load(recipe.data, recipe.task, recipe.seed)
        return recipe, data, compiled_model(recipe, Classification(), data, 4)


@pytest.fixture
def run(finished, tiny_model, tmp_path, monkeypatch):
    """The recipe with a copy of its run; data and model are not made anew, and nothing is finished."""
    recipe, data, model = finished
    shutil.copytree(recipe.run_dir, tmp_path / "run-smoke")
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    monkeypatch.setattr(Classification, "load", lambda *_: data)
    monkeypatch.setattr(loop, "compiled_model", lambda *_: model)
    return recipe.replace(output_dir=tmp_path / "run")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace(path, content: bytes | None = None):
    """An empty folder in the place of a file or folder, or a file of another content."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)


def without_optimizer(path):
    model = keras.saving.load_model(path, compile=False)
    model.save(path)


def of_another_shape(path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.save(path)


DAMAGES = {
    "recipe.json cut off": ("recipe.json", cut),
    "recipe.json a list": ("recipe.json", lambda path: replace(path, b"[1, 2]")),
    "recipe.json not UTF-8": ("recipe.json", lambda path: replace(path, b'{"name": "\xff\xfe"}')),
    "recipe.json empty": ("recipe.json", lambda path: replace(path, b"")),
    "recipe.json a folder": ("recipe.json", replace),
    "classes.json cut off": ("classes.json", cut),
    "classes.json of numbers": ("classes.json", lambda path: replace(path, b"[0, 1]")),
    "history.csv binary": ("history.csv", lambda path: replace(path, bytes(range(256)) * 4)),
    "history.csv without columns": ("history.csv", lambda path: replace(path, b"\n0,1\n1,2\n")),
    "history.csv with an epoch NaN": (
        "history.csv",
        lambda path: replace(path, path.read_bytes().replace(b"\n1,", b"\nnan,")),
    ),
    "history.csv with an epoch inf": (
        "history.csv",
        lambda path: replace(path, path.read_bytes().replace(b"\n0,", b"\ninf,")),
    ),
    "history.csv a folder": ("history.csv", replace),
    "history.csv gone": ("history.csv", lambda path: path.unlink()),
    "checkpoints a file": ("checkpoints", lambda path: replace(path, b"")),
    "checkpoints empty": ("checkpoints", replace),
}


def refused(recipe, directory, capsys) -> str:
    """The one line of the error; the run is as it was."""
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    with pytest.raises(OutputError) as error:
        train(recipe)
    assert "\n" not in str(error.value)
    after = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert after == before
    return str(error.value)


# Of each file one that is no text, one that says something else, and none
QUICK = (
    "recipe.json cut off",
    "recipe.json not UTF-8",
    "classes.json of numbers",
    "history.csv binary",
    "history.csv with an epoch NaN",
    "history.csv gone",
    "checkpoints a file",
    "checkpoints empty",
)


@pytest.mark.parametrize("damage", slow_but(QUICK, DAMAGES))
def test_a_damaged_run_is_one_line_and_stays_as_it_is(damage, run, capsys):
    name, spoil = DAMAGES[damage]
    spoil(run.run_dir / name)
    message = refused(run, run.run_dir, capsys)
    assert AGAIN in message
    assert name in message or "holds no checkpoint" in message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda names: names[::-1], "number 1 was '0' and is '9';"),
        (lambda names: [*names[:-1], "ten"], "number 10 was '9' and is 'ten';"),
        (lambda names: [*names, "ten"], "the dataset has 11, of which number 11 was None and is 'ten';"),
        (lambda names: names[:-1], "the dataset has 9, of which number 10 was '9' and is None;"),
    ],
    ids=["another order", "another name", "one more", "one less"],
)
def test_a_run_on_other_classes_is_refused(change, told, run, monkeypatch, capsys):
    """A folder that was renamed moves to another place, and all labels with it."""
    data = Classification().load(run)
    other = dataclasses.replace(data, classes=tuple(change(list(data.classes))))
    monkeypatch.setattr(Classification, "load", lambda *_: other)
    message = refused(run, run.run_dir, capsys)
    assert told in message
    assert AGAIN in message


def test_a_run_that_does_not_tell_its_classes_goes_on(run):
    (run.run_dir / "classes.json").unlink()
    train(run)
    assert (run.run_dir / "classes.json").exists()


def test_the_advice_to_start_again_helps_and_keeps_the_earlier_run(run):
    """As the error says it: --no-resume."""
    best = checkpoints_of(run.run_dir).best(best_of(run))
    kept = best.read_bytes()
    cut(run.run_dir / "recipe.json")
    train(run.replace(resume=False, epochs=1))
    assert checkpoints_of(run.run_dir).epochs() == [1]
    aside = run.run_dir.with_name("run-smoke.1")
    assert (aside / "checkpoints" / best.name).read_bytes() == kept


def best_of(recipe) -> int:
    """The best epoch of a run, from its history."""
    from kzoo.train.history import read_history

    return best_epoch(read_history(recipe.run_dir / "history.csv", 2, "accuracy"), "accuracy")


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_with_the_same_end(run, capsys):
    path = checkpoints_of(run.run_dir).path(2)
    before = weights(path)
    cut(path)
    train(run)
    told = " ".join(capsys.readouterr().out.split())
    assert "the checkpoint of epoch 2 cannot be used, trying the one before" in told
    assert "resuming after 1 of 2 epochs" in told
    for one, other in zip(weights(path), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without_optimizer, "it was saved without its optimizer"),
        (of_another_shape, "it has 2 variables where the model has"),
        (replace, "no file at"),
        (lambda path: replace(path, b""), "cannot be read as a Keras model"),
        (lambda path: replace(path, b"PK\x03\x04" + bytes(400)), "cannot be read as a Keras model"),
    ],
)
def test_a_newest_checkpoint_that_cannot_be_used_is_passed_over_with_the_reason(spoil, reason, run, finished, capsys):
    checkpoints = checkpoints_of(run.run_dir)
    spoil(checkpoints.path(2))
    assert checkpoints.restore(lambda mark: finished[2]) == (finished[2], Mark(1), {})
    assert reason in " ".join(capsys.readouterr().out.split())
    for one, other in zip(finished[2].get_weights(), weights(checkpoints.path(1)), strict=False):
        np.testing.assert_array_equal(one, other)


def weights(path) -> list[np.ndarray]:
    model = keras.saving.load_model(path)
    return [np.asarray(value) for value in (*model.weights, *model.optimizer.variables)]


def test_no_checkpoint_that_can_be_used_is_one_line(run, capsys):
    for epoch in (1, 2):
        cut(checkpoints_of(run.run_dir).path(epoch))
    assert "none of the checkpoints can be used" in refused(run, run.run_dir, capsys)


def test_a_best_checkpoint_is_replaced_by_the_same_epoch_or_asked_for(run, capsys):
    checkpoints = checkpoints_of(run.run_dir)
    best = best_of(run)
    expected = weights(checkpoints.path(best))[0]
    cut(checkpoints.path(best, "best"))
    np.testing.assert_array_equal(weights(checkpoints.best(best))[0], expected)
    checkpoints.path(best).unlink()
    with pytest.raises(OutputError, match=r"the best epoch, is damaged; put it back, or start again with --no-resume"):
        checkpoints.best(best)
    checkpoints.path(best, "best").unlink()
    with pytest.raises(OutputError, match="the best epoch, is not there"):
        checkpoints.best(best)


def test_an_older_run_tells_another_number_of_classes_by_its_weights(run, finished, monkeypatch, capsys):
    (run.run_dir / "classes.json").unlink()
    data = dataclasses.replace(finished[1], classes=(*"0123456789", "ten"))
    monkeypatch.setattr(Classification, "load", lambda *_: data)
    monkeypatch.setattr(loop, "compiled_model", compiled_model)
    message = refused(run, run.run_dir, capsys)
    assert "is (8, 10), and (8, 11) in the model of this run: the classes or the model have changed" in message


def test_going_on_asks_for_the_room_that_is_still_missing(run, finished, monkeypatch):
    """With as much room as is missing it goes on; a fresh run needs more."""
    model = finished[2]
    missing = missing_bytes(model, run.run_dir)
    fresh = missing_bytes(model, run.run_dir.parent / "elsewhere")
    taken = sum(path.stat().st_size for path in run.run_dir.rglob("*.keras"))
    assert fresh - missing == min(taken, fresh - missing) > 0
    usage = type("Usage", (), {"free": missing})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    train(run)
    with pytest.raises(KzooError, match="are needed; free some space"):
        train(run.replace(output_dir=run.run_dir.parent / "elsewhere"))
