"""A tiny network, and files for it as torch code and as Keras write them."""

import json
from pathlib import Path

import keras
import numpy as np
import safetensors.numpy
from helpers import randomise

import kzoo

TINY = dict(depths=(1, 1), widths=(4, 16), shortcut="projection")
# the layers of the tiny network -> what torch code calls them; {} stands for names that differ between code bases
LAYERS = {
    "stem_conv": "conv1",
    "stem_bn": "bn1",
    "stage1_block1_conv1": "layer1.0.conv1",
    "stage1_block1_bn1": "layer1.0.bn1",
    "stage1_block1_conv2": "layer1.0.conv2",
    "stage1_block1_bn2": "layer1.0.bn2",
    "stage2_block1_conv1": "layer2.0.conv1",
    "stage2_block1_bn1": "layer2.0.bn1",
    "stage2_block1_conv2": "layer2.0.conv2",
    "stage2_block1_bn2": "layer2.0.bn2",
    "stage2_block1_shortcut_conv": "layer2.0.{shortcut}.0",
    "stage2_block1_shortcut_bn": "layer2.0.{shortcut}.1",
    "head_dense": "{head}",
}


def tiny(attention=None, **options) -> keras.Model:
    return randomise(kzoo.build("cifar_resnet20", attention=attention, **TINY, **options), seed=3)


def random_state(shortcut="downsample", head="fc", se=None, prefix="", dtype="float32") -> dict[str, np.ndarray]:
    """A torch state dict for the tiny network, written by hand."""
    rng = np.random.default_rng(5)
    shapes = {"conv1.weight": (4, 3, 3, 3), "bn1": 4}
    for stage, before, width in ((1, 4, 4), (2, 4, 16)):
        shapes[f"layer{stage}.0.conv1.weight"] = (width, before, 3, 3)
        shapes[f"layer{stage}.0.conv2.weight"] = (width, width, 3, 3)
        shapes[f"layer{stage}.0.bn1"] = shapes[f"layer{stage}.0.bn2"] = width
        if se:
            shapes[f"layer{stage}.0.{se}.fc1.weight"] = (8, width, 1, 1)
            shapes[f"layer{stage}.0.{se}.fc2.weight"] = (width, 8, 1, 1)
            shapes[f"layer{stage}.0.{se}.fc1.bias"], shapes[f"layer{stage}.0.{se}.fc2.bias"] = (8,), (width,)
    shapes[f"layer2.0.{shortcut}.0.weight"], shapes[f"layer2.0.{shortcut}.1"] = (16, 4, 1, 1), 16
    shapes[f"{head}.weight"], shapes[f"{head}.bias"] = (10, 16), (10,)
    state = {}
    for name, shape in shapes.items():
        if isinstance(shape, int):
            for kind in ("weight", "bias", "running_mean", "running_var"):
                state[f"{prefix}{name}.{kind}"] = rng.uniform(0.5, 1.5, shape).astype(dtype)
            state[f"{prefix}{name}.num_batches_tracked"] = np.array(9)
        else:
            state[f"{prefix}{name}"] = rng.normal(size=shape).astype(dtype)
    return state


def save(state, path):
    safetensors.numpy.save_file(state, path)
    return path


def save_shards(state, folder) -> Path:
    """Two shards and their index, as the hub's libraries name them."""
    names = sorted(state)
    index = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save({name: state[name] for name in part}, folder / shard)
        index |= dict.fromkeys(part, shard)
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))
    return path


def save_keras(model, path) -> None:
    """Saves the weights alone or the whole model, as the suffix says, with an optimizer's state beside them."""
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.save_weights(path) if path.name.endswith(".weights.h5") else model.save(path)


def in_keras_layout(array):
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def assert_layer_is(model, layer: str, state, torch_name: str) -> None:
    names = ("weight", "bias", "running_mean", "running_var")
    arrays = [state[f"{torch_name}.{name}"] for name in names if f"{torch_name}.{name}" in state]
    for variable, array in zip(model.get_layer(layer).weights, arrays, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), in_keras_layout(array).astype("float32"))
