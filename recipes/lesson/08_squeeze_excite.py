# %% [markdown]
# # 8. Squeeze and excitation: a gate for each channel
#
# The layer squeezes a map to the mean of each channel, and makes of the means a factor between 0 and 1 for each
# ([arXiv:1709.01507](https://arxiv.org/abs/1709.01507), equations 2 to 4):
#
# $$ z_c = \frac{1}{HW} \sum_{i,j} x_{ijc}, \qquad s = \mathrm{sigmoid}\big(W_2\, \mathrm{relu}(W_1 z)\big), \qquad
#    \tilde x_{ijc} = s_c\, x_{ijc} $$
#
# So it can do what depends on means alone, such as taking away a colour cast. Here it is fitted to a photograph under
# 512 random casts, and tried on three that were not among them. Its gates should be $\frac14$ divided by the cast;
# they are wrong by **less than 0.1**.

# %%
import keras
import lesson
import numpy as np

from kzoo.layers import SqueezeExcite

keras.utils.set_random_seed(0)
photo = lesson.shrunk(lesson.photograph(), 6) / 255  # (71, 106, 3)
shown = np.array([[1.0, 0.6, 0.35], [0.4, 0.7, 1.0], [0.7, 1.0, 0.45]])
casts = np.random.default_rng(0).uniform(0.3, 1, (512, 3))
small = lesson.shrunk(photo, 10)
x = (small * casts[:, None, None]).astype("float32")  # (casts, 7, 10, 3)
target = np.broadcast_to(0.25 * small, x.shape)

layer = SqueezeExcite(reduction=1, divisor=32)  # 32 hidden units for its 3 channels
model = keras.Sequential([keras.Input(x.shape[1:]), layer])
schedule = keras.optimizers.schedules.CosineDecay(3e-2, 800)
model.compile(keras.optimizers.Adam(schedule), "mse", jit_compile=False)
model.fit(x, target, batch_size=64, epochs=100, verbose=0)
cast = (small * shown[:, None, None]).astype("float32")
gates = np.array(layer.gates(cast))[:, 0, 0]  # (3, channels)
error = np.abs(gates - 0.25 / shown).max()

# %% [markdown]
# Where something is, the layer does not know: with all pixels of a picture in disorder the gates change by **less than
# 1e-5**.

# %%
order = np.random.default_rng(1).permutation(cast[0, ..., 0].size)
disordered = cast.reshape(3, -1, 3)[:, order].reshape(cast.shape)
change = np.abs(np.array(layer.gates(disordered))[:, 0, 0] - gates).max()

figure, axes = lesson.panels(3, 3, 5.2)
for factors, gate, (before, after, bars) in zip(shown, gates, axes, strict=True):
    lesson.show(before, photo * factors * 255, "red × {}, green × {}, blue × {}".format(*factors))
    lesson.show(after, photo * factors * gate * 4 * 255, "times its gates, times 4")
    bars.barh(["red", "green", "blue"], gate, color=lesson.BLUE, label="gate")
    bars.plot(0.25 / factors, range(3), "|", markersize=22, markeredgewidth=2, color="black", label="exact")
    bars.set(xlim=(0, 1))
    bars.invert_yaxis()
axes[1, 2].legend(fontsize=8, loc="lower right")
lesson.save(figure, "08_squeeze_excite")

# %%
assert error < 0.1
assert change < 1e-5
