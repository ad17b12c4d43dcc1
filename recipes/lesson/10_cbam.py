# %% [markdown]
# # 10. CBAM, in numbers
#
# CBAM puts a gate on each channel, then one on each place ([arXiv:1807.06521](https://arxiv.org/abs/1807.06521),
# equations 1 to 3):
#
# $$ M_c(F) = \mathrm{sigmoid}\big( W_1 \mathrm{relu}(W_0\, \mathrm{avg}(F)) + W_1 \mathrm{relu}(W_0\, \mathrm{max}(F))
#    \big), \qquad F' = M_c(F) \cdot F, \qquad F'' = M_s(F') \cdot F' $$
#
# Take a map of 2×2 places and two channels, [[1, 2], [3, 4]] and [[5, 6], [7, 8]]. The averages of the channels are
# **2.5** and **6.5**, their maxima **4** and **8**.

# %%
import lesson
import numpy as np

from kzoo.layers import CBAM

maps = np.moveaxis(np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], "float32"), 0, -1)[None]  # (1, 2, 2, 2)
averages, maxima = maps.mean(axis=(1, 2))[0], maps.max(axis=(1, 2))[0]

# %% [markdown]
# The weights are set by hand. One hidden unit adds a tenth of both descriptors: $0.1\,(2.5 + 6.5) = 0.9$ and
# $0.1\,(4 + 8) = 1.2$. It speaks against the first channel and for the second: the logits are $\mp 2.1$ and the gates
# **0.109** and **0.891**. The first channel is nearly shut.
#
# The spatial gate looks at one place only here, with weight 1 on the average, -1 on the maximum and 2 as the offset.

# %%
cbam = CBAM(reduction=2, kernel_size=1, use_batch_norm=False)
cbam.build(maps.shape)
cbam.channel.set_weights([np.array([[0.1], [0.1]]), np.array([[-1.0, 1.0]])])
cbam.spatial.set_weights([np.array([1.0, -1.0]).reshape(1, 1, 2, 1), np.array([2.0])])

channel_gates = np.array(cbam.channel.gates(maps))[0, 0, 0]
refined = np.array(cbam.channel(maps))
place_gates = np.array(cbam.spatial.gates(refined))[0, ..., 0]
answer = np.array(cbam(maps))

# %% [markdown]
# Written out with NumPy, the answer is the same to **less than 1e-5**.


# %%
def sigmoid(x):
    return 1 / (1 + np.exp(-x))


hidden = np.maximum(0, 0.1 * averages.sum()) + np.maximum(0, 0.1 * maxima.sum())
shut, open_ = sigmoid(-hidden), sigmoid(hidden)
scaled = maps[0] * np.array([shut, open_])  # F'
by_hand = scaled * sigmoid(scaled.mean(axis=-1) - scaled.max(axis=-1) + 2)[..., None]  # F''
difference = np.abs(by_hand - answer[0]).max()

figure, axes = lesson.panels(2, 4, 4)
for row, channel in zip(axes, (0, 1), strict=True):
    gate = f"gate {channel_gates[channel]:.3f}"
    for axis, values, title in (
        (
            row[0],
            maps[0, ..., channel],
            f"F, channel {channel + 1}: mean {averages[channel]}, max {maxima[channel]:.0f}",
        ),
        (row[1], refined[0, ..., channel], f"F', after its {gate}"),
        (row[2], place_gates, "gates of the places"),
        (row[3], answer[0, ..., channel], "F''"),
    ):
        lesson.show(axis, values, title, cmap="Greys", vmin=0, vmax=1.5 if axis is row[2] else 12)
        axis.title.set_fontsize(9)
        for (i, j), value in np.ndenumerate(values):
            axis.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=12)
lesson.save(figure, "10_cbam")

# %%
gates = [round(float(gate), 3) for gate in channel_gates]

assert set(averages) == {2.5, 6.5}
assert set(maxima) == {4, 8}
assert gates == [0.109, 0.891]
assert difference < 1e-5
