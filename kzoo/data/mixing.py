"""Images mixed with others of their batch, and their targets alike."""

from functools import partial

import keras
from keras import ops

from kzoo.data.seeds import StepSeeds


class Mixing:
    """Mixup or CutMix of each image with the one before it in the batch, whose order is random.

    With both, each batch draws one of them with equal chances, as timm does. `keras.layers.MixUp` makes NaN of small
    alphas, whose gamma variates are below the smallest float; `keras.layers.CutMix` counts boxes between pixels.

    Args:
        mixup: alpha of Mixup (arXiv:1710.09412); None leaves it out.
        cutmix: alpha of CutMix (arXiv:1905.04899); None leaves it out.

    Call arguments:
        images: float32 (n, height, width, channels).
        targets: float32 (n, classes), that sum to 1.
        seeds: of the step.

    Returns:
        Images and targets, mixed in the same shares, drawn for each image.

    Example:
        >>> images, targets = Mixing(mixup=0.2, cutmix=1.0)(images, targets, StepSeeds(seed=0, epoch=0, step=7))
    """

    def __init__(self, mixup: float | None, cutmix: float | None):
        self.mixup, self.cutmix = mixup, cutmix

    def __call__(self, images, targets, seeds: StepSeeds):
        kinds = [(_mixup, self.mixup), (_cutmix, self.cutmix)]
        mixers = [partial(mix, images, targets, alpha, seeds) for mix, alpha in kinds if alpha is not None]
        if len(mixers) == 2:
            return ops.cond(keras.random.uniform((), seed=seeds) < 0.5, *mixers)
        return mixers[0]() if mixers else (images, targets)


def _mixup(images, targets, alpha: float, seeds: StepSeeds):
    shares = _beta(ops.shape(images)[0], alpha, seeds)
    return _blend(images, shares[:, None, None, None]), _blend(targets, shares[:, None])


def _cutmix(images, targets, alpha: float, seeds: StepSeeds):
    """A box around any place of the image; targets follow from the pixels that are in it and in the image."""
    number = ops.shape(images)[0]
    sides = ops.sqrt(1 - _beta(number, alpha, seeds))[:, None]

    def inside(length: int):
        """Which rows or columns are in the box, (n, length)."""
        middle = keras.random.uniform((number, 1), 0.0, float(length), seed=seeds)
        places = ops.arange(length, dtype="float32")
        return (places >= ops.round(middle - sides * length / 2)) & (places < ops.round(middle + sides * length / 2))

    box = inside(images.shape[1])[:, :, None] & inside(images.shape[2])[:, None, :]
    kept = 1 - ops.mean(ops.cast(box, "float32"), axis=(1, 2))
    return ops.where(box[..., None], ops.roll(images, 1, axis=0), images), _blend(targets, kept[:, None])


def _blend(array, shares):
    return shares * array + (1 - shares) * ops.roll(array, 1, axis=0)


def _beta(number, alpha: float, seeds: StepSeeds):
    """Draws (n,) of Beta(alpha, alpha), by the logarithms of gamma variates, which do not vanish for a small alpha."""

    def log_gamma():
        # of alpha, from one of alpha + 1: Marsaglia and Tsang 2000
        larger = keras.random.gamma((number,), alpha + 1, seed=seeds)
        uniform = 1 - keras.random.uniform((number,), seed=seeds)
        return ops.log(larger) + ops.log(uniform) / alpha

    return ops.sigmoid(log_gamma() - log_gamma())
