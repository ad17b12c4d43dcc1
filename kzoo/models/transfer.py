"""Training a model for a task of its own: what stays as it is, and a classifier for other classes."""

import re
import types
from typing import Any

import keras

from kzoo.errors import InvalidValueError
from kzoo.graph import Graph, has_graph, read_graph
from kzoo.last_operation import carried_meaning
from kzoo.layers.meaning import Meaning
from kzoo.models.blocks import check_classifier
from kzoo.output import Output
from kzoo.taps import tap_names

# Layers that learn while the backbone is frozen: the head, auxiliary ones, the decoder, and what a checkpoint lacks
OWN_LAYERS = re.compile(r"(unet|fpn|head|auxiliary\d+)_.*|.*_tap_norm")
DROPOUTS = (
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


def freeze_backbone(model: keras.Model, frozen: bool = True) -> keras.Model:
    """Keeps the weights of all but the head as they are in training, the statistics of batch normalisations too.

    The head of a classifier are the layers `head_...`, the hidden dense layers of a VGG among them, and its auxiliary
    heads; what learns of a U-Net or a feature pyramid are decoder and head. Normalisations of taps, which no
    checkpoint has, learn too. The maps of what is frozen are those of inference: stochastic depth
    (`kzoo.layers.DropPath`) is off, and so are dropout and noise of Keras that an attention of one's own brings along.

    Args:
        model: from `kzoo.build`, from a `.keras` file of such a model, or from `kzoo.replace_head`. Compile it
            afterwards. Call this again for a model that was saved frozen and read from its file: Keras keeps the flag
            of a layer there, and lets the layers inside it (those of CBAM, of window attention) learn.
        frozen: False lets everything learn again.

    Returns:
        The model itself.

    Raises:
        InvalidValueError: the model has no head and no decoder of the zoo, so that nothing would be left to train.

    Example:
        >>> model = kzoo.freeze_backbone(kzoo.build("resnet50", weights="imagenet", num_classes=5))
        >>> model = kzoo.freeze_backbone(kzoo.build("fpn", backbone_weights="imagenet", num_classes=11))
    """
    learning = [layer for layer in model.layers if OWN_LAYERS.fullmatch(layer.name)]
    if not tap_names(model) or not any(layer.weights for layer in learning):
        raise InvalidValueError(
            f"{model.name} has no head and no decoder of the zoo, so that nothing would be left to train; "
            "freeze_backbone takes what kzoo.build gives, of classifiers those with include_top=True"
        )
    for layer in model.layers:
        if layer in learning:
            continue
        for inner in layer._flatten_layers():  # each one, as TensorFlow passes over a flag that a layer has already
            inner.trainable = not frozen
            if isinstance(inner, DROPOUTS):
                inner.call = types.MethodType(_call_where_it_learns, inner)
    return model


def _call_where_it_learns(layer: keras.layers.Layer, inputs, training=False):
    """What the layer's own `call` gives; a frozen one does nothing, as a frozen `BatchNormalization` infers."""
    return type(layer).call(layer, inputs, training=training and layer.trainable)


def replace_head(model: keras.Model, num_classes: int, classifier_activation: Any = "softmax") -> keras.Model:
    """The same classifier for other classes: a new last dense layer and activation, all other weights as they are.

    Layers keep their names, so that the model takes the files that `kzoo.build` with this `num_classes` takes. Hidden
    dense layers (VGG, `simple_cnn`) stay, as they do when `build` loads weights for other classes; auxiliary heads
    get a new last layer too.

    Args:
        model: a classifier of the zoo, from `kzoo.build` or from a `.keras` file. Names of classes that it carries go
            (`kzoo.with_classes` gives it new ones), its way from a picture to the input stays.
        num_classes: of the new classifier.
        classifier_activation: of the new classifier; None gives logits.

    Returns:
        A new model, (batch, height, width, channels) to (batch, num_classes), that shares all layers but the last ones
        with `model`, which is left as it is.

    Raises:
        InvalidValueError: the model is no classifier of the zoo with its head, or there is no such number of classes.

    Example:
        >>> model = kzoo.replace_head(keras.saving.load_model("flowers.keras"), num_classes=7)
        >>> model = kzoo.freeze_backbone(model)
    """
    units = check_classifier(num_classes, classifier_activation)
    heads = _heads_of(model)

    def new_head(name: str):
        dense, activation = model.get_layer(f"{name}_dense"), model.get_layer(f"{name}_activation")
        x = type(dense).from_config(dense.get_config() | {"units": units, "trainable": True})(dense.input)
        config = activation.get_config() | {"activation": classifier_activation or "linear"}
        return type(activation).from_config(config)(x)

    outputs = {output: new_head(name) for output, name in heads.items()}
    if isinstance(model.output, dict):
        return keras.Model(model.input, outputs, name=model.name)
    new = keras.Model(model.input, outputs["head"], name=model.name)
    if (old := carried_meaning(model)) is None:
        return new
    meaning = Meaning(Output.of_model(new).to_json(), old.pixel_fields)
    return keras.Model(model.input, meaning(new.output), name=model.name)


def _heads_of(model: keras.Model) -> dict[str, str]:
    """Name of an output -> what the names of its head's layers begin with.

    Raises:
        InvalidValueError: the model is no classifier of the zoo with its head.
    """
    if has_graph(model) and tap_names(model):
        outputs = model.output if isinstance(model.output, dict) else ["head"]
        heads = {output: "head" if output == "head" else f"{output}_head" for output in outputs}
        graph, layers = read_graph(model), {layer.name: layer for layer in model.layers}
        if all(
            isinstance(layers.get(f"{name}_dense"), keras.layers.Dense)
            and isinstance(layers.get(f"{name}_activation"), keras.layers.Activation)
            and _ends_in(graph, layers, f"{name}_activation")
            for name in heads.values()
        ):
            return heads
    raise InvalidValueError(
        f"{model.name} is no classifier of the zoo that ends in its head; replace_head takes what kzoo.build gives "
        "for a classifier, with include_top=True"
    )


def _ends_in(graph: Graph, layers: dict[str, keras.layers.Layer], name: str) -> bool:
    """Whether an output is what the layer `name` gives, with or without what it means."""
    readers = [call.layer for call in graph.consumers.get((name, 0, 0), ())]
    return graph.gives(name) or any(
        isinstance(layers.get(reader), Meaning) and _ends_in(graph, layers, reader) for reader in readers
    )
