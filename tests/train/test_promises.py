"""What a recipe says is done: a row for each of its fields, with the number that it must change.

The pipeline, the optimizer, the loss and the model are asked directly; nothing is trained but one run of two epochs.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import make_recipe
from PIL import Image

import kzoo
from kzoo import registry
from kzoo.data.augment import Augmentation
from kzoo.data.operations import OPERATIONS
from kzoo.data.seeds import StepSeeds
from kzoo.data.split import VOID, ImageDataset
from kzoo.errors import InvalidValueError
from kzoo.files import ensure_writable
from kzoo.images import Pixels
from kzoo.models.depths import depth_of_layers
from kzoo.recipe import Hardware, flag_types, flags_of
from kzoo.tasks import task_of
from kzoo.train import Recipe, budget, finish, hosts, run_directory, train
from kzoo.train.callbacks import EpochSeconds, InsideEpoch
from kzoo.train.checkpoints import Checkpoints, Mark
from kzoo.train.command import command_of
from kzoo.train.devices import Devices, choose_devices
from kzoo.train.history import is_over
from kzoo.train.hosts import Hosts
from kzoo.train.loop import _models, _shrink, _take, compiled_model
from kzoo.train.quantization_aware import take_weights

STEPS = 5
DIGITS = tuple("0123456789")
PROMISES: dict[str, Callable] = {}


def promise(check: Callable) -> Callable:
    """Registers what one field of a recipe promises, by the name of the function."""
    PROMISES[check.__name__] = check
    return check


def test_every_field_of_a_recipe_has_a_row():
    assert set(PROMISES) == set(flag_types())


@pytest.mark.parametrize("field", PROMISES)
def test_a_recipe_does_what_it_says_in(field, made):
    PROMISES[field](made)


@dataclasses.dataclass(frozen=True)
class Made:
    """What the rows look at: a recipe that classifies, one that segments, and what both make.

    Datasets that are asked for again, as many rows do, are taken from `loaded`.
    """

    digits: Recipe
    scenes: Recipe
    folder: Path
    loaded: dict[str, ImageDataset]

    def data(self, recipe: Recipe, **changes):
        recipe = recipe.replace(**changes)
        asked = repr((task_of(recipe), recipe.data, recipe.task, recipe.seed))
        if asked not in self.loaded:
            self.loaded[asked] = task_of(recipe).load(recipe.data, recipe.task, recipe.seed)
        return self.loaded[asked]

    def model(self, recipe: Recipe, **changes) -> keras.Model:
        recipe = recipe.replace(**changes)
        task = task_of(recipe)
        data = self.data(recipe)
        keras.utils.set_random_seed(recipe.seed)
        return compiled_model(recipe, task, data, STEPS)

    def batches(self, recipe: Recipe, done: int = 0, **changes) -> list:
        recipe = recipe.replace(**changes)
        return list(task_of(recipe).training(recipe, self.data(recipe), done).as_numpy_iterator())

    def loss(self, recipe: Recipe, targets, outputs, **changes) -> float:
        recipe = recipe.replace(**changes)
        return float(task_of(recipe).loss(recipe, self.data(recipe), None)(targets, outputs))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Ten scenes 16×24 of two classes, 0 on three quarters of each mask and 5 on the rest, and one column of 9."""
    root = tmp_path_factory.mktemp("sets") / "scenes"
    rng = np.random.default_rng(0)
    for number in range(10):
        mask = np.zeros((16, 24), "uint8")
        mask[:, :6] = 5
        picture = rng.integers(0, 256, (16, 24, 3), "uint8")
        for kind, array in (("images", picture), ("masks", mask)):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / kind / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def loaded() -> dict[str, ImageDataset]:
    return {}


@pytest.fixture
def made(tiny_model, folder, tmp_path, loaded) -> Made:
    digits = make_recipe(name="test", model=tiny_model, dataset="digits", image_size=8, epochs=2, batch_size=200)
    scenes = make_recipe(
        name="test",
        model="unet_padded",
        model_options=dict(widths=(4, 8)),
        dataset=str(folder),
        class_names=("ground", "thing"),
        mask_values=(0, 5),
        epochs=2,
        batch_size=3,
    )
    return Made(digits, scenes, tmp_path, loaded)


@promise
def name(made):
    assert made.digits.replace(name="other").run_dir == Path("saved_models/runs/other")
    assert command_of(made.digits.replace(name="quickstart")).startswith("kzoo train quickstart ")


@promise
def model(made):
    assert made.model(made.digits).name == "tiny"
    assert made.model(made.digits, model="simple_cnn", model_options=dict(dense_units=8)).name == "simple_cnn"


@promise
def model_options(made):
    options = dict(widths=(6, 10))
    assert made.model(made.digits, model_options=options).get_layer("head_dense").kernel.shape == (10, 10)
    assert made.model(made.digits).get_layer("head_dense").kernel.shape == (8, 10)


WIDTHS = dict(widths=(4, 6, 8, 10))
BACKBONE = dict(
    model="unet",
    backbone="resnet18",
    image_size=32,
    model_options=dict(backbone_options=WIDTHS, decoder_widths=(8,) * 5),
)


@promise
def backbone(made):
    names = {layer.name for layer in made.model(made.scenes, **BACKBONE).layers}
    assert {
        layer.name for layer in kzoo.build("resnet18", include_top=False, **WIDTHS).layers if layer.weights
    } <= names


@promise
def dataset(made):
    shutil_copy(made.folder / "half", Path(made.scenes.data.dataset), 4)
    assert made.data(made.scenes).train.size == 7
    assert made.data(made.scenes, dataset=str(made.folder / "half"), validation_fraction=0.4).train.size == 2


def shutil_copy(target: Path, source: Path, count: int) -> None:
    """The first images and masks of a folder."""
    for kind in ("images", "masks"):
        (target / kind).mkdir(parents=True)
        for number in range(count):
            (target / kind / f"{number}.png").write_bytes((source / kind / f"{number}.png").read_bytes())


@promise
def data_dir(made):
    root = Path(made.scenes.data.dataset)
    assert made.data(made.scenes, dataset=root.name, data_dir=str(root.parent)).train.size == 7


