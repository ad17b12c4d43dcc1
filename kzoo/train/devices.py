"""The devices that a run computes on, and the batch divided among them.

Under JAX they are those of a `keras.distribution.DataParallel`, whose programs see the whole batch; under TensorFlow
those of a `tf.distribute.MirroredStrategy`. The batch of a recipe is that of all devices together, and what a step
computes is the same on any number of them, so that its learning rate is too.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from kzoo.errors import InvalidValueError
from kzoo.recipe import Hardware, Recipe
from kzoo.train.hosts import Hosts


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of a run.

    Attributes:
        names: as Keras has them, such as `"gpu:0"`, of all processes.
        parallel: what divides a batch among them, with a `scope` in which a model is made; None for the one device
            that Keras computes on by itself.
        hosts: the processes that the devices are of.
    """

    names: tuple[str, ...]
    parallel: Any = None
    hosts: Hosts = dataclasses.field(default_factory=Hosts)

    def scope(self) -> contextlib.AbstractContextManager:
        """Where models, optimizers and batches are made."""
        return contextlib.nullcontext() if self.parallel is None else self.parallel.scope()

    @property
    def replicas(self) -> int:
        """On how many of them TensorFlow computes a share of the batch by itself."""
        return 1 if keras.backend.backend() == "jax" else len(self.names)

    def validating(self, recipe: Recipe, size: int) -> Recipe:
        """The recipe with a batch of validation, of so many images, of which each replica has some, the last one too.

        Keras adds up the shares of the first one, which must be of one size, and computes nothing of an empty one.
        """
        most, count = min(recipe.schedule.batch_size, size), self.replicas
        if count == 1:
            return recipe
        batches = range(most // count * count, 0, -count)
        return recipe.replace(batch_size=next((n for n in batches if not 0 < size % n < count), count))

    def __str__(self) -> str:
        kind, several = self.names[0].partition(":")[0].upper(), "s" if len(self.names) > 1 else ""
        told = f"{len(self.names)} {kind} device{several}"
        return told if self.hosts.count == 1 else f"{told} of {self.hosts.count} processes"


def choose_devices(hardware: Hardware, batch_size: int, hosts: Hosts) -> Devices:
    """The devices that a recipe asks for.

    Args:
        hardware: the part of the recipe.
        batch_size: images of a step, on all devices together.
        hosts: the processes that train together, which have as many devices each where a number is wanted.

    Raises:
        InvalidValueError: they are not there, which is said, or do not divide a batch; the message has one that they
            do.
    """
    wanted, there = hardware.devices, find_devices(hardware)
    if hosts.count > 1:
        there = _of_each(wanted, hosts.count) if isinstance(wanted, int) else there
        check_batch(batch_size, len(there))
        return Devices(tuple(there), keras.distribution.DataParallel(devices=there), hosts)
    if wanted == "auto":
        count = max(number for number in range(1, len(there) + 1) if batch_size % number == 0)
    else:
        count = wanted if isinstance(wanted, int) else len(there)
    check_batch(batch_size, count)
    return _with(there[:count])


def _of_each(wanted: int, processes: int) -> list[str]:
    """The first devices of each process."""
    import jax

    if wanted % processes:
        raise InvalidValueError(f"devices={wanted} is not a multiple of the {processes} processes")
    chosen = []
    for number in range(processes):
        own = [f"{device.platform}:{device.id}" for device in jax.devices() if device.process_index == number]
        if len(own) < wanted // processes:
            raise InvalidValueError(
                f"devices={wanted}: {wanted // processes} of each process, and process {number} has {len(own)}"
            )
        chosen += own[: wanted // processes]
    return chosen


def find_devices(hardware: Hardware) -> list[str]:
    """Names of all devices of the kind that a recipe asks for.

    Raises:
        InvalidValueError: there is none, or not as many as it asks for; the message has those that are there.
    """
    wanted = hardware.devices
    there = devices_there(None if isinstance(wanted, int) or wanted == "auto" else wanted)
    if not there or (isinstance(wanted, int) and wanted > len(there)):
        raise InvalidValueError(f"devices={wanted!r}: no such device; there are {', '.join(_all_there())}")
    return there


def check_batch(batch_size: int, count: int) -> None:
    """Raises unless a batch has as many images for each of some devices."""
    if batch_size % count:
        lower, upper = batch_size // count * count, (batch_size // count + 1) * count
        near = f"{lower} or {upper}" if lower else str(upper)
        raise InvalidValueError(f"batch_size={batch_size} is not a multiple of the {count} devices; {near} is")


def check_recipe(recipe: Recipe, devices: Devices) -> None:
    """Raises if a recipe has what several processes or devices cannot do."""
    if recipe.schedule.minutes is not None and (devices.hosts.count > 1 or devices.replicas > 1):
        raise InvalidValueError(
            f"minutes={recipe.schedule.minutes:g} is measured on the devices of one process, under TensorFlow on one "
            "device; give epochs alone"
        )
    if devices.replicas > 1 and recipe.jit_compile == "true":
        raise InvalidValueError(
            "jit_compile='true' is for one device under TensorFlow; leave it 'auto', or set KERAS_BACKEND=jax"
        )
    if recipe.jit_compile == "false" and isinstance(devices.parallel, keras.distribution.DataParallel):
        raise InvalidValueError("jit_compile='false': one program computes several devices under JAX; leave it 'auto'")


def devices_there(kind: str | None = None) -> list[str]:
    """Names of the devices of a kind, or of the best one, that Keras' backend can compute on."""
    try:
        return keras.distribution.list_devices(kind)
    except RuntimeError:  # JAX, of a kind that is not there
        return []


def _all_there() -> list[str]:
    return list(dict.fromkeys(name for kind in (None, "gpu", "tpu", "cpu") for name in devices_there(kind)))


def _with(names: Sequence[str]) -> Devices:
    """What divides a batch among the devices with these names."""
    found, default = tuple(names), devices_there()[:1]
    if list(found) == default:
        return Devices(found)
    if keras.backend.backend() == "jax":
        return Devices(found, keras.distribution.DataParallel(devices=list(found)))
    import tensorflow as tf

    places = [name.upper() for name in found]
    if len(places) == 1:
        return Devices(found, tf.distribute.OneDeviceStrategy(places[0]))
    # the collective operations that it has by itself mix up sums of batch normalisation and of gradients
    return Devices(found, tf.distribute.MirroredStrategy(places, tf.distribute.ReductionToOneDevice()))
