"""Folding the models of keras.applications, in float64, where equal means equal."""

import applications
import keras
import pytest
from helpers import relative_error

import kzoo
from kzoo.surgery import fold_preprocessing, norm_to_depthwise, plan_folding

# batch normalisations before and after: what stays reads a sum, a stack or a pool and is read by an activation
MODELS = {
    "ResNet50": (53, 0),
    "ResNet50V2": (49, 17),
    "InceptionV3": (94, 0),
    "MobileNetV2": (52, 0),
    "DenseNet121": (121, 62),
    "EfficientNetB0": (49, 0),
    "Xception": (40, 0),
}
TOLERANCE = 1e-10  # float32 rounding alone differs by up to 1e-4 in the deepest of them, at random weights


def norms(model) -> int:
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_equal_outputs(name):
    keras.config.set_dtype_policy("float64")
    try:
        model, images = applications.build(name, 96)
        expected = model(images)
        folded = kzoo.fold_batch_norm(model)
        assert (norms(model), norms(folded)) == MODELS[name]
        assert relative_error(folded(images), expected) < TOLERANCE
        rest = norm_to_depthwise(folded)
        assert norms(rest) == 0
        assert relative_error(rest(images), expected) < TOLERANCE
        # Rescaling rounds its scale to float32 even here
        assert relative_error(fold_preprocessing(rest)(images), expected) < 1e-5
    finally:
        keras.config.set_dtype_policy("float32")
    for reason in plan_folding(model).kept.values():
        assert reason.endswith("is of type Activation, not a convolution or dense layer")
