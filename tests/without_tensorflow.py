"""What kzoo computes, command by command and function by function, on whichever backend Keras has.

`test_without_tensorflow.py` runs the cases in its own process on TensorFlow, and runs this file on JAX where
TensorFlow cannot be imported: the answers have to agree. Each case is told a folder that `write_files` filled, and
returns numbers and texts.
"""

import contextlib
import io
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from helpers import make_recipe, pixels, randomise
from PIL import Image
from weights.torch_files import TINY, random_state, save, save_shards, tiny

import kzoo
import kzoo.train
from kzoo import surgery
from kzoo.cli import main
from kzoo.data.augment import Augmentation
from kzoo.data.batches import evaluation_batches, training_batches
from kzoo.data.operations import OPERATIONS, apply
from kzoo.data.policies import trivial_augment
from kzoo.data.seeds import StepSeeds
from kzoo.errors import KzooError
from kzoo.images import Pixels
from kzoo.predict.classifier import open_model
from kzoo.recipe import Augment, Classify
from kzoo.recipe.parts import AUGMENTATIONS
from kzoo.report.measure import keras_runner
from kzoo.report.probabilities import Probabilities
from kzoo.tasks.classification import Classification
from kzoo.train.finish import environment
from kzoo.train.steps import scan_steps

ROOT = Path(__file__).parents[1]
SHAPE = (33, 27, 3)
CLASSES = ("cat", "dog", "eel", "fox", "gnu")
SURFACES = ("road", "sky", "tree")
FILES = ("alone.weights.h5", "legacy.h5", "whole.keras", "torch.safetensors", "model.safetensors.index.json", "folder")
CASES: dict[str, Callable[[Path], Any]] = {}


def case(function: Callable[[Path], Any]) -> Callable[[Path], Any]:
    CASES[function.__name__] = function
    return function


def write_files(folder: Path) -> None:
    """The files that the cases read."""
    model = tiny()
    model.save_weights(folder / "alone.weights.h5")
    model.save(folder / "legacy.h5")
    model.save(folder / "whole.keras")
    save(random_state(), folder / "torch.safetensors")
    save_shards(random_state(), folder)
    (folder / "folder").mkdir()
    save(random_state(), folder / "folder" / "model.safetensors")
    options = dict(input_shape=(8, 8, 3), num_classes=10, depths=(1, 1), widths=(4, 8))
    randomise(kzoo.build("cifar_resnet20", **options)).save(folder / "start.keras")
    kzoo.with_classes(classifier(), CLASSES, Pixels("pad")).save(folder / "classifier.keras")
    segmenter = kzoo.build("unet", input_shape=(32, 48, 3), num_classes=3, padding="same", widths=(4, 6), dropout=0.0)
    kzoo.with_classes(randomise(segmenter, seed=5), SURFACES).save(folder / "segmenter.keras")
    for number, size in enumerate(((41, 35), (60, 90))):
        Image.fromarray(pixels(*size, 3, seed=number).astype("uint8")).save(folder / f"{number}.png")


def classifier(**options) -> keras.Model:
    options = dict(input_shape=SHAPE, num_classes=len(CLASSES), depths=(1, 1), widths=(4, 8)) | options
    return randomise(kzoo.build("cifar_resnet20_cbam", **options))


def opened(folder: Path) -> keras.Model:
    return keras.saving.load_model(folder / "classifier.keras")


