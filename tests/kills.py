"""Kills runs at random moments and compares what they end with, bit for bit, with runs that were never killed.

    python tests/kills.py FOLDER --kills 3

Every recipe is trained once as it is and once killed so many times, with one and with two threads; it ends behind its
last epoch, without the finished files. Not collected by pytest: it takes some ten minutes. FOLDER keeps the runs and
`results.jsonl`, a line for each run; the same command goes on where it stopped.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
import zipfile
from pathlib import Path

import h5py
from helpers import make_recipe

from kzoo.train import loop, train
from kzoo.train.history import best_epoch, read_history
from kzoo.train.run_directory import checkpoints_of

EPOCHS = 3
SWIN = dict(width=8, depths=(1, 1), num_heads=(1, 2), window_size=2, drop_path_rate=0.4)
COMMON = dict(
    dataset="digits", image_size=16, epochs=EPOCHS, batch_size=32, warmup_epochs=0.5, checkpoint_minutes=0.002
)
RECIPES = {
    "plain": dict(model="cifar_resnet20", model_options=dict(depths=(1, 1), widths=(4, 8))),
    "augmented": dict(
        model="cifar_resnet20",
        model_options=dict(depths=(1, 1), widths=(4, 8)),
        augmentation=("flip", "translate", "rotate", "color", "erase"),
    ),
    "averaged": dict(
        model="cifar_resnet20",
        model_options=dict(depths=(1, 1), widths=(4, 8)),
        ema=0.9,
        patience=9,
        accumulate=2,
        optimizer="adamw",
        learning_rate=1e-3,
        clip_norm=1.0,
    ),
    "dropout": dict(model="simple_cnn", model_options=dict(widths=(4, 8), dense_units=16), augmentation=("zoom",)),
    "stochastic_depth": dict(
        model="swin_tiny", model_options=SWIN, optimizer="adamw", learning_rate=1e-3, augmentation=("flip",)
    ),
}


def start(name: str, threads: int, directory: Path) -> int:
    """Trains in a process of its own, forked before TensorFlow has started any thread; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        log = os.open(directory.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        loop.finish = lambda *_: {}
        train(make_recipe(name=name, output_dir=directory, **COMMON, **RECIPES[name]))
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def finish(name: str, threads: int, directory: Path) -> None:
    """Trains to the end."""
    if os.waitpid(start(name, threads, directory), 0)[1]:
        raise SystemExit(f"{directory} failed; see {directory.with_suffix('.log')}")


def result(directory: Path) -> list:
    """What a run ends with: each array of its last and its best checkpoint, and its history without the seconds."""
    rows = read_history(directory / "history.csv", EPOCHS, "accuracy")
    checkpoints = checkpoints_of(directory)
    found = [[{key: value for key, value in row.items() if key != "seconds"} for row in rows]]
    for path in (checkpoints.path(EPOCHS), checkpoints.best(best_epoch(rows, "accuracy"))):
        arrays = {}
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file, h5py.File(file) as weights:
            weights.visititems(
                lambda place, item, arrays=arrays: (
                    arrays.update({place: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
                )
            )
        found.append(arrays)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results = arguments.folder / "results.jsonl"
    done = results.read_text().splitlines() if results.exists() else []
    cases = [(name, threads) for name in RECIPES for threads in (2, 1)]
    for case in range(len(done), len(cases)):
        name, threads = cases[case]
        dice = random.Random(arguments.seed + case)
        whole, directory = (arguments.folder / f"{name}_{threads}_{what}" for what in ("whole", "killed"))
        for folder in (whole, directory):
            shutil.rmtree(folder, ignore_errors=True)
        begun = time.perf_counter()
        finish(name, threads, whole)
        took = time.perf_counter() - begun
        moments = []  # seconds after the start, and the epochs and batches that were kept
        for _ in range(arguments.kills):
            child = start(name, threads, directory)
            moment = dice.uniform(0, took)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            moments.append((round(moment, 1), next(iter(checkpoints_of(directory).marks()), None), code))
        finish(name, threads, directory)
        line = dict(run=name, threads=threads, kills=moments, equal=result(directory) == result(whole))
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    kills = sum(code == -signal.SIGKILL for line in lines for *_, code in line["kills"])
    print(f"{kills} kills in {len(lines)} runs; other bits in {sum(not line['equal'] for line in lines)}")


if __name__ == "__main__":
    main()
