"""Seconds to 94 % on CIFAR-10 with the recipe `cifar10_fast` on one accelerator, all of it on the device.

    python recipes/studies/cifar10_fast_gpu.py --pack FOLDER             # where TFDS has cifar10: 102 MB in five files
    KERAS_BACKEND=jax python recipes/studies/cifar10_fast_gpu.py --data FOLDER --output FOLDER --seeds 5 \\
        --precision mixed_bfloat16

Model, whitening, optimizer, loss and random changes are those of the recipe; what differs from `kzoo train` is that
the images lie on the device, an epoch is one program (`jax.lax.scan` over its steps), nothing is written, and nothing
is validated on the way: all 50,000 images are trained on. The clock runs from the images on the device to the
trained weights, whitening included; the first run compiles, and its time is told apart. `--held-out 5000` trains on
the others and judges on these, so that settings can be chosen without the test images; every flag of `kzoo train` is
one here:

    ... --precision mixed_bfloat16 --seeds 1 --held-out 5000 --learning-rate 0.01 --epochs 8
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

PARTS, ACROSS, SIDE = 5, 100, 32  # of 12,000 images each, a sheet of 100 columns
SPLITS = {"train": 50_000, "test": 10_000}


def pack(folder: Path) -> None:
    """Writes the images as lossless sheets, and the labels: `part0.webp` ... and `labels.npz`."""
    from PIL import Image

    from kzoo.data import load_dataset

    data = load_dataset("cifar10")
    train, test = data.train.followed_by(data.validation).arrays(), data.test.arrays()
    images = np.concatenate([train["image"], test["image"]])
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.split(images, PARTS)):
        grid = part.reshape(-1, ACROSS, SIDE, SIDE, 3).transpose(0, 2, 1, 3, 4)
        sheet = Image.fromarray(grid.reshape(-1, ACROSS * SIDE, 3))
        sheet.save(folder / f"part{number}.webp", lossless=True, quality=50, method=3)
    labels = np.concatenate([train["label"], test["label"]]).astype("uint8")
    np.savez_compressed(folder / "labels.npz", labels=labels, classes=np.array(data.classes))


def unpack(folder: Path) -> tuple[dict[str, dict[str, np.ndarray]], tuple[str, ...]]:
    """What `pack` wrote: split -> images (n, 32, 32, 3) and labels (n,), and the names of the classes."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    sheets = [np.asarray(Image.open(folder / f"part{number}.webp").convert("RGB")) for number in range(PARTS)]
    grids = [sheet.reshape(-1, SIDE, ACROSS, SIDE, 3).transpose(0, 2, 1, 3, 4) for sheet in sheets]
    images = np.concatenate([grid.reshape(-1, SIDE, SIDE, 3) for grid in grids])
    stored = np.load(folder / "labels.npz")
    found, start = {}, 0
    for name, count in SPLITS.items():
        part = slice(start, start + count)
        found[name] = {"image": images[part], "label": stored["labels"][part].astype("int64")}
        start += count
    return found, tuple(stored["classes"].tolist())


