"""Rewrites keep calls whole: arguments by keyword, the tensor among several that is read, masks, nested structures."""

import logging

import keras
import numpy as np
import pytest
from helpers import assert_weights_are, converted_once, feature_map, pixels, randomise, relative_error, weights_of
from keras import layers

import kzoo
from kzoo.computable import LACKING, why_not_computed
from kzoo.edge import LiteRTModel
from kzoo.errors import ExportError, InvalidValueError
from kzoo.layers import MultiHeadSelfAttention
from kzoo.surgery import (
    equalize_ranges,
    fold_batch_norm,
    fold_preprocessing,
    insert_fake_quantization,
    norm_to_depthwise,
    plan_equalization,
    plan_folding,
    pooling_to_conv,
    remove_fake_quantization,
    same_outputs,
)

SHAPE = (3, 4, 6)
LENGTH = 12


def norm(name: str = "norm"):
    return layers.BatchNormalization(epsilon=0.1, name=name)


def attention(name: str = "attention"):
    return MultiHeadSelfAttention(2, name=name)


def visible(seed: int = 5) -> np.ndarray:
    """A mask in which every token sees itself and some others: (2, 12, 12)."""
    return (np.random.default_rng(seed).random((2, LENGTH, LENGTH)) < 0.3) | np.eye(LENGTH, dtype=bool)


def assert_equal(ours, theirs, inputs) -> None:
    found, expected = (keras.tree.flatten(model(inputs, training=False)) for model in (ours, theirs))
    for output, wanted in zip(found, expected, strict=True):
        assert relative_error(output, wanted) < 1e-5


def model_of(graph) -> keras.Model:
    """A graph on maps and masks of attention, given by their names."""
    image, mask = keras.Input(SHAPE, name="image"), keras.Input((LENGTH, LENGTH), dtype="bool", name="mask")
    return randomise(keras.Model({"image": image, "mask": mask}, graph(image, mask)))


def given() -> dict:
    return {"image": feature_map(2, *SHAPE), "mask": visible()}


def masked(x, mask):
    return norm()(attention()(x, attention_mask=mask))


def masked_twice_in_other_ways(x, mask):
    layer, scale = attention(), norm()
    return layers.Add()([scale(layer(x, attention_mask=mask)), scale(layer(x))])


def masked_by_position(x, mask):
    return norm()(attention()(x, mask))


def masked_inside(x, mask):
    image, seen = keras.Input(SHAPE), keras.Input((LENGTH, LENGTH), dtype="bool")
    y = attention()(layers.Conv2D(6, 1, name="conv")(image), attention_mask=seen)
    inner = keras.Model({"x": image, "seen": [seen]}, {"map": norm("inner_norm")(y)}, name="inner")
    return norm()(layers.Conv2D(6, 1, name="last")(inner({"x": x, "seen": [mask]})["map"]))


def first_of_two_outputs(x, mask):
    y, weights = attention()(x, attention_mask=mask, return_attention_weights=True)
    return {"map": norm()(y), "weights": weights}


KEPT_WHOLE = {
    masked: {"norm": "attention"},
    masked_twice_in_other_ways: {"norm": "attention"},
    masked_by_position: {"norm": "attention"},
    masked_inside: {"norm": "last", "inner/inner_norm": "inner/attention"},
    first_of_two_outputs: {"norm": "attention"},
}


@pytest.mark.parametrize("graph", KEPT_WHOLE, ids=lambda graph: graph.__name__)
def test_what_a_layer_is_called_with_stays_when_a_normalisation_folds_into_it(graph):
    model = model_of(graph)
    before = weights_of(model)
    assert plan_folding(model).folds == KEPT_WHOLE[graph]
    folded = fold_batch_norm(model)
    assert not [layer for layer in folded.layers if isinstance(layer, layers.BatchNormalization)]
    assert_equal(folded, model, given())
    assert_weights_are(model, before)
    other = given() | {"mask": visible(6)}
    assert relative_error(keras.tree.flatten(folded(other))[0], keras.tree.flatten(folded(given()))[0]) > 1e-3