def command(*words: str | Path) -> Any:
    """What a command prints with `--json`."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main([*map(str, words), "--json"])
    return json.loads(said.getvalue())


@case
def weights_of_every_format(folder):
    answers = {}
    for file in FILES:
        model = kzoo.build("cifar_resnet20", **TINY)
        report = kzoo.load_weights(model, folder / file)
        answers[file] = str(report).partition(": ")[2], model.get_weights()
    return answers


@case
def a_network_with_new_attention(folder):
    model = kzoo.build("cifar_resnet20_se", weights=str(folder / "torch.safetensors"), **TINY)
    return model.predict_on_batch(pixels(2, 32, 32, 3))


@case
def a_saved_model_is_judged(folder):
    """What a file carries, and what a run and `kzoo evaluate` make of it and of images."""
    with tempfile.TemporaryDirectory() as place:
        opened(folder).save(Path(place, "again.keras"))
        found = open_model(str(Path(place, "again.keras")))
    outputs = keras_runner(found.model)(pixels(7, *SHAPE))
    scorer = Probabilities(found.class_names)
    scorer.add(found.output.probabilities(outputs), {"label": np.arange(7) % 5})
    return found.pixels.to_json(), outputs, scorer.scores()


@case
def surgery_of_models(folder):
    model, images = opened(folder), pixels(3, *SHAPE)
    folded = kzoo.fold_batch_norm(model)
    rewritten = surgery.pooling_to_conv(surgery.equalize_ranges(surgery.fold_preprocessing(folded)))
    rounding = surgery.insert_fake_quantization(folded, "int4")
    models = {
        "rewritten": surgery.norm_to_depthwise(rewritten),
        "rounding": rounding,
        "rounded": surgery.remove_fake_quantization(rounding),
    }
    corrected = surgery.correct_bias(folded, images, "int4")
    answers = {name: each.predict_on_batch(images) for name, each in models.items()}
    return str(surgery.plan_folding(model)), answers, corrected.get_weights()


@case
def taps_and_features(folder):
    images, features = pixels(2, *SHAPE), classifier(include_top=False, pooling="avg", num_classes=None)
    return kzoo.pyramid(features, ["p0", "p1"]).predict_on_batch(images), features.predict_on_batch(images)


@case
def transfer_by_fit(folder):
    """An epoch of a new head alone, then one of everything, batch normalisation too."""
    model = kzoo.freeze_backbone(randomise(kzoo.replace_head(opened(folder), 3)))
    images, labels = pixels(12, *SHAPE), np.arange(12) % 3
    answers = []
    for epochs in (1, 2):
        model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
        losses = model.fit(images, labels, batch_size=4, epochs=epochs, shuffle=False, verbose=0).history["loss"]
        answers.append((losses, [weight.path for weight in model.trainable_variables], model.get_weights()))
        kzoo.use_fused_batch_norm(kzoo.freeze_backbone(model, frozen=False))
    return answers


@case
def information(folder):
    return command("info", "cifar_resnet20"), command("list", "swin*")


def recipe(folder: Path, **flags):
    """An epoch of twenty steps on the digits, from weights that are the same everywhere."""
    options = dict(image_size=8, batch_size=64, epochs=1, augmentation=(), export=(), jit_compile="true")
    options |= dict(weights=str(folder / "start.keras"), model_options=dict(depths=(1, 1), widths=(4, 8)))
    return make_recipe("run", "cifar_resnet20", "digits", **(options | flags))


@case
def a_training_run(folder):
    """From the recipe to the report; every step sees the same images, so that the losses are the same."""
    return trained(folder)


@case
def several_steps_in_one_program(folder):
    """Under JAX two programs of three steps; losses, weights and statistics are those of six steps one by one."""
    model = keras.saving.load_model(folder / "start.keras")
    jax = keras.backend.backend() == "jax"
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        "sparse_categorical_crossentropy",
        steps_per_execution=3 if jax else 1,
    )
    if jax:
        scan_steps(model)
    images, labels = pixels(48, 8, 8, 3), np.arange(48) % 10
    losses = model.fit(images, labels, batch_size=8, epochs=2, shuffle=False, verbose=0).history["loss"]
    return losses, model.get_weights(), [np.asarray(each.value) for each in model.optimizer.variables[2:]]


@case
def a_run_of_averages(folder):
    return trained(folder, ema=0.9, epochs=2)


def trained(folder: Path, **flags) -> tuple:
    """Losses of the last epoch and of the test, and the weights of the best."""
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        report = kzoo.train.train(recipe(folder, output_dir=Path(place, "run"), **flags))
        lines = Path(place, "run", "history.csv").read_text().splitlines()
        history = dict(zip(*(lines[index].split(",") for index in (0, -1)), strict=True))
        speed = json.loads(Path(place, "run", "speed.json").read_text())
        assert speed["images_per_second"] > 0
        assert speed["training_programs"] == 1
        weights = keras.saving.load_model(Path(place, "run", "model.keras")).get_weights()
    losses = {name: float(history[name]) for name in ("loss", "val_loss")}
    return losses, report["models"]["keras"]["loss"], report["dataset"], weights


@case
def batches_of_training(folder):
    """Those of two epochs from the third batch on, and of an evaluation, whose last one is smaller."""
    data = Classification().load(recipe(folder).data, Classify(), 0)
    options = dict(seed=3, epochs=range(1, 3), first=2)
    found = training_batches(data.test, 100, lambda examples, seeds: (examples["image"], examples["label"]), **options)
    whole = evaluation_batches(data.test, 100, lambda examples: (examples["image"], examples["label"]))
    return [
        [(np.asarray(images).astype(int).sum((1, 2, 3)), np.asarray(labels)) for images, labels in batches]
        for batches in (found, whole)
    ]


@case
def random_changes(folder):
    """Of each kind: what is drawn differs between backends, its mean over many images hardly."""
    images = np.repeat(pixels(1, 16, 20, 3), 256, axis=0)
    answers = {}
    for name in AUGMENTATIONS:
        augment = Augmentation(Augment((name,)))
        changed = np.asarray(augment(images, StepSeeds(0, 1, 2)))
        again = np.asarray(augment(images, StepSeeds(0, 1, 2)))
        assert (changed == again).all(), name
        assert (changed != np.asarray(augment(images, StepSeeds(0, 1, 3)))).any(), name
        assert changed.min() >= -1e-3, name
        assert changed.max() <= 255.001, name
        answers[name] = round(float(changed.mean()), -1)
    return answers


@case
def operations_by_magnitude(folder):
    """What TrivialAugment does, each operation at a magnitude of its own, is equal to a grey level."""
    images = pixels(2 * len(OPERATIONS), 16, 20, 3).round()
    which = np.arange(len(images), dtype="int32") % len(OPERATIONS)
    strengths = trivial_augment().magnitudes(16, 20)[which, np.arange(len(images)) % 31]
    return np.asarray(apply(keras.ops.convert_to_tensor(images), keras.ops.convert_to_tensor(which), strengths))


@case
def predicted_classes(folder):
    return command("predict", folder / "classifier.keras", folder / "0.png", folder / "1.png")


@case
def predicted_masks(folder):
    answers = {}
    for name, options in (("whole", ()), ("tiles", ("--tiles",))):
        words = ("predict", folder / "segmenter.keras", folder / "0.png", folder / "1.png", *options)
        with tempfile.TemporaryDirectory() as place:
            told = command(*words, "--output-dir", place)
            masks = [np.asarray(Image.open(image["mask"])) for image in told]
        assert all(len(np.unique(mask)) > 1 for mask in masks)  # else they would tell nothing
        answers[name] = masks, [[each["class"] for each in image["classes"]] for image in told]
    return answers


@case
def predicted_by_a_litert_file(folder):
    return command("predict", ROOT / "saved_models" / "cifar10_resnet20" / "model_int8.tflite", folder / "0.png")


def refusals(folder: Path) -> dict[str, str]:
    """What work that needs TensorFlow says, and nothing but a name or a path is given to it."""
    model, path = opened(folder), folder / "never" / "model.tflite"
    works: dict[str, Callable[[], Any]] = {
        "export": lambda: kzoo.export(model, path, "int9"),
        "export_all": lambda: kzoo.export_all(model, path, ("int9",)),
        "kzoo export": lambda: main(["export", "absent.keras", "absent.tflite"]),
        "kzoo check": lambda: main(["check", "resnet18"]),
        "kzoo bench": lambda: main(["bench", "resnet18"]),
    }
    said = {}
    for name, work in works.items():
        with contextlib.redirect_stderr(io.StringIO()) as told:
            try:
                work()
            except KzooError as error:
                said[name] = f"{type(error).__name__}: {error}"
            except SystemExit as stop:
                said[name] = f"{stop.code}: {told.getvalue()}"
    return said


def answers_of(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Case -> its answer, or the traceback of its failure, as JSON holds it."""
    found = {}
    for name in names:
        try:
            found[name] = {"answer": CASES[name](folder)}
        except Exception:  # one case does not lose the others
            found[name] = {"failure": traceback.format_exc()}
    return json.loads(json.dumps(found, default=lambda array: array.tolist()))


if __name__ == "__main__":
    answers, place, *asked = sys.argv[1:]
    told = answers_of(Path(place), asked) | {"refusals": refusals(Path(place)), "environment": environment()}
    told["loaded"] = [name for name in sys.modules if name.partition(".")[0] == "tensorflow"]
    Path(answers).write_text(json.dumps(told))
