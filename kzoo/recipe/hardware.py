"""The part of a recipe that says what it runs on, which makes no other run of it."""

import dataclasses
import re
from typing import Literal, get_args

from kzoo.errors import InvalidValueError, check_choice

DeviceKind = Literal["auto", "cpu", "gpu", "tpu"]
FOUND = "auto"  # as a coordinator: what JAX finds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """Devices and hosts that a batch is divided among."""

    devices: int | DeviceKind = "auto"
    """Devices that each batch is divided among: "auto" for all of the best kind that divide it, "cpu", "gpu" or "tpu"
    for all of a kind, or a number for the first ones of the best kind. The batch stays what batch_size says, and the
    learning rate too, whatever their number."""
    coordinator: str | None = None
    """Address HOST:PORT at which process 0 of several waits for the others, the same for all of them; or "auto", where
    JAX finds it, processes and process_id itself, as on TPU slices and under Slurm. For KERAS_BACKEND=jax."""
    processes: int | None = None
    """Number of processes that train together, usually one for each host, with coordinator."""
    process_id: int | None = None
    """Number of this process, from 0; process 0 alone writes files and logs."""

    def __post_init__(self):
        if not isinstance(self.devices, int):
            check_choice("devices", self.devices, get_args(DeviceKind))
        elif self.devices < 1:
            raise InvalidValueError(f"devices={self.devices} must be at least 1")
        given = [name for name in ("processes", "process_id") if getattr(self, name) is not None]
        if self.coordinator in (None, FOUND):
            if given:
                raise InvalidValueError(f"{', '.join(given)}: with coordinator=HOST:PORT, the address of process 0")
            return
        host, _, port = self.coordinator.rpartition(":")
        if not host or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 2**16:
            raise InvalidValueError(
                f"coordinator={self.coordinator!r} must be HOST:PORT, such as 10.0.0.1:1234, or 'auto'"
            )
        if self.processes is None or self.process_id is None:
            raise InvalidValueError(f"coordinator={self.coordinator!r} goes with both processes and process_id")
        if self.processes < 1:
            raise InvalidValueError(f"processes={self.processes} must be at least 1")
        if not 0 <= self.process_id < self.processes:
            last = self.processes - 1
            raise InvalidValueError(f"process_id={self.process_id} must be 0 to {last}, one of {self.processes}")
