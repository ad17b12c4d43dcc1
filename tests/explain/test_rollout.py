"""Attention rollout against products of dense matrices in NumPy, and its gradients against finite differences."""

import dataclasses
import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import in_float64, pixels, randomise
from layers.attention_loops import dense_weights

import kzoo
from kzoo.errors import InvalidValueError
from kzoo.explain import attention_rollout
from kzoo.explain.cams import as_tensor, logits_of
from kzoo.explain.places import attending, read_weights
from kzoo.explain.replay import Replay
from kzoo.explain.rollout import weight_gradients
from kzoo.explain.targets import score_of
from kzoo.layers import (
    AttentionStem,
    KernelRegressionAttention,
    LayerNormalization,
    MatchSize,
    MergePixels,
    MultiHeadSelfAttention,
    NeighborhoodAttention,
    NonLocal,
    StandAloneSelfAttention,
    WindowAttention,
)
from kzoo.registry import lookup

TARGETS = [1, 0]


def read_equally(out, size, rows, columns):
    """(places, places): each place of an output reads those places of `rows(i)` × `columns(j)` that exist."""
    found = np.zeros((*out, *size))
    for i, j in np.ndindex(*out):
        seen = [(a, b) for a in rows(i) for b in columns(j) if 0 <= a < size[0] and 0 <= b < size[1]]
        for place in seen:
            found[(i, j, *place)] = 1 / len(seen)
    return found.reshape(out[0] * out[1], -1)


def merged(out, size):
    return read_equally(out, size, lambda i: (2 * i, 2 * i + 1), lambda j: (2 * j, 2 * j + 1))


def convolved(out, size):
    """By a 3×3 convolution with stride 2 that is padded with one zero in front."""
    return read_equally(out, size, lambda i: range(2 * i - 1, 2 * i + 2), lambda j: range(2 * j - 1, 2 * j + 2))


class Dense:
    """The matrices (n, places, places) of the attention layers of a model, mean over heads, in NumPy."""

    def __init__(self, model, images, gradients: bool):
        self.model, self.images, self.silent = model, images, False
        replay, tensor = Replay(model), as_tensor(model, images)
        nodes = attending(replay, [replay.nodes[-1]])
        self.read = {
            node: read_weights(node.operation, *each)
            for node, each in zip(nodes, replay.arguments(tensor, nodes), strict=True)
        }
        self.slopes = {}
        if gradients:
            score = score_of(TARGETS, logits_of(replay, tensor), "")
            self.slopes = weight_gradients(replay, tensor, self.read, score)

    def __call__(self, layer: str, before: str):
        """Of a layer, called on the output of another; a gradient is laid out query by query, as maps are."""
        (node,) = [node for node in self.read if node.path == layer]
        x = kzoo.activations(self.model, self.images, before)[before]
        height, width = x.shape[1:3]
        if self.silent:
            return np.zeros((len(x), height * width, height * width))
        weights = dense_weights(x, node.operation).reshape(len(x), -1, height * width, height * width)
        if not self.slopes:
            return weights.mean(axis=1)
        slopes = dataclasses.replace(self.read[node], tensor=self.slopes[node])
        shares = [((y + 0.5) / height, (x + 0.5) / width) for y, x in np.ndindex(height, width)]
        laid = np.stack([slopes.of_query(share, "") for share in shares], axis=2).reshape(weights.shape)
        return np.maximum(weights * laid, 0).mean(axis=1)


def product(matrices) -> np.ndarray:
    """Relevance of every place of the first map, of matrices from the first layer to the last."""
    whole = matrices[0]
    for matrix in matrices[1:]:
        whole = matrix @ whole
    return whole.mean(axis=-2)


def half(matrix):
    """½ A + ½ 1."""
    return (matrix + np.eye(matrix.shape[-1])) / 2


def check(model, images, matrices, size, gradients):
    """Against the product of `matrices(dense)`; with gradients without what comes past all attention."""
    dense = Dense(model, images, gradients)
    found = attention_rollout(model, images, TARGETS if gradients else None, gradients)
    expected = product(matrices(dense)).reshape(-1, *size)
    if gradients:
        dense.silent = True
        expected = expected - product(matrices(dense)).reshape(-1, *size)
        assert expected.max() > 0
    assert found.shape == (2, *size)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    return found