def second_of_two_outputs(x, mask):
    _, weights = attention()(x, attention_mask=mask, return_attention_weights=True)
    return layers.ReLU()(norm()(weights))


def second_state_of_a_recurrent_layer(x, mask):
    _, hidden, cell = layers.LSTM(5, return_state=True, name="lstm")(layers.Reshape((12, 6))(x))
    return layers.ReLU()(norm()(cell) + hidden)


def second_output_of_a_model_inside(x, mask):
    image = keras.Input(SHAPE)
    inner = keras.Model(image, [layers.Conv2D(6, 1)(image), layers.Conv2D(6, 3, padding="same")(image)], name="inner")
    return layers.ReLU()(norm()(inner(x)[1]))


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (second_of_two_outputs, "it reads output 2 of attention, and a fold scales the first one"),
        (second_state_of_a_recurrent_layer, "it reads output 3 of lstm, and a fold scales the first one"),
        (second_output_of_a_model_inside, "it reads output 2 of inner, and a fold scales the first one"),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_a_normalisation_of_another_output_than_the_first_stays_with_the_reason(graph, reason):
    model = model_of(graph)
    assert plan_folding(model).folds == {}
    assert plan_folding(model).kept["norm"].startswith(reason)
    assert_equal(fold_batch_norm(model), model, given())


def test_a_normalisation_of_the_second_output_folds_into_the_layer_behind_it():
    def graph(x, mask):
        _, weights = attention()(x, attention_mask=mask, return_attention_weights=True)
        return layers.Dense(3, name="behind")(norm()(weights))

    model = model_of(graph)
    assert plan_folding(model).folds == {"norm": "behind"}
    assert_equal(fold_batch_norm(model), model, given())


def masking(x):
    return layers.Masking(name="masking")(x)


def through_dense(x):
    return layers.GlobalAveragePooling1D()(norm()(layers.Dense(4, name="dense")(masking(x))))


def through_dense_by_training_argument(x):
    return layers.GlobalAveragePooling1D()(norm()(layers.Dense(4, name="dense")(masking(x)), training=False))


def into_a_recurrent_layer_with_initial_state(x):
    y = norm()(layers.Dense(4, name="dense")(masking(x)))
    return layers.GRU(5)(y, initial_state=layers.Dense(5, name="state")(x[:, 0]))


def given_to_the_normalisation(x):
    seen = keras.ops.any(keras.ops.not_equal(x, 0.0), axis=-1)
    return layers.GlobalAveragePooling1D()(norm()(layers.Dense(4, name="dense")(x), mask=seen))


def rescaled_without_masks_behind(x):
    return layers.GlobalAveragePooling1D()(layers.Dense(4, name="dense")(masking(x) * 0.5 + 1.0))


@pytest.mark.parametrize(
    "graph",
    [
        through_dense,
        through_dense_by_training_argument,
        into_a_recurrent_layer_with_initial_state,
        given_to_the_normalisation,
        rescaled_without_masks_behind,
    ],
    ids=lambda graph: graph.__name__,
)
def test_keras_masks_survive_every_rewrite(graph):
    inputs = keras.Input((7, 6))
    model = randomise(keras.Model(inputs, graph(inputs)))
    x = feature_map(2, 7, 6)
    x[:, 4:] = 0  # masked
    shown = np.array(model(x))
    x_other = np.where(np.arange(7)[:, None] < 4, x, 1.0)
    assert relative_error(model(x_other), shown) > 1e-2  # the mask matters
    for rewrite in (fold_batch_norm, fold_preprocessing, norm_to_depthwise, pooling_to_conv):
        assert_equal(rewrite(model), model, x)


