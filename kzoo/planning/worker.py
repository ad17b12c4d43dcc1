"""The process that compiles: Keras on JAX, whatever the user's backend. An order comes by stdin, the answer by stdout.

`kzoo.commands.plan` starts it, once for each topology.
"""

import dataclasses
import functools
import importlib.metadata
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jax

import kzoo
from kzoo.console import parse
from kzoo.errors import InvalidValueError, KzooError, UnknownNameError, explain
from kzoo.planning import kept
from kzoo.planning.largest import largest_batch, two_programs, verified
from kzoo.planning.machine import measured_limits
from kzoo.planning.order import Order
from kzoo.planning.roofline import Limits, Program
from kzoo.planning.sizes import size_of
from kzoo.planning.step import Step, blank_dataset
from kzoo.planning.topology import CPU, Topology, topology_of
from kzoo.recipe import Recipe, load_recipe
from kzoo.train.cli import for_model


def plan(order: Order) -> dict[str, Any]:
    """What a recipe needs on a topology, as JSON values: programs of two batch sizes, and what devices can do.

    Raises:
        KzooError: the recipe, the topology or the batch size cannot be.
    """
    recipe, topology = _recipe(order), topology_of(order.topology)
    size = size_of(recipe.data.dataset, order.images, order.classes)
    devices, estimated = _devices(topology)
    batch_size, number = recipe.schedule.batch_size, len(devices)
    check_divided(batch_size, number, topology.name)
    limits = _limits(topology, number, recipe)
    half = estimated and recipe.precision != "float32"  # which the processor's program computes in float32
    data = blank_dataset(recipe, size)
    step = functools.cache(lambda: Step(recipe, data))  # which is not needed where all programs are kept
    versions = {name: importlib.metadata.version(name) for name in _packages(topology)}
    versions |= {"kzoo": kzoo.__version__, "device": devices[0].device_kind}

    def program_of(images: int) -> Program:
        key = kept.key_of(
            recipe.replace(batch_size=images),
            topology=topology.name,
            thorough=order.thorough,
            size=dataclasses.asdict(size),
            versions=versions,
        )
        program = kept.kept(Path(order.cache), key, lambda: step().compiled(images, devices, order.thorough))
        if half:
            moved, temporary = program.moved_bytes / 2, program.temporary_bytes // 2
            program = dataclasses.replace(program, moved_bytes=moved, temporary_bytes=temporary)
        return program

    first = program_of(batch_size)
    one, two = two_programs(first, program_of, limits.memory)
    largest = largest_batch(one, two, limits.memory)
    return {
        "recipe": recipe.name,
        "model": recipe.model,
        "precision": recipe.precision,
        "optimizer": recipe.optimizer.name,
        "image_shape": data.image_shape,
        "training_images": data.train.size,
        "epochs": recipe.schedule.epochs,
        "topology": topology.name,
        "chips": topology.chips,
        "estimated": estimated,
        "thorough": order.thorough,
        "program": first.to_json(),
        "others": [other.to_json() for other in {one, two} - {first}],
        "limits": dataclasses.asdict(limits),
        "largest_batch": verified(largest, program_of, limits.memory) if order.verify else largest,
        "verified": order.verify,
        "versions": versions,
    }


def check_divided(batch_size: int, devices: int, topology: str) -> None:
    """Raises `InvalidValueError` unless a batch is divided evenly over devices."""
    if batch_size % devices:
        nearest = max(1, round(batch_size / devices)) * devices
        raise InvalidValueError(
            f"a batch of {batch_size} is not divided by the {devices} devices of {topology}; take "
            f"--batch-size {nearest}"
        )


def _recipe(order: Order) -> Recipe:
    recipe = load_recipe(order.recipe)
    recipe = parse(Recipe, order.settings, f"kzoo plan {order.recipe}", default=for_model(recipe, order.settings))
    return recipe.replace(weights=None, backbone_weights=None)  # which take as much memory whatever their values


def _packages(topology: Topology) -> list[str]:
    return ["keras", "jax", "jaxlib", *(["libtpu"] if topology.kind == "tpu" else [])]


def _devices(topology: Topology) -> tuple[list[Any], bool]:
    """JAX's devices for a topology, and whether they stand for others that are not here."""
    if topology.kind == CPU:
        return jax.devices("cpu")[:1], False
    if topology.kind == "tpu":
        return _tpu(topology), False
    jax.config.update("jax_num_cpu_devices", topology.chips)
    here = [device for device in jax.devices() if topology.peak and topology.peak.name in device.device_kind]
    if len(here) >= topology.chips:
        return here[: topology.chips], False
    return jax.devices("cpu"), True


def _tpu(topology: Topology) -> list[Any]:
    """The chips of a slice that is not here; of a v3, which computes with each half of a chip, the halves."""
    from jax.experimental import topologies

    options: dict[str, Any] = {}
    if topology.name.lower().startswith("v4"):
        options["chip_config_name"] = "megacore"  # both halves of a chip are one device
    if topology.chips == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return list(topologies.get_topology_desc(topology.name.lower(), "tpu", **options).devices)
    except jax.errors.JaxRuntimeError as error:
        raise UnknownNameError(f"no topology {topology.name!r}: {explain(error)}") from error


def _limits(topology: Topology, devices: int, recipe: Recipe) -> Limits:
    """What one device does at most."""
    peak, share = topology.peak, topology.chips / devices
    if peak is None:
        return measured_limits()
    tflops = peak.float32_tflops if recipe.precision == "float32" else peak.tflops
    flops, bandwidth = 1e12 * tflops * share, 1e9 * peak.bandwidth * share
    return Limits(flops, bandwidth, 1e9 * peak.memory * share, 1e9 * peak.network * share)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a compiler does not look whether it is interrupted
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    order = Order(**json.loads(sys.stdin.read()))
    try:
        answer = plan(order)
    except KzooError as error:
        answer = {"error": explain(error)}
    print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
