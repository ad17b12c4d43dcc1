"""Batch normalisation while training on TensorFlow: in one operation, and over the batch of all replicas.

Keras 3 normalises by `moments` and elementwise operations, a dozen passes over the map where TensorFlow's fused
operation needs two. Under a `tf.distribute` strategy with several replicas Keras takes the statistics of each by
itself, and keeps those of the first; here they are of all of them, as on one device and as under JAX. This is the only
module below `kzoo.zoo` that calls TensorFlow, and it imports it when a layer runs on that backend: the operation is in
no other interface, and layers and models stay free of any backend.
"""

import types

import keras

HALF_AND_SINGLE = ("float16", "bfloat16", "float32")  # inputs of the operation; its statistics are float32


def use_fused_batch_norm(model: keras.Model) -> keras.Model:
    """Trains the batch normalisation of any model in TensorFlow's fused operation, or over all replicas.

    Outputs, gradients and moving statistics are those of Keras. `kzoo.build` has done it for the models that it
    returns. A clone and a model read from a file consist of new layers, for which this does it again:

    Every `keras.layers.BatchNormalization` stays what it is, of the same type, config and file, and computes as before
    wherever the operation does not: in inference and where it is frozen, on other backends, under XLA (which fuses by
    itself, and turns the operation into a mean of squares less a squared mean, losing digits), for masks, other axes
    than the last of four, float64, renormalisation and statistics that are shared by replicas.

    Args:
        model: any model or layer; layers at any depth are found.

    Returns:
        `model` itself.

    Example:
        >>> model = kzoo.use_fused_batch_norm(keras.models.clone_model(kzoo.build("resnet50")))
    """
    if keras.backend.backend() == "tensorflow":
        for layer in model._flatten_layers():
            if type(layer) is keras.layers.BatchNormalization:
                layer.call = types.MethodType(_call, layer)
    return model


def _call(layer: keras.layers.BatchNormalization, inputs, training=None, mask=None):
    """What the layer's own `call` returns and assigns, with statistics of all replicas."""
    if training and layer.trainable and mask is None:
        if _has_replicas():
            return _synchronized(layer, inputs)
        if _takes(layer, inputs):
            return _train(layer, inputs)
    return type(layer).call(layer, inputs, training=training, mask=mask)


def _has_replicas() -> bool:
    """Whether this is the computation of one replica of several."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context is not None and context.num_replicas_in_sync > 1


def _synchronized(layer: keras.layers.BatchNormalization, inputs):
    """What the layer with `synchronized=True` returns and assigns.

    The replicas are traced by turns: each has read the setting before the first one is through, as they wait for each
    other at the sums.
    """
    if layer.synchronized:  # its own setting, or that of the replica before
        return type(layer).call(layer, inputs, training=True)
    layer.synchronized = True
    try:
        return type(layer).call(layer, inputs, training=True)
    finally:
        layer.synchronized = False


def _takes(layer: keras.layers.BatchNormalization, inputs) -> bool:
    import tensorflow as tf

    return (
        len(inputs.shape) == 4
        and layer.axis in (-1, 3)
        and keras.backend.standardize_dtype(inputs.dtype) in HALF_AND_SINGLE
        and not (layer.renorm or layer.synchronized)
        and tf.__internal__.get_enclosing_xla_context() is None
    )


def _train(layer: keras.layers.BatchNormalization, inputs):
    import tensorflow as tf

    def single(variable):
        return tf.cast(tf.convert_to_tensor(variable), "float32")

    mean, variance = single(layer.moving_mean), single(layer.moving_variance)
    outputs, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=single(layer.gamma) if layer.scale else tf.ones_like(mean),
        offset=single(layer.beta) if layer.center else tf.zeros_like(mean),
        mean=tf.zeros([0]),  # read in inference alone
        variance=tf.zeros([0]),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # the operation's variance is N / (N - 1) times the one that it divides by, which Keras averages; whatever it says
    # of a single value counts as 0
    count = tf.cast(tf.size(inputs, out_type=tf.int64) // inputs.shape[-1], "float32")
    batch_variance = tf.math.multiply_no_nan(batch_variance, (count - 1) / count)
    layer.moving_mean.assign(mean * layer.momentum + batch_mean * (1 - layer.momentum))
    layer.moving_variance.assign(variance * layer.momentum + batch_variance * (1 - layer.momentum))
    return tf.cast(outputs, layer.compute_dtype)
