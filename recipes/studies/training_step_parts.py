"""Where the time of a training step of CIFAR's ResNet-20 goes on the processor.

    python recipes/studies/training_step_parts.py [--output-dir FOLDER]

times the whole step, and each kind of operation in it by itself: the convolutions of every layer with the
gradients of their inputs and kernels, the batch normalisations, rectifiers, sums and so on, all on tensors of the
sizes that the network has, by turns in one process. The ceiling is what products of large matrices reach in the same
turns.
"""

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import kzoo  # isort: skip  before Keras, as it decides on oneDNN
import keras
import numpy as np
import tensorflow as tf
import tyro
from rich.console import Console
from sheets import Sheet, in_markdown, on_console

from kzoo.files import write_text
from kzoo.onednn import processor_features

BATCH, SIDE, MATRIX = 128, 32, 1024
INSTRUCTIONS = ("avx", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "amx_tile")
WHOLE, CEILING = "training step", "product of matrices"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    turns: int = 10
    """Turns, in each of which everything is timed once."""
    output_dir: Path = Path("saved_models/training_step_parts")
    """Where the table goes."""


def gradient_of(layers: list[keras.layers.Layer]) -> Callable[[], object]:
    """A program that runs layers forwards on random inputs and takes the gradients of inputs and weights."""
    rng = np.random.default_rng(0)

    def random_like(tensor: keras.KerasTensor):
        return tf.Variable(rng.normal(size=(BATCH, *tensor.shape[1:])).astype("float32"))

    inputs = [keras.tree.map_structure(random_like, layer.input) for layer in layers]

    @tf.function
    def run():
        found = []
        for layer, given in zip(layers, inputs, strict=True):
            weights = [weight.value for weight in layer.trainable_variables]
            sources = [*keras.tree.flatten(given), *weights]
            with tf.control_dependencies(found[-1:]):  # one layer after the other, as in the network
                with tf.GradientTape() as tape:
                    values = keras.tree.map_structure(tf.convert_to_tensor, given)
                    outputs = layer(values, training=True)
                gradients = [each for each in tape.gradient(outputs, sources) if each is not None]
                found.append(tf.add_n([tf.reduce_sum(each) for each in gradients]))
        return tf.add_n(found)

    return run


def parts_of(model: keras.Model) -> dict[str, list[keras.layers.Layer]]:
    """The layers of a model by kind."""
    parts: dict[str, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            parts.setdefault(type(layer).__name__, []).append(layer)
    return parts


def main(options: Options) -> dict:
    """Measures, prints and writes everything; returns what was measured."""
    shape = (SIDE, SIDE, 3)
    model = kzoo.build("cifar_resnet20", input_shape=shape, classifier_activation=None, include_preprocessing=False)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=(BATCH, *shape)).astype("float32"), rng.integers(10, size=BATCH)
    weights = [tf.Variable(weight.numpy()) for weight in model.trainable_variables]
    updates = [tf.constant(weight.numpy()) for weight in model.trainable_variables]
    updater = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    updater.build(model.trainable_variables)
    update = tf.function(lambda: updater.apply(updates, model.trainable_variables))
    one, other = (tf.constant(rng.normal(size=(MATRIX, MATRIX)).astype("float32")) for _ in range(2))
    product = tf.function(lambda: one @ other)

    parts = parts_of(model)
    runs: dict[str, Callable[[], object]] = {
        WHOLE: lambda: model.train_on_batch(images, labels),
        "forward and backward": whole_gradient(model, images, labels),
        "forward": forward_of(model, images),
        **{f"{len(layers)} {kind}": gradient_of(layers) for kind, layers in parts.items()},
        f"update of {len(weights)} weights": update,
        CEILING: product,
    }
    for run in runs.values():
        run(), run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(options.turns):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - began))
        print(f"turn {turn + 1} of {options.turns}: {times[WHOLE][-1]:.0f} ms a step", flush=True)
    middle = {name: statistics.median(each) for name, each in times.items()}
    ceiling = 2 * MATRIX**3 / middle[CEILING] / 1e6
    macs = kzoo.graph.count_macs(model)
    reached = 6 * macs * BATCH / middle[WHOLE] / 1e6
    features = [each for each in INSTRUCTIONS if each in processor_features()]
    table = sheet(middle)
    Console().print(on_console(table))
    result = {"batch": BATCH, "cores": os.cpu_count(), "instructions": features, "gflops": reached}
    result |= {"ceiling_gflops": ceiling, "milliseconds": times}
    page = PAGE.format(
        cores=os.cpu_count(),
        instructions=", ".join(features),
        batch=BATCH,
        reached=reached,
        ceiling=ceiling,
        share=reached / ceiling,
        convolutions=next(value for name, value in middle.items() if "Conv2D" in name) / middle[WHOLE],
        versions=f"Keras {keras.__version__}, TensorFlow {tf.__version__}",
    )
    options.output_dir.mkdir(parents=True, exist_ok=True)
    write_text(options.output_dir / "parts.json", json.dumps(result, indent=2) + "\n")
    write_text(options.output_dir / "README.md", page + in_markdown(table))
    return result


def whole_gradient(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> Callable[[], object]:
    """Loss and gradients without update."""
    pixels, classes = tf.constant(images), tf.constant(labels)

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            loss = model.loss(classes, model(pixels, training=True))
        return tape.gradient(loss, [weight.value for weight in model.trainable_variables])

    return run


def forward_of(model: keras.Model, images: np.ndarray) -> Callable[[], object]:
    """The forward pass as training has it."""
    pixels = tf.constant(images)
    return tf.function(lambda: model(pixels, training=True))


def sheet(middle: dict[str, float]) -> Sheet:
    """Milliseconds of each part, and its share of the step."""
    rows = [
        (name, f"{value:.1f}", f"{value / middle[WHOLE]:.0%}") for name, value in middle.items() if name != CEILING
    ]
    return "Milliseconds: median of the turns", ("what", "ms", "of the step"), rows


PAGE = """# Where the time of a training step goes on the processor

Measured on {cores} CPU cores with {instructions} by

    python recipes/studies/training_step_parts.py

CIFAR's ResNet-20, {batch} images, float32, {versions}. The step reaches {reached:.0f} GFLOP/s, {share:.0%} of the
{ceiling:.0f} that products of matrices of 1,024 reach in the same turns; its convolutions alone take
{convolutions:.0%} of its time. A kind of layer is timed with its gradients, one layer after the other on inputs of its
own; their sums are a little work besides.

"""

if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
