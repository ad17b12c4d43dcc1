"""How fast a training step is on one GPU: kzoo on JAX beside the same network in PyTorch, compiled.

    KERAS_BACKEND=jax python recipes/studies/training_speed_gpu.py --output FOLDER

Trains resnet50 and swin_tiny on 256 random images of 224×224 that lie on the device, in bfloat16 with float32
weights, by SGD with momentum: kzoo through `fit`, torchvision's through `torch.compile` with autocast, each
in a process of its own. Images a second are those of the best of three stretches of `--steps` steps.
Needs torchvision.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

NETWORKS = {"resnet50": "resnet50", "swin_tiny": "swin_t"}  # name here -> name in torchvision
STRETCHES = 3


def time_kzoo(name: str, batch: int, size: int, steps: int, calls: list[int]) -> dict:
    """Images a second of `fit`, with so many steps in each call."""
    import jax
    import keras
    import numpy as np

    import kzoo
    from kzoo.graph import count_macs
    from kzoo.peaks import peak_of
    from kzoo.train.steps import scan_steps

    keras.config.set_dtype_policy("mixed_bfloat16")
    rng = np.random.default_rng(0)
    images = jax.numpy.asarray(rng.uniform(0, 255, (batch, size, size, 3)), "float32")
    labels = jax.numpy.asarray(rng.integers(0, 1000, batch))

    class Same(keras.utils.PyDataset):
        def __len__(self):
            return steps

        def __getitem__(self, index):
            return images, labels

    found = {}
    for count in calls:
        model = kzoo.build(name, input_shape=(size, size, 3), classifier_activation=None)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, steps_per_execution=count, auto_scale_loss=False)
        if count > 1:
            scan_steps(model)
        began = time.perf_counter()
        model.fit(Same(), epochs=1, verbose=0)
        compiled = time.perf_counter() - began
        print(f"{name}: first stretch in {compiled:.0f} s", file=sys.stderr, flush=True)
        rates = []
        for _ in range(STRETCHES):
            began = time.perf_counter()
            model.fit(Same(), epochs=1, verbose=0)
            rates.append(steps * batch / (time.perf_counter() - began))
        found[f"kzoo, {count} step(s) a call"] = dict(images_per_second=max(rates), first_epoch_seconds=compiled)
    device = jax.devices()[0].device_kind
    known = peak_of(device)
    peak = known and known.tflops
    macs = count_macs(model)
    for row in found.values():
        row["peak_share"] = peak and 6e-12 * macs * row["images_per_second"] / peak
    flags = os.environ.get("XLA_FLAGS", "")
    return {"device": device, "macs": macs, "peak_tflops": peak, "rows": found, "steps": steps, "xla_flags": flags}


def time_torch(name: str, batch: int, size: int, steps: int, calls: list[int]) -> dict:
    """The same of torchvision's network."""
    import torch
    import torchvision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    layout = torch.channels_last if name == "resnet50" else torch.contiguous_format
    model = getattr(torchvision.models, NETWORKS[name])(weights=None).to(device, memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=layout)
    labels = torch.randint(0, 1000, (batch,), device=device)
    loss = torch.nn.CrossEntropyLoss()
    forward = torch.compile(model)

    def run(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16):
                value = loss(forward(images), labels)
            value.backward()
            optimizer.step()
        value.item()
        return time.perf_counter() - began

    compiled = run(3)
    rates = [steps * batch / run(steps) for _ in range(STRETCHES)]
    return {"torch.compile": dict(images_per_second=max(rates), first_epoch_seconds=compiled)}


def write_page(report: dict, folder: Path) -> None:
    """Writes `README.md` beside `gpu.json`."""
    lines, notes = [], []
    for name, part in report.items():
        for title, row in part["rows"].items():
            share = (
                6e-12 * part["macs"] * row["images_per_second"] / part["peak_tflops"] if part["peak_tflops"] else None
            )
            cells = [f"{name}, {part['batch']} of {part['size']}×{part['size']}", title]
            cells += [f"{row['images_per_second']:,.0f}", "-" if share is None else f"{share:.1%}"]
            lines.append("| " + " | ".join([*cells, f"{row['first_epoch_seconds']:.0f}"]) + " |")
        flags = f" and XLA_FLAGS={part['xla_flags']}" if part["xla_flags"] else ""
        notes.append(f"{name} with --steps {part['steps']}{flags}")
    devices = ", ".join(sorted({part["device"] for part in report.values()}))
    (folder / "README.md").write_text(f"""# How fast a training step is on a GPU

Measured on {devices} by

    KERAS_BACKEND=jax python recipes/studies/training_speed_gpu.py --output FOLDER --networks {" ".join(report)}

Random images that lie on the device, bfloat16 with float32 weights, SGD with momentum. The share is of the device's
dense bfloat16 peak, three forward passes of two operations for each multiply-add. PyTorch runs torchvision's network.
{"; ".join(notes)}.

| network and batch | engine | images/s | share of the peak | seconds of the first stretch, which compiles |
| --- | --- | --- | --- | --- |
{chr(10).join(lines)}
""")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of gpu.json")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--calls", type=int, nargs="+", default=[1, 4], help="steps of a program, which divide --steps"
    )
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--only", choices=("kzoo", "torch"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        run = {"kzoo": time_kzoo, "torch": time_torch}[given.only]
        print(json.dumps(run(given.networks[0], given.batch, given.size, given.steps, given.calls)))
        return
    given.output.mkdir(parents=True, exist_ok=True)
    report = {}
    for name in given.networks:
        sizes = ["--batch", str(given.batch), "--size", str(given.size), "--steps", str(given.steps)]
        sizes += ["--calls", *map(str, given.calls)]
        parts = {}
        for only in ("kzoo", "torch"):
            command = [
                sys.executable,
                __file__,
                "--output",
                str(given.output),
                "--networks",
                name,
                "--only",
                only,
                *sizes,
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                raise SystemExit(f"{only} failed on {name}")
            parts[only] = json.loads(done.stdout.splitlines()[-1])
        rows = parts["kzoo"].pop("rows") | parts["torch"]
        report[name] = parts["kzoo"] | {"batch": given.batch, "size": given.size, "rows": rows}
        for title, row in rows.items():
            share = row.get("peak_share")
            print(
                f"{name:10} {title:24} {row['images_per_second']:9.1f} images/s {'' if not share else f'{share:.1%}'}"
            )
        (given.output / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
        write_page(report, given.output)


if __name__ == "__main__":
    main()
