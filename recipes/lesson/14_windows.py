# %% [markdown]
# # 14. Windows, and their shift
#
# All places with all others cost the square of their number. Swin
# ([arXiv:2103.14030](https://arxiv.org/abs/2103.14030), equations 1 and 2) attends inside windows of $M \times M$; for
# a map of $h \times w$ places and $C$ channels
#
# $$ \Omega(\mathrm{global}) = 4hwC^2 + 2(hw)^2 C, \qquad \Omega(\mathrm{windows}) = 4hwC^2 + 2M^2hwC $$
#
# On the first maps of Swin, 56×56 with 96 channels and windows of 7×7, that is **more than 13** times less.

# %%
import keras
import lesson

from kzoo.layers import MultiHeadSelfAttention, WindowAttention

shape = (1, 56, 56, 96)
cheaper = MultiHeadSelfAttention(3).macs(shape) / WindowAttention(3, 7).macs(shape)

# %% [markdown]
# But windows do not see each other. So every second layer shifts them by half. On a map of 16×24 with windows of 8×8,
# a place sees the **64** of its window; through one layer of windows and one of shifted windows it sees **256**. In
# the corner, the shifted window would join places from four ends of the map. A mask keeps them apart: the corner sees
# **16** in its own layer.

# %%
keras.utils.set_random_seed(0)
windows = WindowAttention(num_heads=1, window_size=8)
shifted = WindowAttention(num_heads=1, window_size=8, shift_size=4)
for layer in (windows, shifted):
    layer.build((None, 16, 24, 8))

views = {
    "windows": (windows, (6, 10)),
    "shifted": (shifted, (6, 10)),
    "one behind the other": (lambda x: shifted(windows(x)), (6, 10)),
    "shifted, in the corner": (shifted, (15, 23)),
}
areas = {}
figure, axes = lesson.panels(1, 4, 2)
for axis, (name, (layer, query)) in zip(axes[0], views.items(), strict=True):
    found = lesson.seen(layer, 16, 24, query)
    areas[name] = int(found.sum())
    lesson.show(axis, found, f"{name}: {areas[name]}", cmap="Blues", vmin=0, vmax=1.5)
    axis.plot(query[1], query[0], "o", markersize=5, color=lesson.ORANGE)
    step = 0 if layer is windows else 4
    for row in range(step, 16, 8):
        axis.axhline(row - 0.5, color="black", linewidth=0.8)
    for column in range(step, 24, 8):
        axis.axvline(column - 0.5, color="black", linewidth=0.8)
lesson.save(figure, "14_windows")

# %%
print(areas)

assert cheaper > 13
assert areas["windows"] == areas["shifted"] == 64
assert areas["one behind the other"] == 256
assert areas["shifted, in the corner"] == 16
