"""Loading torch-style and Keras files: every layout, and every refusal leaves the weights as they were."""

import pickle
import re

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, pixels, randomise, weights_of
from weights.torch_files import LAYERS, TINY, assert_layer_is, random_state, save, save_keras, tiny

import kzoo
from kzoo.errors import InvalidValueError, WeightsError
from kzoo.registry import lookup
from kzoo.weights.family import family_of


@pytest.mark.quick
@pytest.mark.parametrize(
    ("shortcut", "head", "prefix", "dtype"),
    [
        ("downsample", "fc", "", "float32"),  # torchvision and timm
        ("shortcut", "linear", "", "float32"),  # akamaster/pytorch_resnet_cifar10
        ("shortcut", "linear", "module.", "float32"),  # saved from DataParallel
        ("downsample", "classifier", "model.", "float64"),
        ("downsample", "fc", "backbone.", "float16"),
        ("downsample", "fc", "_orig_mod.", "float32"),  # saved from torch.compile
        ("downsample", "fc", "module._orig_mod.", "float32"),
        ("downsample", "fc", "model.module.", "float32"),
        ("shortcut", "linear", "_orig_mod.module.model.backbone.", "float32"),
        ("downsample", "fc", "module.module.", "float32"),
    ],
)
def test_torch_names_and_layouts(shortcut, head, prefix, dtype, tmp_path):
    state = random_state(shortcut, head, prefix=prefix, dtype=dtype)
    model = tiny()
    report = kzoo.load_weights(model, save(state, tmp_path / "tiny.safetensors"))
    for layer, name in LAYERS.items():
        assert_layer_is(model, layer, state, prefix + name.format(shortcut=shortcut, head=head))
    assert len(report.loaded) == len(model.variables)
    assert report.loaded["stage2_block1_shortcut_bn/moving_variance"] == f"layer2.0.{shortcut}.1.running_var"
    assert (report.adapted, report.initialised, report.missing, report.unexpected) == ({}, [], [], [])
    assert str(report).endswith("tiny.safetensors: 32 loaded, 0 adapted, 0 initialised, 0 missing, 0 unexpected")


def test_a_prefix_of_some_names_alone_is_no_wrapper(tmp_path):
    state = {
        f"_orig_mod.{name}" if index else name: array for index, (name, array) in enumerate(random_state().items())
    }
    with pytest.raises(WeightsError, match="31 are missing"):
        kzoo.load_weights(tiny(), save(state, tmp_path / "tiny.safetensors"))


def test_a_notebook_shows_a_report_in_one_line(tmp_path):
    report = kzoo.load_weights(tiny(), save(random_state(), tmp_path / "tiny.safetensors"))
    assert repr(report) == f"<WeightsReport {report}>"
    assert len(repr(report)) < 80 + len(report.source)


def test_a_model_with_a_name_of_its_own_takes_the_same_files(tmp_path):
    state = random_state()
    file = save(state, tmp_path / "tiny.safetensors")
    tiny(name="left").save(tmp_path / "left.keras")
    for model in (tiny(name="left"), keras.saving.load_model(tmp_path / "left.keras")):
        assert model.name == "left"
        report = kzoo.load_weights(model, file)
        assert len(report.loaded) == len(model.variables)
        for layer, name in LAYERS.items():
            assert_layer_is(model, layer, state, name.format(shortcut="downsample", head="fc"))
    assert kzoo.build("cifar_resnet20", **TINY, name="right", weights=str(file)).name == "right"


@pytest.mark.usefixtures("without_values")
def test_the_family_is_known_by_the_layers():
    for name in ("swin_tiny", "nat_mini", "vgg11", "resnet18", "googlenet", "inception_v3"):
        entry = lookup(name)
        size = (max(entry.narrow_size, 75 if "incep" in name else 32),) * 2
        model = kzoo.build(name, input_shape=(*size, 3), name="mine", **entry.narrow)
        assert family_of(model) == entry.family
    for name in ("fcos", "retinanet"):
        model = kzoo.build(name, input_shape=(64, 64, 3), num_classes=2, name="mine", **lookup(name).narrow)
        assert family_of(model) in ("fcos", "retinanet")  # whose rules are the same
    image = keras.Input((4, 4, 3))
    assert family_of(keras.Model(image, keras.layers.Conv2D(2, 1, name="stem_conv")(image), name="mine")) is None


