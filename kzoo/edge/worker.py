"""TensorFlow's converter, a job of `kzoo.apart_process`: a crash of it, or the memory it leaks, stays there."""

import tensorflow as tf


def run(saved_model: str, output: str) -> str:
    """Writes the float32 file; returns what went wrong, in the converter's words."""
    try:
        converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.experimental_enable_resource_variables = True
        content = converter.convert()
    except Exception as error:  # the converter raises its own type, which is not public
        return str(error) or type(error).__name__
    with open(output, "wb") as file:
        file.write(content)
    return ""
