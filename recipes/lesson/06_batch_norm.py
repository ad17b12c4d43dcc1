# %% [markdown]
# # 6. Batch normalisation is a linear map, and folds away
#
# In a trained network the mean $\mu$ and the variance $\sigma^2$ of a channel are fixed numbers, and so batch
# normalisation ([arXiv:1502.03167](https://arxiv.org/abs/1502.03167), Algorithm 2) is a factor and an offset:
#
# $$ \gamma\, \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta = a x + b, \qquad
#    a = \frac{\gamma}{\sqrt{\sigma^2 + \epsilon}}, \quad b = \beta - a \mu $$
#
# A convolution $W x + c$ before it takes both in: $a (W x + c) + b = (a W)\, x + (a c + b)$. The trained ResNet-20 has
# **19** of them. Folded it has **0**, and its probabilities differ by **less than 1e-4**.

# %%
import keras
import lesson
import numpy as np
from keras import layers

import kzoo


def normalisations(model: keras.Model) -> int:
    return sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


model = lesson.trained("cifar10_resnet20")
folded = kzoo.fold_batch_norm(model)
pictures = lesson.small_pictures(32)
difference = np.abs(np.array(model(pictures)) - np.array(folded(pictures))).max()

# %% [markdown]
# By hand it is two lines. Of the first convolution, they give the folded weights to **less than 1e-5**.

# %%
norm = model.get_layer("stem_bn")
gamma, beta, mean, variance = norm.get_weights()
a = gamma / np.sqrt(variance + norm.epsilon)
b = beta - a * mean
kernel = model.get_layer("stem_conv").get_weights()[0] * a
folded_kernel, folded_bias = folded.get_layer("stem_conv").get_weights()
by_hand = max(np.abs(folded_kernel - kernel).max(), np.abs(folded_bias - b).max())

# %% [markdown]
# A convolution behind it can take it in as well: $W (a x + b) + c = (W a)\, x + (W b + c)$, with $W b$ summed over the
# window. But only where the window sees nothing but the map. Zeros that pad the border are not $b$, so that there the
# folded convolution is wrong. kzoo folds behind if the convolution does not pad, and **0** are left; if it pads, the
# **1** stays, and a warning says why. Below, its weights were folded all the same: inside, the error is **less than
# 1e-4**, at the border **more than 0.1**.


# %%
def behind(padding: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3))
    y = layers.Conv2D(16, 1, activation="relu")(layers.Rescaling(1 / 255)(image))
    y = layers.BatchNormalization(name="norm")(y)
    model = keras.Model(image, layers.Conv2D(1, 3, padding=padding, name="conv")(y))
    model.get_layer("norm").set_weights([np.linspace(1, 2, 16), np.linspace(-1, 2, 16), np.zeros(16), np.ones(16)])
    return model


unpadded, padded = behind("valid"), behind("same")
without = kzoo.fold_batch_norm(unpadded)
folded_conv = without.get_layer("conv")
maps = np.array(keras.Model(without.input, folded_conv.input)(pictures[:1]))
kernel, bias = folded_conv.get_weights()
answer = np.array(keras.ops.conv(maps, kernel, padding="same")) + bias  # its weights, but with padding
error = np.abs(answer - np.array(padded(pictures[:1])))[0, ..., 0]
inside, border = error[1:-1, 1:-1].max(), max(error[0].max(), error[-1].max())

# %%
figure, axes = lesson.panels(1, 3, 3)
axes[0, 0].plot(a, ".", color=lesson.BLUE, label="factor a")
axes[0, 0].plot(b, "x", color=lesson.ORANGE, label="offset b")
axes[0, 0].set(title="first normalisation: a x + b", xlabel="channel")
axes[0, 0].legend(fontsize=9)
lesson.show(axes[0, 1], pictures[0], "picture")
lesson.show(axes[0, 2], error, "folded behind, in spite of padding", bar="error", cmap="magma")
lesson.save(figure, "06_batch_norm")

# %%
before, after = normalisations(model), normalisations(folded)
without_padding, with_padding = normalisations(without), normalisations(kzoo.fold_batch_norm(padded))

assert before == 19
assert after == 0
assert difference < 1e-4
assert by_hand < 1e-5
assert without_padding == 0
assert with_padding == 1
assert inside < 1e-4
assert border > 0.1