@pytest.mark.parametrize("gradients", [False, True])
def test_a_stack_of_self_attention(gradients):
    """On tokens, which are a square at the end, and whatever works place by place between."""
    inputs = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(8, 2, strides=2, name="map")(keras.layers.Rescaling(1 / 128, -1)(inputs))
    for index in (1, 2, 3):
        y = LayerNormalization(name=f"norm{index}")(x)
        x = keras.layers.Add()([x, MultiHeadSelfAttention(2, name=f"attention{index}")(y)])
        y = keras.layers.Dense(8, activation="gelu")(keras.layers.LayerNormalization()(x))
        gates = keras.layers.GlobalAveragePooling2D(keepdims=True)(y)
        x = keras.layers.Add()([x, keras.layers.Multiply()([y, gates])])
    x = keras.layers.GlobalAveragePooling1D()(keras.layers.Reshape((16, 8))(x))
    model, images = randomise(keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))), pixels(2, 9, 9, 3)

    def matrices(dense):
        return [half(dense(f"attention{index}", f"norm{index}")) for index in (1, 2, 3)]

    found = check(model, images, matrices, (4, 4), gradients)
    if not gradients:
        np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, rtol=1e-5)


def zoo(name: str, height: int, width: int, **options):
    options = lookup(name).narrow | options
    return randomise(kzoo.build(name, input_shape=(height, width, 3), num_classes=4, **options))


def block(dense, stage: int, index: int):
    name = f"stage{stage}_block{index}"
    return half(dense(f"{name}_attention", f"{name}_norm1"))


@pytest.mark.parametrize("gradients", [False, True])
def test_swin(gradients):
    """Windows, shifted and not, on odd maps: padding in windows takes relevance away, padding of patches does not."""
    model, images = zoo("swin_tiny", 28, 36, depths=(2, 2), num_heads=(2, 2)), pixels(2, 28, 36, 3)

    def matrices(dense):
        first, second = ([block(dense, stage, index) for index in (1, 2)] for stage in (1, 2))
        return [*first, merged((4, 5), (7, 9)), *second]

    found = check(model, images, matrices, (7, 9), gradients)
    if not gradients:
        assert (found.sum(axis=(1, 2)) < 0.999).all()


@pytest.mark.parametrize("gradients", [False, True])
def test_nat(gradients):
    """Neighbourhoods that move inside at the border, and overlapping convolutions between the stages."""
    model = zoo("nat_tiny", 40, 33, depths=(2, 1, 1), num_heads=(2, 2, 2))
    images = pixels(2, 40, 33, 3)
    sizes = [(10, 9), (5, 5), (3, 3)]
    between = [convolved(out, size) for size, out in itertools.pairwise(sizes)]

    def matrices(dense):
        first, *others = (block(dense, *each) for each in ((1, 1), (1, 2), (2, 1), (3, 1)))
        return [first, others[0], between[0], others[1], between[1], others[2]]

    found = check(model, images, matrices, (10, 9), gradients)
    if not gradients:
        np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("gradients", [False, True])
def test_layers_that_pool(gradients):
    """Attention behind which means are taken, and a block whose keys are pooled and that adds its input."""
    inputs = keras.Input((7, 10, 3))
    x = keras.layers.Conv2D(8, 1, name="map")(keras.layers.Rescaling(1 / 128, -1)(inputs))
    x = StandAloneSelfAttention(8, 3, 2, strides=2, name="local")(x)
    x = NonLocal(name="everywhere")(x)
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))
    model, images = randomise(keras.Model(inputs, x)), pixels(2, 7, 10, 3)
    pooled = read_equally((4, 5), (7, 10), lambda i: (2 * i, 2 * i + 1), lambda j: (2 * j, 2 * j + 1))
    keys = read_equally((2, 2), (4, 5), lambda i: (2 * i, 2 * i + 1), lambda j: (2 * j, 2 * j + 1))
    pairs = np.array(
        model.get_layer("everywhere").attention_weights(kzoo.activations(model, images, "local")["local"])
    )

    def matrices(dense):
        node = next(node for node in dense.read if node.path == "everywhere")
        slopes = dense.slopes.get(node, np.ones(pairs.shape)).reshape(pairs.shape)
        shares = np.maximum(pairs * slopes, 0) * (not dense.silent)
        return [pooled @ dense("local", "map"), half(shares @ keys)]

    check(model, images, matrices, (7, 10), gradients)


