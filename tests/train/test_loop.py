"""A run from start to report, and what happens to it when it is interrupted, repeated or cannot write."""

import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from helpers import make_recipe
from PIL import Image

import kzoo
from kzoo.data.datasets import load_dataset
from kzoo.edge import PRECISIONS, LiteRTModel, read_card, source
from kzoo.errors import DatasetError, InvalidValueError, KzooError, OutputError, UnknownNameError
from kzoo.files import PARTIAL, exclusive
from kzoo.recipe import stored_flags
from kzoo.tasks.classification import SMOKE_BATCH, SMOKE_IMAGES
from kzoo.train import callbacks, checkpoints, loop, train
from kzoo.train.optimizer import make_optimizer
from kzoo.train.run_directory import checkpoints_of

STEPS = SMOKE_IMAGES // SMOKE_BATCH


def finished_steps(recipe) -> int:
    """Optimizer steps that the last checkpoint has seen."""
    return int(last(recipe).optimizer.iterations)


def last(recipe) -> keras.Model:
    """The model of the newest checkpoint."""
    checkpoints = checkpoints_of(recipe.run_dir)
    return keras.saving.load_model(checkpoints.path(checkpoints.epochs()[0]))


def judge(monkeypatch, epochs):
    """Gives epochs, counted from zero, the validation scores of `epochs`, in the logs of every callback."""
    original = callbacks.EpochSeconds.on_epoch_end

    def on_epoch_end(self, epoch, logs=None):
        original(self, epoch, logs)
        logs.update(epochs[epoch])

    monkeypatch.setattr(callbacks.EpochSeconds, "on_epoch_end", on_epoch_end)