@promise
def image_size(made):
    for size, shape in ((8, (8, 8)), ((12, 9), (12, 9))):
        assert made.data(made.digits, image_size=size).train.arrays(2)["image"].shape == (2, *shape, 3)


def first_digit(made, **changes) -> np.ndarray:
    return made.data(made.digits, **changes).train.arrays()["image"][0]


@promise
def resize(made):
    stretched = first_digit(made, image_size=(8, 16))
    padded = first_digit(made, image_size=(8, 16), resize="pad")
    assert np.ptp(stretched[:, :4]) > 50
    assert np.ptp(padded[:, :4]) == 0, "the digit is in the middle, and beside it are borders"


@promise
def crop(made):
    digit = Image.fromarray(first_digit(made))
    part = first_digit(made, resize="crop", crop=0.5)
    np.testing.assert_array_equal(part, Pixels("crop", crop=0.5).apply(digit, (8, 8, 3)))
    assert np.abs(part.astype(int) - np.asarray(digit)).mean() > 20


@promise
def interpolation(made):
    digit = Image.fromarray(first_digit(made))
    for method in ("bilinear", "bicubic"):
        found = first_digit(made, image_size=20, interpolation=method)
        np.testing.assert_array_equal(found, Pixels("stretch", interpolation=method).apply(digit, (20, 20, 3)))
    assert np.abs(found.astype(int) - first_digit(made, image_size=20)).max() > 5


@promise
def class_names(made):
    assert made.data(made.scenes, class_names=("a", "b")).classes == ("a", "b")


def of_nothing(**settings) -> tuple[dict, int]:
    """The parts of the loss of RetinaNet where no image has a box and all outputs are zero, and how many scores."""
    recipe = make_recipe("test", "retinanet", "none", **settings)
    options = dict(backbone="resnet18", backbone_options=WIDTHS, channels=8, extra_levels=0)
    model = kzoo.build("retinanet", input_shape=(32, 32, 3), num_classes=2, **options)
    places = model.output["boxes"].shape[1]
    loss = task_of(recipe).loss(recipe, None, model)
    truth = {"boxes": np.zeros((1, 1, 4), "float32"), "classes": np.array([[-1]])}
    outputs = {"logits": np.zeros((1, places, 2), "float32"), "offsets": np.zeros((1, places, 4), "float32")}
    return {name: float(part) for name, part in loss.parts(truth, outputs).items()} | {"loss": loss}, 2 * places


@promise
def focal_alpha(made):
    parts, count = of_nothing(focal_alpha=0.4)
    assert parts["classes"] == pytest.approx(count * 0.6 * 0.5**2 * np.log(2), rel=1e-5)


@promise
def focal_gamma(made):
    parts, count = of_nothing(focal_gamma=3.0)
    assert parts["classes"] == pytest.approx(count * 0.75 * 0.5**3 * np.log(2), rel=1e-5)


@promise
def box_loss(made):
    assert [of_nothing(box_loss=name)[0]["loss"].box_loss for name in ("l1", "giou", None)] == ["l1", "giou", "l1"]


@promise
def mask_values(made):
    assert made.data(made.scenes).train.arrays()["mask"].mean() == pytest.approx(1 / 4)
    assert made.data(made.scenes, mask_values=(5, 0)).train.arrays()["mask"].mean() == pytest.approx(3 / 4)


@promise
def void(made):
    data = made.data(made.scenes, class_names=("ground", "other"), mask_values=(0, 3), void=(5,))
    assert (data.train.arrays()["mask"] == VOID).mean() == pytest.approx(1 / 4)


@promise
def test_fraction(made):
    assert made.data(made.scenes).test.size == 2
    assert made.data(made.scenes, test_fraction=0.5, validation_fraction=0.4).test.size == 5

    assert made.data(pictures(made)).test.size == 8
    assert made.data(pictures(made), test_fraction=0.5).test.size == 20


test_fraction.__test__ = False


def pictures(made, **changes) -> Recipe:
    """A recipe on 40 pictures of two classes, ten of each of four patients."""
    for number in range(40):
        path = made.folder / f"classes/{'ab'[number % 2]}/p{number // 10}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, "uint8")).save(path)
    return made.digits.replace(dataset=str(made.folder / "classes"), validation_fraction=0.34)


@promise
def group_by(made):
    def patients(recipe, pattern):
        data = made.data(recipe, group_by=pattern)
        return [{path[path.index("p") :][:2] for path, _ in split.files} for split in (data.train, data.test)]

    train, test = patients(pictures(made), "p(.)_")
    assert (len(train), len(test), train & test) == (2, 1, set())
    assert len(set.intersection(*patients(pictures(made), None))) > 1


@promise
def label_separator(made):
    paths = list(Path(pictures(made).data.dataset).rglob("*.png"))
    rows = [f"{path},{'odd|' * (int(path.stem[3:]) % 2)}all" for path in paths]
    (made.folder / "labels.csv").write_text("\n".join(["path,label", *rows]))
    recipe = made.digits.replace(dataset=str(made.folder / "labels.csv"), loss="binary_cross_entropy")
    data = made.data(recipe, label_separator="|")
    assert data.classes == ("all", "odd")
    for split in (data.train, data.validation, data.test):
        odd = [int(file.path.rsplit("_")[-1].removesuffix(".png")) % 2 for file in split.files]
        assert split.arrays()["label"].tolist() == [[1, one] for one in odd]
    assert made.data(recipe).classes == ("all", "odd|all")


@promise
def validation_fraction(made):
    assert made.data(made.digits).validation.size == 144
    assert made.data(made.digits, validation_fraction=0.3).validation.size == 432


