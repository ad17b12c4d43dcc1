"""What the process that compiles is told."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from kzoo.errors import BackendError, InvalidValueError, KzooError
from kzoo.planning.topology import Topology

LAST = 300  # characters of what a process that failed said


@dataclasses.dataclass(frozen=True)
class Order:
    """One recipe on one topology.

    Attributes:
        recipe: its name or path.
        settings: words of the command line that change it.
        topology: name.
        images: number of training images, if it is told.
        classes: number of classes, if it is told.
        thorough: whether the compiler takes its time.
        verify: whether the largest batch is compiled too.
        cache: folder of what was compiled before.
    """

    recipe: str
    settings: list[str]
    topology: str
    images: int | None
    classes: int | None
    thorough: bool
    verify: bool
    cache: str


def need_compilers(topologies: list[Topology]) -> None:
    """Raises unless what compiles for the topologies is installed; it is looked for, and not imported.

    Raises:
        BackendError: it is not.
    """
    if importlib.util.find_spec("jax") is None:
        raise BackendError("kzoo plan compiles with JAX, which is not installed; pip install 'kzoo[jax]'")
    tpus = [topology.name for topology in topologies if topology.kind == "tpu"]
    if tpus and importlib.util.find_spec("libtpu") is None:
        raise BackendError(
            f"compiling for {tpus[0]} needs libtpu, which is not installed; "
            'pip install -e ".[plan]" (no TPU is needed)'
        )


def carry_out(order: Order, topology: Topology) -> dict[str, Any]:
    """The answer of a process of its own, with Keras on JAX.

    Raises:
        InvalidValueError: what the process found wrong.
        KzooError: it failed.
    """
    place = str(Path(__file__).parents[2])
    paths = [place, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(paths)}
    if topology.kind != "gpu":
        environment["JAX_PLATFORMS"] = "cpu"
    if topology.kind == "tpu":  # none is here: do not look for one, nor keep others from compiling
        environment |= {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost"}
        environment |= {"TPU_ACCELERATOR_TYPE": "v5litepod-8", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "kzoo.planning.worker"],
        input=json.dumps(dataclasses.asdict(order)),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode or not done.stdout:
        told = [line for line in done.stderr.splitlines() if line.strip()]
        last = told[-1] if told else f"exit status {done.returncode}"
        if last.startswith("kzoo: "):  # an option of the recipe
            raise InvalidValueError(last.removeprefix("kzoo: "))
        raise KzooError(f"compiling for {topology.name} failed: {' '.join(last.split())[-LAST:]}")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise InvalidValueError(answer["error"])
    return answer
