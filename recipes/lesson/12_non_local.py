# %% [markdown]
# # 12. Non-local: kernel regression over a whole map
#
# A non-local block adds to each place a weighted mean of all places
# ([arXiv:1711.07971](https://arxiv.org/abs/1711.07971), equations 1, 2 and 6):
#
# $$ y_i = \frac{1}{C(x)} \sum_j f(x_i, x_j)\, g(x_j), \qquad f(x_i, x_j) = e^{x_i \cdot x_j}, \qquad
#    z_i = W_z y_i + x_i $$
#
# Keys and queries are now what the map holds, and not where. For vectors of one length it is the kernel regression of
# step 11 with width 1, for then $x_i \cdot x_j$ and $-\lVert x_i - x_j \rVert^2 / 2$ differ by a constant, which the
# division takes away: the weights are the same to **less than 1e-5**.

# %%
import lesson
import numpy as np

from kzoo.layers import KernelRegressionAttention, NonLocal

photo = lesson.shrunk(lesson.photograph(), 10)  # (42, 64, 3)
colours = (photo - photo.mean(axis=(0, 1))) / 255
colours /= np.linalg.norm(colours, axis=-1).max()
height = np.sqrt((1 - (colours**2).sum(axis=-1, keepdims=True)).clip(0))
x = (7 * np.concatenate([colours, height], axis=-1)).astype("float32")[None]  # four channels, all vectors 7 long

layer = NonLocal("gaussian", subsample=False)
layer.build(x.shape)
weights = np.array(layer.attention_weights(x))[0]  # (places, places)
regression = np.array(KernelRegressionAttention(width=1.0).attention_weights(x))[0]
difference = np.abs(weights - regression).max()

# %% [markdown]
# Three pixels look for their like in the photograph. A convolution of 7×7 sees 49 pixels; here **more than 80 %** of
# the weight of each of the three lies farther away. A new block changes nothing: $W_z$ starts as zero, and the answer
# differs from the input by **0**.

# %%
queries = {"sky": (8, 48), "red wall": (25, 32), "bush": (36, 6)}
weights = weights.reshape(42, 64, 42, 64)
figure, axes = lesson.panels(1, 4, 2.4)
lesson.show(axes[0, 0], photo, "three queries")
far = []
for (name, (i, j)), axis, marker in zip(queries.items(), axes[0, 1:], "os^", strict=True):
    for drawn in (axes[0, 0], axis):
        drawn.plot(j, i, marker, markersize=8, color="white", markeredgecolor="black")
    lesson.show(axis, 1000 * weights[i, j], f"where the {name} looks", bar="weight, ‰", cmap="magma")
    near = weights[i, j, max(0, i - 3) : i + 4, max(0, j - 3) : j + 4].sum()
    far.append(100 * (1 - near))
lesson.save(figure, "12_non_local")

# %%
least_far = min(far)
new = NonLocal()
change = np.abs(np.array(new(x)) - x).max()

assert difference < 1e-5
assert least_far > 80
assert change == 0