@promise
def weights(made):
    stored = made.model(made.digits, seed=5)
    stored.save(made.folder / "other.keras")
    loaded = made.model(made.digits, weights=str(made.folder / "other.keras"))
    for one, other in zip(loaded.get_weights(), stored.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@promise
def backbone_weights(made):
    backbone = kzoo.build("resnet18", input_shape=(32, 32, 3), **WIDTHS)
    backbone.save_weights(made.folder / "backbone.weights.h5")
    loaded = made.model(made.scenes, backbone_weights=str(made.folder / "backbone.weights.h5"), **BACKBONE)
    for layer in backbone.layers:
        if "conv" in layer.name and layer.weights:
            np.testing.assert_array_equal(loaded.get_layer(layer.name).get_weights()[0], layer.get_weights()[0])


@promise
def freeze_backbone(made):
    free, frozen = (made.model(made.scenes, freeze_backbone=frozen, **BACKBONE) for frozen in (False, True))
    backbone = {weight.path for weight in kzoo.build("resnet18", include_top=False, **WIDTHS).trainable_weights}
    assert {weight.path for weight in free.trainable_weights} >= backbone
    assert not {weight.path for weight in frozen.trainable_weights} & backbone


def rate(model: keras.Model, step: int) -> float:
    """The learning rate of a step."""
    return float(model.optimizer._learning_rate(step))


@promise
def epochs(made):
    for count in (2, 3):
        assert len(made.batches(made.digits, epochs=count)) == count * (1293 // 200)
        short = made.model(made.digits, epochs=count)
        assert rate(short, count * STEPS) == pytest.approx(0, abs=1e-7)
        assert rate(short, count * STEPS - 1) > 1e-4


@promise
def minutes(made):
    """A step takes a second and validation two, so that an epoch of six steps takes eight."""
    ticks = iter(np.cumsum([0.0, 1.0] * 15 + [0.0, 2.0]))
    recipe = made.digits.replace(minutes=1.0, epochs=30)
    task = task_of(recipe)
    data = task.load(recipe.data, recipe.task, recipe.seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget.time, "perf_counter", lambda: next(ticks))
        assert budget.epochs_within(recipe, task, Untrained(), data, Devices(("cpu:0",))) == 7
        assert budget.epochs_within(recipe.replace(minutes=None), task, Untrained(), data, Devices(("cpu:0",))) == 30
    with pytest.raises(InvalidValueError, match="minutes=0 must be above zero"):
        recipe.replace(minutes=0)


class Untrained:
    """A model that does nothing."""

    def train_on_batch(self, images, targets):
        assert len(images) == len(targets)

    def evaluate(self, batches, steps=None, verbose=0):
        pass


@promise
def batch_size(made):
    for size in (200, 100):
        assert {len(images) for images, _ in made.batches(made.digits, batch_size=size)} == {size}


@promise
def optimizer(made):
    sgd = made.model(made.digits).optimizer
    assert (type(sgd).__name__, sgd.momentum, sgd.nesterov) == ("SGD", 0.9, True)
    for name, kind in (("adamw", "AdamW"), ("lamb", "Lamb"), ("muon", "Muon")):
        assert type(made.model(made.digits, optimizer=name).optimizer).__name__ == kind
    muon = made.model(made.digits, optimizer="muon", weight_decay=0.25).optimizer
    assert (muon.weight_decay, muon.adam_weight_decay) == (0.25, 0.25)
    for change, weight in zip(
        steps_of(made, [3.0], optimizer="muon"), made.model(made.digits).trainable_weights, strict=True
    ):
        if len(weight.shape) == 4:  # of a gradient of rank 1 all of it, 1 within what five iterations leave
            size = np.linalg.norm(change.reshape(-1, weight.shape[-1]), 2)
            assert size == pytest.approx(0.2 * np.sqrt(max(np.prod(weight.shape[:-1]), weight.shape[-1])), rel=0.35)
        else:  # AdamW's first step, of the head too
            np.testing.assert_allclose(change, -1, rtol=1e-4)
    # of a gradient of 3 its square's average is 0.9, and then 0.9 × 0.9 + 0.9; the momentum is 0.9
    first = 3 / np.sqrt(0.9 + 1)
    both = first + 0.9 * first + 3 / np.sqrt(1.71 + 1)
    for change in steps_of(made, [3.0, 3.0], optimizer="rmsprop"):
        np.testing.assert_allclose(change, -both, rtol=1e-5)


@promise
def learning_rate(made):
    for value in (0.1, 0.02):
        assert rate(made.model(made.digits, learning_rate=value), STEPS) == pytest.approx(value)


@promise
def warmup_epochs(made):
    assert rate(made.model(made.digits, warmup_epochs=1.0), 1) == pytest.approx(0.1 / STEPS)
    assert rate(made.model(made.digits, warmup_epochs=0.0), 0) == pytest.approx(0.1)


@promise
def weight_decay(made):
    for decay in (0.0, 0.5):
        trained = made.model(made.digits, weight_decay=decay, warmup_epochs=0.0)
        kernel = trained.get_layer("head_dense").kernel
        before = kernel.numpy()
        zeros = [keras.ops.zeros_like(weight) for weight in trained.trainable_weights]
        trained.optimizer.apply(zeros, trained.trainable_weights)
        np.testing.assert_allclose(kernel.numpy(), before * (1 - 0.1 * decay), rtol=1e-5)


@promise
def layer_decay(made):
    """A step of equal gradients, of SGD's first 1.9: each block moves as its depth says, and decays in proportion."""
    options = dict(learning_rate=0.1, warmup_epochs=0.0, decay="constant", layer_decay=0.5)
    for weight_decay in (0.0, 0.25):
        trained = made.model(made.digits, weight_decay=weight_decay, **options)
        depths = depth_of_layers(trained)
        before = {layer.name: layer.get_weights() for layer in trained.layers}
        ones = [keras.ops.ones_like(weight) for weight in trained.trainable_weights]
        trained.optimizer.apply(ones, trained.trainable_weights)
        assert len(set(depths.values())) == 4
        for name in ("stem_conv", "stage1_block1_conv1", "stage2_block1_conv2", "head_dense"):
            share = 0.5 ** (max(depths.values()) - depths[name])
            kernel, old = trained.get_layer(name).get_weights()[0], before[name][0]
            np.testing.assert_allclose(kernel, old * (1 - 0.1 * share * weight_decay) - 0.19 * share, atol=1e-6)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(trained.optimizer))
    assert again.factors == trained.optimizer.factors
    for name in ("adamw", "lamb", "muon", "rmsprop"):
        other = made.model(made.digits, optimizer=name, **options)
        assert (
            type(other.optimizer).__name__
            == f"Layerwise{type(made.model(made.digits, optimizer=name).optimizer).__name__}"
        )


@promise
def whiten_stem(made):
    """Patches of training images are without correlation and of variance 1 behind the filters, which do not learn."""
    recipe = made.digits.replace(model="airbench94", image_size=12, model_options=dict(widths=(4,)), whiten_stem=True)
    data = made.data(recipe)
    trained = _models(recipe, task_of(recipe), data, STEPS, Devices(("cpu:0",)))(Mark(recipe.schedule.epochs))
    stem = trained.get_layer("stem_conv")
    assert "stem_conv/kernel" not in {weight.path for weight in trained.trainable_weights}
    images = data.train.arrays()["image"].astype("float32")
    seen = keras.Model(trained.input, stem.output)(images).numpy().reshape(-1, 24).astype("float64")
    np.testing.assert_allclose(seen[:, 12:], -seen[:, :12], atol=1e-4)
    moments = seen[:, :12].T @ seen[:, :12] / len(seen)
    # digits are grey: of twelve numbers of a patch four are apart and one is their offset; all else is nothing
    assert np.diag(moments)[:7] == pytest.approx(0, abs=1e-3)
    assert np.diag(moments)[7:] == pytest.approx(1, abs=0.05)
    assert np.abs(moments - np.diag(np.diag(moments))).max() < 0.05
    assert "stem_conv/kernel" in {weight.path for weight in made.model(recipe, whiten_stem=False).trainable_weights}
    with pytest.raises(InvalidValueError, match=r"tiny has a kernel of \(3, 3, 3, 4\)"):
        made.model(made.digits, whiten_stem=True)
    with pytest.raises(InvalidValueError, match="weights have theirs; leave one of them out"):
        recipe.replace(weights="any")


@promise
def freeze_epochs(made):
    recipe = made.digits.replace(freeze_epochs=3, epochs=5, weights="any")
    assert (recipe.schedule.frozen, recipe.replace(epochs=2).schedule.frozen) == (3, 1)
    with pytest.raises(InvalidValueError, match="freeze_epochs=-1 must be at least 0"):
        recipe.replace(freeze_epochs=-1)
    with pytest.raises(InvalidValueError, match="freeze_epochs would keep random weights"):
        train(recipe.replace(weights=None))


@promise
def decay(made):
    """Of 4 epochs after one of warm-up, whose learning rate is 0.1."""
    of = {
        "cosine": lambda done: 0.05 * (1 + np.cos(np.pi * done)),
        "linear": lambda done: 0.1 * (1 - done),
        "constant": lambda done: 0.1,
    }
    for name, expected in of.items():
        trained = made.model(made.digits, decay=name, epochs=5)
        for step in range(STEPS, 5 * STEPS + 1, 3):
            done = (step - STEPS) / (4 * STEPS)
            assert rate(trained, step) == pytest.approx(expected(done), abs=1e-7), (name, step)
        assert rate(trained, 1) == pytest.approx(0.1 / STEPS)
    saved = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(trained.optimizer))
    assert float(saved._learning_rate(2)) == pytest.approx(0.2 / STEPS)