@pytest.mark.quick
def test_whole_run(drawn_recipe, monkeypatch):
    recipe = drawn_recipe.replace(export=("float32", "int8"), augmentation=("flip", "translate"))
    report = train(recipe)
    directory = recipe.run_dir
    assert report["training_seconds"] > 0
    assert json.loads((directory / "report.json").read_text()) == json.loads(json.dumps(report))
    for name in ("curves.png", "predictions.png"):
        assert (directory / name).read_bytes().startswith(b"\x89PNG")
    assert list((directory / "tensorboard").rglob("events*"))
    assert not list(directory.rglob("*.partial*"))

    images, labels = load_dataset("digits", image_size=16).test.take(SMOKE_IMAGES).arrays().values()
    model = keras.saving.load_model(directory / "model.keras")
    probabilities = model.predict(images.astype("float32"), verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    measured = report["models"]
    assert measured["keras"]["accuracy"] == (probabilities.argmax(1) == labels).mean()
    for name in ("float32", "int8"):
        file = directory / f"model_{name}.tflite"
        outputs = LiteRTModel(file).predict(images)
        assert measured[name]["accuracy"] == (outputs.argmax(1) == labels).mean()
        assert measured[name]["size_bytes"] == file.stat().st_size
        assert read_card(file).output.class_names == tuple("0123456789")
        assert measured[name]["max_difference"] == pytest.approx(np.abs(outputs - probabilities).max(), abs=1e-6)
    assert measured["folded"]["max_difference"] < 1e-5
    assert not any("bn" in layer.name for layer in keras.saving.load_model(directory / "folded.keras").layers)

    card = (directory / "README.md").read_text()
    assert f"{measured['int8']['accuracy']:.2%}" in card
    assert "smoke run" in card
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    for code, expected in zip(blocks, (probabilities, outputs), strict=True):
        assert "# RGB pixels of 0 to 255, (n, 16, 16, 3)" in code
        scope = {"images": images}
        monkeypatch.chdir(directory)
        exec(code, scope)
        np.testing.assert_allclose(scope["probabilities"], expected, atol=1e-6)
    assert "kzoo predict model_int8.tflite photo.jpg" in card
    assert "`model_int8.tflite.json`, the card that" in card
    assert (directory / "model_int8.tflite.json").exists()


def test_a_file_that_fails_does_not_cost_the_report(finished, monkeypatch, capsys):
    strict = dataclasses.replace(PRECISIONS["int8_dynamic"], bound=0)
    monkeypatch.setattr(source, "PRECISIONS", PRECISIONS | {"int8_dynamic": strict})
    report = train(finished.replace(export=("int8_dynamic", "float16")))
    assert list(report["models"]) == ["keras", "folded", "float16"]
    assert "the int8_dynamic file of tiny disagrees with Keras" in " ".join(capsys.readouterr().out.split())
    assert not list(finished.run_dir.glob("*int8_dynamic*"))


def test_a_plain_run_has_no_start_files(trained):
    assert list(json.loads((trained.run_dir / "report.json").read_text())["models"]) == ["keras", "folded"]
    assert "`start`" not in (trained.run_dir / "README.md").read_text()


def test_best_epoch_is_kept_not_the_last(recipe, monkeypatch):
    judge(monkeypatch, [dict(val_accuracy=0.9), dict(val_accuracy=0.1)])
    kept = weights_by_epoch(monkeypatch)
    assert train(recipe)["best_epoch"] == 1
    final = keras.saving.load_model(recipe.run_dir / "model.keras").get_weights()
    np.testing.assert_array_equal(final[0], kept[0][0])
    assert not np.array_equal(final[0], kept[1][0])


def test_of_epochs_of_equal_accuracy_the_one_of_smaller_loss_is_best(recipe, monkeypatch):
    judge(monkeypatch, [dict(val_accuracy=1.0, val_loss=loss) for loss in (0.314, 0.023)])
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    kept = weights_by_epoch(monkeypatch)
    train(recipe)
    checkpoints = checkpoints_of(recipe.run_dir)
    assert checkpoints.epochs("best")[0] == 2
    best = keras.saving.load_model(checkpoints.best(2)).get_weights()
    np.testing.assert_array_equal(best[0], kept[1][0])


def weights_by_epoch(monkeypatch) -> list[list[np.ndarray]]:
    """Filled with the weights at the end of each epoch."""
    original, kept = callbacks.Checkpoint.on_epoch_end, []

    def on_epoch_end(self, epoch, logs=None):
        kept.append(self.model.get_weights())
        original(self, epoch, logs)

    monkeypatch.setattr(callbacks.Checkpoint, "on_epoch_end", on_epoch_end)
    return kept


def test_finished_run_is_not_trained_again_and_can_be_made_longer(finished, capsys):
    recipe = finished
    before = (recipe.run_dir / "history.csv").read_text()
    train(recipe)
    told = capsys.readouterr().out
    assert "all epochs are done" in told
    assert "trained" not in told.split("everything is in")[0]
    assert (recipe.run_dir / "history.csv").read_text() == before
    with pytest.raises(OutputError, match="run of 2 epochs, more than the 1"):
        train(recipe.replace(epochs=1))


def test_other_settings_in_the_same_directory_are_refused(finished, monkeypatch):
    recipe = finished
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    with pytest.raises(OutputError, match=r"learning_rate 0\.1 -> 0\.2"):
        train(recipe.replace(learning_rate=0.2))
    train(recipe.replace(learning_rate=0.2, epochs=1, resume=False))
    aside = recipe.run_dir.with_name(recipe.run_dir.name + ".1")
    assert json.loads((aside / "recipe.json").read_text())["optimizer"]["learning_rate"] == 0.1
    assert json.loads((recipe.run_dir / "recipe.json").read_text())["optimizer"]["learning_rate"] == 0.2


@pytest.mark.slow
def test_run_of_an_older_version_goes_on(recipe):
    """Its recipe.json has no parts, and lacks the settings that came later, which it was run with the defaults of."""
    train(recipe.replace(epochs=1))
    path = recipe.run_dir / "recipe.json"
    older = stored_flags(json.loads(path.read_text()))
    del older["resize"], older["test_fraction"]
    path.write_text(json.dumps(older | {"void": []}))
    assert train(recipe)["best_epoch"] in (1, 2)
    assert finished_steps(recipe) == 2 * STEPS


KILLED = """
    import dataclasses, os, signal, sys
    import keras
    from pathlib import Path
    from kzoo import registry
    from kzoo.train import Data, Recipe, Schedule, callbacks, train
    from kzoo.console import user_errors

    entry = registry.lookup("cifar_resnet20")
    config = dataclasses.replace(entry.config, depths=(1, 1), widths=(4, 8))
    registry.register(dataclasses.replace(entry, name="tiny", config=config))
    moment, directory = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process ignores it

    if moment == "checkpoint":  # the third file, the best of epoch 2 or its last, stays half-written
        save, saved = keras.Model.save, []
        def dying_save(self, path, **options):
            saved.append(path)
            if len(saved) == 3:
                Path(path).write_bytes(b"half")
                os.kill(os.getpid(), signal.SIGKILL)
            save(self, path, **options)
        keras.Model.save = dying_save
    else:
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 6:
                os.kill(os.getpid(), getattr(signal, moment))
        callbacks.Checkpoint.on_train_batch_end = on_train_batch_end

    with user_errors():
        train(Recipe(name="test", model="tiny", data=Data("digits", image_size=16), schedule=Schedule(epochs=2),
                     smoke=True, output_dir=Path(directory)))
"""


def test_a_run_that_was_killed_over_a_checkpoint_goes_on(finished, monkeypatch, capsys):
    """From the files that a process leaves which is killed while it writes its second epoch."""
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    path = checkpoints_of(finished.run_dir).path(2)
    half = path.with_name(f".epoch_0002{PARTIAL}.keras")
    half.write_bytes(path.read_bytes()[:1000])
    path.unlink()
    assert finished_steps(finished) == STEPS
    train(finished)
    assert "resuming after 1 of 2 epochs" in capsys.readouterr().out
    assert finished_steps(finished) == 2 * STEPS
    with (finished.run_dir / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]
    assert not list(finished.run_dir.rglob("*.partial*"))


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "code"), [("SIGINT", 130), ("SIGKILL", -9), ("checkpoint", -9)])
def test_killed_run_resumes_to_the_same_number_of_steps(moment, code, recipe, capsys):
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), moment, recipe.output_dir],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert killed.returncode == code, killed.stderr
    if code == 130:
        assert "the same command goes on from there" in killed.stdout
        assert "Traceback" not in killed.stderr
    assert finished_steps(recipe) == STEPS
    train(recipe)
    assert "resuming after 1 of 2 epochs" in capsys.readouterr().out
    assert finished_steps(recipe) == 2 * STEPS
    with (recipe.run_dir / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["0", "1"]
    assert not list(recipe.run_dir.rglob("*.partial*"))
    assert (recipe.run_dir / "report.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_resumes(precision, recipe, capsys):
    recipe = recipe.replace(precision=precision)
    train(recipe.replace(epochs=1))
    train(recipe)
    assert "resuming after 1 of 2 epochs" in capsys.readouterr().out


def test_nan_in_the_last_epoch_is_no_success(recipe, monkeypatch):
    def spoil(self, epoch, logs=None):
        self.started = 0.0
        if epoch == 1:
            self.model.set_weights([np.full_like(weight, np.nan) for weight in self.model.get_weights()])

    monkeypatch.setattr(callbacks.EpochSeconds, "on_epoch_begin", spoil)
    with pytest.raises(KzooError, match="the loss became NaN in epoch 2"):
        train(recipe)
    assert not (recipe.run_dir / "report.json").exists()


def test_two_runs_do_not_share_a_directory(recipe):
    recipe.run_dir.mkdir()
    with exclusive(recipe.run_dir), pytest.raises(OutputError, match="another process is training in"):
        train(recipe)


def test_two_runs_of_one_seed_end_with_the_same_weights(recipe, monkeypatch):
    """Order, augmentation and dropout follow from the seed alone."""
    monkeypatch.setattr(loop, "finish", lambda *_: {})
    recipe = recipe.replace(augmentation=("flip", "translate"), model="simple_cnn", epochs=1)
    recipe = recipe.replace(model_options=dict(widths=(4, 8), dense_units=8))
    ends = []
    for number, seed in enumerate((1, 1, 2)):
        run = recipe.replace(seed=seed, output_dir=recipe.output_dir / str(number))
        train(run)
        ends.append(np.concatenate([weight.ravel() for weight in last(run).get_weights()]))
    np.testing.assert_array_equal(ends[0], ends[1])
    assert np.abs(ends[0] - ends[2]).max() > 1e-3


def test_a_mistake_leaves_the_earlier_run_where_it_is(finished):
    recipe = finished
    for mistake in ({"dataset": "digitz"}, {"weights": "nope"}, {"image_size": 1}):
        with pytest.raises(KzooError):
            train(recipe.replace(resume=False, **mistake))
    assert [path.name for path in recipe.run_dir.parent.iterdir()] == [recipe.run_dir.name]
    with pytest.raises(KzooError):
        train(recipe.replace(output_dir=recipe.output_dir / "new", dataset="digitz"))
    assert not (recipe.output_dir / "new").exists()


def test_a_best_epoch_that_was_killed_before_its_checkpoint_is_forgotten(recipe, monkeypatch):
    original, killed = checkpoints.atomic_path, []

    def dying(path):
        if path.name == "epoch_0002.keras" and not killed:
            killed.append(path)
            raise KeyboardInterrupt
        return original(path)

    monkeypatch.setattr(checkpoints, "atomic_path", dying)
    judge(monkeypatch, [dict(val_accuracy=0.5), dict(val_accuracy=0.6)])
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    folder = recipe.run_dir / "checkpoints"
    assert {path.name for path in folder.iterdir()} == {"best_0001.keras", "best_0002.keras", "epoch_0001.keras"}
    judge(monkeypatch, [dict(val_accuracy=0.5), dict(val_accuracy=0.4)])
    assert train(recipe)["best_epoch"] == 1
    assert {path.name for path in folder.iterdir()} == {"best_0001.keras", "epoch_0001.keras", "epoch_0002.keras"}


@pytest.mark.parametrize(("patience", "warned"), [(9, False), (10, True), (12, True)])
def test_patience_that_ends_no_run_is_told(patience, warned, recipe, monkeypatch, caplog):
    def stop(recipe):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "fetch_weights", stop)
    with caplog.at_level("WARNING"), pytest.raises(KeyboardInterrupt):
        train(recipe.replace(epochs=10, patience=patience))
    assert (f"patience={patience} ends no run of 10 epochs early" in caplog.text) is warned


def test_diverged_run_says_so(recipe, monkeypatch):
    def nan(self, epoch, logs=None):
        self.model.stop_training = True
        logs["loss"] = float("nan")

    original = callbacks.Checkpoint.on_epoch_end
    monkeypatch.setattr(
        callbacks.Checkpoint, "on_epoch_end", lambda self, e, logs: (nan(self, e, logs), original(self, e, logs))
    )
    with pytest.raises(KzooError, match="the loss became NaN in epoch 1; lower --learning-rate"):
        train(recipe)
    assert checkpoints_of(recipe.run_dir).epochs() == []


def test_unwritable_or_full_directory_is_refused_before_training(recipe, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another output directory"):
        train(recipe.replace(output_dir=tmp_path / "file" / "run"))
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="are needed; free some space"):
        train(recipe)


def test_a_broken_picture_of_the_test_is_told_before_training(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 2), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), "uint8"))
                picture.save(tmp_path / "data" / part / name / f"{part}{number}.png")
    broken = tmp_path / "data" / "test" / "dog" / "test1.png"
    broken.write_bytes(broken.read_bytes()[:-40])  # its header is whole
    flags = dict(image_size=8, batch_size=4, output_dir=tmp_path / "run", export=())
    with pytest.raises(DatasetError, match=r"dog/test1\.png cannot be read as an image .*; repair or remove it$"):
        train(make_recipe("broken", "cifar_resnet20", str(tmp_path / "data"), **flags))
    assert not (tmp_path / "run").exists()


