"""Which weights decay: kernels, and nothing else."""

import keras


def without_decay(model: keras.Model) -> list[keras.Variable]:
    """The trainable weights that weight decay must leave alone: all that are no kernels.

    A kernel is what a layer multiplies its input by: a matrix or more, whose name ends in `kernel`, as Keras calls
    them. Biases, scales and offsets of normalisation, embeddings, learned positions and tables of position biases,
    whatever their rank, say where a thing lies or what it is by default; decay would pull that to zero (Swin,
    arXiv:2103.14030, appendix A2.1, and BERT, arXiv:1810.04805, spare them too). So is the kernel of a 1×1 depthwise
    convolution a scale for each channel: surgery puts one in the place of a normalisation.

    Args:
        model: of any layers.

    Example:
        >>> optimizer.exclude_from_weight_decay(var_list=without_decay(model))
    """
    scales = {
        id(layer.kernel)
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.DepthwiseConv2D) and layer.built and layer.kernel_size == (1, 1)
    }
    return [weight for weight in model.trainable_weights if id(weight) in scales or not is_kernel(weight)]


def is_kernel(weight: keras.Variable) -> bool:
    """Whether a weight is what a layer multiplies its input by, by its name and rank."""
    return len(weight.shape) >= 2 and weight.name.endswith("kernel")
