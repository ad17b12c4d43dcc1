"""The process in which a LiteRT file is opened for the first time: a file that crashes the interpreter does it here.

An order is `{"size": bytes, "threads": number}` and the file's bytes; the answer is `{}`, `{"error": text}` or
`{"crash": signal}`. Each file is opened, and run once on zeros, in a fork with limits on memory and time. It is run
as a script, as importing it from kzoo would import Keras too.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile

MEMORY_BYTES = 2**31  # of what a file's tensors may take, or ...
EXPANSION = 20  # ... this many times its size, if that is more
SECONDS = 60  # of the processor, to open it and to run it once


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    from ai_edge_litert.interpreter import Interpreter

    while line := sys.stdin.buffer.readline():
        order = json.loads(line)
        content = sys.stdin.buffer.read(order["size"])
        print(json.dumps(_apart(Interpreter, content, order["threads"])), file=answers, flush=True)


def _apart(interpreter, content: bytes, threads: int) -> dict:
    with tempfile.TemporaryFile() as report:
        child = os.fork()
        if child == 0:
            try:
                _limit(max(MEMORY_BYTES, EXPANSION * len(content)))
                report.write(_open(interpreter, content, threads).encode(errors="replace"))
                report.flush()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return {"crash": signal.Signals(os.WTERMSIG(status)).name}
        report.seek(0)
        error = report.read().decode()
    return {"error": error} if error else {}


def _limit(memory_bytes: int) -> None:
    import resource

    for limit, most in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError, OSError):  # not on every system, or less is allowed already
            resource.setrlimit(limit, (most, most))


def _open(make, content: bytes, threads: int) -> str:
    """Does what a user of the file will do; returns what went wrong."""
    try:
        interpreter = make(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
        interpreter.get_tensor_details()
        interpreter._get_ops_details()
        interpreter.invoke()
        for detail in interpreter.get_output_details():
            interpreter.get_tensor(detail["index"])
    except Exception as error:  # of the interpreter, of its bindings
        return " ".join(f"{error}".split()) or type(error).__name__
    return ""


if __name__ == "__main__":
    main()
