"""What a compiled program sends between devices, read from its text, as XLA's cost analysis does not tell it."""

import math
import re

_SUM = re.compile(r"= (?P<result>\(.*?\)|\S+) all-reduce(?:-start)?\(")
_ARRAY = re.compile(r"(?P<kind>pred|[a-z]+\d+\w*)\[(?P<shape>[\d,]*)\]")


def reductions(hlo: str) -> tuple[int, int]:
    """The bytes that a program sums over all its devices, and in how many operations.

    Args:
        hlo: text of the program after compilation.

    Example:
        >>> reductions("%sum = (f32[16]{0}, bf16[2,8]{1,0}) all-reduce(%a, %b), channel_id=1")
        (96, 1)
    """
    sums = [match["result"] for match in _SUM.finditer(hlo)]
    return sum(map(_bytes, sums)), len(sums)


def _bytes(result: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    total = 0
    for kind, shape in _ARRAY.findall(result):
        bits = int((re.findall(r"\d+", kind) or [8])[0])  # pred: a byte
        total += bits // 8 * math.prod(int(side) for side in shape.split(",") if side)
    return total
