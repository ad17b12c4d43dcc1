"""How fast a run trains, and which share of its device's peak that is."""

import dataclasses
import json
import time
from pathlib import Path

import keras

from kzoo.console import show
from kzoo.escape import terminal
from kzoo.files import write_text
from kzoo.graph import count_macs
from kzoo.peaks import peak_of
from kzoo.train.programs import Programs

SPEED = "speed.json"


@dataclasses.dataclass(frozen=True)
class TrainingSpeed:
    """The speed of one epoch, without validation and checkpoints.

    Attributes:
        device: name of the first one.
        devices: number of them.
        images_per_second: images that were trained on.
        step_ms: milliseconds of a step.
        tflops: TFLOP/s of the model, three forward passes of two operations for each multiply-add; None where it takes
            images of any size.
        peak_share: of the peak in bfloat16 of all devices together; None where that is not known.
        input_share: share of the time for which the step waited for images; None where that is not known.
        memory_bytes: most memory of the first device that was in use; None where that is not known.
        training_programs: number of programs that the training step was compiled into until then.
    """

    device: str
    devices: int
    images_per_second: float
    step_ms: float
    tflops: float | None
    peak_share: float | None
    input_share: float | None
    memory_bytes: int | None
    training_programs: int

    def __str__(self) -> str:
        parts = [f"{self.images_per_second:,.0f} images/s", f"{self.step_ms:.1f} ms a step"]
        if self.tflops is not None:
            parts.append(f"{self.tflops:.3g} TFLOP/s")
        if self.peak_share is not None:
            several = f"{self.devices} × " if self.devices > 1 else ""
            parts.append(f"{self.peak_share:.1%} of the peak of {several}{self.device}")
        if self.input_share is not None:
            parts.append(f"waiting for images {self.input_share:.1%} of the time")
        if self.memory_bytes is not None:
            parts.append(f"{self.memory_bytes / 1e9:.2f} GB on the device")
        return "; ".join(parts)


class SpeedMeter(keras.callbacks.Callback):
    """Tells the speed of the second epoch of a call, or of its only one, and keeps it in `speed.json`.

    The first epoch compiles. The clock stops where validation begins, for which the last step is waited.

    Args:
        batches: of training; what has `waited` is asked for the seconds that it was waited for.
        batch_size: images of a step.
        directory: of the run.
        programs: of the model.
        devices: number of them.
    """

    def __init__(self, batches, batch_size: int, directory: Path, programs: Programs, devices: int = 1):
        super().__init__()
        self._devices = devices
        self._batches, self._batch_size, self._directory = batches, batch_size, directory
        self._programs = programs
        self._epochs = 0
        self._started: float | None = None

    def on_epoch_begin(self, epoch, logs=None):
        self._started, self._waited = time.perf_counter(), getattr(self._batches, "waited", None)

    def on_test_begin(self, logs=None):
        if self._started is None:
            return
        seconds, self._started = time.perf_counter() - self._started, None
        self._epochs += 1
        if self._epochs > 2:
            return
        steps = self.params["steps"]
        rate = steps * self._batch_size / seconds
        tflops = None if None in self.model.input_shape[1:] else 6e-12 * count_macs(self.model) * rate
        device, memory = _device()
        peak = peak_of(device)
        waited = None if self._waited is None else (self._batches.waited - self._waited) / seconds
        share = None if peak is None or tflops is None else tflops / (peak.tflops * self._devices)
        programs, step_ms = self._programs.training, 1e3 * seconds / steps
        speed = TrainingSpeed(device, self._devices, rate, step_ms, tflops, share, waited, memory, programs)
        write_text(self._directory / SPEED, json.dumps(dataclasses.asdict(speed), indent=2) + "\n")
        if self._epochs == 2:
            show(terminal(str(speed)))


def _device() -> tuple[str, int | None]:
    """The name of the first device, and the most of its memory that was in use."""
    if keras.backend.backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        return device.device_kind, (device.memory_stats() or {}).get("peak_bytes_in_use")
    import tensorflow as tf

    for device in tf.config.list_physical_devices("GPU"):
        name = tf.config.experimental.get_device_details(device).get("device_name", "GPU")
        return name, tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return "cpu", None
