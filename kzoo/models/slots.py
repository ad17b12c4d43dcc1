"""Where attention goes in a network: the three slots of `kzoo.layers.ATTENTION`."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras

from kzoo.errors import InvalidValueError, check_choice
from kzoo.layers import ATTENTION
from kzoo.registry import Entry, entries


def check_attention(attention: str | Callable | None) -> None:
    """Raises `InvalidValueError` unless `attention` is a name in `ATTENTION`, a callable or None.

    A class or a layer is refused: every block needs a layer of its own, under its own name.
    """
    if isinstance(attention, (type, keras.layers.Layer)):
        given = attention.__name__ if isinstance(attention, type) else type(attention).__name__
        raise InvalidValueError(
            f"attention={attention!r} is a layer or its class; pass a function that makes one for each block, such "
            f"as lambda x, name: {given}(name=name)(x)"
        )
    if callable(attention):
        try:
            inspect.signature(attention).bind("x", "name")
        except TypeError as error:
            raise InvalidValueError(
                f"attention={attention!r} must be called with a map and a name, (x, name) -> x; {error}"
            ) from error
        except ValueError:  # a callable of C code tells no signature
            return
    elif attention is not None:
        check_choice("attention", attention, [*ATTENTION, None])


def slot_of(attention: str | Callable | None) -> str | None:
    """The slot that `attention` fills: `"branch"`, `"spatial"`, `"stage"` or None."""
    if attention is None:
        return None
    return "branch" if callable(attention) else ATTENTION[attention].slot


def plain_of(entry: Entry, config: Any) -> Entry | None:
    """The network of the zoo that a model becomes without its attention, if the attention can start as nothing.

    An attention can if its layer has a method `neutral`; one that takes a convolution's place cannot.

    Args:
        entry: of the model.
        config: of the model, the entry's or another one.

    Returns:
        The entry of a network that differs in the attention alone; None where there is none.
    """
    attention = getattr(config, "attention", None)
    if not isinstance(attention, str) or not hasattr(ATTENTION[attention].layer, "neutral"):
        return None
    others = {"stage_attention": None} if hasattr(config, "stage_attention") else {}
    plain = replace(config, attention=None, **others)
    return next((each for each in entries(entry.family) if each.config == plain), None)


def papers_of(attention: str | Callable | None) -> tuple[str, ...]:
    """The paper of a mechanism of `ATTENTION`; none for a callable and for None."""
    return (ATTENTION[attention].paper,) if isinstance(attention, str) else ()


def attend(x, attention: str | Callable | None, name: str):
    """Applies `attention` to a map, as a `branch` or `stage` slot does; None leaves it as it is.

    Raises:
        InvalidValueError: a callable that changes the shape of the map.
    """
    if attention is None:
        return x
    if isinstance(attention, str):
        return ATTENTION[attention].layer(name=name)(x)
    y = attention(x, name)
    if getattr(y, "shape", None) != x.shape:
        raise InvalidValueError(f"attention={attention!r} must return a map of shape {x.shape}, got {y!r}")
    return y


def replace_conv(x, attention: str | Callable | None, strides: int, block: int, name: str):
    """Fills a `spatial` slot: attention in place of a 3×3 convolution that keeps the channels.

    With a stride, 2×2 average pooling follows, as in stand-alone self-attention (arXiv:1906.05909, section
    3.2).

    Args:
        x: the map.
        attention: a name in `ATTENTION`.
        strides: of the convolution.
        block: number of the block in its stage, from 1: mechanisms that alternate do so by it.
        name: of the layer.

    Raises:
        InvalidValueError: an attention that is no name, so that it cannot be in place of a convolution.
    """
    if not isinstance(attention, str):
        raise InvalidValueError(f"attention={attention!r} takes no convolution's place; use a name in ATTENTION")
    entry = ATTENTION[attention]
    layer = entry.alternate if entry.alternate and block % 2 == 0 else entry.layer
    x = layer(name=name)(x)
    if strides > 1:
        x = keras.layers.AveragePooling2D(strides, padding="same", name=f"{name}_pool")(x)
    return x


def stage_positions(depth: int, count: int) -> list[int]:
    """After which blocks of a stage `count` attention blocks go: the last before the last block, then every other.

    This is how non-local networks place one and five blocks (arXiv:1711.07971, section 5.1).

    Raises:
        InvalidValueError: the stage has not enough blocks.
    """
    positions = sorted({max(1, depth - 1 - 2 * index) for index in range(count)})
    if len(positions) < count:
        raise InvalidValueError(
            f"a stage of {depth} blocks has room for {len(positions)} attention blocks, not {count}"
        )
    return positions
