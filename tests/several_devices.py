"""Trains a small recipe in a process of its own, on devices that its environment makes; see `test_devices.py`.

The words are a folder, and for each run its name there and its flags as JSON. Under JAX `scan` takes so many steps in
one program; under TensorFlow `replicas` makes so many devices of the processor.
"""

import json
import sys
from pathlib import Path

import keras
from helpers import make_recipe

import kzoo.train
from kzoo.console import user_errors
from kzoo.train import loop

FLAGS = dict(
    model_options=dict(depths=(1,), widths=(4,)),
    image_size=8,
    batch_size=80,  # 15 steps; the last batch of validation has 78, which 8 does not divide
    validation_fraction=0.11,
    epochs=2,
    augmentation=("flip",),
    weight_decay=0.0,
    jit_compile="true" if keras.backend.backend() == "jax" else "auto",
)


def run(
    directory: Path, scan: int = 1, whole: bool = False, model="cifar_resnet20", dataset="digits", **flags
) -> None:
    """A run without its end, which is the same on any devices, unless it is to be `whole`."""
    if not whole:
        loop.finish = lambda *_: {"finished": True}
    loop.steps_per_call = lambda *_: scan
    recipe = make_recipe("run", model, dataset, **FLAGS | dict(output_dir=directory) | flags)
    report = kzoo.train.train(recipe)
    directory.with_suffix(f".{recipe.hardware.process_id or 0}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    folder, *words = sys.argv[1:]
    with user_errors():
        for name, flags in zip(words[::2], words[1::2], strict=True):
            told = json.loads(flags)
            if replicas := told.pop("replicas", None):
                import tensorflow as tf

                processor = tf.config.list_physical_devices("CPU")[0]
                parts = [tf.config.LogicalDeviceConfiguration()] * replicas
                tf.config.set_logical_device_configuration(processor, parts)
            run(Path(folder, name), **told)
