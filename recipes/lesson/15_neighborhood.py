# %% [markdown]
# # 15. Neighborhood attention
#
# Here each place has a window of its own around it, $\rho(i)$, as a convolution has
# ([arXiv:2204.07143](https://arxiv.org/abs/2204.07143), equations 1 to 3):
#
# $$ y_i = \mathrm{softmax}\Big( \frac{Q_i K_{\rho(i)}^\top + B_{(i,\,\rho(i))}}{\sqrt d} \Big) V_{\rho(i)} $$
#
# (kzoo adds the bias $B$ behind the division, as the authors' code does.) At the border the window moves inward: with
# windows of 7×7 the middle, the edge and the corner all see **49** places.

# %%
import keras
import lesson
import numpy as np

from kzoo.layers import NeighborhoodAttention, WindowAttention

keras.utils.set_random_seed(0)
neighborhood = NeighborhoodAttention(num_heads=1, kernel_size=7)
windows = WindowAttention(num_heads=1, window_size=8)
queries = {"middle": (8, 12), "edge": (8, 0), "corner": (15, 23)}
views = {name: lesson.seen(neighborhood, 16, 24, query) for name, query in queries.items()}
areas = {int(found.sum()) for found in views.values()}

# %% [markdown]
# So it moves with the picture, as a convolution does: shift the map by one place, and the answers shift by one. In the
# middle, away from the border, neighborhood attention differs by **less than 1e-5** from that; windows, which stay
# where they are, by **more than 0.01**.

# %%
x = np.random.default_rng(0).normal(size=(1, 16, 25, 8)).astype("float32")
errors = {}
for name, layer in (("neighborhood", neighborhood), ("windows", windows)):
    here, there = (np.array(layer(part))[0] for part in (x[:, :, :-1], x[:, :, 1:]))  # (16, 24, 8)
    errors[name] = np.abs(here[:, 1:] - there[:, :-1]).max(axis=-1)  # (16, 23)
middle = {name: error[4:-4, 4:-4].max() for name, error in errors.items()}

figure, axes = lesson.panels(1, 5, 1.8)
for axis, (name, found) in zip(axes[0], views.items(), strict=False):
    lesson.show(axis, found, f"{name}: {found.sum()}", cmap="Blues", vmin=0, vmax=1.5)
    axis.plot(queries[name][1], queries[name][0], "o", markersize=5, color=lesson.ORANGE)
end = errors["windows"].max()
for axis, (name, error) in zip(axes[0, 3:], errors.items(), strict=True):
    lesson.show(
        axis, error, f"{name}, shifted", cmap="magma", vmin=0, vmax=end, bar="change" if name == "windows" else ""
    )
lesson.save(figure, "15_neighborhood")

# %%
assert areas == {49}
assert middle["neighborhood"] < 1e-5
assert middle["windows"] > 0.01
