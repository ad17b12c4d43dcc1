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
# of the plain one.

# %%
import keras
import lesson
import numpy as np
from keras import layers, ops

losses = {name: lesson.training_losses(name) for name in ("cifar_plain56", "cifar_resnet56")}
better = losses["cifar_resnet56"][-1] / losses["cifar_plain56"][-1]

# %% [markdown]
# They also break a symmetry (Orhan and Pitkow, [arXiv:1701.09175](https://arxiv.org/abs/1701.09175), section 2). In a
# plain network the units of a layer have no identity: give all of them the same weights, and they get the same
# gradients, so that they stay alike for ever. Exchange two of them, and the network computes the same. With a
# connection around the layer each unit is tied to one unit of the layer before.
#
# Three layers of 8 units, all weights alike: the columns of the gradient of the middle layer, one for each of its
# units, differ by **less than 1e-6** in the plain network and by **more than 0.1** of the largest in the residual one.


# %%
def network(residual: bool, start="random_normal") -> keras.Model:
    features = keras.Input((8,))
    y = features
    for number in range(3):
        z = layers.Dense(8, "tanh", kernel_initializer=start, name=f"layer{number}")(y)
        y = layers.Add()([y, z]) if residual else z
    return keras.Model(features, y)


def gradient(model: keras.Model, x: np.ndarray, step: float = 1e-2) -> np.ndarray:
    """Of the mean squared answer in the middle layer's kernel, by finite differences: works on any backend."""
    kernel = model.get_layer("layer1").kernel
    start, found = np.array(kernel), np.zeros((8, 8))
    for place in np.ndindex(8, 8):
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * step
            kernel.assign(moved)
            found[place] += sign * float(ops.mean(model(x) ** 2)) / (2 * step)
    kernel.assign(start)
    return found


rng = np.random.default_rng(0)
x = rng.normal(size=(64, 8)).astype("float32")
gradients = {
    kind: gradient(network(kind == "residual", keras.initializers.Constant(0.1)), x) for kind in ("plain", "residual")
}
spread = {kind: np.ptp(each, axis=1).max() / np.abs(each).max() for kind, each in gradients.items()}

# %% [markdown]
# And the exchange: the units of the first layer change places, and so do the weights of the second layer that read
# them. The plain network's answers change by **less than 1e-6**, the residual one's by **more than 0.1**.

# %%
order = np.roll(np.arange(8), 1)
changes = {}
for kind in ("plain", "residual"):
    model = network(kind == "residual", keras.initializers.RandomNormal(stddev=0.5, seed=1))
    before = np.array(model(x))
    first, second = model.get_layer("layer0"), model.get_layer("layer1")
    first.kernel.assign(np.array(first.kernel)[:, order])
    second.kernel.assign(np.array(second.kernel)[order])
    changes[kind] = np.abs(np.array(model(x)) - before).mean()

# %%
figure, axes = lesson.panels(1, 3, 3)
for (name, loss), colour, style in zip(losses.items(), (lesson.ORANGE, lesson.GREEN), ("s--", "o-"), strict=True):
    label = "56 layers, plain" if "plain" in name else "56 layers, residual"
    axes[0, 0].plot(range(1, len(loss) + 1), loss, style, markersize=3, color=colour, label=label)
axes[0, 0].set(xlabel="epoch", title="training loss")
axes[0, 0].legend(fontsize=9)
for axis, (kind, each) in zip(axes[0, 1:], gradients.items(), strict=True):
    lesson.show(
        axis,
        each / np.abs(each).max(),
        f"{kind}: gradient, weights alike",
        bar="share of the largest",
        cmap="RdBu",
        vmin=-1,
        vmax=1,
    )
    axis.set(xlabel="unit of the middle layer", ylabel="unit that it reads")
lesson.save(figure, "05_residual")

assert better < 0.9
assert spread["plain"] < 1e-6
assert spread["residual"] > 0.1
assert changes["plain"] < 1e-6
assert changes["residual"] > 0.1
