"""Processes apart, for what may crash: each is kept, and forks for every order that it is given."""

import atexit
import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, AnyStr

from kzoo.errors import InvalidValueError

LONGEST_LOG = 300
PROCESS = Path(__file__).with_name("apart_process.py")


class Apart:
    """A job in a process of its own: started when it is first needed, kept, ended with Python.

    It is given orders, and answers each as `kzoo.apart_process` says.

    Args:
        job: path of a Python file.
    """

    def __init__(self, job: Path):
        self._job = job
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        atexit.register(self.stop)

    def start(self) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        """Starts the process, if it is not running; returns it with the file that its errors go to."""
        if self._process is None or self._log is None or self._process.poll() is not None:
            self.stop()
            self._log = tempfile.TemporaryFile()  # noqa: SIM115  as long as the process
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(PROCESS), str(self._job)],  # -P: no module of kzoo hides another
                stdin=pipe,
                stdout=pipe,
                stderr=self._log,
                start_new_session=True,  # it and its forks are ended together
            )
        return self._process, self._log

    def ask(self, order: dict, content: bytes = b"") -> dict:
        """The answer to an order; `crash` in it has the last words of what crashed too."""
        with self._lock:
            process, log = self.start()
            orders, answers = pipes_of(process)
            logged = log.seek(0, 2)
            try:
                orders.write(json.dumps(order).encode() + b"\n" + content)
                orders.flush()
                line = answers.readline()
            except BrokenPipeError:
                line = b""
            except BaseException:  # interrupted: what it answers later would be taken for the answer to the next order
                self.stop()
                raise
            answer = json.loads(line) if line else {"crash": f"exit status {process.wait()}"}
            if crash := answer.get("crash"):
                answer["crash"] = f"{crash}{_last_words(log, logged)}"
            return answer

    def stop(self) -> None:
        """Ends the process and its forks, whatever they do."""
        if self._process is not None and self._log is not None:
            orders, answers = pipes_of(self._process)
            if self._process.poll() is None:  # the end of its input may not come: a fork of ours would hold it open
                os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(BrokenPipeError):  # it ended with an order half written
                orders.close()
            answers.close()
            self._process.wait()
            self._log.close()
            self._process = None


def pipes_of(process: subprocess.Popen[AnyStr]) -> tuple[IO[AnyStr], IO[AnyStr]]:
    """The pipes to and from a process that was started with both."""
    if process.stdin is None or process.stdout is None:
        raise ValueError("the process was started without a pipe to it or from it")
    return process.stdin, process.stdout


def _last_words(log: IO[bytes], start: int) -> str:
    log.seek(start)
    lines = log.read().decode(errors="replace").splitlines()
    told = [line for line in lines if line.strip() and not re.match(r"(WARNING|[IW]\d{4}|INFO:) ?", line)]
    return f": {' '.join(told[-1].split())[:LONGEST_LOG]}" if told else ""


_OPENER = Apart(Path(__file__).with_name("opener.py"))
_OPENED: set[tuple[str, bytes]] = set()  # digests of files that have been opened


def open_apart(kind: str, content: bytes, **options) -> None:
    """Opens a file in a process of its own, see `kzoo.opener`; one that this process has opened so before passes.

    Args:
        kind: `"litert"`, `"hdf5"` or `"numbers"`.
        content: of the file.
        options: of that kind, and `memory_bytes` where it may take less than other files.

    Raises:
        InvalidValueError: it cannot be opened, crashes what opens it, or takes too much memory or time.
    """
    digest = kind, hashlib.blake2b(content).digest()
    if digest in _OPENED or not hasattr(os, "fork"):  # Windows: a file is opened here alone
        return
    answer = _OPENER.ask({"kind": kind, "size": len(content), **options}, content)
    if crash := answer.get("crash"):
        limits = "takes too long" if crash.startswith("SIGXCPU") else "crashes or takes too much memory"
        raise InvalidValueError(f"it is damaged: opening it {limits} ({crash})")
    if "error" in answer:
        raise InvalidValueError(answer["error"])
    _OPENED.add(digest)
