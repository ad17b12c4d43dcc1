# %% [markdown]
# # 2. Sigmoid, tanh and ReLU, and the gradients that vanish
#
# Going back through a layer $x_{l+1} = \sigma(W x_l)$, the gradient is multiplied by the slope of the activation:
#
# $$ \frac{\partial L}{\partial x_l} = W^\top \Big( \sigma'(W x_l) \odot \frac{\partial L}{\partial x_{l+1}} \Big) $$
#
# (Rumelhart et al. 1986; the trouble is described by Hochreiter 1991 and by Glorot and Bengio 2010, section 4). The
# slope of the sigmoid is at most **0.25**, that of tanh and of ReLU at most **1**. ReLU has slope 0 or 1 and nothing
# between, so that a path that is open loses nothing.

# %%
import keras
import lesson
import numpy as np
from keras import layers

from kzoo import explain

functions = {"sigmoid": lesson.GREY, "tanh": lesson.BLUE, "relu": lesson.ORANGE}
x = np.linspace(-5, 5, 1000)
values = {name: np.array(keras.activations.get(name)(x)) for name in functions}
slopes = {name: np.gradient(y, x) for name, y in values.items()}

# %% [markdown]
# Now 20 convolutions one after the other, each with 16 channels and nothing else: no normalisation, no shortcut. The
# kernels start as Glorot and Bengio (2010, equation 16) say, and for ReLU as He et al. say
# ([arXiv:1502.01852](https://arxiv.org/abs/1502.01852), equation 10). `layer_statistics` gives the norm of the
# gradient at each of them. With the sigmoid it falls by a factor of **more than 1,000,000** from the last layer to the
# first: the first layer cannot learn. With tanh and ReLU it changes by **less than 10**.


# %%
def stack(activation: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    start = "he_normal" if activation == "relu" else "glorot_normal"
    image = keras.Input((32, 32, 3))
    y = layers.Rescaling(1 / 127.5, -1)(image)
    for number in range(1, 21):
        y = layers.Conv2D(
            16, 3, padding="same", kernel_initializer=start, activation=activation, name=f"conv{number}"
        )(y)
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(y)))


pictures = lesson.small_pictures(8)
norms, words = {}, {}
for name in functions:
    statistics = explain.layer_statistics(stack(name), pictures, target=0)
    found = [statistics[f"conv{number}"] for number in range(1, 21)]
    norms[name] = np.array([each.gradient_norm for each in found])
    words[name] = found[0].stands_out

# %%
figure, axes = lesson.panels(1, 3, 3)
for name, colour in functions.items():
    axes[0, 0].plot(x, values[name], color=colour, label=name)
    axes[0, 1].plot(x, slopes[name], color=colour, label=name)
    axes[0, 2].semilogy(range(1, 21), norms[name], "o-", markersize=3, color=colour, label=name)
axes[0, 0].set(title="activation", xlabel="x", ylim=(-1.2, 2))
axes[0, 1].set(title="its slope", xlabel="x")
axes[0, 2].set(title="gradient at each layer", xlabel="layer", xticks=(1, 5, 10, 15, 20))
axes[0, 2].legend(fontsize=9)
lesson.save(figure, "02_activations")

# %% [markdown]
# The library says the same in words, of the first layer with the sigmoid:

# %%
print(words["sigmoid"])

steepest = {name: round(float(slope.max()), 3) for name, slope in slopes.items()}
fall = norms["sigmoid"][-1] / norms["sigmoid"][0]
change = max(norms[name].max() / norms[name].min() for name in ("tanh", "relu"))

assert steepest["sigmoid"] == 0.25
assert steepest["tanh"] == steepest["relu"] == 1
assert fall > 1_000_000
assert change < 10
assert "vanishes" in words["sigmoid"]
