"""Models of keras.applications with weights that make every layer count."""

import keras
import numpy as np
from helpers import pixels

BATCH = 4


def build(name: str, size: int) -> tuple[keras.Model, np.ndarray]:
    """A model of keras.applications and images for it.

    Scales and offsets of its normalisations are random; their statistics are those of the images, so that no
    activation grows or fades with depth, as it would with random ones.
    """
    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )
    rng = np.random.default_rng(0)
    images = pixels(BATCH, size, size, 3)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0
        if norm.scale:
            norm.gamma.assign(rng.uniform(0.5, 1.5, norm.gamma.shape))
        norm.beta.assign(rng.normal(0, 0.3, norm.beta.shape))
    model(images, training=True)
    return model, images