class Runs:
    """Runs of one recipe, which are compiled once.

    Args:
        recipe: that classifies.
        train: images and labels that are trained on.
        test: images and labels that are judged.
        classes: their names.
    """

    def __init__(self, recipe, train, test, classes):
        import jax

        from kzoo.data.augment import Augmentation
        from kzoo.data.seeds import StepSeeds
        from kzoo.data.split import ImageDataset, IndexedSplit
        from kzoo.tasks import task_of

        splits = [IndexedSplit.of_arrays(arrays) for arrays in (train, test, test)]
        self.data = ImageDataset("cifar10", classes, train["image"].shape[1:], *splits)
        self.recipe, self.task = recipe, task_of(recipe)
        self.batch = recipe.schedule.batch_size
        self.steps = len(train["label"]) // self.batch
        self.model = self._new()
        self.images, self.labels, self.test = jax.device_put((train["image"], train["label"], test["image"]))
        self.truth = test["label"]
        model, batch, steps, augment = self.model, self.batch, self.steps, Augmentation(recipe.augment)

        def loss_of(trainable, others, images, targets):
            outputs, others = model.stateless_call(trainable, others, images, training=True)
            return model.loss(targets, outputs), others

        def epoch(state, images, labels, seed, number):
            key = jax.random.fold_in(jax.random.PRNGKey(seed), number)
            order = jax.random.permutation(key, len(labels))

            def step(state, count):
                trainable, others, optimizer = state
                chosen = jax.lax.dynamic_slice_in_dim(order, count * batch, batch)
                changed = augment(images[chosen].astype("float32"), StepSeeds(seed, number, count))
                targets = jax.nn.one_hot(labels[chosen], len(classes))
                (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(
                    trainable, others, changed, targets
                )
                trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
                return (trainable, others, optimizer), loss

            return jax.lax.scan(step, state, jax.numpy.arange(steps))

        def judge(state, images):
            trainable, others, _ = state
            both = [model.stateless_call(trainable, others, view)[0] for view in (images, images[:, :, ::-1])]
            return both[0].argmax(axis=1), (both[0] + both[1]).argmax(axis=1)

        self.epoch, self.judge = jax.jit(epoch, donate_argnums=0), jax.jit(judge)

    def _new(self):
        from kzoo.train.loop import compiled_model

        model = compiled_model(self.recipe, self.task, self.data, self.steps)
        model.optimizer.build(model.trainable_variables)
        return model

    def run(self, seed: int) -> dict:
        """Trains from random weights, and judges once."""
        import jax
        import keras

        from kzoo.train.whitening import IMAGES, whiten

        keras.utils.set_random_seed(seed)
        fresh = self._new()
        jax.block_until_ready(self.images)
        began = time.perf_counter()
        if self.recipe.whiten_stem:
            whiten(fresh, np.asarray(self.images[:IMAGES]))
        variables = fresh.trainable_variables, fresh.non_trainable_variables, fresh.optimizer.variables
        # copies, as an epoch gives its state away
        state = jax.tree.map(lambda variable: jax.numpy.array(variable.value), tuple(map(list, variables)))
        for number in range(self.recipe.schedule.epochs):
            state, losses = self.epoch(state, self.images, self.labels, seed, number)
        losses = np.asarray(losses)
        seconds = time.perf_counter() - began
        parts = [self.judge(state, part) for part in np.array_split(self.test, max(1, len(self.test) // 2000))]
        plain, mirrored = (np.concatenate([np.asarray(part[view]) for part in parts]) for view in (0, 1))
        return {
            "seed": seed,
            "seconds": seconds,
            "loss": float(losses.mean()),
            "accuracy": float((plain == self.truth).mean()),
            "accuracy_with_mirror_image": float((mirrored == self.truth).mean()),
        }


def study(given, flags: Sequence[str]) -> dict:
    """The report: every run of the recipe with some flags, and the means of those that did not compile."""
    import jax

    from kzoo.console import parse
    from kzoo.recipe import Recipe, load_recipe

    recipe = parse(Recipe, flags, "cifar10_fast_gpu.py", default=load_recipe("cifar10_fast"))
    splits, classes = unpack(given.data)
    train, test = splits["train"], splits["test"]
    if given.images:
        train, test = ({name: array[: given.images] for name, array in split.items()} for split in (train, test))
    if given.held_out:
        test = {name: array[-given.held_out :] for name, array in train.items()}
        train = {name: array[: -given.held_out] for name, array in train.items()}
    runs = Runs(recipe, train, test, classes)
    rows = []
    for seed in range(given.seeds + 1):
        rows.append(runs.run(seed))
        note = ", with compiling" if seed == 0 else ""
        row = rows[-1]
        print(
            f"seed {seed}: {row['accuracy']:.2%}, with mirror images {row['accuracy_with_mirror_image']:.2%}, "
            f"{row['seconds']:.2f} s{note}",
            flush=True,
        )
    later = rows[1:] or rows
    return {
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "recipe": recipe.to_json(),
        "judged_on": f"{len(test['label'])} " + ("held-out training images" if given.held_out else "test images"),
        "trained_on": len(train["label"]),
        "seconds_with_compiling": rows[0]["seconds"],
        "seconds": float(np.mean([row["seconds"] for row in later])),
        "accuracy": float(np.mean([row["accuracy"] for row in rows])),
        "accuracy_with_mirror_image": float(np.mean([row["accuracy_with_mirror_image"] for row in rows])),
        "runs": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, help="folder to write the images to")
    parser.add_argument("--data", type=Path, help="folder that --pack wrote")
    parser.add_argument("--output", type=Path, help="folder of cifar10_fast.json")
    parser.add_argument("--seeds", type=int, default=5, help="runs besides the first, which compiles")
    parser.add_argument("--held-out", type=int, default=0, help="training images to judge on instead of the test's")
    parser.add_argument("--images", type=int, default=0, help="train and judge on the first images alone, to try it")
    given, flags = parser.parse_known_args()
    if given.pack:
        pack(given.pack)
        return
    if not given.data:
        parser.error("give --data, a folder that --pack wrote")
    report = study(given, flags)
    print(
        f"{report['device']}: {report['accuracy']:.2%} of {report['judged_on']} ({len(report['runs'])} runs; "
        f"{report['accuracy_with_mirror_image']:.2%} with mirror images), {report['seconds']:.2f} s, "
        f"with compiling {report['seconds_with_compiling']:.1f} s"
    )
    if given.output:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "cifar10_fast.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