@promise
def step_epochs(made):
    trained = made.model(made.digits, decay="step", step_epochs=(2, 4), epochs=5)
    found = [rate(trained, step) for step in (STEPS, 2 * STEPS - 1, 2 * STEPS, 4 * STEPS - 1, 4 * STEPS)]
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    for mistake in (dict(step_epochs=(1,)), dict(decay="step"), dict(decay="step", step_epochs=(3, 2))):
        with pytest.raises(InvalidValueError, match="rising numbers of epochs go with 'step'"):
            made.digits.replace(**mistake)


@promise
def step_factor(made):
    trained = made.model(made.digits, decay="step", step_epochs=(2, 4), step_factor=0.94, epochs=5)
    found = [rate(trained, step) for step in (2 * STEPS - 1, 2 * STEPS, 4 * STEPS - 1, 4 * STEPS)]
    assert found == pytest.approx([0.1, 0.094, 0.094, 0.08836])
    with pytest.raises(InvalidValueError, match=r"step_factor=1\.0 must be between 0 and 1"):
        made.digits.replace(step_factor=1.0)


def steps_of(made, gradients, **changes) -> list[np.ndarray]:
    """How the weights change by some gradients, a step of learning rate 1 for each, without momentum in the first."""
    trained = made.model(
        made.digits, learning_rate=1.0, warmup_epochs=0.0, weight_decay=0.0, decay="constant", **changes
    )
    before = [weight.numpy() for weight in trained.trainable_weights]
    for scale in gradients:
        many = [keras.ops.full(weight.shape, scale) for weight in trained.trainable_weights]
        trained.optimizer.apply(many, trained.trainable_weights)
    return [weight.numpy() - first for weight, first in zip(trained.trainable_weights, before, strict=True)]


@promise
def clip_norm(made):
    count = sum(change.size for change in steps_of(made, [1.0]))
    for clip in (0.5, 1e6):
        found = np.concatenate([change.ravel() for change in steps_of(made, [3.0], clip_norm=clip)])
        # the first step of Nesterov's momentum 0.9 is 1.9 gradients
        assert np.linalg.norm(found) == pytest.approx(1.9 * min(clip, 3 * np.sqrt(count)), rel=1e-4)


