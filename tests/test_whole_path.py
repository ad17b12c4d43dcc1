"""What every model of the zoo must do: save, learn under XLA, fold, and run whole on the XNNPACK delegate."""

import dataclasses

import keras
import pytest
from helpers import kinds, one_of_each_kind, pixels, randomise, relative_error, slow_but

import kzoo
from kzoo.check import NarrowModel, checks
from kzoo.check.jax_process import JaxProcess
from kzoo.registry import CLASSIFICATION, DETECTION, lookup
from kzoo.surgery import plan_folding
from kzoo.taps import TAP, tap_names

# One of each family and slot of attention, and what does not pad, with the overrides that leave out what comes twice;
# `pytest -m slow` takes a name of each kind of narrow model, `kzoo check --all` every name.
QUICK = {
    "cifar_resnet110": dict(depths=(1, 1), widths=(8, 12)),
    "airbench94": {},
    "fcos": dict(backbone_options=dict(depths=(1, 1, 1, 1), widths=(8, 12, 16, 24))),
    "fpn": dict(backbone_options=dict(depths=(1, 1, 1, 1), widths=(8, 12, 16, 24))),
    "googlenet_bn_se": dict(modules=("3a", "4a", "5a")),
    "inception_v3_keras": {},
    "nat_mini": dict(depths=(2, 1), num_heads=(2, 2)),
    "resnet101_nl": {},
    "resnet101_v2_cbam": dict(depths=(2, 1), widths=(8, 12)),
    "resnet26_sasa_full": dict(depths=(1, 1), widths=(16, 16)),
    "retinanet": dict(backbone_options=dict(depths=(1, 1, 1, 1), widths=(8, 12, 16, 24))),
    "simple_cnn": {},
    "swin_base": dict(depths=(2, 1), num_heads=(2, 4)),
    "unet": dict(widths=(8, 12)),
    "unet_padded_cbam": dict(widths=(16, 24)),
    "vgg11_bn": {},
}
IN_JAX = ("simple_cnn", "swin_base")  # every layer by itself equals JAX too
# What XLA compiles in seconds; every layer by itself learns under XLA too
QUICK_TO_LEARN = ("simple_cnn", "unet_padded")


@pytest.fixture(scope="module")
def jax():
    """The process that computes under JAX."""
    if not JaxProcess.available():
        pytest.skip("jax is not installed")
    with JaxProcess() as process:
        yield process


def narrow_model(name: str, directory, jax: JaxProcess | None = None) -> NarrowModel:
    """The narrow model, shorter where it is among the quick."""
    return NarrowModel(name, directory, jax, dict(lookup(name).narrow) | QUICK.get(name, {}))


def norms(model) -> set[str]:
    return {layer.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}


@pytest.mark.usefixtures("without_values")
@pytest.mark.parametrize("name", one_of_each_kind(kzoo.list_models()))
def test_builds_with_taps_at_their_strides(name):
    entry = lookup(name)
    height, width = entry.narrow_size, 2 * entry.narrow_size
    model = kzoo.build(name, input_shape=(height, width, 3), num_classes=7, **entry.narrow)
    if entry.task == CLASSIFICATION:
        assert model.output.shape == (None, 7)
    elif entry.task == DETECTION:
        places = model.get_layer("head_boxes").places
        assert places.padded == (height, width)
        assert {key: each.shape[1:] for key, each in model.output.items()} == {
            "boxes": (places.count, 4),
            "scores": (places.count, 7),
        }
    elif name != "unet":  # which loses what its convolutions do not pad
        assert model.output.shape == (None, height, width, 7)
    levels = [int(tap[1:]) for tap in tap_names(model) if TAP.fullmatch(tap)]
    assert levels == list(range(levels[0], levels[-1] + 1))
    assert 2 ** levels[-1] == dataclasses.replace(entry.config, **entry.narrow).total_stride
    # pixels of a map that convolutions without padding cost
    lost = {"inception_v3": 4, "airbench": 1, "unet": 8 if name == "unet" else 0}.get(entry.family, 0)
    for level in levels:
        stride = 2**level
        rows, columns = model.get_layer(f"p{level}").output.shape[1:3]
        assert height // stride - lost <= rows <= height // stride
        assert width // stride - lost <= columns <= width // stride


