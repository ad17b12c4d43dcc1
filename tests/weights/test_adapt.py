"""Other channels, other image sizes, other windows: what is adapted, to which numbers, and what is refused."""

import keras
import numpy as np
import pytest
import safetensors.numpy
from helpers import assert_weights_are, feature_map, pixels, randomise, relative_error, weights_of
from weights.torch_files import TINY, random_state, save, save_keras, tiny

import kzoo
from kzoo.errors import WeightsError
from kzoo.layers import MultiHeadSelfAttention
from kzoo.weights.torch_names import torch_names


@pytest.mark.quick
@pytest.mark.parametrize("saved_as", ["tiny.safetensors", "tiny.h5"])
@pytest.mark.parametrize(
    ("channels", "order", "shares", "done"),
    [
        (1, None, None, "summed"),
        (4, [0, 1, 2, 0], [1 / 2, 1, 1, 1 / 2], "repeated and rescaled"),
        (6, [0, 1, 2, 0, 1, 2], [1 / 2] * 6, "repeated and rescaled"),
        (7, [0, 1, 2, 0, 1, 2, 0], [1 / 3, 1 / 2, 1 / 2, 1 / 3, 1 / 2, 1 / 2, 1 / 3], "repeated and rescaled"),
    ],
)
def test_channels(channels, order, shares, done, saved_as, tmp_path):
    options = dict(include_preprocessing=False)
    source, path = tiny(**options), tmp_path / saved_as
    kzoo.load_weights(source, save(random_state(), tmp_path / "tiny.safetensors"))
    if saved_as == "tiny.h5":
        save_keras(source, path)
    model = tiny(input_shape=(32, 32, channels), **options)
    report = kzoo.load_weights(model, path)
    assert report.adapted == {"stem_conv/kernel": f"3 input channels to {channels}: {done}"}
    rgb, adapted = (np.array(each.get_layer("stem_conv").kernel) for each in (source, model))
    expected = rgb.sum(axis=2, keepdims=True) if channels == 1 else rgb[:, :, order] * np.float32(shares)[:, None]
    np.testing.assert_allclose(adapted, expected, rtol=1e-6)
    grey = feature_map(2, 32, 32, 1)
    assert relative_error(model(grey.repeat(channels, -1)), source(grey.repeat(3, -1))) < 1e-5


def test_two_channels_share_three(tmp_path):
    """No channel is lost: the first takes red and blue."""
    state = random_state()
    model = tiny(input_shape=(32, 32, 2))
    kzoo.load_weights(model, save(state, tmp_path / "tiny.safetensors"))
    red, green, blue = state["conv1.weight"].transpose(1, 2, 3, 0)
    kernel = np.array(model.get_layer("stem_conv").kernel)
    np.testing.assert_allclose(kernel, np.stack([red + blue, green], axis=2), rtol=1e-6)


def test_only_rgb_kernels_become_others(tmp_path):
    path = tmp_path / "grey.weights.h5"
    tiny(input_shape=(32, 32, 1)).save_weights(path)
    for channels in (3, 4):
        model = tiny(input_shape=(32, 32, channels))
        before = weights_of(model)
        with pytest.raises(
            WeightsError, match=rf"stem_conv/kernel has shape \(3, 3, 1, 4\), the model \(3, 3, {channels}"
        ):
            kzoo.load_weights(model, path)
        assert_weights_are(model, before)


def test_only_the_first_kernel_is_adapted(tmp_path):
    state = random_state()
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"][:, :3]
    with pytest.raises(WeightsError, match=r"1 do not fit: layer1.0.conv1.weight has shape \(3, 3, 3, 4\)"):
        kzoo.load_weights(tiny(input_shape=(32, 32, 1)), save(state, tmp_path / "tiny.safetensors"))


SWIN = dict(depths=(1, 1), num_heads=(2, 2), width=8, drop_path_rate=0.0, num_classes=3)
NAT = dict(depths=(1, 1), num_heads=(2, 2), width=8, mlp_ratio=2, drop_path_rate=0.0, num_classes=3, clamp_kernel=True)