def test_masks_of_embeddings_pass_through_fake_quantization():
    words = keras.Input((5,), dtype="int32")
    y = layers.Dense(4, name="dense")(layers.Embedding(9, 6, mask_zero=True)(words))
    model = randomise(keras.Model(words, layers.GlobalAveragePooling1D()(y)))
    x = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 0, 0]])
    rounding = insert_fake_quantization(model)
    assert relative_error(rounding(x), model(x)) < 0.02  # 8 bits
    assert_equal(remove_fake_quantization(rounding), remove_fake_quantization(rounding), x)
    assert relative_error(remove_fake_quantization(rounding)(x), model(x)) < 0.02


def two_linear_readers(x, mask):
    y, weights = attention()(x, attention_mask=mask, return_attention_weights=True)
    return {"map": layers.Dense(3)(y), "weights": layers.Dense(2)(weights)}


def test_fake_quantization_rounds_each_of_several_outputs_and_hands_arguments_on():
    model = model_of(two_linear_readers)
    rounding = insert_fake_quantization(model)
    assert {"attention_quantize", "attention_quantize_output2"} <= {layer.name for layer in rounding.layers}
    for inputs in (given(), given() | {"mask": visible(6)}):
        for name, expected in model(inputs).items():
            assert relative_error(rounding(inputs)[name], expected) < 0.02  # 8 bits
    other = given() | {"mask": visible(6)}
    assert relative_error(rounding(other)["map"], rounding(given())["map"]) > 0.02
    assert_equal(remove_fake_quantization(rounding), rounding, given())  # no range of a map is set yet


def test_linear_layers_given_their_tensor_by_keyword_are_rounded_too():
    image = keras.Input(SHAPE)
    model = randomise(keras.Model(image, layers.Dense(3)(inputs=layers.Conv2D(4, 2)(inputs=image))))
    assert (
        relative_error(insert_fake_quantization(model)(feature_map(2, *SHAPE)), model(feature_map(2, *SHAPE))) < 0.02
    )
    assert_equal(equalize_ranges(model), model, feature_map(2, *SHAPE))


