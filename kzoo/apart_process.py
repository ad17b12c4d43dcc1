"""The process of `kzoo.apart.Apart`: run as a script, as importing it from kzoo would import Keras too.

It is given the path of a job, a Python file whose `run(**order)` returns what went wrong, or nothing. An order is a
line of JSON; where that has a `size`, as many bytes follow, which are `content`. Each order is run in a fork, so that
a crash, or memory that leaks, stays there. The answer is a line, `{}`, `{"error": text}` or `{"crash": how}`.
"""

import json
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable


def main(job: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    run = runpy.run_path(job)["run"]  # with what it imports, which the forks need not do
    while line := sys.stdin.buffer.readline():
        order = json.loads(line)
        if "size" in order:
            order["content"] = sys.stdin.buffer.read(order.pop("size"))
        answer = _in_a_fork(run, order)
        del order  # which may be large, while the next one is waited for
        print(json.dumps(answer), file=answers, flush=True)


def _in_a_fork(run: Callable[..., str], order: dict) -> dict:
    fork = multiprocessing.get_context("fork")
    report, end = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: end.send_bytes(run(**order).encode(errors="replace")))
    child.start()
    end.close()
    try:
        error = report.recv_bytes().decode()
    except EOFError:  # it ended without a word
        error = ""
    child.join()
    if status := child.exitcode:
        return {"crash": signal.Signals(-status).name if status < 0 else f"exit status {status}"}
    return {"error": error} if error else {}


if __name__ == "__main__":
    main(sys.argv[1])
