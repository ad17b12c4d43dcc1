# %% [markdown]
# # 13. Self-attention, and why it needs positions
#
# Self-attention learns what it compares: each place makes a query, a key and a value of what it holds
# ([arXiv:1706.03762](https://arxiv.org/abs/1706.03762), equation 1):
#
# $$ \mathrm{Attention}(Q, K, V) = \mathrm{softmax}\Big( \frac{Q K^\top}{\sqrt d} \Big) V $$
#
# The root of $d$ is there because a product of two random vectors of $d$ numbers has the variance $d$. With $d = 256$
# and 64 keys, the largest weight of a query is on average **above 0.8** without the root, so that the softmax is all
# but a hard choice with no gradient; with it, it is **below 0.2**.

# %%
import keras
import lesson
import numpy as np
from keras import ops

from kzoo.layers import MultiHeadSelfAttention, SinusoidalPositionEncoding

rng = np.random.default_rng(0)
queries, keys = rng.normal(size=(2, 64, 256))
products = queries @ keys.T
largest = {
    name: float(ops.convert_to_numpy(ops.softmax(logits, axis=-1)).max(axis=-1).mean())
    for name, logits in (("without", products), ("with", products / 256**0.5))
}

# %% [markdown]
# Nothing in the equation says where a place is. Put the pixels in another order, and the answers come in that order,
# the same to **less than 1e-5**. So it cannot tell left from right. An encoding of the position that is added to the
# input changes that (section 3.5): the answers then differ by **more than 0.01**.

# %%
x = rng.normal(size=(1, 8, 8, 32)).astype("float32")
order = rng.permutation(64)
change = {}
for position in (None, "sinusoidal"):
    keras.utils.set_random_seed(0)
    layer = MultiHeadSelfAttention(num_heads=4, position=position)
    answers = np.array(layer(x)).reshape(64, 32)
    shuffled = np.array(layer(x.reshape(1, 64, 32)[:, order].reshape(x.shape))).reshape(64, 32)
    change[position] = np.abs(shuffled - answers[order]).max()

# %% [markdown]
# The encodings of rows and columns are waves of growing length. The product of that of row **14** and column **19**
# with those of other places is largest at the place itself, **32** for 64 channels, and so tells near from far.

# %%
encoding = SinusoidalPositionEncoding().encoding((1, 40, 60, 64))
likeness = encoding @ encoding[14, 19]
at_itself = round(float(likeness.max()), 3)
place = tuple(int(axis) for axis in np.unravel_index(likeness.argmax(), likeness.shape))

figure, axes = lesson.panels(1, 3, 2.8)
for (name, value), colour in zip(largest.items(), (lesson.ORANGE, lesson.BLUE), strict=True):
    axes[0, 0].bar([f"{name} √d"], [value], color=colour)
axes[0, 0].set_title("mean largest weight of 64", fontsize=10)
axes[0, 0].set_ylim(0, 1)
picture = axes[0, 1].imshow(encoding[:, 0, :32], cmap="RdBu", aspect="auto", vmin=-1, vmax=1)
axes[0, 1].set(xlabel="channel", ylabel="row")
axes[0, 1].set_title("encoding of the row", fontsize=10)
figure.colorbar(picture, ax=axes[0, 1])
lesson.show(axes[0, 2], likeness, "product with the marked place", bar="product", cmap="magma")
axes[0, 2].plot(19, 14, "o", color="white", markeredgecolor="black")
lesson.save(figure, "13_self_attention")

# %%
without_root, with_root = largest["without"], largest["with"]

assert without_root > 0.8
assert with_root < 0.2
assert change[None] < 1e-5
assert change["sinusoidal"] > 0.01
assert at_itself == 32
assert place == (14, 19)
