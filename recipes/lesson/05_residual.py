# %% [markdown]
# # 5. Residual connections, and the symmetry that they break
#
# A residual block adds what it computes to what it was given
# ([arXiv:1512.03385](https://arxiv.org/abs/1512.03385), equation 1):
#
# $$ y = F(x, W) + x $$
#
# To be an identity, a block now needs $F = 0$, which is easy to learn, and the gradient has a way around every block.
# The network of 56 layers with these connections, trained as in step 4, has **less than 0.9** times the training loss
# of the plain one. (It need not be ahead of the 20 layers of step 4 yet: this is 300 steps, and the paper trains for
# 64,000.)

# %%
import keras
import lesson
import numpy as np
from keras import layers

losses = {name: lesson.training_losses(name) for name in ("cifar_plain56", "cifar_resnet56")}
better = losses["cifar_resnet56"][-1] / losses["cifar_plain56"][-1]

# %% [markdown]
# They also break a symmetry (Orhan and Pitkow, [arXiv:1701.09175](https://arxiv.org/abs/1701.09175), section 2). In a
# plain network the units of a layer have no identity: give all of them the same weights, and they get the same
# gradients, so that they stay alike for ever. With a connection around the layer each unit is tied to one unit of the
# layer before.
#
# Here are three layers of 8 units, all weights alike, trained for 200 steps. The columns of the middle kernel, one for
# each of its units, still differ by **less than 1e-5** in the plain network, and by **more than 0.1** in the residual
# one.


# %%
def network(residual: bool, start: keras.Initializer) -> keras.Model:
    features = keras.Input((8,))
    y = features
    for number in range(3):
        z = layers.Dense(8, "tanh", kernel_initializer=start, name=f"layer{number}")(y)
        y = layers.Add()([y, z]) if residual else z
    return keras.Model(features, y)


rng = np.random.default_rng(0)
x, goal = rng.normal(size=(2, 64, 8)).astype("float32")
kernels = {}
for kind in ("plain", "residual"):
    model = network(kind == "residual", keras.initializers.Constant(0.1))
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.fit(x, goal, batch_size=64, epochs=200, verbose=0)
    kernels[kind] = model.get_layer("layer1").get_weights()[0]
spread = {kind: np.ptp(kernel, axis=1).max() for kind, kernel in kernels.items()}

# %% [markdown]
# Nor does it matter in which order the units stand. Let those of the first layer change places, with the weights of
# the second layer that read them: the plain network's answers change by **less than 1e-5**, the residual one's by
# **more than 0.1**.

# %%
order = np.roll(np.arange(8), 1)
changes = {}
for kind in ("plain", "residual"):
    model = network(kind == "residual", keras.initializers.RandomNormal(stddev=0.5, seed=1))
    before = np.array(model(x))
    first, second = model.get_layer("layer0"), model.get_layer("layer1")
    first.set_weights([weight[..., order] for weight in first.get_weights()])
    kernel, bias = second.get_weights()
    second.set_weights([kernel[order], bias])
    changes[kind] = np.abs(np.array(model(x)) - before).mean()

# %%
figure, axes = lesson.panels(1, 3, 3)
for (name, loss), colour, style in zip(losses.items(), (lesson.ORANGE, lesson.GREEN), ("s--", "o-"), strict=True):
    label = "56 layers, plain" if "plain" in name else "56 layers, residual"
    axes[0, 0].plot(range(1, len(loss) + 1), loss, style, markersize=3, color=colour, label=label)
axes[0, 0].set(xlabel="epoch", title="training loss")
axes[0, 0].legend(fontsize=9)
end = max(np.abs(kernel).max() for kernel in kernels.values())
for axis, (kind, kernel) in zip(axes[0, 1:], kernels.items(), strict=True):
    bar = "weight" if kind == "residual" else ""
    lesson.show(axis, kernel, f"{kind}: kernel, 200 steps", bar, cmap="RdBu", vmin=-end, vmax=end)
    axis.set(xlabel="unit of the middle layer", ylabel="unit that it reads")
lesson.save(figure, "05_residual")

# %%
assert better < 0.9
assert spread["plain"] < 1e-5
assert spread["residual"] > 0.1
assert changes["plain"] < 1e-5
assert changes["residual"] > 0.1