def to_vector(kind: str, x):
    """An unfoldable normalisation, then the map as a vector, then a linear layer on it."""
    x = layers.Flatten(name="flatten")(norm()(layers.ReLU()(x)))
    size = x.shape[-1]
    if kind == "conv":
        return layers.Conv2D(3, 1, name="linear")(layers.Reshape((1, 1, size))(x))
    if kind == "dense":
        return layers.Dense(3, name="linear")(x)
    if kind == "apart":
        return layers.DepthwiseConv2D(1, name="linear")(layers.Reshape((1, 1, size))(x))
    return layers.Conv2D(3, 1, name="linear")(layers.Reshape((1, size // 4, 4))(x))


@pytest.mark.parametrize("kind", ["conv", "dense", "apart"])
def test_behind_flatten_and_reshape_each_channel_is_scaled_as_often_as_it_occurs(kind):
    inputs = keras.Input(SHAPE)
    model = randomise(keras.Model(inputs, to_vector(kind, inputs)))
    assert plan_folding(model).folds == {"norm": "linear"}
    assert_equal(fold_batch_norm(model), model, feature_map(2, *SHAPE))


def test_channels_that_a_reshape_cuts_apart_are_left():
    inputs = keras.Input(SHAPE)
    model = randomise(keras.Model(inputs, to_vector("cut", inputs)))
    assert "reshape" in plan_folding(model).kept["norm"]
    assert_equal(fold_batch_norm(model), model, feature_map(2, *SHAPE))


CHANNELS_FIRST = {
    "flatten": lambda x: layers.Flatten(data_format="channels_first", name="first")(x),
    "pooling": lambda x: layers.Flatten()(layers.MaxPooling2D(2, data_format="channels_first", name="first")(x)),
    "mean": lambda x: layers.GlobalAveragePooling2D(data_format="channels_first", name="first")(x),
}


@pytest.mark.parametrize("kind", CHANNELS_FIRST)
def test_equalisation_stops_at_what_takes_another_axis_for_channels(kind):
    inputs = keras.Input((6, 6, 3))
    x = CHANNELS_FIRST[kind](layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")(inputs))
    model = randomise(keras.Model(inputs, layers.Dense(3, name="dense")(x)))
    plan = plan_equalization(model)
    assert plan.pairs == []
    assert plan.refused["conv"] == "first is channels first, and takes other values for channels"
    assert_equal(equalize_ranges(model), model, feature_map(2, 6, 6, 3))


def test_names_that_are_taken_get_longer():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="preprocessing_constant", padding="same")(
        layers.Rescaling([0.1, 0.2, 0.3], [1.0, 2.0, 3.0], name="preprocessing")(inputs)
    )
    x = layers.ReLU(name="gap_flatten_new")(layers.ReLU(name="gap_flatten")(x))
    model = randomise(keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D(name="gap")(x))))
    x = pixels(2, 8, 8, 3)
    pooled, folded = pooling_to_conv(model), fold_preprocessing(model)
    assert {"gap", "gap_flatten", "gap_flatten_new", "gap_flatten_new_new"} <= {layer.name for layer in pooled.layers}
    assert {"preprocessing_constant", "preprocessing_constant_new"} <= {layer.name for layer in folded.layers}
    assert_equal(pooled, model, x)
    assert_equal(folded, model, x)


def test_names_of_added_rounding_are_new_ones():
    inputs = keras.Input(SHAPE)
    shared = layers.Conv2D(6, 1, name="conv")
    x = layers.Identity(name="conv_quantize")(shared(layers.Identity(name="conv_quantize2")(shared(inputs))))
    model = randomise(keras.Model(inputs, x))
    rounding = insert_fake_quantization(model)
    assert {"conv_quantize_new", "conv_quantize2_new"} <= {layer.name for layer in rounding.layers}
    assert_equal(remove_fake_quantization(rounding), remove_fake_quantization(rounding), feature_map(2, *SHAPE))


@pytest.fixture
def wrong_fold(monkeypatch):
    """A mistake in folding: every offset is lost."""
    from kzoo.surgery import folding

    right = folding.folded_weights

    def wrong(*args, **options):
        *kernels, bias = right(*args, **options)
        return [*kernels, 0 * bias]

    monkeypatch.setattr(folding, "folded_weights", wrong)


def small(**options) -> keras.Model:
    inputs = keras.Input((8, 8, 3), **options)
    x = layers.ReLU()(norm()(layers.Conv2D(4, 3, name="conv")(inputs)))
    return randomise(keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))


