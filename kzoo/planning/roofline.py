"""Time of a step from what it computes, moves and sends, against what the devices can do at most (the roofline).

Williams, Waterman, Patterson: Roofline, doi:10.1145/1498765.1498785. All parts are taken to overlap fully, so that a
real step is slower: the time is a bound, and how near a run comes to it depends on the network and its batch. On a
processor one operation follows the other, and computes or waits for memory: the times are added.
"""

import dataclasses
from typing import Any

MATRIX, MEMORY, NETWORK, INPUT = "matrix units", "memory", "network", "input pipeline"


@dataclasses.dataclass(frozen=True)
class Program:
    """What a compiled training step needs of each device.

    Attributes:
        batch_size: images of all devices together.
        devices: number of devices that it was compiled for.
        hosts: number of machines that they are in.
        flops: operations.
        moved_bytes: read from memory and written to it.
        reduced_bytes: summed over all devices.
        reductions: number of such sums.
        argument_bytes: weights, statistics, optimizer and batch.
        temporary_bytes: activations, gradients and what else is needed at once.
        code_bytes: of the program.
        needed_bytes: what the compiler says that it needs, of a program that did not fit; else None.
        compile_s: seconds of the compilation.
        parameters: number of them.
        parameter_bytes: weights and statistics.
        optimizer_bytes: what the optimizer and the metrics keep.
    """

    batch_size: int
    devices: int
    hosts: int
    flops: float
    moved_bytes: float
    reduced_bytes: int
    reductions: int
    argument_bytes: int
    temporary_bytes: int
    code_bytes: int
    needed_bytes: int | None
    compile_s: float
    parameters: int
    parameter_bytes: int
    optimizer_bytes: int

    @property
    def memory_bytes(self) -> int:
        """Memory of each device that is in use at once."""
        if self.needed_bytes is not None:
            return self.needed_bytes
        return self.argument_bytes + self.temporary_bytes + self.code_bytes

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one device does at most.

    Attributes:
        flops: operations a second.
        bandwidth: bytes a second of its memory.
        memory: bytes of its memory.
        network: bytes a second that it sends to others.
        input_rate: images a second that each host reads and decodes; None if that is not known.
        serial: whether parts wait for each other, but for the input.
    """

    flops: float
    bandwidth: float
    memory: float
    network: float
    input_rate: float | None = None
    serial: bool = False


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step, if each part of the machine had to wait for itself alone; `serial` as of `Limits`."""

    matrix: float
    memory: float
    network: float
    input: float | None
    serial: bool

    @property
    def parts(self) -> dict[str, float]:
        """Part of the machine -> its seconds."""
        parts = {MATRIX: self.matrix, MEMORY: self.memory, NETWORK: self.network}
        return parts | ({} if self.input is None else {INPUT: self.input})

    @property
    def step(self) -> float:
        """Seconds of the whole step: those of the slowest part, or of all that wait for each other."""
        together = self.matrix + self.memory + self.network if self.serial else 0.0
        return max(together, *self.parts.values())

    @property
    def bound(self) -> str:
        """The slowest part."""
        return max(self.parts, key=lambda part: self.parts[part])


def step_time(program: Program, limits: Limits) -> StepTime:
    """The roofline of a step.

    A sum over n devices in a ring sends 2 (n - 1) / n of its bytes from each (Patarasuk, Yuan,
    doi:10.1016/j.jpdc.2008.09.002).

    Example:
        >>> step_time(program, Limits(flops=197e12, bandwidth=819e9, memory=17.2e9, network=200e9)).bound
        'memory'
    """
    others = (program.devices - 1) / program.devices
    return StepTime(
        matrix=program.flops / limits.flops,
        memory=program.moved_bytes / limits.bandwidth,
        network=2 * others * program.reduced_bytes / limits.network,
        input=None if limits.input_rate is None else program.batch_size / (limits.input_rate * program.hosts),
        serial=limits.serial,
    )
