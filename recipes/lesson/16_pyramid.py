# %% [markdown]
# # 16. Feature pyramid and U-Net: the way back to pixels
#
# The deeper a map, the more it knows and the fewer places it has. A feature pyramid
# ([arXiv:1612.03144](https://arxiv.org/abs/1612.03144), section 3) carries what is known back to the finer maps $C_l$:
#
# $$ M_l = \mathrm{conv}_{1 \times 1}(C_l) + \mathrm{up}_2(M_{l+1}), \qquad P_l = \mathrm{conv}_{3 \times 3}(M_l) $$
#
# Here is the one trained on streets (CamVid), with the photograph in place of a street. The levels 2, 3 and 4 have
# **2** times as many rows, one as the next, and the equation holds for level 4 to **less than 1e-3**.

# %%
import keras
import lesson
import numpy as np
from matplotlib.colors import ListedColormap

import kzoo

model = lesson.trained("camvid_fpn")
photo = lesson.photograph()[37:389, 80:560]  # (352, 480, 3)
image = lesson.shrunk(photo, 2)[None]  # (1, 176, 240, 3)
names = ["fpn_p4_lateral", "fpn_p4_up", "fpn_p4_add", "fpn_p5_lateral", *(f"fpn_p{level}" for level in range(2, 6))]
maps = {name: each[0] for name, each in kzoo.activations(model, image, names).items()}
height, width = maps["fpn_p4_lateral"].shape[:2]
coarser = maps["fpn_p5_lateral"].repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
difference = np.abs(maps["fpn_p4_lateral"] + coarser - maps["fpn_p4_add"]).max()

# %% [markdown]
# U-Net ([arXiv:1505.04597](https://arxiv.org/abs/1505.04597), Figure 1) goes down and up in the same way, and joins
# the maps instead of adding them. It pads nothing, so that each 3×3 convolution takes two rows: a picture of **572**
# rows gives an answer of **388**, and what crosses over is cut to size. Half of the channels of the last joined map,
# **50** %, come from the first level, and only they know where an edge was to the pixel.

# %%
unet = kzoo.build("unet", widths=(8, 16, 32, 64, 128))  # the paper's network with fewer channels
stages = [layer for layer in unet.layers if layer.name.endswith(("_relu2", "_concat", "head_conv"))]
rows = [unet.input.shape[1], *(layer.output.shape[1] for layer in stages)]
joined = [layer for layer in unet.layers if isinstance(layer, keras.layers.Concatenate)][-1]
share = 100 * joined.input[0].shape[-1] / joined.output.shape[-1]

figure, axes = lesson.panels(2, 3, 4.2)
lesson.show(axes[0, 0], photo, "photograph")
found = np.array(model(image))[0].argmax(axis=-1)  # (176, 240), the number of the class of each pixel
largest = np.bincount(found.ravel()).argsort()[:-4:-1]  # the three classes with the largest area
ranks = (found[..., None] == largest).argmax(axis=-1) + 3 * ~np.isin(found, largest)
colours = ListedColormap([lesson.BLUE, lesson.ORANGE, lesson.GREEN, "lightgrey"])
lesson.show(axes[1, 0], ranks, "what it finds", cmap=colours, vmin=-0.5, vmax=3.5)
names = [lesson.class_names("camvid_fpn")[number] for number in largest]
figure.colorbar(axes[1, 0].images[0], ax=axes[1, 0], ticks=range(4)).ax.set_yticklabels([*names, "other"])
levels = {level: maps[f"fpn_p{level}"] for level in range(2, 6)}
for axis, (level, each) in zip((axes[0, 1], axes[1, 1], axes[0, 2]), levels.items(), strict=False):
    lesson.show(axis, np.abs(each).mean(axis=-1), f"P{level}: {each.shape[0]}×{each.shape[1]}", cmap="magma")
axes[1, 2].plot(rows, "o-", color=lesson.BLUE, markersize=4)
axes[1, 2].set(xlabel="through the U-Net", ylabel="rows", xticks=[], title=f"from {rows[0]} rows to {rows[-1]}")
axes[1, 2].title.set_fontsize(10)
lesson.save(figure, "16_pyramid")

# %%
times = {levels[level].shape[0] / levels[level + 1].shape[0] for level in (2, 3)}
first, last = rows[0], rows[-1]

assert times == {2}
assert difference < 1e-3
assert first == 572
assert last == 388
assert share == 50
