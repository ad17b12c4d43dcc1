# %% [markdown]
# # 9. Spatial attention: a gate for each place
#
# Spatial attention does the opposite of squeeze and excitation. Mean and maximum over the channels make two numbers of
# each place, and a convolution $f$ of 7×7 makes a gate of its neighbourhood
# ([arXiv:1807.06521](https://arxiv.org/abs/1807.06521), equation 3):
#
# $$ M_s(F) = \mathrm{sigmoid}\big( f([\mathrm{avg}(F); \mathrm{max}(F)]) \big), \qquad F' = M_s(F) \cdot F $$
#
# Below are the gates of the first block of a ResNet-20 with CBAM, trained on CIFAR-10. It has learned to hold edges
# back: over 100 pictures, the correlation of the gates with the steepness of the picture is on average **below -0.4**.

# %%
import lesson
import numpy as np

import kzoo

model = lesson.trained("cifar10_resnet20_cbam")
pictures = lesson.small_pictures(100)
gates = kzoo.attention_maps(model, pictures)["stage1_block1_attention/spatial"]  # (100, 32, 32)
rows, columns = np.gradient(pictures.mean(axis=-1), axis=(1, 2))
steepness = np.abs(rows) + np.abs(columns)
each = [np.corrcoef(gate.ravel(), steep.ravel())[0, 1] for gate, steep in zip(gates, steepness, strict=True)]
correlation = np.mean(each)

# %% [markdown]
# The gates follow from the equation: by hand they are the same to **less than 1e-4**.

# %%
layer = model.get_layer("stage1_block1_attention").spatial
features = np.random.default_rng(0).normal(size=(1, 9, 9, 16)).astype("float32")
described = np.stack([features.mean(axis=-1), features.max(axis=-1)], axis=-1)[0]  # (9, 9, 2)
kernel, gamma, beta, mean, variance = layer.get_weights()  # batch normalisation follows the convolution
sums = (described[1:8, 1:8, :, None] * kernel).sum(axis=(0, 1, 2))  # of the place in the middle
logit = gamma * (sums - mean) / np.sqrt(variance + layer.batch_norm.epsilon) + beta
by_hand = 1 / (1 + np.exp(-logit))
difference = float(np.abs(by_hand - np.array(layer.gates(features))[0, 4, 4]).max())

figure, axes = lesson.panels(2, 5, 3.8)
for number, (above, below) in enumerate(axes.T):
    lesson.show(above, pictures[number], f"picture {number + 1}")
    lesson.show(below, gates[number], "its gates", bar="gate" if number == 4 else "", vmin=0, vmax=0.8)
lesson.save(figure, "09_spatial_attention")

# %%
assert correlation < -0.4
assert difference < 1e-4
