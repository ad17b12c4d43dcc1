"""What range equalisation (arXiv:1906.04721) and bias correction give back of the accuracy that 4-bit kernels cost.

    python recipes/studies/int4_without_training.py WEIGHTS

WEIGHTS is a file for `cifar_resnet20`, such as a torch checkpoint in safetensors or
saved_models/cifar10_resnet20/model.keras. Prints the test accuracy on CIFAR-10 of the int4 file of the folded model as
it is, equalised, corrected, and both.
"""

import sys
import tempfile
from pathlib import Path

import rich

import kzoo
from kzoo.console import make_table
from kzoo.data.datasets import load_dataset
from kzoo.surgery import correct_bias, equalize_ranges

CALIBRATION_IMAGES = 200


def main(weights: str) -> None:
    data = load_dataset("cifar10")
    calibration = data.train.arrays(CALIBRATION_IMAGES)["image"].astype("float32")
    model = kzoo.fold_batch_norm(kzoo.build("cifar_resnet20", weights=weights))
    equal = equalize_ranges(model)
    test = data.test.arrays()
    models = {
        "as it is": model,
        "equalised": equal,
        "corrected": correct_bias(model, calibration, "int4"),
        "both": correct_bias(equal, calibration, "int4"),
    }
    table = make_table("folded model", "int4 file")
    with tempfile.TemporaryDirectory() as directory:
        for name, each in models.items():
            path = Path(directory) / "model.tflite"
            report = kzoo.export(each, path, "int4", calibration, evaluation=(test["image"], test["label"]))
            table.add_row(name, f"{report.scores['accuracy']['file']:.2%}")
    rich.print(table)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give one file of weights: python recipes/studies/int4_without_training.py WEIGHTS")
    main(sys.argv[1])
