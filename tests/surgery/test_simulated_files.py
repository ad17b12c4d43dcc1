"""Simulated integers are those of the file: bits of every kind of kernel, outputs, accuracy, for every scheme."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from helpers import converted_once, pixels, randomise, slow_but
from keras import layers

import kzoo
from kzoo.edge import LiteRTModel
from kzoo.precisions import CONV, DENSE, DEPTHWISE, LINEAR, PRECISIONS, TRANSPOSED
from kzoo.surgery import insert_fake_quantization, remove_fake_quantization
from kzoo.surgery.fake_quantization import INTEGER, FakeQuantize, FakeQuantizedWeights, kernel_bits
from kzoo.train.quantization_aware import SCHEMES

SHAPE = (12, 12, 3)
OP_NAMES = {"TRANSPOSE_CONV": TRANSPOSED}  # where the file says another name than the quantizer
# Files and simulation round at the same places to the same grids. What differs: the file's ranges are averaged over
# other batches, and values that lie between two steps fall to another side, a step of 1/255 of the range each time;
# activations that are quantized as the file runs are not simulated, which is as much.
CLOSE = 0.02
# A file is converted for each: of 8 and of 4 bits, with activations of integers and of floats
QUICK = ("int8", "int4", "int4_weights")


def network() -> keras.Model:
    """Each kind of kernel, and dense layers of an even and of an odd number of inputs."""
    image = keras.Input(SHAPE, name="image")
    x = layers.Rescaling(1 / 127.5, -1)(image)
    x = layers.ReLU()(layers.Conv2D(8, 3, padding="same", name="conv")(x))
    x = layers.ReLU()(layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x))
    x = layers.ReLU()(layers.Conv2DTranspose(6, 2, strides=2, name="transposed")(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, strides=2, activation="relu", name="last_conv")(x))
    x = layers.Dense(9, activation="relu", name="even")(x)
    return randomise(keras.Model(image, layers.Dense(5, name="odd")(x)))


@pytest.fixture(scope="module")
def images():
    """Pixels whose mean differs from image to image."""
    return pixels(64, *SHAPE) * np.linspace(0.2, 1, 64, dtype="float32")[:, None, None, None]


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def files(model, images, tmp_path_factory):
    """precision -> (simulation, file), from as many conversions as there are kernels."""
    made = {}

    def make(precision: str):
        if precision not in made:
            simulated = insert_fake_quantization(model, precision)
            for batch in np.split(images, 8) * 4:
                simulated(batch, training=True)  # nothing but the ranges moves
            path = tmp_path_factory.mktemp(precision) / "model.tflite"
            kzoo.export(remove_fake_quantization(simulated), path, precision, calibration=images)
            made[precision] = simulated, path
        return made[precision]

    return make


def distance(outputs, expected) -> float:
    return float(np.linalg.norm(outputs - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("precision", slow_but(QUICK, INTEGER))
def test_the_file_computes_what_was_simulated(precision, model, images, files):
    """For every precision with integer weights; kzoo writes no files of the schemes with one scale for a kernel."""
    simulated, path = files(precision)
    ours = np.array(simulated(images))
    found = LiteRTModel(path).predict(images)
    exact = np.array(model(images))
    print(f"{precision}: file to simulation {distance(found, ours):.2%}, to float {distance(found, exact):.2%}")
    assert distance(found, ours) < CLOSE
    if 4 in PRECISIONS[precision].weight_bits.values():  # coarse enough that the simulation must be what comes close
        assert distance(found, ours) < 0.5 * distance(found, exact)


def bits_in_file(path) -> list[tuple[str, int | None]]:
    """(op, bits of its kernel or None for a float) in the order of the file."""
    interpreter = Interpreter(
        str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    interpreter.allocate_tensors()
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    operations = interpreter._get_ops_details()
    written = {output: op for op in operations for output in op["outputs"]}
    found = []
    for op in operations:
        name = OP_NAMES.get(op["op_name"], op["op_name"])
        if name not in LINEAR:
            continue
        index = op["inputs"][1]
        while index in written:  # a float op behind the kernel's DEQUANTIZE
            index = written[index]["inputs"][0]
        kind = np.dtype(details[index]["dtype"])
        if np.issubdtype(kind, np.floating):
            found.append((name, None))
            continue
        largest = np.abs(interpreter.get_tensor(index).astype(int)).max() if kind == np.int8 else 7
        found.append((name, 8 if largest > 8 else 4))
    return found


@pytest.mark.parametrize("precision", slow_but(QUICK, INTEGER))
def test_kernels_of_the_file_have_the_bits_of_the_table(precision, files):
    simulated, path = files(precision)
    wrapped = {layer.name: layer.bits for layer in simulated.layers if isinstance(layer, FakeQuantizedWeights)}
    names = ("conv", "depthwise", "transposed", "last_conv", "even", "odd")
    kinds = (CONV, DEPTHWISE, TRANSPOSED, CONV, DENSE, DENSE)
    assert bits_in_file(path) == [(op, wrapped.get(name)) for op, name in zip(kinds, names, strict=True)]
    rounds = any(isinstance(layer, FakeQuantize) for layer in simulated.layers)
    assert rounds == (PRECISIONS[precision].activation_bits == 8)


def test_bits_by_kind_of_layer(model):
    def bits(precision):
        return {name: kernel_bits(model.get_layer(name), precision) for name in ("conv", "depthwise", "even", "odd")}

    assert bits("int8") == dict(conv=8, depthwise=8, even=8, odd=8)
    assert bits("int4") == dict(conv=4, depthwise=8, even=8, odd=8)
    assert bits("int4_weights") == dict(conv=8, depthwise=None, even=4, odd=8)


def test_every_scheme_is_a_precision_of_the_table():
    for scheme, (precision, per_channel) in SCHEMES.items():
        assert precision in INTEGER
        assert scheme == (precision if per_channel else f"{precision}_per_tensor")


@pytest.fixture(scope="module")
def digits():
    """A net on 8×8 digits whose last layer is fitted by least squares, images of 0 to 16, labels, test accuracy."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = np.repeat(data.images[..., None], 3, axis=-1).astype("float32"), data.target
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="conv")(image)
    x = layers.Flatten()(layers.MaxPooling2D(2)(layers.Conv2D(16, 3, padding="same", activation="relu")(x)))
    trunk = randomise(keras.Model(image, x))
    features = np.array(trunk(images), "float64")
    train = slice(0, 1200)
    inputs = np.c_[features, np.ones(len(features))]
    gram = inputs[train].T @ inputs[train]
    ridge = 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
    weights = np.linalg.solve(gram + ridge, inputs[train].T @ np.eye(10)[labels[train]])
    head = layers.Dense(10, name="dense")
    model = keras.Model(image, head(trunk.output))
    head.set_weights([weights[:-1], weights[-1]])
    with converted_once():
        yield model, images, labels


@pytest.mark.parametrize("scheme", [name for name, (_, per_channel) in SCHEMES.items() if per_channel])
def test_simulation_inserted_and_removed_costs_no_accuracy_that_the_file_does_not(scheme, digits, tmp_path):
    model, images, labels = digits
    test = slice(1200, None)

    def accuracy(predict) -> float:
        return float((np.array(predict(images[test])).argmax(axis=1) == labels[test]).mean())

    plain = remove_fake_quantization(insert_fake_quantization(model, SCHEMES[scheme][0]))
    accuracies = {"float": accuracy(model), "simulated": accuracy(plain)}
    for name, each in (("file", model), ("file of simulated", plain)):
        kzoo.export(each, tmp_path / "model.tflite", SCHEMES[scheme][0], calibration=images[:200])
        accuracies[name] = accuracy(LiteRTModel(tmp_path / "model.tflite").predict)
    print(scheme, {name: f"{value:.1%}" for name, value in accuracies.items()})
    assert accuracies["float"] > 0.85
    for name in ("simulated", "file of simulated"):
        assert accuracies[name] > accuracies["file"] - 0.02  # 12 of 597 images, as many as rounding may turn
