"""The process in which TensorFlow's converter runs: a crash of it, or the memory it leaks, stays there.

It imports TensorFlow once and forks for each order, a line of JSON on its standard input: `{"saved_model": directory,
"output": file}`. It answers each with a line: `{}`, `{"error": text}`, or `{"crash": signal}`. It is run as a script,
as importing it from kzoo would import Keras too.
"""

import json
import os
import signal
import sys
import tempfile


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    import tensorflow as tf

    for line in sys.stdin:
        print(json.dumps(_apart(tf, json.loads(line))), file=answers, flush=True)


def _apart(tf, order: dict) -> dict:
    with tempfile.TemporaryFile() as report:
        child = os.fork()
        if child == 0:
            try:
                report.write(_convert(tf, **order).encode(errors="replace"))
                report.flush()
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return {"crash": signal.Signals(os.WTERMSIG(status)).name}
        if status:
            return {"crash": f"exit status {os.waitstatus_to_exitcode(status)}"}
        report.seek(0)
        error = report.read().decode()
    return {"error": error} if error else {}


def _convert(tf, saved_model: str, output: str) -> str:
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


if __name__ == "__main__":
    main()
