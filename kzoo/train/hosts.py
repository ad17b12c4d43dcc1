"""Several processes that train together, usually one for each host: they meet, compare what they do, and part.

Process 0 alone reads and writes the run's directory, and tells the others what they need of it.
"""

import atexit
import contextlib
import hashlib
import io
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

import kzoo
from kzoo.data.split import ImageDataset
from kzoo.errors import BackendError, InvalidValueError, KzooError, counted, explain
from kzoo.recipe import Hardware, Recipe
from kzoo.recipe.hardware import FOUND
from kzoo.train.checkpoints import Checkpoints, Found, Mark
from kzoo.train.command import PLACES
from kzoo.train.splits import places_of

MEETING_SECONDS = 300  # in which all processes have to be there
TOLD_SECONDS = 5  # after which a process tells whom it waits for
SILENT_SECONDS = 30  # without a sign of life, after which a process counts as dead
PART_BYTES = 2**28  # that are told at once
# words in the errors of JAX of processes that are gone, or cannot be reached
LOST = ("gloo", "nccl", "unavailable", "deadline_exceeded", "aborted", "coordination", "heartbeat", "connection")


class Hosts:
    """The processes of a run.

    Args:
        number: of this process, from 0.
        count: of all.
    """

    def __init__(self, number: int = 0, count: int = 1):
        self.number, self.count = number, count
        self.together = count > 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.number == 0

    def told(self, make: Callable[[], dict[str, Any]]) -> dict[str, np.ndarray]:
        """The arrays that `make` gives in process 0, in every process; it is called there alone."""
        if self.count == 1:
            return make()
        blob = b""
        if self.first:
            buffer = io.BytesIO()
            np.savez(buffer, **make())
            blob = buffer.getvalue()
        size = int(_tell(np.array(len(blob), "uint32")))
        parts = []
        for start in range(0, size, PART_BYTES):
            length = min(PART_BYTES, size - start)
            mine = np.frombuffer(blob, "uint8", length, start) if self.first else np.zeros(length, "uint8")
            parts.append(_tell(mine).tobytes())
        with np.load(io.BytesIO(b"".join(parts))) as arrays:  # which refuses pickles
            return dict(arrays)

    def told_json(self, make: Callable[[], Any]) -> Any:
        """What `make` gives in process 0, in every process, as JSON keeps it."""
        told = self.told(lambda: {"json": np.frombuffer(json.dumps(make()).encode(), "uint8")})
        return json.loads(told["json"].tobytes())

    def agree(self, facts: dict[str, Any]) -> None:
        """Compares facts with those of the other processes, which have the same names.

        Raises:
            InvalidValueError: in every process, if they differ; the message names what does.
        """
        if self.count == 1:
            return
        from jax.experimental.multihost_utils import process_allgather

        mine = json.dumps(facts).encode()
        lengths = np.ravel(process_allgather(np.array(len(mine), "uint32")))
        padded = np.frombuffer(mine.ljust(int(lengths.max())), "uint8")
        rows = zip(process_allgather(padded), lengths, strict=True)
        theirs = [json.loads(row.tobytes()[:length]) for row, length in rows]
        for number, other in enumerate(theirs):
            names = [name for name in {**theirs[0], **other} if theirs[0].get(name) != other.get(name)]
            if names:
                self.part()  # as all do
                changes = ", ".join(f"{name} {theirs[0].get(name)!r} -> {other.get(name)!r}" for name in names)
                raise InvalidValueError(
                    f"process {number} differs from process 0: {changes}; start all processes with the same command, "
                    "code and data"
                )

    def part(self) -> None:
        """Lets each process go its own way; all come here together."""
        if self.together:
            import jax

            jax.distributed.shutdown()
            self.together = False


def _tell(array: np.ndarray) -> np.ndarray:
    """An array of process 0, in every process, where it has the same shape."""
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return np.asarray(broadcast_one_to_all(array))


def facts_of(recipe: Recipe) -> dict[str, Any]:
    """What processes that train together have in common before they read data."""
    free = {*PLACES} - {"devices", "processes"}
    facts = {"kzoo": kzoo.__version__, "code of kzoo": code_hash()}
    facts |= {package: version(package) for package in ("jax", "keras", "numpy")}
    return facts | {flag: value for flag, value in recipe.flags().items() if flag not in free}


