"""Which pixels a score depends on, by gradients in the picture itself."""

import keras
import numpy as np

from kzoo.errors import InvalidValueError
from kzoo.explain.cams import as_array, as_tensor, behind, logits_of, number_type
from kzoo.explain.gradients import compiled_gradient
from kzoo.explain.replay import Replay
from kzoo.explain.targets import Target, score_of
from kzoo.layers.checks import check_number, check_seed, is_integer


def integrated_gradients(
    model: keras.Model,
    images: np.ndarray,
    target: Target = None,
    baseline: float | np.ndarray = 0.0,
    steps: int = 50,
) -> np.ndarray:
    """What each pixel adds to a score on the way from a picture without content to this one.

    `(x - x') ∫ dS / dx (x' + a (x - x')) da` for a from 0 to 1, by the midpoints of `steps` parts (Sundararajan et al.
    2017, arXiv:1703.01365, eq. 1), summed over the channels. It is complete: all pixels together give the difference
    of the scores of picture and baseline, up to the error of the steps.

    Args:
        model: as in `kzoo.grad_cam`; so is `target`.
        images: (n, height, width, channels).
        target: what is explained.
        baseline: picture without content, a number or what images can be subtracted from; black by default.
        steps: number of gradients for each image.

    Returns:
        (n, height, width), signed.

    Raises:
        InvalidValueError: as `kzoo.grad_cam`, a number of steps below 1, or a baseline of another shape.

    Example:
        >>> maps = integrated_gradients(model, images, target=386)
        >>> maps.sum(axis=(1, 2))  # the logit of class 386, minus that of a black picture
    """
    if not is_integer(steps, 1):
        raise InvalidValueError(f"steps={steps!r} must be a positive integer")
    replay, tensor = Replay(model), as_tensor(model, images)
    pixels = keras.ops.convert_to_numpy(tensor).astype("float32")
    try:
        way = pixels - np.broadcast_to(as_array(baseline).astype("float32"), pixels.shape)
    except ValueError as error:  # InvalidValueError is one
        told = repr(baseline) if np.ndim(baseline) == 0 else f"of shape {np.shape(baseline)}"
        raise InvalidValueError(
            f"baseline {told} must be a finite number, or pixels that fit images of shape {pixels.shape}"
        ) from error
    score = behind(replay, tensor, replay.input, score_of(target, logits_of(replay, tensor), model.name))
    gradient, total = compiled_gradient(score), np.zeros_like(pixels)
    for step in range(steps):
        share = (step + 0.5) / steps
        total += gradient((pixels - (1 - share) * way).astype(number_type(model)))[1]
    return (way * total / steps).sum(axis=-1)


def smooth_grad(
    model: keras.Model,
    images: np.ndarray,
    target: Target = None,
    noise: float = 0.15,
    samples: int = 25,
    seed: int = 0,
) -> np.ndarray:
    """The gradient of a score in the pixels, averaged over noisy copies of the picture.

    Smilkov et al. 2017 (arXiv:1706.03825, section 2), summed over the channels: positive where a brighter pixel would
    raise the score.

    Args:
        model: as in `kzoo.grad_cam`; so is `target`.
        images: (n, height, width, channels).
        target: what is explained.
        noise: standard deviation of the noise over the range of each image's pixels.
        samples: number of noisy copies.
        seed: of the noise, which is the same for all images.

    Returns:
        (n, height, width), signed.

    Raises:
        InvalidValueError: as `kzoo.grad_cam`, no samples, or negative noise.

    Example:
        >>> smooth_grad(model, images, target=386).shape
        (8, 224, 224)
    """
    if not is_integer(samples, 1):
        raise InvalidValueError(f"samples={samples!r} must be a positive integer")
    check_number("noise", noise, lambda value: value >= 0, "at least 0")
    check_seed(seed)
    replay, tensor = Replay(model), as_tensor(model, images)
    pixels = keras.ops.convert_to_numpy(tensor).astype("float32")
    score = behind(replay, tensor, replay.input, score_of(target, logits_of(replay, tensor), model.name))
    deviation = noise * np.ptp(pixels, axis=(1, 2, 3), keepdims=True)
    gradient, rng, total = compiled_gradient(score), np.random.default_rng(seed), np.zeros_like(pixels)
    for _ in range(samples):
        noisy = pixels + deviation * rng.standard_normal(pixels.shape[1:], dtype="float32")
        total += gradient(noisy)[1]
    return (total / samples).sum(axis=-1)
