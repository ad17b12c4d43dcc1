"""Weight decay acts on kernels, and leaves alone what says where a thing is: tables, positions, embeddings."""

import keras
import numpy as np
import pytest
from helpers import randomise
from keras import layers

import kzoo
from kzoo.layers import LearnedPositionEncoding, NonLocal, RelativePositionBias, ResidualAttention
from kzoo.train.decay import without_decay

NARROW_SWIN = dict(depths=(1, 1), num_heads=(1, 2), width=8, input_shape=(32, 32, 3), num_classes=3)
SHAPE = (6, 5, 8)


def shrinking(model: keras.Model) -> set[str]:
    """Names of the weights that a step of AdamW without gradients makes smaller; all others must stay."""
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=without_decay(model))
    before = [weight.numpy() for weight in model.trainable_weights]
    optimizer.apply([keras.ops.zeros_like(weight) for weight in model.trainable_weights], model.trainable_weights)
    shrunk = set()
    for weight, old in zip(model.trainable_weights, before, strict=True):
        if np.array_equal(weight.numpy(), old):
            continue
        np.testing.assert_allclose(weight.numpy(), old * 0.95, rtol=1e-6)
        shrunk.add(weight.name)
    return shrunk


def spared(model: keras.Model) -> set[str]:
    return {weight.name for weight in without_decay(model) if len(weight.shape) > 1}


ZOO = {
    "swin_tiny": (NARROW_SWIN, {"table"}),
    "nat_mini": (NARROW_SWIN | dict(kernel_size=3), {"position_bias"}),
    "resnet26_sasa_full": (
        dict(depths=(1, 1), widths=(16, 16), input_shape=(32, 32, 3), num_classes=3),
        {"row_embedding", "column_embedding", "mixture_rows", "mixture_columns", "mixtures"},
    ),
}


@pytest.mark.parametrize("name", ZOO)
def test_of_models_of_the_zoo_kernels_alone_decay(name):
    options, positions = ZOO[name]
    model = randomise(kzoo.build(name, **options))
    assert spared(model) == positions
    assert shrinking(model) == {"kernel"}


def test_learned_positions_and_embeddings_of_any_layer_are_spared():
    inputs, words = keras.Input(SHAPE), keras.Input((4,), dtype="int32")
    x = LearnedPositionEncoding()(inputs)
    x = NonLocal("concatenation")(layers.SeparableConv2D(8, 3, padding="same")(x))
    x = layers.GlobalAveragePooling2D()(layers.DepthwiseConv2D(3)(x))
    y = layers.Embedding(11, 8)(words)
    y = layers.GRU(8)(layers.MultiHeadAttention(2, 4)(y, y))
    model = randomise(keras.Model([inputs, words], layers.Dense(2)(x + y)))
    assert spared(model) == {"table", "embeddings", "bias"}  # biases of attention have an axis of heads
    kernels = {"kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel", "w_f_kernel"}
    assert shrinking(model) == kernels


def test_scales_that_surgery_makes_of_normalisations_are_spared():
    image = keras.Input(SHAPE)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(layers.MaxPooling2D(1)(image)))
    folded = kzoo.fold_batch_norm(keras.Model(image, ResidualAttention()(x)))
    model = kzoo.surgery.norm_to_depthwise(folded)
    spared_kernels = {weight.path.rpartition("/")[0] for weight in without_decay(model) if weight.name == "kernel"}
    affine = {name for name in spared_kernels if name.endswith("/affine")}
    assert len(affine) == 3  # of a mask of depth 1: a unit down, one up, and the head
    assert spared_kernels - affine == {"norm"}


def test_relative_positions_are_spared():
    layer = RelativePositionBias(2, 3)
    layer.build((None, 2, 9, 9))
    assert [weight.name for weight in layer.trainable_weights] == ["table"]
    assert len(layer.table.shape) > 1