def code_hash() -> str:
    """Ten hexadecimal digits that change with the code of kzoo."""
    root, sha = Path(kzoo.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        sha.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return sha.hexdigest()[:10]


def facts_of_data(data: ImageDataset) -> dict[str, Any]:
    """What the same data have in common; of files their names, labels and splits."""
    splits = {f"{name} images": getattr(data, name).size for name in ("train", "validation", "test")}
    places = hashlib.sha256(json.dumps(places_of(data), sort_keys=True).encode()).hexdigest()[:10]
    return {"classes": list(data.classes), **splits, "files": places}


class SharedCheckpoints(Checkpoints):
    """Checkpoints that process 0 writes and reads, and from which all go on.

    Args:
        folder: of the files.
        hosts: the processes.
    """

    def __init__(self, folder: Path, hosts: Hosts):
        super().__init__(folder)
        self._hosts = hosts

    def find(self, model_at: Callable[[Mark], keras.Model]) -> Found:
        def arrays() -> dict[str, Any]:
            found = Checkpoints.find(self, model_at)
            told = {f"value {number:06d}": value for number, value in enumerate(found.values)}
            return (
                {"mark": np.array(found.mark)} | told | {f"state {name}": each for name, each in found.state.items()}
            )

        if self._hosts.count == 1:
            return super().find(model_at)
        told = self._hosts.told(arrays)
        keras.utils.set_random_seed(0)  # what is made from here on has the same seeds: reading drew some in process 0
        values = [told[name] for name in sorted(told) if name.startswith("value ")]
        state = {name.removeprefix("state "): told[name] for name in told if name.startswith("state ")}
        return Found(Mark(*map(int, told["mark"])), values, state)

    def save_step(self, model: keras.Model, mark: Mark, state: Mapping[str, np.ndarray]) -> None:
        if self._hosts.first:
            super().save_step(model, mark, state)

    def save_best(self, model: keras.Model, epoch: int) -> None:
        if self._hosts.first:
            super().save_best(model, epoch)

    def save(self, model: keras.Model, epoch: int) -> None:
        if self._hosts.first:
            super().save(model, epoch)


@contextlib.contextmanager
def joined(hardware: Hardware) -> Iterator[Hosts]:
    """The processes that train together, while the block runs; other ones than process 0 print nothing.

    Where this process fails, or another one is gone, it ends with its error at once, and does not wait for the others.

    Raises:
        InvalidValueError: there is no such host, or its port is taken.
        BackendError: Keras does not compute with JAX.
        KzooError: another process is gone.
    """
    if hardware.coordinator is None:
        yield Hosts()
        return
    if keras.backend.backend() != "jax":
        raise BackendError(
            f"training by several processes needs KERAS_BACKEND=jax, and it is {keras.backend.backend()!r}"
        )
    _meet(hardware)
    import jax

    hosts = Hosts(jax.process_index(), jax.process_count())
    try:
        with contextlib.ExitStack() as stack:
            if not hosts.first:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield hosts
            hosts.part()
    except BaseException as error:
        if hosts.together:
            atexit.register(_leave, 130 if isinstance(error, KeyboardInterrupt) else 2)
            if not isinstance(error, KzooError) and any(word in str(error).lower() for word in LOST):
                raise KzooError(
                    f"another process of this run is gone, or cannot be reached ({explain(error)}); its own output "
                    "tells why, and the same command on all of them goes on from the last checkpoint"
                ) from error
        raise


def _leave(status: int) -> None:
    """Ends the process at once: JAX would wait for the others, and then abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _meet(hardware: Hardware) -> None:
    """Waits until all processes are there.

    As `keras.distribution.initialize`, which leaves out for how long.
    """
    import jax

    where: dict[str, Any] = {}
    missing = "the other processes of its job"
    late = f"not all processes of the run came together within {MEETING_SECONDS} s; are all started?"
    if hardware.coordinator not in (None, FOUND):
        _check_address(hardware.coordinator, hardware.process_id == 0)
        where = dict(
            coordinator_address=hardware.coordinator,
            num_processes=hardware.processes,
            process_id=hardware.process_id,
            cluster_detection_method="deactivate",
        )
        missing = f"{counted((hardware.processes or 1) - 1, 'other process', 'other processes')} of the run"
        if hardware.process_id:
            missing = f"process 0 at {hardware.coordinator}"
            late = (
                f"process 0 was not at {hardware.coordinator} within {MEETING_SECONDS} s, or others are missing; "
                "is it started there, and does a firewall let its port through?"
            )

    def end() -> None:  # JAX would abort, with a trace of C++
        print(f"kzoo: {late}", file=sys.stderr)
        _leave(2)

    def tell() -> None:
        number = "" if hardware.process_id is None else f" {hardware.process_id}"
        print(f"kzoo: process{number} waits for {missing}, for up to {MEETING_SECONDS} s", file=sys.stderr, flush=True)

    timers = threading.Timer(TOLD_SECONDS, tell), threading.Timer(MEETING_SECONDS, end)
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        jax.distributed.initialize(
            **where, initialization_timeout=2 * MEETING_SECONDS, heartbeat_timeout_seconds=SILENT_SECONDS
        )
    except (ValueError, RuntimeError) as error:
        if hardware.coordinator == FOUND and isinstance(error, ValueError):
            raise InvalidValueError(
                f"coordinator='auto': JAX finds no TPU slice and no job of Slurm or MPI here ({error}); give HOST:PORT"
            ) from error
        raise KzooError(f"coordinator={hardware.coordinator!r}: {explain(error)}") from error
    finally:
        for timer in timers:
            timer.cancel()


def _check_address(address: str, mine: bool) -> None:
    """Raises unless there is a host of that name, and, of this process, its port is free."""
    host, _, port = address.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except OSError as error:
        raise InvalidValueError(f"coordinator={address!r}: no host of that name ({error.strerror})") from error
    if mine:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("", int(port)))
            except OSError as error:
                raise InvalidValueError(
                    f"coordinator={address!r}: the port cannot be opened ({error.strerror})"
                ) from error