def torch_file(model, path, **instead):
    """Every weight of a model under torch's names and in its layouts; some tables are others."""
    state = {}
    for variable in model.weights:
        name, array = torch_names(variable.path, model)[0], np.array(variable)
        if variable.name == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        state[name] = np.ascontiguousarray(instead.get(name.rpartition(".")[2], array))
    safetensors.numpy.save_file(state, path)
    return path


def slopes(window: int) -> np.ndarray:
    """(2 M - 1, 2 M - 1, heads): twice the row's offset plus the column's, and three times the column's."""
    dy, dx = np.mgrid[1 - window : window, 1 - window : window].astype("float32")
    return np.stack([2 * dy + dx, 3 * dx], axis=-1)


def test_tables_of_swin(tmp_path):
    """From windows of 6 to a smaller image's 4×5 and 2×3: linear biases stay linear, the offset 0 stays 0."""
    source = randomise(kzoo.build("swin_tiny", input_shape=(64, 64, 3), window_size=6, **SWIN))
    table = slopes(6).reshape(-1, 2)
    path = torch_file(source, tmp_path / "swin.safetensors", relative_position_bias_table=table)
    same = kzoo.build("swin_tiny", input_shape=(64, 48, 3), window_size=6, **SWIN)
    assert kzoo.load_weights(same, path).adapted == {}
    model = kzoo.build("swin_tiny", input_shape=(16, 20, 3), window_size=6, **SWIN)
    report = kzoo.load_weights(model, path)
    assert report.adapted == {
        f"stage{stage}_block1_attention/position_bias/table": f"biases of 6×6 windows resized to {window}"
        for stage, window in ((1, "4×5"), (2, "2×3"))
    }
    resized = np.array(model.get_layer("stage1_block1_attention").position_bias.table).reshape(7, 9, 2)
    inner = resized[2:5, 3:6]  # away from the edges, where the cubic's neighbours are missing
    dy, dx = np.mgrid[-1:2, -1:2] * np.array([11 / 7, 11 / 9])[:, None, None]  # the same span in fewer steps
    np.testing.assert_allclose(inner, np.stack([2 * dy + dx, 3 * dx], axis=-1), atol=1e-5)
    assert model(pixels(2, 16, 20, 3)).shape == (2, 3)


def test_biases_of_nat(tmp_path):
    source = randomise(kzoo.build("nat_tiny", input_shape=(64, 64, 3), kernel_size=7, **NAT))
    path = torch_file(source, tmp_path / "nat.safetensors", rpb=slopes(7).transpose(2, 0, 1))
    model = kzoo.build("nat_tiny", input_shape=(64, 64, 3), kernel_size=5, **NAT)
    report = kzoo.load_weights(model, path)
    assert report.adapted == {
        f"stage{stage}_block1_attention/position_bias": "biases of 7×7 neighbours resized to 5×5" for stage in (1, 2)
    }
    resized = np.array(model.get_layer("stage2_block1_attention").position_bias)
    dy, dx = np.mgrid[-1:2, -1:2] * 13 / 9
    np.testing.assert_allclose(resized[:, 3:6, 3:6], [2 * dy + dx, 3 * dx], atol=1e-5)


@pytest.mark.parametrize(
    ("table", "shape"),
    [
        (np.zeros((91, 2), "float32"), r"\(91, 2\)"),  # a window of 4×7, or 7×4
        (np.zeros((144, 2), "float32"), r"\(144, 2\)"),
        (np.zeros((121, 3), "float32"), r"\(121, 3\)"),
        (np.zeros((121, 2, 1), "float32"), r"\(121, 2, 1\)"),
        (np.zeros((0, 2), "float32"), r"\(0, 2\)"),
    ],
)
def test_tables_that_may_be_anything_are_refused(table, shape, tmp_path):
    model = randomise(kzoo.build("swin_tiny", input_shape=(64, 64, 3), window_size=4, **SWIN))
    path = torch_file(model, tmp_path / "swin.safetensors", relative_position_bias_table=table)
    before = weights_of(model)
    with pytest.raises(WeightsError, match=f"2 do not fit: .*bias_table has shape {shape}"):
        kzoo.load_weights(model, path)
    assert_weights_are(model, before)


