"""How many JPEG files a second become training images, in threads and in processes.

    KERAS_BACKEND=jax python recipes/studies/decoding_speed.py [--output-dir FOLDER]

writes files of 500×375, as most of ImageNet's are, reads them as recipes with `resize="crop"` do, in batches that are
read ahead as in training under JAX, and prints how many a second there are once all are warm.
"""

import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import tyro
from PIL import Image

from kzoo.data import load_dataset, workers
from kzoo.data.engine import ArrayBatches
from kzoo.files import write_text
from kzoo.images import Pixels
from kzoo.onednn import processor_features

FILES, BATCH, SIZE, WARM = 512, 256, 224, 8
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "amx_tile")


@dataclasses.dataclass(frozen=True)
class Options:
    """What is measured."""

    batches: int = 40
    """Batches of 256 that are timed, behind 8 that are not."""
    output_dir: Path = Path("saved_models/decoding_speed")
    """Where the table goes."""


def write_files(folder: Path) -> None:
    """Soft patterns with a little noise, whose files have about 100 kB, in two classes."""
    rng = np.random.default_rng(0)
    for number in range(FILES):
        soft = Image.fromarray(rng.integers(0, 256, (24, 32, 3), "uint8")).resize((500, 375), Image.Resampling.BICUBIC)
        pixels = np.asarray(soft, int) + rng.integers(-12, 13, (375, 500, 3))
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")).save(path, quality=90)


def rate(split, batches: int) -> float:
    """Images a second of batches that are read ahead."""
    rng = np.random.default_rng(0)

    def prepare(number, examples):
        return examples["image"], examples["label"]

    count = batches + WARM
    orders = [rng.integers(0, split.size, BATCH) for _ in range(count)]
    data = ArrayBatches(split, BATCH, range(count), 1, lambda epoch: orders[epoch], prepare)
    for index in range(WARM):
        data[index]
    began = time.perf_counter()
    for index in range(WARM, count):
        data[index][0].block_until_ready()
    return batches * BATCH / (time.perf_counter() - began)


def main(options: Options) -> dict:
    """Measures, prints and writes everything; returns what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.jpg")) / FILES
        split = load_dataset(folder, image_size=SIZE, pixels=Pixels("crop", 0.875), divided=False).train
        found = {}
        for name, count in (("threads", 0), ("processes", max(2, workers.worker_count()))):
            with mock.patch.object(workers, "worker_count", lambda count=count: count):
                found[name] = rate(split, options.batches)
            print(f"{name}: {found[name]:,.0f} images/s", flush=True)
    features = [each for each in INSTRUCTIONS if each in processor_features()]
    result = {"cores": os.cpu_count(), "instructions": features, "file_bytes": size, "images_per_s": found}
    page = f"""# How many JPEG files a second become training images

Measured on {os.cpu_count()} CPU cores with {", ".join(features)} by

    KERAS_BACKEND=jax python recipes/studies/decoding_speed.py --batches {options.batches}

Files of 500×375 and {size / 1000:.0f} kB, their centre resized to {SIZE}×{SIZE}, in batches of {BATCH} that are read
ahead.

| read in | images/s |
| --- | --- |
""" + "".join(f"| {name} | {value:,.0f} |\n" for name, value in found.items())
    options.output_dir.mkdir(parents=True, exist_ok=True)
    write_text(options.output_dir / "speed.json", json.dumps(result, indent=2) + "\n")
    write_text(options.output_dir / "README.md", page)
    return result


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