@promise
def accumulate(made):
    nothing = steps_of(made, [1.0], accumulate=2)
    assert all((change == 0).all() for change in nothing)
    for one, two in zip(steps_of(made, [2.0]), steps_of(made, [1.0, 3.0], accumulate=2), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


@promise
def ema(made):
    optimizer = made.model(made.digits, ema=0.75).optimizer
    assert (optimizer.use_ema, optimizer.ema_momentum) == (True, 0.75)
    assert not made.model(made.digits).optimizer.use_ema


@promise
def patience(made):
    rows = [{"epoch": epoch, "val_accuracy": value, "val_loss": 1.0} for epoch, value in enumerate((0.1, 0.5, 0.4))]
    assert made.digits.replace(patience=2).schedule.patience == 2
    assert not is_over(rows, "accuracy", 2)
    assert is_over([*rows, {"epoch": 3, "val_accuracy": 0.5, "val_loss": 1.0}], "accuracy", 2)
    assert not is_over(rows, "accuracy", None)


@promise
def label_smoothing(made):
    outputs = np.zeros((1, 10), "float32")
    outputs[0, 3] = 4
    targets = np.eye(10, dtype="float32")[[3]]
    surprise = np.log(np.exp(4) + 9)
    for share in (0.0, 0.2):
        # the right class has 1 - share + share / 10, and each other one share / 10
        expected = surprise - 4 * (1 - share + share / 10)
        assert made.loss(made.digits, targets, outputs, label_smoothing=share) == pytest.approx(expected, rel=1e-5)
    masks, maps = np.zeros((1, 2, 2)), np.zeros((1, 2, 2, 2), "float32")
    maps[..., 0] = 4
    expected = np.log(np.exp(4) + 1) - 4 * 0.9
    assert made.loss(made.scenes, masks, maps, label_smoothing=0.2) == pytest.approx(expected, rel=1e-5)


@promise
def augmentation(made):
    plain, flipped = (
        np.concatenate([images for images, _ in made.batches(made.digits, augmentation=names)])
        for names in ((), ("flip",))
    )
    same = (plain == flipped).all(axis=(1, 2, 3))
    mirrored = (plain == flipped[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (same | mirrored).all()
    assert 0.45 < np.mean(mirrored) < 0.55, "of 2,400 images: half, within 5 standard deviations of 1 %"


@promise
def crop_area(made):
    """The part of a digit that fills the image holds a share of its darkness that tells how large it is."""
    ramp = np.broadcast_to(np.arange(100, dtype="float32")[:, None, None], (500, 100, 100, 1))
    for low, high in ((0.08, 1.0), (0.25, 0.36)):
        augment = made.digits.replace(augmentation=("resized_crop",), crop_area=(low, high)).augment
        cropped = Augmentation(augment)(tf.constant(np.repeat(ramp, 3, axis=-1)), StepSeeds(0, 0, 0)).numpy()
        heights = (cropped[:, 60, 0, 0] - cropped[:, 40, 0, 0]) / 20
        assert np.sqrt(low * 3 / 4) - 0.01 < heights.min() < np.sqrt(low * 3 / 4) + 0.08
        assert heights.max() < min(1, np.sqrt(high * 4 / 3)) + 0.01


def operations_of(made, **changes):
    """Operations and magnitudes that `rand` draws for 2,000 images, one after the other."""
    (layer,) = Augmentation(made.digits.replace(augmentation=("rand",), **changes).augment)._layers
    return layer.get_random_transformation(tf.zeros((2000, 8, 8, 3)), seed=StepSeeds(0, 0, 0))


@promise
def rand_number(made):
    assert len(operations_of(made)) == 2
    assert len(operations_of(made, rand_number=3)) == 3


@promise
def rand_magnitude(made):
    for level in (9, 30):
        kinds, sizes = (array.numpy() for array in operations_of(made, rand_magnitude=level)[0])
        np.testing.assert_allclose(np.abs(sizes[kinds == OPERATIONS.index("rotate")]), level, rtol=1e-5)


@promise
def translate_share(made):
    """An image of its own columns shows by how many columns it moved."""
    columns = np.broadcast_to(np.arange(1, 33, dtype="float32")[None, :, None], (500, 32, 32, 3))
    for share, most in ((1 / 8, 4), (1 / 16, 2)):
        augment = made.digits.replace(augmentation=("translate",), translate_share=share).augment
        moved = Augmentation(augment)(tf.constant(columns), StepSeeds(0, 0, 0)).numpy()[:, 16, 16, 0] - 17
        assert sorted(set(np.round(moved))) == list(range(-most, most + 1))
    with pytest.raises(InvalidValueError, match=r"translate_share=0\.0 must be between 0 and 1"):
        made.digits.replace(translate_share=0.0)


@promise
def erase_share(made):
    for share in (0.25, 1.0):
        (layer,) = Augmentation(made.digits.replace(augmentation=("erase",), erase_share=share).augment)._layers
        erased, _ = layer.get_random_transformation(tf.zeros((2000, 8, 8, 3)), seed=StepSeeds(0, 0, 0))
        # of 2,000 images, within 5 standard deviations of 1 %
        assert erased.numpy().any(axis=(1, 2, 3)).mean() == pytest.approx(share, abs=0.05)
    with pytest.raises(InvalidValueError, match=r"erase_share=0\.0 must be above 0"):
        made.digits.replace(erase_share=0.0)


@promise
def mixup(made):
    (plain, labels), *_ = made.batches(made.digits, epochs=1)
    (images, targets), *_ = made.batches(made.digits, epochs=1, mixup=0.2, label_smoothing=0.1)
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-5)
    soft = (targets.max(axis=1) < 0.99).mean()
    assert 0.4 < soft < 0.8, "of Beta(0.2, 0.2) 0.54 is between 0.01 and 0.99, and of ten classes 0.9 differ"
    blended = np.array([np.linalg.norm(each - image) > 1 for each, image in zip(images, plain, strict=True)])
    assert (blended | (targets.max(axis=1) > 0.99)).all()
    assert labels.max(axis=1).min() == 1


@promise
def cutmix(made):
    (plain, _), *_ = made.batches(made.digits, epochs=1)
    (images, targets), *_ = made.batches(made.digits, epochs=1, cutmix=1.0)
    other = np.roll(plain, 1, axis=0)
    assert ((images == plain) | (images == other)).all(axis=-1).all(), "every pixel is of one or of the other"
    assert (targets.max(axis=1) < 0.99).mean() > 0.5
    accuracy = task_of(made.digits).metrics(made.data(made.digits))[0]
    accuracy.update_state(targets, targets)
    assert float(accuracy.result()) == 1, "of a mixed target the larger share counts"


@promise
def loss(made):
    targets, outputs = np.eye(10, dtype="float32")[[3]], np.zeros((1, 10), "float32")
    outputs[0, 3] = 4
    right, others = np.log(1 + np.exp(-4)), np.log(2)
    expected = {"cross_entropy": np.log(np.exp(4) + 9) - 4, "binary_cross_entropy": (right + 9 * others) / 10}
    for name, value in expected.items():
        assert made.loss(made.digits, targets, outputs, loss=name) == pytest.approx(value, rel=1e-5)
    # 0.02 of the other classes, and 0.82 of the right one
    smooth = (right + 4 * 0.18 + 9 * others) / 10
    found = made.loss(made.digits, targets, outputs, loss="binary_cross_entropy", label_smoothing=0.2)
    assert found == pytest.approx(smooth, rel=1e-5)


@promise
def balanced_sampling(made):
    even = np.concatenate([targets for _, targets in made.batches(made.digits, epochs=1, balanced_sampling=True)])
    assert even.sum(axis=0).tolist() == [120] * 10, "of 1,200 images of ten classes"
    plain = np.concatenate([targets for _, targets in made.batches(made.digits, epochs=1)])
    assert len(even) == len(plain)
    assert np.ptp(plain.sum(axis=0)) > 3


@promise
def crop_size(made):
    images, masks = made.batches(made.scenes, crop_size=(8, 12))[0]
    assert (images.shape, masks.shape) == ((3, 8, 12, 3), (3, 8, 12))
    task = task_of(made.scenes)
    validation = task.validation(made.scenes.replace(crop_size=(8, 12)), made.data(made.scenes))
    assert next(iter(validation))[0].shape[1:] == (16, 24, 3), "validation sees whole images"


@promise
def train_size(made):
    """A crop of the whole image in half of its size is the image in half of its size."""
    whole = dict(augmentation=("resized_crop",), crop_area=(1.0, 1.0), image_size=16)
    small = made.batches(made.digits, train_size=(8, 6), epochs=1, **whole)
    large = made.batches(made.digits, epochs=1, **whole)
    assert small[0][0].shape == (200, 8, 6, 3)
    for (images, _), (others, _) in zip(small[:2], large[:2], strict=True):
        expected = keras.ops.image.resize(others, (8, 6), antialias=True)
        np.testing.assert_allclose(images, expected, atol=1e-3)
    recipe = made.digits.replace(train_size=8, **whole)
    validation = task_of(recipe).validation(recipe, made.data(recipe))
    assert next(iter(validation))[0].shape[1:] == (16, 16, 3), "validation sees images of image_size"
    assert made.model(recipe).input_shape == (None, None, None, 3)
    with pytest.raises(InvalidValueError, match="train_size=8 is of 'resized_crop', which augmentation must name"):
        made.digits.replace(train_size=8)
    with pytest.raises(
        InvalidValueError, match=r"simple_cnn does not take both the crops of 8×8.*leave train_size out"
    ):
        train(recipe.replace(model="simple_cnn"))


INCEPTION = dict(
    model="googlenet_bn",
    image_size=32,
    model_options=dict(modules=("3a", "4a", "4d", "5a"), width=0.125, dropout=0.0, auxiliary_dropout=0.0),
)


@promise
def auxiliary_weight(made):
    """The loss of training is by hand that of three heads, and that of validation that of one."""
    recipe = made.digits.replace(
        auxiliary_weight=0.3, label_smoothing=0.1, warmup_epochs=0.0, learning_rate=0.0, **INCEPTION
    )
    trained = made.model(recipe)
    images, labels = made.data(recipe).train.arrays(24).values()
    images, targets = images.astype("float32"), np.eye(10, dtype="float32")[labels]

    def losses(training):
        return {
            name: -np.mean(np.sum((0.9 * targets + 0.01) * keras.ops.log_softmax(logits).numpy(), axis=1))
            for name, logits in trained(images, training=training).items()
        }

    head, first, second = (losses(training=True)[name] for name in ("head", "auxiliary1", "auxiliary2"))
    before = losses(training=False)["head"]
    assert trained.test_on_batch(images, targets)[0] == pytest.approx(before, rel=1e-5)
    expected = head + 0.3 * (first + second)
    trained.reset_metrics()
    assert trained.train_on_batch(images, targets)[0] == pytest.approx(expected, rel=1e-4)
    trained.reset_metrics()
    right = trained(images, training=False)["head"].numpy().argmax(axis=1) == labels
    assert trained.test_on_batch(images, targets)[1] == pytest.approx(right.mean())

    trained.save(made.folder / "trained.keras")
    again = keras.saving.load_model(made.folder / "trained.keras")
    assert again.auxiliary_weight == 0.3
    options = dict(input_shape=(32, 32, 3), num_classes=10, classifier_activation=None, **recipe.build_options)
    finished = take_weights(recipe, kzoo.build("googlenet_bn", **options), again)
    np.testing.assert_allclose(finished(images), trained(images, training=False)["head"], atol=1e-4)
    assert not [weight.path for weight in finished.weights if "auxiliary" in weight.path]

    for mistake, message in (
        (
            dict(model="resnet18", model_options={}),
            "resnet18 has no auxiliary heads, which GoogLeNet and Inception v3",
        ),
        (dict(auxiliary_weight=0.0), "auxiliary_weight=0.0 must be above zero"),
        (dict(quantization_aware="int8"), "quantization_aware fine-tunes no auxiliary heads"),
        (dict(model_options=dict(auxiliary=True)), "say auxiliary_weight instead"),
    ):
        with pytest.raises(InvalidValueError, match=message):
            recipe.replace(**mistake)


@promise
def dice_weight(made):
    masks, maps = np.zeros((1, 2, 2)), np.zeros((1, 2, 2, 2), "float32")
    # class 0: overlap 2 of 4 + 2; class 1: none of 0 + 2
    dice = np.mean([1 - 2 * 2 / 6, 1])
    for weight in (0.0, 0.5):
        expected = np.log(2) + weight * dice
        assert made.loss(made.scenes, masks, maps, dice_weight=weight) == pytest.approx(expected, rel=1e-4)


@promise
def class_weights(made):
    masks = np.array([[[0, 1]]])
    maps = np.zeros((1, 1, 2, 2), "float32")
    maps[..., 0] = 2  # right in the first pixel, wrong in the second
    right, wrong = np.log(1 + np.exp(-2)), np.log(1 + np.exp(2))
    assert made.loss(made.scenes, masks, maps) == pytest.approx((right + wrong) / 2, rel=1e-5)
    median = [0.5 / 0.75, 0.5 / 0.25]
    log = [1 / np.log(1.02 + 0.75), 1 / np.log(1.02 + 0.25)]
    for kind, (common, rare) in (("median_frequency", median), ("log", log)):
        expected = (common * right + rare * wrong) / (common + rare)
        assert made.loss(made.scenes, masks, maps, class_weights=kind) == pytest.approx(expected, rel=1e-5)
    counts = np.bincount(made.data(made.digits).train.arrays()["label"])
    for label in (0, 8):
        expected = np.log(10) * 1293 / (10 * counts[label])
        found = made.loss(made.digits, np.eye(10)[[label]], np.zeros((1, 10)), class_weights="balanced")
        assert found == pytest.approx(expected, rel=1e-5)


@promise
def precision(made):
    for policy, dtype in (("float32", "float32"), ("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")):
        dense = made.model(made.digits, precision=policy).get_layer("head_dense")
        assert (dense.compute_dtype, dense.kernel.dtype) == (dtype, "float32")


@promise
def jit_compile(made):
    assert made.model(made.digits, jit_compile="true").jit_compile is True
    assert made.model(made.digits, jit_compile="false").jit_compile is False


@promise
def seed(made):
    for number in (0, 1):
        first, again = (made.model(made.digits, seed=number).get_weights() for _ in range(2))
        np.testing.assert_array_equal(first[0], again[0])
    assert np.abs(first[0] - made.model(made.digits).get_weights()[0]).max() > 0.01
    one, other = (np.stack([labels for _, labels in made.batches(made.digits, seed=number)]) for number in (0, 1))
    assert (one != other).any()
    held_out = [made.data(made.digits, seed=number).validation.arrays()["image"] for number in (0, 1)]
    assert (held_out[0] != held_out[1]).any()


@promise
def quantization_aware(made):
    made.model(made.digits).save(made.folder / "trained.keras")
    changes = dict(weights=str(made.folder / "trained.keras"), export=())
    for scheme, most in (("int8", 255), ("int4", 15)):
        recipe = made.digits.replace(quantization_aware=scheme, **changes)
        trained = made.model(recipe)
        finished = take_weights(recipe, kzoo.build("tiny", input_shape=(8, 8, 3), num_classes=10), trained)
        channels = finished.get_layer("stem_conv").get_weights()[0].reshape(-1, 4)  # a scale for each
        levels = [len(np.unique(channel)) for channel in channels.T]
        assert max(levels) <= most
        assert max(levels) > (15 if most == 255 else 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one epoch, its recipe and data, and what it calibrated with and was measured on."""
    seen = {"calibration": [], "measured": []}
    with pytest.MonkeyPatch.context() as patch:
        entry = registry.lookup("cifar_resnet20")
        config = dataclasses.replace(entry.config, depths=(1, 1), widths=(4, 8))
        patch.setitem(registry._ENTRIES, "tiny", dataclasses.replace(entry, name="tiny", config=config))
        export_each, measure = finish.export_each, finish.measure

        def calibrate(model, directory, precisions, calibration, **options):
            seen["calibration"].append(calibration)
            return export_each(model, directory, precisions, calibration, **options)

        def judge(models, batches, make_scorer):
            batches = list(batches)
            seen["measured"] += batches
            return measure(models, batches, make_scorer)

        patch.setattr(finish, "export_each", calibrate)
        patch.setattr(finish, "measure", judge)
        recipe = make_recipe(
            name="test",
            model="tiny",
            dataset="digits",
            image_size=8,
            epochs=1,
            batch_size=200,
            export=("int8",),
            output_dir=tmp_path_factory.mktemp("promises") / "run",
        )
        report = train(recipe)
        yield recipe, task_of(recipe).load(recipe.data, recipe.task, recipe.seed), report, seen


def images_of(array) -> set[bytes]:
    return {np.asarray(image, "uint8").tobytes() for image in array}


def test_integer_files_are_calibrated_with_training_images(run):
    _, data, _, seen = run
    (calibration,) = seen["calibration"]
    shown = images_of(calibration)
    assert len(shown) > 150
    assert shown <= images_of(data.train.arrays()["image"])
    assert not shown & (images_of(data.test.arrays()["image"]) | images_of(data.validation.arrays()["image"]))


def test_scores_are_those_of_the_test_images(run):
    recipe, data, report, seen = run
    images, labels = data.test.arrays().values()
    np.testing.assert_array_equal(np.concatenate([batch["image"] for batch in seen["measured"]]), images)
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in seen["measured"]]), labels)
    probabilities = keras.saving.load_model(recipe.run_dir / "model.keras").predict(
        images.astype("float32"), verbose=0
    )
    # scores of batches of another size may round a tie the other way: at most one image
    assert abs(report["models"]["keras"]["accuracy"] - (probabilities.argmax(1) == labels).mean()) <= 1 / len(labels)
    assert report["dataset"]["test"] == len(labels)


def test_batch_normalisation_follows_by_a_tenth_of_each_step(made):
    trained = made.model(made.digits)
    images = made.data(made.digits).train.arrays(50)["image"].astype("float32")
    layer = trained.get_layer("stem_bn")
    batch = np.asarray(keras.Model(trained.inputs, layer.input)(images))
    trained(images, training=True)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * batch.mean(axis=(0, 1, 2)), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * batch.var(axis=(0, 1, 2)), rtol=1e-3)


def test_a_run_that_goes_on_sees_what_the_whole_run_saw_in_that_epoch(made):
    changes = dict(augmentation=("flip", "translate"), epochs=3)
    whole = made.batches(made.digits, **changes)
    later = made.batches(made.digits, done=1, **changes)
    steps = len(whole) // 3
    assert len(later) == 2 * steps
    for (images, labels), (again, same) in zip(whole[steps:], later, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, same)
    assert (whole[0][1] != later[0][1]).any()


@promise
def export(made):
    assert command_of(made.digits.replace(name="quickstart", export=("int8",))).count("--export int8") == 1


def test_the_files_that_a_recipe_asks_for_are_written(run):
    recipe, _, report, _ = run
    assert [path.name for path in recipe.run_dir.glob("*.tflite")] == ["model_int8.tflite"]
    assert list(report["exports"]) == ["int8"]


@promise
def output_dir(made):
    assert made.digits.replace(output_dir=made.folder / "there").run_dir == made.folder / "there"


@promise
def resume(made):
    directory = ensure_writable(made.folder / "mine")
    (directory / "recipe.json").write_text("{}")
    data = made.data(made.digits)
    run_directory.prepare(made.digits, data, directory)
    assert not (made.folder / "mine.1").exists()
    run_directory.prepare(made.digits.replace(resume=False), data, directory)
    assert (made.folder / "mine.1" / "recipe.json").exists()
    assert list(directory.iterdir()) == [] or [path.name for path in directory.iterdir()] == [".lock"]


@promise
def devices(made):
    """Of another number it is the same run, as of other hosts."""
    told = made.digits.replace(devices=1)
    assert choose_devices(told.hardware, told.schedule.batch_size, Hosts()).names == ("cpu:0",)
    with pytest.raises(InvalidValueError, match="devices=3: no such device; there are cpu:0"):
        choose_devices(told.replace(devices=3).hardware, 3, Hosts())
    assert {*flags_of("hardware", Hardware)} <= {*run_directory.FREE}


def hosts_of(made, **flags) -> tuple:
    """Address, number of processes, number of this one: what JAX is told."""
    jax = pytest.importorskip("jax")
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.distributed, "initialize", lambda **given: asked.append(given))
        hosts._meet(made.digits.replace(**flags).hardware)
    return tuple(asked[0].get(name) for name in ("coordinator_address", "num_processes", "process_id"))


@promise
def coordinator(made):
    assert hosts_of(made, coordinator="localhost:1234", processes=3, process_id=1) == ("localhost:1234", 3, 1)
    assert hosts_of(made, coordinator="auto") == (None, None, None)


@promise
def processes(made):
    assert hosts_of(made, coordinator="localhost:1234", processes=5, process_id=1)[1] == 5
    with pytest.raises(InvalidValueError, match="processes: with coordinator=HOST:PORT"):
        made.digits.replace(processes=5)


@promise
def process_id(made):
    assert hosts_of(made, coordinator="localhost:1234", processes=5, process_id=4)[2] == 4
    with pytest.raises(InvalidValueError, match="process_id=5 must be 0 to 4, one of 5"):
        made.digits.replace(coordinator="localhost:1234", processes=5, process_id=5)


@promise
def checkpoint_minutes(made):
    """Kept behind every batch but the last for 0, else when the time has passed."""
    for minutes, expected in ((0.0, [Mark(0, 2)]), (1e6, [])):
        inside = InsideEpoch(Checkpoints(made.folder / f"{minutes}"), minutes, EpochSeconds(), Mark(0), {})
        trained = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        trained.compile("sgd", "mse")
        trained.fit(np.zeros((6, 2)), np.zeros(6), batch_size=2, callbacks=[inside.clock, inside], verbose=0)
        assert inside.checkpoints.marks() == expected
    with pytest.raises(InvalidValueError, match="checkpoint_minutes=-1 must be zero or more"):
        made.digits.replace(checkpoint_minutes=-1)


@promise
def smoke(made):
    recipe = made.digits.replace(smoke=True, epochs=30)
    task = task_of(recipe)
    assert recipe.run_dir.name == "test-smoke"
    schedule = _shrink(recipe, task).schedule
    assert (schedule.epochs, schedule.batch_size) == (2, 16)
    data = _take(made.data(recipe), task.smoke_images)
    assert (data.train.size, data.validation.size, data.test.size) == (64, 64, 64)


def test_the_temperature_of_the_card_is_fitted_to_validation_images_and_judged_on_test_images(run):
    recipe, data, report, _ = run
    model = keras.saving.load_model(recipe.run_dir / "model.keras")
    found = {}
    for name in ("validation", "test"):
        images, labels = getattr(data, name).arrays().values()
        found[name] = (model.predict(images.astype("float32"), verbose=0).astype("float64"), labels)

    def loss(split, temperature):
        probabilities, labels = found[split]
        powers = probabilities ** (1 / temperature)
        return -np.log(powers[np.arange(len(labels)), labels] / powers.sum(axis=1)).mean()

    told = report["models"]["keras"]["temperature"]
    assert told["fitted_on"] == len(found["validation"][1])
    assert told["loss_before"] == pytest.approx(report["models"]["keras"]["loss"])
    assert told["ece_before"] == pytest.approx(report["models"]["keras"]["ece"])
    assert told["loss_after"] == pytest.approx(loss("test", told["temperature"]), rel=1e-3)
    near = [loss("validation", told["temperature"] * factor) for factor in (0.98, 1, 1.02)]
    assert near[1] == min(near)
    card = (recipe.run_dir / "README.md").read_text()
    assert f"With a temperature of {told['temperature']:.3f}, fitted to the {told['fitted_on']} validation" in card
    for name, caption in report["pictures"].items():
        start, link = (b"<!DOCTYPE html>", "\n") if name == "mistakes.html" else (b"\x89PNG", "\n!")
        assert (recipe.run_dir / name).read_bytes().startswith(start)
        assert f"{link}[{caption}]({name})" in card
    assert {"mistakes.html", "confusion.png", "reliability.png", "predictions.png", "curves.png"} == set(
        report["pictures"]
    )
    assert f"{report['models']['int8']['macro_f1']:.4f}" in card
