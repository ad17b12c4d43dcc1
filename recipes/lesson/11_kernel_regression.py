# %% [markdown]
# # 11. Kernel regression: attention before its name
#
# The estimate at a place $x$ is a weighted mean of samples $y_i$, each weighted by how near its place is (Nadaraya
# 1964, Watson 1964):
#
# $$ f(x) = \sum_i \frac{K(x - x_i)}{\sum_j K(x - x_j)}\, y_i, \qquad K(u) = \exp\Big( -\frac{u^2}{2 h^2} \Big) $$
#
# That is attention: $x$ is the query, $x_i$ are keys, $y_i$ values, and the weights are a softmax of
# $-(x - x_i)^2 / 2 h^2$. They add up to 1, to **less than 1e-5**.

# %%
import lesson
import numpy as np

from kzoo.layers import KernelRegressionAttention

rng = np.random.default_rng(0)
places = np.sort(rng.uniform(0, 5, 50))
samples = 2 * np.sin(places) + places**0.8 + rng.normal(0, 0.5, 50)
x = np.linspace(0, 5, 200)
truth = 2 * np.sin(x) + x**0.8


def column(values: np.ndarray) -> np.ndarray:
    return values.reshape(1, -1, 1).astype("float32")


layers = {width: KernelRegressionAttention(width) for width in (0.02, 0.3, 20)}
curves = {width: np.ravel(layer(column(x), column(places), column(samples))) for width, layer in layers.items()}
errors = {width: float(np.sqrt(np.mean((curve - truth) ** 2))) for width, curve in curves.items()}
weights = np.array(layers[0.3].attention_weights(column(x), column(places)))[0]  # (200, 50)
surplus = np.abs(weights.sum(axis=1) - 1).max()

# %% [markdown]
# The width $h$ decides. With **0.02** the curve jumps from sample to sample, with **20** all weights are equal and the
# curve is the mean of the samples, to **less than 0.1**. With **0.3** its error is smallest: **less than 0.4**, while
# the samples themselves are off by 0.5. Learned queries and keys choose the width by their length.

# %%
figure, axes = lesson.panels(1, 4, 2.8)
for axis, (width, curve) in zip(axes[0], curves.items(), strict=False):
    axis.plot(x, truth, color=lesson.GREY, linestyle="--", label="truth")
    axis.plot(places, samples, ".", markersize=4, color="black", label="samples")
    axis.plot(x, curve, color=lesson.ORANGE, label="estimate")
    axis.set_title(f"width {width}: error {errors[width]:.2f}", fontsize=10)
    axis.set_xlabel("x")
axes[0, 0].legend(fontsize=7)
picture = axes[0, 3].imshow(weights, aspect="auto", cmap="viridis")
axes[0, 3].set(xlabel="key", ylabel="query")
axes[0, 3].set_title("weights, width 0.3", fontsize=10)
figure.colorbar(picture, ax=axes[0, 3])
lesson.save(figure, "11_kernel_regression")

# %%
flat = np.abs(curves[20] - samples.mean()).max()
best = min(errors, key=errors.get)
smallest = errors[best]

assert surplus < 1e-5
assert best == 0.3
assert smallest < 0.4
assert flat < 0.1