@pytest.mark.parametrize("se", ["se", "se_module"])
def test_squeeze_excite_as_1x1_convolutions(se, tmp_path):
    state = random_state(se=se)
    model = tiny("se")
    report = kzoo.load_weights(model, save(state, tmp_path / "se.safetensors"))
    attention = model.get_layer("stage2_block1_attention")
    np.testing.assert_array_equal(attention.reduce.kernel, state[f"layer2.0.{se}.fc1.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(attention.expand.kernel, state[f"layer2.0.{se}.fc2.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(attention.expand.bias, state[f"layer2.0.{se}.fc2.bias"])
    assert report.adapted == {
        f"stage{stage}_block1_attention/{dense}/kernel": "1×1 convolution to dense"
        for stage in (1, 2)
        for dense in ("reduce", "expand")
    }


def without(name):
    return lambda state: state.pop(name)


def instead(name, array):
    return lambda state: state.update({name: array})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("layer1.0.bn2.bias"), "1 are missing: stage1_block1_bn2/beta"),
        (without("fc.weight"), "1 are missing: head_dense/kernel"),
        (
            instead("layer3.0.conv1.weight", np.zeros((4, 4, 3, 3), "float32")),
            "1 are unexpected: layer3.0.conv1.weight",
        ),
        (
            instead("layer1.0.conv1.weight", np.zeros((4, 4, 5, 5), "float32")),
            r"1 do not fit: layer1.0.conv1.weight has shape \(5, 5, 4, 4\) in Keras layout, "
            r"stage1_block1_conv1/kernel \(3, 3, 4, 4\)",
        ),
        (
            instead("layer2.0.conv1.weight", np.zeros((4, 16, 3, 3), "float32")),
            r"1 do not fit: layer2.0.conv1.weight has shape \(3, 3, 16, 4\) in Keras layout, "
            r"stage2_block1_conv1/kernel \(3, 3, 4, 16\)",
        ),
        (instead("fc.bias", np.zeros(7, "float32")), r"head_dense/bias \(10,\); .*head='initialise'"),
        (instead("bn1.weight", np.zeros(4, "int64")), "bn1.weight holds int64, not floating-point weights"),
        (lambda state: state.clear(), "nothing in it matches"),
    ],
    ids=["missing", "no head", "unexpected", "shape", "axes swapped", "classes", "dtype", "empty"],
)
def test_files_that_do_not_fit(damage, message, tmp_path):
    state = random_state()
    damage(state)
    model = tiny()
    before = weights_of(model)
    with pytest.raises(WeightsError, match=message):
        kzoo.load_weights(model, save(state, tmp_path / "tiny.safetensors"))
    assert_weights_are(model, before)


def test_another_architecture(tmp_path):
    path = save(random_state(), tmp_path / "tiny.safetensors")
    for model in (
        tiny("se"),
        kzoo.build("cifar_resnet20"),
        kzoo.build("cifar_resnet20", **TINY | {"shortcut": "none"}),
    ):
        before = weights_of(model)
        with pytest.raises(WeightsError, match=r"does not fit cifar_resnet20: .*; build the architecture"):
            kzoo.load_weights(model, path)
        assert_weights_are(model, before)


def test_not_strict_loads_what_fits(tmp_path):
    state = random_state()
    gamma = state.pop("bn1.weight")
    state["aux.weight"] = gamma
    model = tiny()
    before = np.array(model.get_layer("stem_bn").gamma)
    report = kzoo.load_weights(model, save(state, tmp_path / "tiny.safetensors"), strict=False)
    assert (report.missing, report.unexpected, len(report.loaded)) == (["stem_bn/gamma"], ["aux.weight"], 31)
    np.testing.assert_array_equal(model.get_layer("stem_bn").gamma, before)
    assert_layer_is(model, "stem_conv", state, "conv1")
    state["conv1.weight"] = np.zeros((4, 1, 3, 3), "float32")
    with pytest.raises(WeightsError, match="1 do not fit"):  # a wrong shape is an error all the same
        kzoo.load_weights(model, save(state, tmp_path / "tiny.safetensors"), strict=False)


def saved_state(path):
    """A random torch state, and the file at `path` that holds it in the format of its name."""
    state = random_state()
    torch_file = save(state, path.with_name("tiny.safetensors"))
    if path != torch_file:
        donor = tiny()
        kzoo.load_weights(donor, torch_file)
        save_keras(donor, path)
    return state, path


@pytest.mark.parametrize("saved_as", ["tiny.safetensors", "tiny.keras", "tiny.weights.h5", "tiny.h5"])
def test_without_a_classifier_the_files_one_is_passed_over(saved_as, tmp_path):
    state, path = saved_state(tmp_path / saved_as)
    trunk = kzoo.build("cifar_resnet20", weights=path, include_top=False, **TINY)
    assert_layer_is(trunk, "stage2_block1_conv2", state, "layer2.0.conv2")