def test_a_stem_with_windows():
    inputs = keras.Input((6, 8, 3))
    stem = AttentionStem(8, 4, 2, name="stem")
    x = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(stem(keras.layers.Identity()(inputs))))
    model, images = randomise(keras.Model(inputs, x)), pixels(2, 6, 8, 3)
    expected = np.zeros((2, 6, 8))
    for y, x in np.ndindex(6, 8):
        in_window = 4 * (4 if y < 4 else 2)
        expected += kzoo.attention_maps(model, images, (y, x))["stem"].mean(axis=1) / in_window / 4
    np.testing.assert_allclose(attention_rollout(model, images), expected, rtol=1e-4, atol=1e-7)


class Perturbed:
    """Adds to the weights of each attention in its turn, whichever layer computes them."""

    def __init__(self, monkeypatch, added):
        from kzoo.layers import local_attention, self_attention, window_attention

        self.added, self.step, self.turn = added, 0.0, 0
        for module in (local_attention, self_attention, window_attention):
            monkeypatch.setattr(module, "weigh", self._around(module.weigh))

    def _around(self, weigh):
        def perturbed(*args):
            weights = weigh(*args) + self.step * self.added[self.turn]
            self.turn += 1
            return weights

        return perturbed

    def logits(self, model, images, step: float) -> np.ndarray:
        self.step, self.turn = step, 0
        found = np.array(model(images))
        assert self.turn == len(self.added)
        return found


def mixed_net(*layers: keras.layers.Layer) -> keras.Model:
    inputs = keras.Input((9, 7, 3))
    x = keras.layers.Conv2D(8, 3, padding="same")(keras.layers.Rescaling(1 / 128, -1)(inputs))
    every = (WindowAttention(2, 4, 2), NeighborhoodAttention(2, 3, 2), StandAloneSelfAttention(8, 3, 2))
    for layer in layers or (*every, MultiHeadSelfAttention(2)):
        x = keras.layers.Add()([x, layer(LayerNormalization()(x))])
    return randomise(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))))


def test_gradients_in_the_weights_are_those_of_finite_differences(monkeypatch):
    """In float64, of all layers at once: what a lower layer changes in the weights of the upper ones counts too."""
    model, images = in_float64(mixed_net()), pixels(2, 9, 7, 3)
    replay, tensor = Replay(model), as_tensor(model, images)
    nodes = attending(replay, [replay.nodes[-1]])
    found = {
        node: read_weights(node.operation, *each)
        for node, each in zip(nodes, replay.arguments(tensor, nodes), strict=True)
    }
    slopes = weight_gradients(replay, tensor, found, score_of(TARGETS, logits_of(replay, tensor), ""))
    rng = np.random.default_rng(0)
    added = [rng.normal(size=weights.tensor.shape) for weights in found.values()]
    perturbed, step = Perturbed(monkeypatch, added), 1e-5
    up, down = (perturbed.logits(model, images, sign * step) for sign in (1, -1))
    expected = ((up - down) / (2 * step))[np.arange(2), TARGETS]
    told = sum(
        (slope * direction).reshape(2, -1).sum(axis=1) for slope, direction in zip(slopes.values(), added, strict=True)
    )
    np.testing.assert_allclose(told, expected, rtol=1e-4)


def test_each_image_is_rolled_by_itself():
    model, images = mixed_net(WindowAttention(2, 4, 2)), pixels(2, 9, 7, 3)
    for gradients, targets in ((False, [None, None]), (True, TARGETS)):
        together = attention_rollout(model, images, targets if gradients else None, gradients)
        assert together.min() >= 0
        for index, target in enumerate(targets):
            alone = attention_rollout(model, images[index : index + 1], target, gradients)
            np.testing.assert_allclose(alone[0], together[index], rtol=1e-4, atol=1e-6 * together.max())
    np.testing.assert_array_equal(
        attention_rollout(model, images, gradients=True),
        attention_rollout(model, images, np.argmax(model(images), axis=-1), gradients=True),
    )


