"""Fake quantization: models that train with the rounding errors of the integer file they will become."""

import keras
from keras import ops

from kzoo.errors import InvalidValueError, check_choice
from kzoo.graph import Graph, as_functional, read_graph
from kzoo.layers import MergePixels
from kzoo.precisions import CONV, DENSE, DEPTHWISE, PRECISIONS, TRANSPOSED
from kzoo.surgery.rewrite import copy_layer

WEIGHT_BITS, ACTIVATION_BITS = (4, 8), 8
# precisions whose rounding can be simulated
INTEGER = tuple(name for name, precision in PRECISIONS.items() if precision.weight_bits)
# linear layers -> the axes of their kernel that count output channels, which have a scale each
CHANNEL_AXES = {
    keras.layers.Conv1D: (-1,),
    keras.layers.Conv2D: (-1,),
    keras.layers.DepthwiseConv2D: (-2, -1),
    keras.layers.Conv2DTranspose: (-2,),
    keras.layers.Dense: (-1,),
}
# what the file makes of them
OPS = {
    keras.layers.Conv1D: CONV,
    keras.layers.Conv2D: CONV,
    keras.layers.DepthwiseConv2D: DEPTHWISE,
    keras.layers.Conv2DTranspose: TRANSPOSED,
    keras.layers.Dense: DENSE,
}
LEAST_ERROR = (
    0.37755  # of a standard deviation: the step with which 4 bits round normal weights best, litert-quantizer's
)
# layers whose output in an integer file has the scale of their input, or that do not stand in it at all
_SAME_SCALE = (
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.Cropping2D,
    keras.layers.ZeroPadding2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    MergePixels,
)
# layers whose op takes a rectifier behind it in, so that nothing is rounded between the two
_FUSES = (*CHANNEL_AXES, keras.layers.Add, keras.layers.Subtract, keras.layers.Multiply)


def kernel_bits(layer: keras.layers.Layer, precision: str) -> int | None:
    """Bits of the kernel of a linear layer in a file, None where the file keeps it in floating point.

    Args:
        layer: built layer of a type in `CHANNEL_AXES`.
        precision: a name in `PRECISIONS`.
    """
    return PRECISIONS[precision].bits(OPS[type(layer)], layer.kernel.shape[0])


def round_kernel(layer: keras.layers.Layer, bits: int, per_channel: bool, least_error: bool = False):
    """The kernel of a linear layer as an integer file stores it.

    The grid is symmetric. Its step is the largest magnitude divided by 2^(bits-1) - 1, and rounding twice changes
    nothing; or, with `least_error`, `LEAST_ERROR` times the root of the mean square, and what is beyond is cut off.

    Args:
        layer: layer of a type in `CHANNEL_AXES`.
        bits: 8 or 4.
        per_channel: whether each output channel has a step of its own, else one for the kernel.
        least_error: whether the step is that of least error; for 4 bits.
    """
    kernel = ops.convert_to_tensor(layer.kernel)
    channels = CHANNEL_AXES[type(layer)] if per_channel else ()
    shared = [axis for axis in range(-len(kernel.shape), 0) if axis not in channels]
    largest = 2 ** (bits - 1) - 1
    if least_error:
        step = LEAST_ERROR * ops.sqrt(ops.mean(ops.square(kernel), axis=shared, keepdims=True))
    else:
        step = ops.max(ops.abs(kernel), axis=shared, keepdims=True) / largest
    step = ops.maximum(step, 1e-9 / largest)  # of a dead channel as litert-quantizer has it
    return ops.clip(ops.round(kernel / step), -largest - 1, largest) * step


