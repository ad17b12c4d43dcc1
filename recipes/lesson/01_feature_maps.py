# %% [markdown]
# # 1. The textbook's network and its feature maps
#
# A convolution slides a small window over the picture. Channel $k$ of its answer is
#
# $$ y_{ijk} = \mathrm{relu}\Big( b_k + \sum_{u,v,c} w_{uvck}\, x_{i+u,\,j+v,\,c} \Big) $$
#
# (LeCun et al. 1998, "Gradient-based learning applied to document recognition", section II). The network that
# introductions to digit recognition use has two of them, with windows of 5×5 and 2×2 max pooling behind each, and two
# dense layers. It is `simple_cnn` in the zoo. Its trained file is not shipped, for it has 13 MB; 300 steps of training
# take its place here, and are enough for **more than 95 %** of the test digits.

# %%
import keras
import lesson
import numpy as np

import kzoo
from kzoo import explain

keras.utils.set_random_seed(0)
digits = lesson.labelled("mnist", train=5000, test=1000)
images, test_images = digits.images[..., :1], digits.test_images[..., :1]  # grey
model = kzoo.build("simple_cnn", input_shape=images.shape[1:])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
model.fit(images, digits.labels, batch_size=50, epochs=-(-300 * 50 // len(images)), verbose=0)
accuracy = 100 * model.evaluate(test_images, digits.test_labels, verbose=0)[1]

# %% [markdown]
# The first layer makes **32** maps of a digit, the second **64**. White is large, black is zero, each map has its own
# scale. Maps of the first layer are copies of the digit with some of its strokes or edges brighter: each kernel weighs
# directions differently. Maps of the second have few bright spots: each answers to a small part of a shape.

# %%
maps = kzoo.activations(model, test_images[:1], ["p0", "p1"])  # behind each ReLU, before the pooling
first, second = maps["p0"][0], maps["p1"][0]
figure, axes = lesson.panels(1, 3, 3.4)
lesson.show(axes[0, 0], test_images[0, ..., 0], "digit", cmap="gray")
for axis, layer, tiles in zip(axes[0, 1:], (1, 2), (first, second), strict=True):
    lesson.show(axis, explain.draw_feature_maps(tiles), f"layer {layer}: {tiles.shape[-1]} maps")
lesson.save(figure, "01_feature_maps")

# %% [markdown]
# A map is what the equation says: computed with loops in NumPy, the first map differs by **less than 1e-3**.

# %%
kernel, bias = model.get_layer("conv1").get_weights()
before = kzoo.activations(model, test_images[:1], "preprocessing")["preprocessing"][0]  # the pixels, normalised
padded = np.pad(before, ((2, 2), (2, 2), (0, 0)))
height, width, channels = first.shape
by_hand = np.zeros((height, width))
for i in range(height):
    for j in range(width):
        window = padded[i : i + 5, j : j + 5, 0]
        by_hand[i, j] = max(0, bias[0] + (kernel[:, :, 0, 0] * window).sum())
difference = np.abs(by_hand - first[..., 0]).max()

assert accuracy > 95
assert channels == 32
assert second.shape[-1] == 64
assert difference < 1e-3
