"""Pictures for the tests."""

from pathlib import Path

import numpy as np
import sklearn.datasets
from PIL import Image

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"  # two of 427×640 pixels
ORIENTATION = 0x0112  # in the EXIF standard


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(3).integers(0, 256, shape, dtype="uint8")


def picture(path: Path) -> np.ndarray:
    """Pixels (7, 9, 3) of their own for each path."""
    return np.random.default_rng(list(str(path).encode())).integers(0, 256, (7, 9, 3), dtype="uint8")


def saved(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path
