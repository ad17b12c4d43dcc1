"""Files of others in the interpreter: integers that stand for themselves."""

import numpy as np
import pytest

from kzoo.edge import LiteRTModel


@pytest.fixture(scope="module")
def winners():
    """A file that takes bytes, and gives each pixel the number of its largest channel; neither is quantised."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 2, 3, 4), tf.uint8)])
    def largest(image):
        return tf.argmax(tf.cast(image, tf.float32), axis=-1, output_type=tf.int64)

    return tf.lite.TFLiteConverter.from_concrete_functions([largest.get_concrete_function()], largest).convert()


def test_integers_without_quantization_stand_for_themselves(winners):
    images = np.random.default_rng(3).permutation(48).reshape(2, 2, 3, 4) * 5 + 0.3
    lite = LiteRTModel(winners)
    assert (lite.input["dtype"], lite.output["dtype"]) == (np.uint8, np.int64)
    found = lite.predict(images)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, images.argmax(axis=-1))
    outside = np.zeros((1, 2, 3, 4))
    outside[0, 0, 0, 1:] = -7, 300, 250  # of what a byte can be: -7 is not 249, nor 300 44
    assert lite.predict(outside)[0, 0, 0] == 2
