"""Kills runs at random moments and compares what they end with, bit for bit, with runs that were never killed.

    python tests/kills.py FOLDER --kills 25

Not collected by pytest: it takes some twenty minutes. FOLDER keeps the runs and `results.jsonl`, a line for each kill;
the same command goes on where it stopped.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from kzoo.train import Recipe, train
from kzoo.train.run_directory import checkpoints_of

EPOCHS = 4
SWIN = dict(width=8, depths=(1, 1), num_heads=(1, 2), window_size=2, drop_path_rate=0.4)
COMMON = dict(dataset="digits", image_size=16, epochs=EPOCHS, batch_size=128, warmup_epochs=0.5)
RECIPES = {
    "plain": dict(model="cifar_resnet20", model_options=dict(depths=(1, 1), widths=(4, 8))),
    "augmented": dict(
        model="cifar_resnet20",
        model_options=dict(depths=(1, 1), widths=(4, 8)),
        augmentation=("flip", "translate", "rotate", "color", "erase"),
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
        train(Recipe(name=name, output_dir=directory, **COMMON, **RECIPES[name]))
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
    """What a run ends with: each array of its checkpoints, the history without its seconds, the best epoch."""
    import zipfile

    import h5py

    found = []
    checkpoints = checkpoints_of(directory)
    best = json.loads((directory / "report.json").read_text())["best_epoch"]
    for path in (checkpoints.path(EPOCHS), checkpoints.best(best)):
        with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as file, h5py.File(file) as weights:
            arrays = {}
            weights.visititems(
                lambda place, item, arrays=arrays: (
                    arrays.update({place: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
                )
            )
            found.append(arrays)
    rows = [line.split(",") for line in (directory / "history.csv").read_text().split()]
    seconds = rows[0].index("seconds")
    return [*found, [row[:seconds] + row[seconds + 1 :] for row in rows], best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    results = arguments.folder / "results.jsonl"
    done = len(results.read_text().splitlines()) if results.exists() else 0
    dice = random.Random(arguments.seed)
    cases = [(name, threads) for name in RECIPES for threads in (1, 2)]
    took = {}
    for kill in range(arguments.kills):
        name, threads = cases[kill % len(cases)]
        share = dice.random()
        if kill < done:
            continue
        whole = arguments.folder / f"{name}_{threads}"
        if (name, threads) not in took:
            begun = time.perf_counter()
            if not (whole / "report.json").exists():
                finish(name, threads, whole)
            took[name, threads] = time.perf_counter() - begun
        directory = arguments.folder / f"{name}_{threads}_{kill}"
        child = start(name, threads, directory)
        begun = time.perf_counter()
        moment = share * max(took[name, threads], 10)
        while time.perf_counter() - begun < moment and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.01)
        killed = time.perf_counter() - begun >= moment
        if killed:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        reached = checkpoints_of(directory).epochs()[:1]
        finish(name, threads, directory)
        equal = result(directory) == result(whole)
        line = dict(
            kill=kill, run=name, threads=threads, killed=killed, after_s=round(moment, 1), epochs=reached, equal=equal
        )
        with results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    print(f"{sum(line['killed'] for line in lines)} kills, {sum(not line['equal'] for line in lines)} with other bits")


if __name__ == "__main__":
    main()
