"""What comes of a recipe on a topology: whether it fits, how long it takes, what that costs, what would help."""

import dataclasses
import math
from typing import Any

from kzoo.planning.roofline import Limits, Program, StepTime, step_time

HOUR = 3600.0


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A plan for one topology.

    Attributes:
        answer: of `kzoo.planning.worker.plan`.
        time: of a step; None if it does not fit.
        price: of a chip-hour; None if it was not told.
    """

    answer: dict[str, Any]
    time: StepTime | None
    price: float | None

    @classmethod
    def of(cls, answer: dict[str, Any], input_rate: float | None = None, price: float | None = None) -> "Verdict":
        """The plan of an answer.

        Args:
            answer: of `kzoo.planning.worker.plan`.
            input_rate: images a second that each host reads and decodes.
            price: of a chip-hour.
        """
        program, limits = Program(**answer["program"]), Limits(**answer["limits"])
        limits = dataclasses.replace(limits, input_rate=input_rate)
        fits = program.needed_bytes is None and program.memory_bytes <= limits.memory
        return cls(answer, step_time(program, limits) if fits else None, price)

    @property
    def program(self) -> Program:
        """The step at the recipe's batch size."""
        return Program(**self.answer["program"])

    @property
    def headroom_bytes(self) -> float:
        """Memory of each device that stays free; below zero if it does not fit."""
        return self.answer["limits"]["memory"] - self.program.memory_bytes

    @property
    def fits(self) -> bool:
        """Whether the step fits into the memory of the devices."""
        return self.time is not None

    @property
    def steps(self) -> int:
        """Number of steps in an epoch."""
        return self.answer["training_images"] // self.program.batch_size

    @property
    def epoch_s(self) -> float | None:
        """Seconds of an epoch, without validation."""
        return None if self.time is None else self.steps * self.time.step

    @property
    def images_per_s(self) -> float | None:
        """Images a second on all devices."""
        return None if self.time is None else self.program.batch_size / self.time.step

    @property
    def hours(self) -> float | None:
        """Hours of the whole run, without validation."""
        return None if self.epoch_s is None else self.answer["epochs"] * self.epoch_s / HOUR

    @property
    def cost(self) -> float | None:
        """What the run costs."""
        return None if self.hours is None or self.price is None else self.price * self.answer["chips"] * self.hours

    @property
    def remedies(self) -> list[str]:
        """What would make a plan fit that does not."""
        if self.fits:
            return []
        largest, wanted = self.answer["largest_batch"], self.program.batch_size
        told = []
        if largest:
            parts = math.ceil(wanted / largest)
            devices = self.program.devices
            while parts <= wanted // devices and (wanted % parts or wanted // parts % devices):
                parts += 1
            told.append(f"a batch of at most {largest}: --batch-size {largest}")
            if parts <= wanted // devices:
                told.append(
                    f"the same {wanted} images for each step of the optimizer: --batch-size {wanted // parts} "
                    f"--accumulate {parts}"
                )
        told.append(
            "rematerialisation: build it inside keras.RematScope(mode='list_of_layers', layer_names=...), for layers "
            "without batch normalisation and dropout, of which Keras cannot under JAX"
        )
        return told

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return self.answer | {
            "fits": self.fits,
            "headroom_bytes": self.headroom_bytes,
            "seconds": None if self.time is None else self.time.parts,
            "step_s": None if self.time is None else self.time.step,
            "bound": None if self.time is None else self.time.bound,
            "images_per_s": self.images_per_s,
            "epoch_s": self.epoch_s,
            "hours": self.hours,
            "cost": self.cost,
            "remedies": self.remedies,
        }
