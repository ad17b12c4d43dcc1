"""Maps that know nothing of a model: what every method has to beat."""

import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.layers.checks import check_seed, is_integer


def random_maps(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Maps of independent normal numbers.

    Args:
        shape: (n, height, width); take that of the maps that they stand beside, as coarse maps hide other pixels
            than fine ones.
        seed: of the numbers.

    Raises:
        InvalidValueError: another shape, or a seed that is none.

    Example:
        >>> random_maps((8, 7, 7)).shape
        (8, 7, 7)
    """
    return np.random.default_rng(check_seed(seed)).standard_normal(_checked(shape), dtype="float32")


def gaussian_maps(shape: tuple[int, int, int]) -> np.ndarray:
    """Maps of a bell in the middle, with a quarter of each side as standard deviation: most pictures are of what is
    in their middle.

    Args:
        shape: (n, height, width).

    Raises:
        InvalidValueError: another shape.

    Example:
        >>> gaussian_maps((8, 224, 224))[0].argmax() // 224
        111
    """
    count, height, width = _checked(shape)
    tall, wide = (np.exp(-(((np.arange(side) - (side - 1) / 2) / (side / 4)) ** 2) / 2) for side in (height, width))
    return np.repeat(np.outer(tall, wide)[None].astype("float32"), count, axis=0)


def _checked(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 3 or not all(is_integer(size, 1) for size in shape):
        raise InvalidValueError(f"shape={shape!r} must be (n, height, width), all of at least 1")
    return shape