def test_a_fold_that_changes_the_outputs_is_left_out_with_a_warning(wrong_fold, caplog):
    model = small()
    with caplog.at_level(logging.WARNING, "kzoo"):
        folded = fold_batch_norm(model)
    assert "the rewrite would change the outputs by" in caplog.text
    assert "please report it" in caplog.text
    assert [layer.name for layer in folded.layers] == [layer.name for layer in model.layers]
    assert_equal(folded, model, feature_map(2, 8, 8, 3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_fold_that_makes_finite_outputs_infinite_or_undefined_is_left_out(value, monkeypatch, caplog):
    from kzoo.surgery import folding

    right = folding.folded_weights
    monkeypatch.setattr(
        folding, "folded_weights", lambda *args, **options: [value * array for array in right(*args, **options)]
    )
    model = small()
    with caplog.at_level(logging.WARNING, "kzoo"):
        folded = fold_batch_norm(model)
    assert "the rewrite would change the outputs by inf of the largest" in caplog.text
    assert_equal(folded, model, feature_map(2, 8, 8, 3))


def test_outputs_that_the_model_itself_leaves_infinite_do_not_count():
    expected = np.array([[np.inf, np.nan, 2.0]], "float32")
    assert same_outputs._relative(np.array([[0.0, 1.0, 3.0]], "float32"), expected) == 0.5
    assert same_outputs._relative(expected, expected) == 0


def test_export_compares_with_the_model_that_was_given_and_not_with_its_fold(wrong_fold, monkeypatch, tmp_path):
    model = small()
    monkeypatch.setattr(same_outputs, "MOST_MACS", 0)  # too large to be run while it is folded
    folded = fold_batch_norm(model)
    assert relative_error(folded(pixels(2, 8, 8, 3)), model(pixels(2, 8, 8, 3))) > 1e-3
    with converted_once():
        kzoo.export(folded, tmp_path / "own.tflite")
        with pytest.raises(ExportError, match="disagrees with Keras"):
            kzoo.export(folded, tmp_path / "given.tflite", reference=model)
        with pytest.raises(ExportError, match="disagrees with Keras"):
            kzoo.export_all(folded, tmp_path, ("float32",), reference=model)
    assert {path.name for path in tmp_path.glob("*.tflite")} == {"own.tflite"}


def test_the_export_command_compares_with_the_model_it_was_given(wrong_fold, monkeypatch, tmp_path, capsys):
    from kzoo.cli import main

    monkeypatch.setattr(same_outputs, "MOST_MACS", 0)
    small().save(tmp_path / "model.keras")
    with pytest.raises(SystemExit):
        main(["export", str(tmp_path / "model.keras"), str(tmp_path / "model.tflite")])
    assert "disagrees with Keras" in capsys.readouterr().err
    assert not (tmp_path / "model.tflite").exists()


def test_scores_of_keras_are_those_of_the_reference(tmp_path):
    model, other = small(), small()
    other.layers[-1].set_weights([0 * weight for weight in other.layers[-1].get_weights()])
    images = pixels(20, 8, 8, 3)
    labels = np.array(model(images)).argmax(axis=1)
    labels[0] = (labels[0] + 1) % 3
    report = kzoo.export(fold_batch_norm(model), tmp_path / "m.tflite", evaluation=(images, labels), reference=model)
    assert report.scores["accuracy"] == {"keras": pytest.approx(0.95), "file": pytest.approx(0.95)}
    assert relative_error(LiteRTModel(tmp_path / "m.tflite").predict(images), model(images)) < 1e-4


def test_a_reference_of_another_shape_is_refused(tmp_path):
    inputs = keras.Input((8, 8, 3))
    other = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(inputs)), name="other")
    with pytest.raises(InvalidValueError, match=r"reference='other' has the output_shape \(None, 4\)"):
        kzoo.export(small(), tmp_path / "m.tflite", reference=other)


def test_what_tensorflow_cannot_compute_without_onednn_is_said_in_one_line(tmp_path, caplog, monkeypatch):
    """The words are TensorFlow's for convolutions that are channels first, said where the layer runs on numbers."""
    convolve = layers.Conv2D.call

    def call(self, x):
        if hasattr(x, "numpy"):
            raise ValueError(
                "{{node Conv2D}} The Conv2D op currently only supports the NHWC tensor format on the CPU."
            )
        return convolve(self, x)

    model = small()
    monkeypatch.setattr(layers.Conv2D, "call", call)
    with caplog.at_level(logging.WARNING, "kzoo"):
        folded = fold_batch_norm(model)
    assert [layer.name for layer in folded.layers if "norm" in layer.name] == []
    told = "TensorFlow computes no convolutions that are channels first on this processor without oneDNN; set the "
    assert f"the rewrite is not compared with the model, which cannot run: {told}" in caplog.text
    with pytest.raises(ExportError, match=told) as error:
        kzoo.export(folded, tmp_path / "m.tflite", reference=model)
    assert "TF_ENABLE_ONEDNN_OPTS=1 before TensorFlow is imported" in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", LACKING)
def test_only_what_onednn_can_mend_is_blamed_on_its_absence(words):
    assert "set the environment variable TF_ENABLE_ONEDNN_OPTS=1" in why_not_computed(ValueError(f"Op {words}. [Op]"))
    assert why_not_computed(ValueError("Matrix size-incompatible")) == ""
