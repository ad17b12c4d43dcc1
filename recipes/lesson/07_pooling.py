# %% [markdown]
# # 7. Average pooling is a convolution, max pooling is none
#
# The mean over a window of 2×2 is a convolution of each channel with four weights of **0.25**:
#
# $$ y_{ijc} = \sum_{u,v \in \{0,1\}} \tfrac14\, x_{2i+u,\,2j+v,\,c} $$
#
# (LeCun et al. 1998, section II, call it sub-sampling, and train a factor with it.)
#
# A convolution $f$ is linear: $f(x + t d) = f(x) + t f(d)$ for every $t$. Along a line from one picture to another
# each place of its answer is a straight line. The maximum is not: it bends wherever another pixel becomes the largest.
# What is not linear is no convolution, whatever its weights.

# %%
import keras
import lesson
import numpy as np
from keras import layers

from kzoo import surgery

photo = lesson.shrunk(lesson.photograph(), 8)[None].astype("float32")  # (1, 53, 80, 3)
image = keras.Input(photo.shape[1:])
average = keras.Model(image, layers.AveragePooling2D(2)(image))
convolution = surgery.pooling_to_conv(average)
weights = np.concatenate([weight.ravel() for weight in convolution.get_weights()])
pooled, convolved = (np.array(model(photo)) for model in (average, convolution))
difference = np.abs(pooled - convolved).max()

# %% [markdown]
# kzoo makes depthwise convolutions of the average poolings in a model; the answers differ by **less than 1e-3** grey
# levels of 255. Then the line: from the photograph $x$ to its mirror image, and how far the answer at the middle lies
# from the mean of the answers at both ends. For the average it is **less than 1e-3**, for the maximum **more than
# 10**.

# %%
direction = photo[:, :, ::-1] - photo
shares = np.linspace(0, 1, 41)
line = np.concatenate([photo + t * direction for t in shares])  # (41, 53, 80, 3)
pools = {"average": layers.AveragePooling2D(2), "maximum": layers.MaxPooling2D(2)}
answers = {name: np.array(pool(line)) for name, pool in pools.items()}
bends = {name: np.abs(y[20] - (y[0] + y[-1]) / 2) for name, y in answers.items()}  # (26, 40, 3)
place = np.unravel_index(bends["maximum"].argmax(), bends["maximum"].shape)

figure, axes = lesson.panels(1, 3, 2.6)
lesson.show(axes[0, 0], photo[0], "photograph")
lesson.show(axes[0, 1], convolved[0], "pooled, by a convolution")
for (name, y), colour, style in zip(answers.items(), (lesson.BLUE, lesson.ORANGE), ("-", "--"), strict=True):
    axes[0, 2].plot(shares, y[:, *place], style, color=colour, label=name)
axes[0, 2].set(title="one place, from x to its mirror image", xlabel="t", ylabel="answer")
axes[0, 2].title.set_fontsize(10)
axes[0, 2].legend(fontsize=9)
lesson.save(figure, "07_pooling")

# %%
average_bend, maximum_bend = bends["average"].max(), bends["maximum"].max()

assert set(weights) == {0.25}
assert difference < 1e-3
assert average_bend < 1e-3
assert maximum_bend > 10
