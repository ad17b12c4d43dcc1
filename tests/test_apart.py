"""Processes apart: whose answer is whose, how they end, and what counts as a crash."""

import os
import select
import signal
import time
from pathlib import Path

import pytest

import kzoo.apart

ROOM = Path(kzoo.apart.__file__).parent
SLEEPER = """
import time
def run(name, seconds):
    time.sleep(seconds)
    return f"of {name}"
"""
FORKING = """
import os, time
def run():
    if not os.fork():
        time.sleep(60)
    return ""
"""


@pytest.fixture
def sleeper(tmp_path):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    process = kzoo.apart.Apart(tmp_path / "sleeper.py")
    yield process
    process.stop()


def test_an_interrupted_order_leaves_no_answer_for_the_next(sleeper):
    def ring(*_):
        raise KeyboardInterrupt

    sleeper.ask({"name": "warm", "seconds": 0})
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            sleeper.ask({"name": "first", "seconds": 2})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert sleeper.ask({"name": "second", "seconds": 0}) == {"error": "of second"}


def test_it_ends_though_a_fork_holds_its_input(sleeper):
    sleeper.ask({"name": "warm", "seconds": 0})
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    start = time.monotonic()
    try:
        sleeper.stop()
        assert time.monotonic() - start < 30
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_its_forks_end_with_it(tmp_path):
    (tmp_path / "forking.py").write_text(FORKING)
    process = kzoo.apart.Apart(tmp_path / "forking.py")
    assert process.ask({}) == {}
    output = os.dup(process._process.stdout.fileno())  # which the fork holds open too
    process.stop()
    try:
        assert select.select([output], [], [], 10)[0]
    finally:
        os.close(output)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="sizes of other processes are told by Linux")
def test_a_file_is_not_kept_once_it_has_been_opened():
    opener = kzoo.apart.Apart(ROOM / "opener.py")
    try:
        for size in (1, 2 * 10**8):
            assert "file signature not found" in opener.ask({"kind": "hdf5", "size": size}, bytes(size))["error"]
        pages = int(Path(f"/proc/{opener._process.pid}/statm").read_text().split()[1])
        assert pages * os.sysconf("SC_PAGE_SIZE") < 1.5 * 10**8
    finally:
        opener.stop()


@pytest.mark.parametrize(
    ("end", "crash"),
    [
        ("os._exit(3)", "exit status 3"),
        ("1 / 0", "exit status 1: ZeroDivisionError: division by zero"),
        ("os.abort()", "SIGABRT"),
    ],
)
def test_a_job_that_ends_without_a_word_is_a_crash(end, crash, tmp_path):
    (tmp_path / "job.py").write_text(f"import os\ndef run(): {end}")
    process = kzoo.apart.Apart(tmp_path / "job.py")
    assert process.ask({}) == {"crash": crash}
    process.stop()