@pytest.mark.parametrize("name", slow_but(QUICK, kinds(kzoo.list_models()), quick=["simple_cnn"]))
def test_saves_and_folds_and_exports(name, tmp_path):
    narrow = narrow_model(name, tmp_path)
    checks.builds(narrow)
    checks.saves(narrow)
    checks.folds(narrow)
    assert set(plan_folding(narrow.model).kept) == norms_that_stay(narrow.model) == norms(narrow.folded)
    checks.exports(narrow)


@pytest.mark.parametrize("name", slow_but(IN_JAX, kinds(kzoo.list_models())))
def test_equals_jax(name, tmp_path, jax):
    checks.jax(narrow_model(name, tmp_path, jax))


def norms_that_stay(model) -> set[str]:
    """Of a pre-activation network, those that read a sum or the stem's pool: each block's first and the last one.

    Of a network with an attention stem, and of each stage of airbench, the one behind its max-pooling. All others
    follow a linear layer.
    """
    if model.name.startswith("airbench"):
        return {f"stage{number}_bn1" for number in (1, 2)}
    if model.name.endswith("_full"):
        return {"stem_bn"}
    if "_v2" not in model.name and not model.name.startswith("residual_attention"):
        return set()
    return {layer.name for layer in model.layers if layer.name == "final_bn" or layer.name.endswith("_bn1")}


@pytest.mark.parametrize("name", slow_but(QUICK_TO_LEARN, kinds(kzoo.list_models()), quick=["simple_cnn"]))
def test_learns_under_xla(name, tmp_path, compiling):
    compiling(learns, name, tmp_path)


def learns(name: str, directory) -> None:
    narrow = NarrowModel(name, directory)
    checks.gradients(narrow)
    checks.learns(narrow)
    assert narrow.in_training.jit_compile is True


def test_biases_that_training_cannot_feel(tmp_path):
    assert NarrowModel("vgg11", tmp_path).idle_biases == set()
    convolutions = {"stage1_conv1", "stage2_conv1", "stage2_conv2", "stage3_conv1", "stage4_conv1", "stage5_conv1"}
    assert NarrowModel("vgg11_bn", tmp_path).idle_biases == {f"{name}/bias" for name in convolutions}
    assert {path.split("/")[1] for path in NarrowModel("resnet50_nl", tmp_path).idle_biases} == {"g", "phi", "out"}
    pre_activation = NarrowModel("resnet50_v2", tmp_path).idle_biases  # they read sums of what they normalise
    assert {"stage1_block2_conv3/bias", "stage4_block1_shortcut_conv/bias"} <= pre_activation
    scaled = NarrowModel("resnet50_v2_se", tmp_path).idle_biases  # each image scales the branches, not the shortcuts
    assert scaled == {path for path in pre_activation if "shortcut" in path}


def test_every_family_is_among_the_quick():
    families = {lookup(name).family for name in kzoo.list_models()}
    slow = {"residual_attention"}  # takes as long as three others
    assert {lookup(name).family for name in QUICK} == families - slow
    assert all(QUICK[name].keys() <= lookup(name).narrow.keys() for name in QUICK)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "resnet50_v1",
        "resnet50_v2",
        "resnet50_se",
        "resnet50_cbam",
        "cifar_resnet20",
        "plain18",
    ],
)
def test_full_size_runs_in_one_partition(name, tmp_path):
    model = randomise(kzoo.build(name, classifier_activation=None))
    images = pixels(2, *model.input.shape[1:])
    folded = kzoo.fold_batch_norm(model)
    assert norms(folded) == norms_that_stay(model)
    assert relative_error(folded(images), model(images)) < 1e-5
    report = kzoo.export(folded, tmp_path / "model.tflite", calibration=images)
    assert report.xnnpack_partitions == 1
    assert report.max_rel_error < 1e-5
