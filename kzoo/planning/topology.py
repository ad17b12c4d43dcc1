"""Devices that are planned for, by a name: a slice of a TPU, graphics cards of one host, or this machine."""

import dataclasses
import math
import re

from kzoo.errors import UnknownNameError, did_you_mean
from kzoo.peaks import Peak, peak_of

CPU = "cpu"
# name -> what drivers call the chip, and how many numbers its shape has
TPUS = {"v3": ("TPU v3", 2), "v4": ("TPU v4", 3), "v5e": ("TPU v5 lite", 2), "v5p": ("TPU v5", 3)}
TPUS |= {"v6e": ("TPU v6 lite", 2)}
GPUS = {
    "h100": "H100",
    "h100-pcie": "H100 PCIe",
    "h200": "H200",
    "a100": "A100",
    "a100-40gb": "A100-SXM4-40GB",
    "l40s": "L40S",
    "l4": "L4",
    "t4": "T4",
    "v100": "V100",
}
ACCEPTED = "cpu, a TPU slice such as v5e:4x8 or v4:2x2x4, or graphics cards of one host such as h100:8"


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind.

    Attributes:
        name: as it was given.
        kind: "tpu", "gpu" or "cpu".
        shape: chips in each direction, of a TPU; else their number.
        peak: of one chip; None of this machine, which is measured.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    peak: Peak | None

    @property
    def chips(self) -> int:
        """Number of chips or cards."""
        return math.prod(self.shape)


def topology_of(name: str) -> Topology:
    """The devices of a name.

    Raises:
        UnknownNameError: no such kind of device, or a shape that it cannot have.

    Example:
        >>> topology_of("v5e:4x8").chips
        32
    """
    if name == CPU:
        return Topology(name, CPU, (1,), None)
    kind, _, size = name.lower().partition(":")
    shape = tuple(int(part) for part in size.split("x")) if re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", size) else ()
    if kind in TPUS:
        device, length = TPUS[kind]
        if len(shape) != length:
            example = "4x8" if length == 2 else "2x2x4"
            raise UnknownNameError(f"no topology {name!r}: {kind} has {length} sizes, such as {kind}:{example}")
        return Topology(name, "tpu", shape, peak_of(device))
    if kind in GPUS:
        if size and len(shape) != 1:
            raise UnknownNameError(f"no topology {name!r}: say how many cards one host has, such as {kind}:8")
        return Topology(name, "gpu", shape or (1,), peak_of(GPUS[kind]))
    raise UnknownNameError(f"no topology {name!r}; there are {ACCEPTED}{did_you_mean(kind, [*TPUS, *GPUS, CPU])}")