def test_a_directory_of_other_files_is_left_alone(recipe):
    recipe.run_dir.mkdir()
    (recipe.run_dir / "README.md").write_text("mine")
    with pytest.raises(OutputError, match="holds other files and no run"):
        train(recipe)
    assert [path.read_text() for path in recipe.run_dir.iterdir()] == ["mine"]


def test_disk_that_fills_up_keeps_the_last_checkpoint(recipe, monkeypatch):
    save, saved = keras.Model.save, []

    def full(self, path, **options):
        saved.append(path)
        if len(saved) > 2:
            raise OSError(28, "No space left on device")
        save(self, path, **options)

    monkeypatch.setattr(keras.Model, "save", full)
    with pytest.raises(OutputError, match="No space left on device; the last checkpoint is kept"):
        train(recipe)
    assert finished_steps(recipe) == STEPS
    with pytest.raises(OutputError, match=r"No space left on device$"):
        train(recipe.replace(output_dir=recipe.run_dir / "another"))


def test_impossible_runs_are_refused(recipe):
    with pytest.raises(UnknownNameError, match="unknown model 'resnet5'"):
        train(recipe.replace(model="resnet5"))
    with pytest.raises(InvalidValueError, match="batch_size=5000 is more than the 1293 training images"):
        train(recipe.replace(smoke=False, batch_size=5000))