@keras.saving.register_keras_serializable(package="kzoo")
class FakeQuantizedWeights(keras.layers.Wrapper):
    """A linear layer that computes with its kernel rounded as an integer file stores it.

    The rounding is done anew from the float kernel in every call, and the gradient goes straight through it
    (arXiv:1308.3432, section 4), so that training moves the float kernel.

    Args:
        layer: a layer of a type in `CHANNEL_AXES`.
        bits, per_channel, least_error: as in `round_kernel`.

    Input and output shape: those of the layer.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        bits: int = 8,
        per_channel: bool = True,
        least_error: bool = False,
        **kwargs,
    ):
        super().__init__(layer, **kwargs)
        check_choice("bits", bits, WEIGHT_BITS)
        self.bits, self.per_channel, self.least_error = bits, per_channel, least_error
        self.supports_masking = layer.supports_masking

    def rounded_kernel(self):
        """The kernel on its grid."""
        return round_kernel(self.layer, self.bits, self.per_channel, self.least_error)

    def call(self, inputs):  # as linear layers call it, which may be given it by this name
        kernel = ops.convert_to_tensor(self.layer.kernel)
        used = kernel + ops.stop_gradient(self.rounded_kernel() - kernel)
        trained, fixed = (
            [used if variable is self.layer.kernel else variable.value for variable in variables]
            for variables in (self.layer.trainable_variables, self.layer.non_trainable_variables)
        )
        return self.layer.stateless_call(trained, fixed, inputs)[0]

    def compute_output_shape(self, input_shape):
        return self.layer.compute_output_shape(input_shape)

    def get_config(self):
        options = ("bits", "per_channel", "least_error")
        return super().get_config() | {option: getattr(self, option) for option in options}


@keras.saving.register_keras_serializable(package="kzoo")
class FakeQuantize(keras.layers.Layer):
    """Rounds a feature map as an integer file does: asymmetric, one scale for the whole map, zero exact.

    The range is a moving average over the steps of training (arXiv:1712.05877, section 3.1) of the least and the
    largest value of an image, averaged over the batch, which is what litert-quantizer calibrates; it is frozen at
    inference. Values outside are clipped and get no gradient (of the outputs of a model a file clips none: a softmax
    may follow them there). A map that was never trained on passes unchanged.

    Args:
        momentum: share of the range that a step keeps.

    Input and output shape: (batch, ...).
    """

    def __init__(self, momentum: float = 0.95, **kwargs):
        super().__init__(**kwargs)
        self.momentum = momentum
        self.supports_masking = True

    def build(self, input_shape):
        options = dict(shape=(), initializer="zeros", dtype="float32", trainable=False, autocast=False)
        self.minimum = self.add_weight(name="minimum", **options)
        self.maximum = self.add_weight(name="maximum", **options)

    def call(self, x, training=False):
        low, high = ops.convert_to_tensor(self.minimum), ops.convert_to_tensor(self.maximum)
        if training:
            values = ops.stop_gradient(ops.cast(ops.reshape(x, (ops.shape(x)[0], -1)), "float32"))
            # zero is in every range, so that padding is exact
            least = ops.minimum(ops.mean(ops.min(values, axis=1)), 0)
            largest = ops.maximum(ops.mean(ops.max(values, axis=1)), 0)
            kept = ops.where(low < high, self.momentum, 0.0)  # nothing of the range that is not set yet
            low, high = (kept * old + (1 - kept) * new for old, new in ((low, least), (high, largest)))
            self.minimum.assign(low)
            self.maximum.assign(high)
        is_set = low < high
        rounded = keras.quantizers.fake_quant_with_min_max_vars(x, low, ops.where(is_set, high, 1.0), ACTIVATION_BITS)
        return ops.where(is_set, rounded, x)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"momentum": self.momentum}


def insert_fake_quantization(model: keras.Model, precision: str = "int8", per_channel: bool = True) -> keras.Model:
    """Returns a model that computes, and trains, with the rounding errors of an integer file.

    Every convolution and dense layer whose kernel `PRECISIONS` rounds in such a file rounds it to as many bits
    (`FakeQuantizedWeights`). Where the file's activations have 8 bits a `FakeQuantize` layer, called NAME_quantize,
    follows every layer whose output the file rounds: linear layers together with the rectifier that is fused into
    them, additions, concatenations, activations. Pooling, padding and reshaping keep the scale of their input. What a
    layer computes inside itself is not rounded, nor is a softmax, nor the input, whose pixels an integer file holds
    exactly, nor activations of 16 bits, nor those that are quantized as the file runs.

    Args:
        model: functional or Sequential model without batch normalisation (`kzoo.fold_batch_norm`). It stays as it is.
        precision: precision of the file: "int8", "int4", "int4_weights", "int8_weights", "int8_dynamic" or "int16x8".
        per_channel: whether each output channel of a kernel has a scale of its own, as in the files that kzoo writes,
            else one for the kernel, as other devices have it.

    Returns:
        A new model with the same layer names. Train it with a small learning rate, then call
        `remove_fake_quantization`.

    Raises:
        InvalidValueError: another precision; a model with batch normalisation, with a model inside, without linear
            layers, that has fake quantization already, or that is not functional.

    Example:
        >>> model = insert_fake_quantization(kzoo.fold_batch_norm(trained), "int4")
        >>> model.compile("adam", loss), model.fit(images, labels)
        >>> kzoo.export(remove_fake_quantization(model), "model.tflite", "int4", calibration=images[:200])
    """
    check_choice("precision", precision, INTEGER)
    model, graph = as_functional(model), read_graph(model)
    if any(isinstance(layer, FakeQuantizedWeights) for layer in model.layers):
        raise InvalidValueError(f"{model.name} has fake quantization already; remove_fake_quantization takes it out")
    check_folded(model, "fake quantization")
    told = PRECISIONS[precision]
    rounded = _rounded_outputs(model, graph) if told.activation_bits == ACTIVATION_BITS else set()
    made = {}

    def clone(layer):
        made[layer.name] = copied = copy_layer(layer)
        bits = kernel_bits(layer, precision) if type(layer) in CHANNEL_AXES else None
        if bits is None:
            return copied
        least_error = told.least_error and bits == 4
        return FakeQuantizedWeights(copied, bits, per_channel, least_error, name=layer.name, dtype=layer.dtype_policy)

    calls, names = dict.fromkeys(graph.calls, 0), {operation.name for operation in model.operations}

    def call(layer, *args, **kwargs):
        outputs, index = layer(*args, **kwargs), calls[layer.name]
        calls[layer.name] += 1
        if (layer.name, index) not in rounded:
            return outputs
        rounds = [
            _quantize(output, _quantize_name(layer.name, index, tensor, names))
            for tensor, output in enumerate(keras.tree.flatten(outputs))
        ]
        return keras.tree.pack_sequence_as(outputs, rounds)

    inserted = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.weights and made[layer.name] is not layer:
            made[layer.name].set_weights(layer.get_weights())
    return inserted


def _quantize(output: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """The map with its rounding; indices and truth values as they are."""
    return FakeQuantize(name=name)(output) if "float" in keras.backend.standardize_dtype(output.dtype) else output


def _quantize_name(layer: str, call: int, tensor: int, taken: set[str]) -> str:
    """NAME_quantize, with the number of the call and of the output where there are several."""
    name = f"{layer}_quantize{call + 1 if call else ''}{f'_output{tensor + 1}' if tensor else ''}"
    while name in taken:
        name += "_new"
    return name


def remove_fake_quantization(model: keras.Model) -> keras.Model:
    """Returns the plain float model of one that `insert_fake_quantization` made and that was then trained.

    Its kernels lie on the grid they were trained for, so that it computes what they were trained to compute:
    a quantizer that uses the same grid changes nothing in them, and an 8-bit file of per-channel scales holds
    4-bit and per-tensor grids to within half of its own, finer step. But kernels whose step is one of least error stay
    as they are, since the step of rounded ones would be another: the file rounds them as training did.

    Args:
        model: model with fake quantization, loaded or as trained. It is left as it is.

    Returns:
        A new functional model with the names of the model that fake quantization was put into.

    Raises:
        InvalidValueError: nothing in it is fake-quantized, or it is not functional.
    """
    read_graph(model)
    if not any(isinstance(layer, FakeQuantizedWeights) for layer in model.layers):
        raise InvalidValueError(f"{model.name} has no fake quantization; pass a model of insert_fake_quantization")

    def clone(layer):
        return copy_layer(layer.layer if isinstance(layer, FakeQuantizedWeights) else layer)

    def call(layer, *args, **kwargs):
        return args[0] if isinstance(layer, FakeQuantize) else layer(*args, **kwargs)

    plain = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if isinstance(layer, FakeQuantizedWeights):
            target = plain.get_layer(layer.layer.name)
            target.set_weights(layer.layer.get_weights())
            if not layer.least_error:
                target.kernel.assign(layer.rounded_kernel())
        elif layer.weights and not isinstance(layer, FakeQuantize):
            plain.get_layer(layer.name).set_weights(layer.get_weights())
    return plain


def check_folded(model: keras.Model, purpose: str) -> None:
    """Raises `InvalidValueError` unless `model` is flat, has linear layers and no batch normalisation."""
    inner = next((layer.name for layer in model.layers if isinstance(layer, keras.Model)), None)
    if inner is not None:
        raise InvalidValueError(f"{inner} is a model inside {model.name}; {purpose} takes a flat graph of layers")
    norm = next((weight for weight in model.weights if weight.name == "moving_variance"), None)
    if norm is not None:
        raise InvalidValueError(
            f"{model.name} has batch normalisation ({norm.path.rsplit('/', 1)[0]}); call kzoo.fold_batch_norm first"
        )
    if not any(type(layer) in CHANNEL_AXES for layer in model.layers):
        known = ", ".join(kind.__name__ for kind in CHANNEL_AXES)
        raise InvalidValueError(f"{model.name} has no linear layer at its top level; {purpose} works on {known}")


def _rounded_outputs(model: keras.Model, graph: Graph) -> set[tuple[str, int]]:
    """(layer, call) of every output that an integer file rounds."""
    layers = {layer.name: layer for layer in model.layers}
    return {
        (name, index)
        for name, calls in graph.calls.items()
        for index, call in enumerate(calls)
        if call.sources and not _keeps_scale(layers.get(name)) and not _is_fused(layers, graph, (name, index))
    }


def _keeps_scale(layer) -> bool:
    if isinstance(layer, keras.layers.Activation):
        return layer.activation in (keras.activations.linear, keras.activations.softmax)
    return isinstance(layer, (*_SAME_SCALE, keras.layers.Softmax))


def _is_fused(layers: dict, graph: Graph, output: tuple[str, int]) -> bool:
    """Whether the only reader of an output is a rectifier that becomes part of the same op."""
    layer, readers = layers.get(output[0]), graph.consumers.get((*output, 0), [])
    if not isinstance(layer, _FUSES) or len(readers) != 1 or (*output, 0) in graph.outputs:
        return False
    if getattr(layer, "activation", keras.activations.linear) is not keras.activations.linear:
        return False
    return is_rectifier(layers.get(readers[0].layer))


def is_rectifier(layer) -> bool:
    """Whether a layer is a ReLU or ReLU6, of any spelling."""
    if isinstance(layer, keras.layers.ReLU):
        return layer.max_value in (None, 6) and not layer.negative_slope and not layer.threshold
    return isinstance(layer, keras.layers.Activation) and layer.activation in (
        keras.activations.relu,
        keras.activations.relu6,
    )
