"""The small version of a model that the checks look at: built, computed and saved once for all of them."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kzoo.check.demands import CLASSES, DEMANDS
from kzoo.check.jax_process import JaxProcess
from kzoo.check.probe import pixels, randomise, weights_of, weights_without_gradient
from kzoo.graph import Graph, read_graph
from kzoo.layers import NonLocal, Subsample
from kzoo.registry import lookup
from kzoo.surgery.fold_batch_norm import fold_batch_norm
from kzoo.zoo import build

DRAWS = 10
LINEAR = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Conv2DTranspose, keras.layers.Dense)
# An offset of a channel leaves these as it came
KEEP_OFFSETS = (
    keras.layers.Add,
    keras.layers.Identity,
    keras.layers.AveragePooling2D,
    keras.layers.MaxPooling2D,
    Subsample,
)


class NarrowModel:
    """A narrow model of the zoo with random weights, that gives logits or boxes, and what the checks share of it.

    Args:
        name: name of the registered model.
        directory: an existing folder for its files.
        jax: the process that computes the saved model under JAX; None if there is none.
        options: overrides in place of the entry's narrow ones.
        size: (height, width) of the images; default: the entry's narrow ones.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        jax: JaxProcess | None = None,
        options: Mapping[str, Any] | None = None,
        size: tuple[int, int] | None = None,
    ):
        self.name = name
        self.entry = lookup(name)
        self.demands = DEMANDS[self.entry.task]
        self.directory = Path(directory)
        self.jax = jax
        self.options = self.entry.narrow if options is None else options
        self.size = size or (self.entry.narrow_size,) * 2

    @cached_property
    def model(self) -> keras.Model:
        shape = (*self.size, 3)
        activation = self.demands.activation
        model = build(
            self.name, input_shape=shape, num_classes=CLASSES, classifier_activation=activation, **self.options
        )
        return randomise(model)

    @cached_property
    def in_training(self) -> keras.Model:
        """The model with the outputs that its loss takes, on the same weights."""
        return self.demands.in_training(self.model)

    @cached_property
    def images(self) -> np.ndarray:
        return pixels(4, *self.model.input.shape[1:])

    @cached_property
    def outputs(self) -> np.ndarray | dict[str, np.ndarray]:
        """The model's outputs of `images`."""
        return keras.tree.map_structure(np.array, self.model(self.images))

    @cached_property
    def file(self) -> Path:
        """The model as a `.keras` file; JAX begins to compute it as soon as it is there."""
        path = self.directory / f"{self.name}.keras"
        self.model.save(path)
        if self.jax is not None:
            self.jax.ask(path, self.images, self.outputs)
        return path

    @cached_property
    def folded(self) -> keras.Model:
        return fold_batch_norm(self.model)

    @contextlib.contextmanager
    def training(self) -> Iterator[keras.Model]:
        """The model `in_training`, which has its weights back when the block ends."""
        before = weights_of(self.model)
        try:
            yield self.in_training
        finally:
            self.model.set_weights(before)

    @cached_property
    def without_gradient(self) -> tuple[set[str], set[str]]:
        """Trainable weights that get no gradient: with the model's own weights, and under any of `DRAWS` draws.

        A unit of a narrow layer may be closed for all images under one draw of the weights, and open under others.
        """
        images = pixels(8, *self.model.input.shape[1:])
        with self.training() as model:
            here = never = set(weights_without_gradient(model, images)) - self.idle_biases
            for seed in range(1, DRAWS):
                if never:
                    never = never & set(weights_without_gradient(randomise(model, seed), images))
        return here, never

    @cached_property
    def idle_biases(self) -> set[str]:
        """Paths of the biases that training cannot feel, so that their gradient is rounding alone.

        Batch normalisation takes out every offset of a channel, and a softmax over keys what all keys share.
        """
        graph = read_graph(self.model)
        idle = set()
        for layer in self.model.layers:
            if isinstance(layer, NonLocal):
                idle |= {f"{layer.name}/{part}/bias" for part in ("g", "phi", "out")}
            elif isinstance(layer, LINEAR) and self._ends_in_norms(graph, layer.name):
                idle.add(f"{layer.name}/bias")
        return idle & {variable.path for variable in self.model.trainable_variables}

    def _ends_in_norms(self, graph: Graph, name: str) -> bool:
        """Whether all that reads the layer `name` is batch normalisation, behind sums and pools or not."""
        readers = graph.consumers.get((name, 0, 0), [])
        if not readers or graph.gives(name) or len(graph.calls[name]) > 1:
            return False
        layers = {layer.name: layer for layer in self.model.layers}
        return all(
            isinstance(layers.get(reader.layer), keras.layers.BatchNormalization)
            or (isinstance(layers.get(reader.layer), KEEP_OFFSETS) and self._ends_in_norms(graph, reader.layer))
            for reader in readers
        )
