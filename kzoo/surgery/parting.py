"""Own copies of a shared linear layer for the calls that a batch normalisation of their own follows."""

from collections.abc import Callable

import keras

from kzoo.surgery.affine import Affine
from kzoo.surgery.level import Level, Refused
from kzoo.surgery.linear import LINEAR, linear_reason
from kzoo.surgery.rewrite import rewrite

Read = Callable[[Level, str], Affine | None]


def part_shared(model: keras.Model, read: Read) -> keras.Model:
    """An equal model in which every call of a linear layer that a norm of its own follows has a layer of its own.

    One kernel cannot take in what differs from call to call, as in heads that all levels of a pyramid share, each with
    statistics of its own. Copies are called `NAME_call1`, `NAME_call2`, ... in the order of the calls; a call without
    such a norm keeps the layer. Models inside are treated alike.

    Args:
        model: a functional or Sequential model, which is left as it is.
        read: function that tells what the named layer computes if it normalises, as in `Rule`.

    Returns:
        A new functional model, or `model` itself where nothing is to be parted.

    Raises:
        InvalidValueError: the model is not functional, or holds a layer that cannot be copied.
    """
    level = Level(model)
    return rewrite(level, lambda level: {}, lambda level: _copies(level, read)) if _any(level, read) else model


def _any(level: Level, read: Read) -> bool:
    return bool(_copies(level, read)) or any(_any(inner, read) for _, inner in level.models())


def _copies(level: Level, read: Read) -> dict[tuple[str, int], str]:
    """Layer and number of its call -> the name of the copy for this call."""
    copies = {}
    for name, calls in level.graph.calls.items():
        layer = level.operations[name]
        if len(calls) < 2 or type(layer) not in LINEAR or name in level.taps or linear_reason(layer):
            continue
        if layer.activation is not keras.activations.linear or len({call.sources for call in calls}) < len(calls):
            continue  # of two calls on one tensor nobody could tell which is which
        for index in range(len(calls)):
            if _has_norm(level, read, name, index):
                copies[name, index] = level.new_name(f"{name}_call{index + 1}")
    return copies


def _has_norm(level: Level, read: Read, name: str, index: int) -> bool:
    """Whether a norm that is called once follows the call, and nothing else reads what it gives."""
    dtype, at = level.operations[name].compute_dtype, (name, index, 0)
    while True:
        readers = level.graph.consumers.get(at, [])
        if len(readers) != 1 or at in level.graph.outputs or at[0] in level.taps:
            return False
        reader = readers[0].layer
        if len(level.graph.calls[reader]) != 1:
            return False
        try:
            if read(level, reader) is not None:
                return level.operations[reader].compute_dtype == dtype
        except Refused:
            return False
        if not level.commutes(reader):
            return False
        at = (reader, 0, 0)
