"""The recipes for ImageNet: the numbers of their sources, and their way through the engine on a tiny folder."""

import keras
import numpy as np
import pytest
from helpers import slow_but
from PIL import Image

import kzoo
from kzoo.images import Pixels
from kzoo.recipe import load_published, load_recipe
from kzoo.registry import lookup
from kzoo.train import train

STEPS = dict(decay="step", warmup_epochs=0, batch_size=256, optimizer="sgd", weight_decay=1e-3)
CROPS = dict(resize="crop", crop=0.875, image_size=224, dataset="imagenet2012", precision="mixed_bfloat16")
SOURCES = {  # flags that a source says, and the top-1 accuracy that it reports
    # torchvision: lr 0.1, 30 epochs a step, wd 1e-4 (here over 1 - 0.9)
    "imagenet_resnet50": (
        STEPS
        | CROPS
        | dict(epochs=90, step_epochs=(30, 60), learning_rate=0.1, augmentation=("resized_crop", "flip")),
        0.7613,
    ),
    # arXiv:2110.00476, Table 2
    "imagenet_resnet50_a3": (
        CROPS
        | dict(crop=0.95, train_size=160, optimizer="lamb", learning_rate=8e-3, weight_decay=0.02, batch_size=2048)
        | dict(epochs=100, warmup_epochs=5, decay="cosine", mixup=0.1, cutmix=1.0, loss="binary_cross_entropy")
        | dict(label_smoothing=0.0, interpolation="bicubic", rand_magnitude=18, rand_number=1),
        0.7805,
    ),
    "imagenet_resnet50_cbam": (
        STEPS | CROPS | dict(epochs=100, step_epochs=(30, 60, 90), learning_rate=0.1, model="resnet50_cbam"),
        0.7734,
    ),
    "imagenet_vgg16_bn": (
        STEPS | CROPS | dict(epochs=90, step_epochs=(30, 60), learning_rate=0.01, model="vgg16_bn"),
        0.7336,
    ),
    # config.py of microsoft/Swin-Transformer
    "imagenet_swin_tiny": (
        CROPS
        | dict(optimizer="adamw", learning_rate=1e-3, weight_decay=0.05, batch_size=1024, epochs=300, clip_norm=5.0)
        | dict(warmup_epochs=20, decay="cosine", mixup=0.8, cutmix=1.0, erase_share=0.25, label_smoothing=0.1)
        | dict(interpolation="bicubic", rand_magnitude=27, rand_number=1),
        0.813,
    ),
    # inception_v3.py of tensorflow/tpu: 0.165 for 256 images
    "imagenet_inception_v3": (
        CROPS
        | dict(image_size=299, optimizer="rmsprop", learning_rate=0.66, weight_decay=4e-4, ema=0.995, batch_size=1024)
        | dict(decay="step", step_factor=0.94, warmup_epochs=0, label_smoothing=0.1, auxiliary_weight=0.4)
        | dict(epochs=170, crop_area=(0.05, 1.0)),
        0.781,
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_recipe_has_the_numbers_of_its_source(name):
    expected, published = SOURCES[name]
    flags = load_recipe(name).flags()
    found = {flag: tuple(flags[flag]) if isinstance(flags[flag], list) else flags[flag] for flag in expected}
    assert found == expected
    assert load_published(name).score == published
    assert flags["validation_fraction"] == 0.01


def test_the_learning_rate_of_inception_falls_after_each_third_epoch():
    schedule = load_recipe("imagenet_inception_v3").schedule
    assert schedule.step_epochs[:2] == (3, 6)
    assert (schedule.step_epochs[-1], len(schedule.step_epochs)) == (168, 56)


def test_swin_drops_a_fifth_of_its_deepest_paths():
    assert lookup(load_recipe("imagenet_swin_tiny").model).config.drop_path_rate == 0.2


@pytest.mark.parametrize(("name", "short"), [("imagenet_resnet50", 256), ("imagenet_resnet50_a3", 235)])
def test_what_is_judged_is_the_centre_of_a_shorter_side(name, short):
    data = load_recipe(name).data
    rows = np.broadcast_to(np.arange(512, dtype="uint8").repeat(1)[:, None, None] // 2, (512, 600, 3))
    picture = Image.fromarray(np.ascontiguousarray(rows))
    resized = picture.resize((600 * short // 512, short), Image.Resampling[data.interpolation.upper()])
    top, left = round((short - 224) / 2), round((resized.width - 224) / 2)
    expected = np.asarray(resized)[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(data.pixels.apply(picture, (224, 224, 3)), expected)
    assert data.pixels == Pixels("crop", data.crop, data.interpolation)


@pytest.fixture(scope="module")
def tiny_imagenet(tmp_path_factory):
    """Ten classes with eight training and two validation images of several sizes, in the layout of ImageNet."""
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for number in range(100):
        place = root / ("train" if number % 10 < 8 else "val") / f"n{number // 10:08d}"
        place.mkdir(parents=True, exist_ok=True)
        height, width = rng.integers(40, 90, 2)
        colour = np.full((height, width, 3), 25 * (number // 10), "uint8")
        Image.fromarray(colour + rng.integers(0, 20, colour.shape, "uint8")).save(place / f"{number}.png")
    return root


@pytest.mark.parametrize("name", slow_but(["imagenet_vgg16_bn"], SOURCES))
def test_a_recipe_goes_the_whole_way_on_a_tiny_imagenet(name, tiny_imagenet, tmp_path, hasty):
    """At a narrow width, in an epoch of four steps."""
    recipe = load_recipe(name)
    narrow = lookup(recipe.model).narrow
    narrow |= dict(depths=(1, 1, 1, 1)) if "resnet50" in recipe.model else {}
    size = 299 if recipe.model == "inception_v3" else 64  # which its auxiliary head needs
    changes = dict(train_size=48) if recipe.crop_shape else {}
    report = train(
        recipe.replace(
            dataset=str(tiny_imagenet),
            image_size=size,
            model_options=narrow,
            epochs=1,
            smoke=True,
            validation_fraction=0.2,
            step_epochs=(1,) if recipe.schedule.decay == "step" else (),
            output_dir=tmp_path / "run",
            **changes,
        )
    )
    finished = keras.saving.load_model(tmp_path / "run-smoke/model.keras")
    assert finished.input_shape == (None, size, size, 3)
    assert finished.output_shape == (None, 10), "one head"
    assert report["dataset"]["test"] == 20, "the validation images are what is judged"
    assert report["dataset"]["validation"] == 16, "and other images choose the epoch"
    assert np.isfinite(report["models"]["keras"]["loss"])
    plain = kzoo.build(recipe.model, input_shape=(size, size, 3), num_classes=10, **narrow)
    assert [weight.shape for weight in plain.weights] == [weight.shape for weight in finished.weights]