@pytest.mark.quick
def test_optimizer_warms_up_follows_a_cosine_and_spares_vectors(recipe):
    recipe = recipe.replace(epochs=10, warmup_epochs=2, learning_rate=0.4, weight_decay=0.1)
    model = kzoo.build("tiny")
    optimizer = make_optimizer(recipe, model, steps=5)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 5, 10, 30, 50)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.2, 0], abs=1e-6)

    recipe = recipe.replace(warmup_epochs=0)
    optimizer = make_optimizer(recipe, model, steps=5)
    before = {weight.path: weight.numpy() for weight in model.trainable_weights}
    optimizer.apply([keras.ops.zeros_like(weight) for weight in model.trainable_weights], model.trainable_weights)
    for weight in model.trainable_weights:
        factor = 1 - 0.4 * 0.1 if weight.name == "kernel" else 1
        np.testing.assert_allclose(weight.numpy(), before[weight.path] * factor, rtol=1e-6, err_msg=weight.path)


@pytest.mark.parametrize(
    ("flag", "mode"), [pytest.param("true", "XLA on", marks=pytest.mark.slow), ("auto", "XLA off")]
)
def test_the_mode_in_force_is_printed(flag, mode, recipe, capsys):
    recipe = recipe.replace(epochs=1, jit_compile=flag, precision="mixed_bfloat16")
    train(recipe)
    assert f"{mode} (jit_compile={flag}), mixed_bfloat16" in " ".join(capsys.readouterr().out.split())
    final = keras.saving.load_model(recipe.run_dir / "model.keras")
    assert {layer.compute_dtype for layer in final.layers} == {"float32"}
