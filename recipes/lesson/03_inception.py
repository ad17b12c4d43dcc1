# %% [markdown]
# # 3. 1×1 convolutions, Inception and DepthConcat
#
# A 1×1 convolution mixes the channels of a pixel and looks at no other pixel:
#
# $$ y_{ijk} = b_k + \sum_c w_{ck}\, x_{ijc} $$
#
# It is one dense layer for all pixels (Lin et al., "Network in Network",
# [arXiv:1312.4400](https://arxiv.org/abs/1312.4400), section 3): the two differ by **less than 1e-5**.

# %%
import keras
import lesson
import numpy as np
from keras import layers

from kzoo.layers import DepthConcat

keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(1, 28, 28, 192)).astype("float32")
pointwise = layers.Conv2D(16, 1)
y = pointwise(x)
dense = layers.Dense(16)
dense.build(x.shape)
kernel, bias = pointwise.get_weights()  # (1, 1, 192, 16) and (16,)
dense.set_weights([kernel[0, 0], bias])
difference = np.abs(np.array(dense(x)) - np.array(y)).max()

# %% [markdown]
# Inception uses it to make large windows cheap ([arXiv:1409.4842](https://arxiv.org/abs/1409.4842), section 4 and
# Table 1, row 3a). A 5×5 convolution of 192 channels to 32 costs $28^2 \cdot 25 \cdot 192 \cdot 32$ multiply-adds.
# With a 1×1 convolution to 16 channels before it, it costs **more than 9** times less.

# %%
direct = 28**2 * 25 * 192 * 32
reduced = 28**2 * (192 * 16 + 25 * 16 * 32)
cheaper = direct / reduced

# %% [markdown]
# The branches of an Inception module are joined along the channels. Where they do not pad, their maps have different
# sizes. `DepthConcat` puts the smaller ones in the middle and fills up with zeros. Here windows of 1×1, 3×3 and 5×5 on
# a map of 9×9 give 9×9, 7×7 and 5×5 places; joined, all have **9** rows, and the 5×5 places of the last are surrounded
# by **56** zeros.

# %%
picture = lesson.shrunk(lesson.photograph("flower.jpg")[60:321, 250:511], 29)[None] / 255  # (1, 9, 9, 3)
branches = [layers.Conv2D(1, size, kernel_initializer="ones")(picture) / size**2 for size in (1, 3, 5)]
joined = np.array(DepthConcat()(branches))[0]
zeros = int((joined[..., 2] == 0).sum())

figure, axes = lesson.panels(1, 5, 2.2)
axes[0, 0].bar(["direct", "through\n1×1"], [direct / 1e6, reduced / 1e6], color=[lesson.ORANGE, lesson.BLUE])
axes[0, 0].set_title("million multiply-adds", fontsize=10)
lesson.show(axes[0, 1], picture[0] * 255, "map, 9×9")
for axis, channel, size in zip(axes[0, 2:], np.moveaxis(joined, -1, 0), (1, 3, 5), strict=True):
    lesson.show(axis, np.where(channel == 0, np.nan, channel), f"joined: window {size}×{size}")
    axis.set_facecolor("lightgrey")
lesson.save(figure, "03_inception")

# %%
assert difference < 1e-5
assert cheaper > 9
assert joined.shape[0] == 9
assert zeros == 56
