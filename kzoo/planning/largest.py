"""The largest batch whose step fits into the memory of the devices, from few compilations as each takes minutes."""

from collections.abc import Callable

from kzoo.planning.roofline import Program

ROOM = 0.4  # share of the memory up to which twice the batch is compiled, and above it half of it


def two_programs(first: Program, program_of: Callable[[int], Program], memory: float) -> tuple[Program, Program]:
    """Programs of two batch sizes that the compiler could fit, for `largest_batch`; twice the same if there is one.

    Args:
        first: for the batch size that is asked for; compilers refuse what does not fit, but say what it needs.
        program_of: compiles the step for a batch size.
        memory: bytes of each device.
    """
    one, devices = first, first.devices
    while one.needed_bytes is not None and one.batch_size > devices:
        share = min(0.5, 0.7 * memory / one.needed_bytes)
        one = program_of(max(1, int(share * one.batch_size / devices)) * devices)
    if one.memory_bytes < ROOM * memory:
        return one, program_of(2 * one.batch_size)
    return one, program_of(max(1, one.batch_size // devices // 2) * devices)


def largest_batch(one: Program, two: Program, memory: float) -> int:
    """The largest batch size that fits, on the line through two programs; 0 if none does.

    Args:
        one: of `two_programs`.
        two: of the same step, for another batch size.
        memory: bytes of each device.

    Returns:
        A multiple of the devices; 0 where one image for each does not fit. Compilers may do better than the line, as
        they compute things again where memory becomes scarce.

    Example:
        >>> largest_batch(at(64, bytes=3e9), at(128, bytes=5e9), memory=17e9)
        512
    """
    if one.needed_bytes is not None:
        return 0
    if one.batch_size == two.batch_size:
        return one.batch_size
    slope = (two.memory_bytes - one.memory_bytes) / (two.batch_size - one.batch_size)
    fixed = one.memory_bytes - slope * one.batch_size
    if slope <= 0:  # so small that memory does not depend on it
        return max(one.batch_size, two.batch_size)
    return max(0, int((memory - fixed) / slope / one.devices)) * one.devices


def verified(batch_size: int, program_of: Callable[[int], Program], memory: float) -> int:
    """The batch size itself, or the largest smaller one by steps of a tenth whose program fits; 0 if none does.

    Args:
        batch_size: what is taken to fit.
        program_of: compiles the step for a batch size.
        memory: bytes of each device.
    """
    while batch_size:
        program = program_of(batch_size)
        if program.needed_bytes is None and program.memory_bytes <= memory:
            return batch_size
        batch_size = int(0.9 * batch_size / program.devices) * program.devices
    return 0