@pytest.mark.parametrize("saved_as", ["tiny.safetensors", "tiny.keras", "tiny.weights.h5", "tiny.h5"])
def test_another_number_of_classes(saved_as, tmp_path):
    state, path = saved_state(tmp_path / saved_as)
    model = tiny(num_classes=3)
    head = weights_of(model.get_layer("head_dense"))
    report = kzoo.load_weights(model, path, head="initialise")
    assert report.initialised == ["head_dense/kernel", "head_dense/bias"]
    assert_weights_are(model.get_layer("head_dense"), head)
    assert_layer_is(model, "stage2_block1_conv2", state, "layer2.0.conv2")

    built = kzoo.build("cifar_resnet20", weights=path, num_classes=3, **TINY)
    assert_layer_is(built, "stage2_block1_conv2", state, "layer2.0.conv2")
    whole = kzoo.build("cifar_resnet20", weights=path, num_classes=10, **TINY)
    assert_layer_is(whole, "head_dense", state, "fc")

    built.get_layer("head_dense").set_weights([np.full((16, 3), 2.0), np.full(3, 5.0)])
    built.save(tmp_path / "three.keras")
    again = kzoo.build("cifar_resnet20", weights=tmp_path / "three.keras", num_classes=3, **TINY)
    assert_weights_are(again, weights_of(built))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lambda whole: whole[: len(whole) // 2], id="half"),
        pytest.param(lambda whole: whole[:-1], id="a byte short", marks=pytest.mark.slow),
        pytest.param(lambda whole: b"", id="empty"),
        pytest.param(lambda whole: b"\x80" * 99, id="noise", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".keras", ".weights.h5", ".h5"])
def test_damaged_files(content, suffix, tmp_path):
    model, path = tiny(), tmp_path / f"tiny{suffix}"
    if suffix == ".safetensors":
        save(random_state(), path)
    else:
        save_keras(tiny(), path)
    path.write_bytes(content(path.read_bytes()))
    before = weights_of(model)
    with pytest.raises(WeightsError, match=re.escape(str(path))):
        kzoo.load_weights(model, path)
    assert_weights_are(model, before)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_become_float32(dtype, tmp_path):
    state = {name: array.astype(dtype) for name, array in random_state().items()}
    model = tiny()
    kzoo.load_weights(model, save(state, tmp_path / "half.safetensors"))
    rounded = {name: array.astype("float32") for name, array in state.items()}
    assert_layer_is(model, "stage2_block1_conv2", rounded, "layer2.0.conv2")
    assert {variable.dtype for variable in model.variables} == {"float32"}


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.quick
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".bin", ".ckpt", ".pkl"])
def test_pickles_stay_closed(suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match=r"is a pickle, .*s\.save_file"):
        kzoo.load_weights(tiny(), path)
    with pytest.raises(WeightsError, match="is no readable safetensors file"):
        kzoo.load_weights(tiny(), path.rename(tmp_path / "model.safetensors"))


def test_sources_that_are_no_weights(tmp_path):
    model = tiny()
    (tmp_path / "weights.npz").write_bytes(b"PK")
    for source, message in (
        (tmp_path / "none.safetensors", "no weights file at .*none.safetensors"),
        (tmp_path, "is a folder without model.safetensors or model.safetensors.index.json"),
        (tmp_path / "weights.npz", r"has an unknown format; use \.safetensors, .* \.weights\.h5, \.h5 or \.keras"),
        (tmp_path / "null\0.h5", "no weights file at"),
        (tmp_path / ("long" * 99 + ".h5"), "cannot be opened"),
        (None, "source=None is no path"),
    ):
        with pytest.raises(WeightsError, match=message):
            kzoo.load_weights(model, source)
    with pytest.raises(InvalidValueError, match="head='drop' is not accepted"):
        kzoo.load_weights(model, tmp_path, head="drop")


@pytest.mark.parametrize("name", ["tiny.keras", "tiny.weights.h5", "tiny.h5"])
def test_files_that_keras_wrote(name, tmp_path):
    donor, path = tiny("cbam"), tmp_path / name
    save_keras(donor, path)
    model = randomise(kzoo.build("cifar_resnet20", attention="cbam", **TINY), seed=4)
    report = kzoo.load_weights(model, path)
    assert_weights_are(model, weights_of(donor))
    assert len(report.loaded) == len(model.variables)
    images = pixels(2, 32, 32, 3)
    np.testing.assert_array_equal(model(images), donor(images))

    plain = randomise(kzoo.build("cifar_resnet20", **TINY | {"shortcut": "none"}))
    for other, message in (
        (tiny(), r"14 are unexpected: stage1_block1_attention/channel/\w+ \(weight 0\)"),
        (tiny("se"), "8 are missing: stage1_block1_attention/reduce/kernel"),
        (plain, "19 are unexpected"),  # every variable of this one is in the file
        (tiny("cbam", num_classes=3), r"2 do not fit: head_dense/kernel has shape \(16, 10\), the model \(16, 3\)"),
    ):
        before = weights_of(other)
        with pytest.raises(WeightsError, match=message):
            kzoo.load_weights(other, path)
        assert_weights_are(other, before)