@pytest.mark.parametrize("bias", [(2, 7, 9), (3, 7, 7), (2, 8, 8), (49, 2)])
def test_neighbours_that_do_not_fit(bias, tmp_path):
    model = randomise(kzoo.build("nat_tiny", input_shape=(64, 64, 3), kernel_size=3, **NAT))
    path = torch_file(model, tmp_path / "nat.safetensors", rpb=np.zeros(bias, "float32"))
    with pytest.raises(WeightsError, match=r"2 do not fit: .*rpb has shape"):
        kzoo.load_weights(model, path)


def test_learned_positions(tmp_path):
    def attention(x, name):
        return MultiHeadSelfAttention(2, position="learned", name=name)(x)

    path = tmp_path / "learned.weights.h5"
    options = TINY | dict(attention=attention)
    source = randomise(kzoo.build("cifar_resnet20", input_shape=(16, 16, 3), **options))
    source.get_layer("stage1_block1_attention").encoding.table.assign(keras.ops.full((16, 16, 4), 3.0))
    source.save_weights(path)
    model = kzoo.build("cifar_resnet20", input_shape=(12, 20, 3), **options)
    report = kzoo.load_weights(model, path)
    assert report.adapted == {
        "stage1_block1_attention/encoding/table": "positions resized from 16×16 to 12×20",
        "stage2_block1_attention/encoding/table": "positions resized from 8×8 to 6×10",
    }
    table = np.array(model.get_layer("stage1_block1_attention").encoding.table)
    np.testing.assert_allclose(table, np.full((12, 20, 4), 3.0), rtol=1e-6)


VGG = dict(widths=(4, 4, 4, 4, 4), dense_units=8, map_size=None, num_classes=10)


def test_dense_head_for_other_images(tmp_path):
    """The trunk and a new average head take the file; another dense head does not."""
    source = randomise(kzoo.build("vgg11", input_shape=(64, 64, 3), **VGG))
    path = tmp_path / "vgg.weights.h5"
    source.save_weights(path)
    other = kzoo.build("vgg11", input_shape=(96, 64, 3), **VGG)
    before = weights_of(other)
    with pytest.raises(
        WeightsError, match=r"head_fc1/kernel .*maps of another size.*head='average'.*include_top=False"
    ):
        kzoo.load_weights(other, path)
    assert_weights_are(other, before)
    average = kzoo.build("vgg11", weights=path, **VGG | dict(head="average", input_shape=(None, None, 3)))
    np.testing.assert_array_equal(average.get_layer("stage5_conv2").kernel, source.get_layer("stage5_conv2").kernel)
    with pytest.raises(WeightsError, match="the file is for another number of classes"):
        kzoo.load_weights(average, path)
    report = kzoo.load_weights(average, path, head="initialise")
    assert (report.initialised, report.unexpected) == (["head_dense/kernel", "head_dense/bias"], [])


def test_files_without_a_classifier(tmp_path):
    path = tmp_path / "trunk.weights.h5"
    tiny(include_top=False).save_weights(path)
    model = tiny()
    with pytest.raises(WeightsError, match=r"2 are missing: .*; the file has no classifier; build with include_top=F"):
        kzoo.load_weights(model, path)
    assert kzoo.load_weights(model, path, head="if_fits").initialised == ["head_dense/kernel", "head_dense/bias"]
    state = random_state()
    state["fc.kernel"] = state.pop("fc.weight")
    for head in ("keep", "if_fits"):  # a renamed classifier is not passed over
        with pytest.raises(WeightsError, match=r"are missing: head_dense/kernel; 1 are unexpected: fc.kernel"):
            kzoo.load_weights(model, save(state, tmp_path / "renamed.safetensors"), head=head)
