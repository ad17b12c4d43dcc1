# %% [markdown]
# # 17. Grad-CAM: which places speak for the answer
#
# Grad-CAM weighs the channels $A^k$ of a map by the mean gradient of the score $y^c$ of a class
# ([arXiv:1610.02391](https://arxiv.org/abs/1610.02391), equations 1 and 2):
#
# $$ \alpha_k^c = \frac{1}{HW} \sum_{i,j} \frac{\partial y^c}{\partial A_{ij}^k}, \qquad
#    L^c = \sum_k \alpha_k^c A^k $$
#
# (The paper then cuts off what is negative; kzoo keeps it, for it speaks against the class.) ResNet-20 ends in an
# average and a dense layer with weights $w_k^c$, so that the gradient is $w_k^c / HW$: Grad-CAM is the class
# activation map of Zhou et al. ([arXiv:1512.04150](https://arxiv.org/abs/1512.04150), equation 2), to **less than
# 1e-4**.

# %%
import keras
import lesson
import numpy as np

import kzoo

model = lesson.trained("cifar10_resnet20")
pictures = lesson.small_pictures(40)
heat = kzoo.grad_cam(model, pictures)  # of the most probable class of each: (40, 8, 8)
features = kzoo.activations(model, pictures, "p2")["p2"]  # (40, 8, 8, 64)
classes = np.array(model(pictures)).argmax(axis=-1)
weights = model.get_layer("head_dense").get_weights()[0][:, classes]  # (64, 40)
by_hand = np.einsum("nijk,kn->nij", features, weights) / (8 * 8)
difference = np.abs(by_hand - heat).max()

# %% [markdown]
# Is the map true? Paint the quarter of the picture where it is largest grey, and the logit of the class falls **more
# than 2** times as much as with the quarter where it is smallest, on average over 40 pictures.

# %%
before_softmax = keras.Model(model.input, model.get_layer("head_dense").output)


def logits(images: np.ndarray) -> np.ndarray:
    return np.array(before_softmax(images))[np.arange(len(images)), classes]


def without(quarter: np.ndarray) -> np.ndarray:
    """The pictures, grey where `quarter`, (40, 8, 8) booleans, says so."""
    hidden = quarter.repeat(4, axis=1).repeat(4, axis=2)[..., None]
    return np.where(hidden, pictures.mean(axis=(1, 2), keepdims=True), pictures)


order = heat.reshape(40, -1).argsort(axis=-1).argsort(axis=-1).reshape(heat.shape)  # 0 for the smallest, 63
before = logits(pictures)
quarters = {"largest": order >= 48, "smallest": order < 16}
falls = {name: float((before - logits(without(quarter))).mean()) for name, quarter in quarters.items()}
times = falls["largest"] / falls["smallest"]

names = lesson.class_names("cifar10_resnet20")
print(falls)

figure, axes = lesson.panels(2, 5, 3.8)
end = np.abs(heat[:5]).max()
for number, (above, below) in enumerate(axes.T):
    lesson.show(above, pictures[number], f"picture {number + 1}")
    bar = "for (+), against (−)" if number == 4 else ""
    lesson.show(below, heat[number], f"for {names[classes[number]]}", bar, cmap="RdBu_r", vmin=-end, vmax=end)
lesson.save(figure, "17_grad_cam")

# %%
assert difference < 1e-4
assert times > 2