def test_a_model_inside_a_model_and_a_net_for_segmentation():
    """Of an enlarged map each place hands its relevance to the nearest one."""
    inputs = keras.Input((6, 4, 3))
    x = keras.layers.Conv2D(4, 1)(inputs)
    inner = keras.Model(inputs, MultiHeadSelfAttention(1, name="attention")(x), name="inner")
    image = keras.Input((6, 4, 3))
    x = keras.layers.UpSampling2D(2)(inner(image))
    x = keras.layers.Conv2D(5, 3, padding="same", name="behind")(x)
    model, images = randomise(keras.Model(image, keras.layers.Conv2D(3, 1)(x))), pixels(2, 6, 4, 3)
    found = attention_rollout(model, images)
    weights = np.stack([kzoo.attention_maps(model, images, place)["inner/attention"] for place in np.ndindex(6, 4)])
    around = read_equally((12, 8), (12, 8), lambda i: (i - 1, i, i + 1), lambda j: (j - 1, j, j + 1))
    above = around.mean(axis=0).reshape(6, 2, 4, 2).sum(axis=(1, 3)).reshape(-1)
    np.testing.assert_allclose(found, np.tensordot(above, weights[:, :, 0], 1), rtol=1e-4)
    assert attention_rollout(model, images, kzoo.explain.Region(1), gradients=True).shape == (2, 6, 4)


def head(x):
    return keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x))


def test_what_cannot_be_rolled_is_told():
    images, inputs = pixels(2, 8, 8, 4), keras.Input((8, 8, 4))
    with pytest.raises(InvalidValueError, match=r"no attention over places, .*: MultiHeadSelfAttention, NonLocal"):
        attention_rollout(keras.Model(inputs, head(keras.layers.Conv2D(4, 3)(inputs))), images)
    attention = MultiHeadSelfAttention(2)(inputs)
    model = keras.Model(inputs, head(attention))
    with pytest.raises(InvalidValueError, match="ask no target; leave it out, or give gradients=True"):
        attention_rollout(model, images, target=1)
    with pytest.raises(InvalidValueError, match="images have shape"):
        attention_rollout(model, images[0])
    moved = keras.layers.Permute((2, 1, 3), name="turned")(attention)
    keras_own = keras.layers.MultiHeadAttention(2, 2, name="other")(attention, attention)
    larger = keras.layers.Conv2DTranspose(4, 2, strides=2, name="larger")(attention)
    cut = MatchSize(name="cut")([keras.layers.UpSampling2D(2)(attention), keras.layers.ZeroPadding2D(3)(inputs)])
    for x, name in ((moved, "turned"), (keras_own, "other"), (larger, "larger"), (cut, "cut")):
        model = keras.Model(inputs, head(keras.layers.Conv2D(4, 3)(x)))
        with pytest.raises(InvalidValueError, match=rf"rollout cannot tell which places {name} \(\w+\) reads"):
            attention_rollout(model, images)
    keys = KernelRegressionAttention(name="other_keys")(attention, inputs)
    with pytest.raises(InvalidValueError, match="other_keys looks at another tensor"):
        attention_rollout(keras.Model(inputs, head(keys)), images)


@pytest.mark.slow
def test_jax_gives_the_same_maps(tmp_path):
    model, images = mixed_net(), pixels(2, 9, 7, 3)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, keras, kzoo, numpy as np; from kzoo.explain import attention_rollout as rollout; "
        "folder = sys.argv[1]; images = np.load(f'{folder}/images.npy'); "
        "model = keras.models.load_model(f'{folder}/model.keras'); "
        "maps = kzoo.attention_maps(model, images, (2, 3)); "
        "maps |= {'plain': rollout(model, images), 'slopes': rollout(model, images, [1, 0], True)}; "
        "np.savez(f'{folder}/maps.npz', **maps)"
    )
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code, tmp_path], check=True, env=environment, capture_output=True)
    expected = kzoo.attention_maps(model, images, (2, 3)) | {
        "plain": attention_rollout(model, images),
        "slopes": attention_rollout(model, images, TARGETS, True),
    }
    found = np.load(tmp_path / "maps.npz")
    assert set(found.files) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-5 * values.max(), err_msg=name)


def test_merged_pixels_are_those_of_the_layer():
    """What the reference takes patch merging to read is what changes it."""
    layer, x = MergePixels(), np.zeros((1, 4, 6, 1), "float32")
    for place in np.ndindex(4, 6):
        x[:] = 0
        x[(0, *place)] = 1
        seen = np.array(layer(x))[0].any(axis=-1)
        np.testing.assert_array_equal(seen.reshape(-1), merged((2, 3), (4, 6)).reshape(6, 4, 6)[(..., *place)] > 0)
