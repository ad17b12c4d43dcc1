"""What a model sees: maps that tell which places of a picture speak for an answer, and what happens inside.

map: (images, height, width) of signed numbers, not normalised; what is positive speaks for the target.
target: what is explained, a number for each image: a class, one class against another, a region of a mask, a box.
score: the target's number, of logits where the model tells them.
explained layer: the feature map that a map with gradients is made of.
judgement: numbers that tell how well a map says what the answer depends on, each with an interval.
"""

from kzoo.explain.attention import attention_maps
from kzoo.explain.baselines import gaussian_maps, random_maps
from kzoo.explain.boxes import Box
from kzoo.explain.cams import eigen_cam, grad_cam, grad_cam_plus_plus, hires_cam, layer_cam
from kzoo.explain.drawing import draw_map
from kzoo.explain.grids import draw_feature_maps, draw_kernels
from kzoo.explain.inside import LayerStatistics, activations, layer_statistics
from kzoo.explain.judging import Estimate, Judgement, judge_maps, mean_with_interval
from kzoo.explain.layers import explained_layer
from kzoo.explain.perturbation import occlusion, rise, score_cam
from kzoo.explain.randomisation import Randomisation, randomisation_check
from kzoo.explain.rollout import attention_rollout
from kzoo.explain.saliency import integrated_gradients, smooth_grad
from kzoo.explain.targets import Difference, Region

__all__ = [
    "Box",
    "Difference",
    "Estimate",
    "Judgement",
    "LayerStatistics",
    "Randomisation",
    "Region",
    "activations",
    "attention_maps",
    "attention_rollout",
    "draw_feature_maps",
    "draw_kernels",
    "draw_map",
    "eigen_cam",
    "explained_layer",
    "gaussian_maps",
    "grad_cam",
    "grad_cam_plus_plus",
    "hires_cam",
    "integrated_gradients",
    "judge_maps",
    "layer_cam",
    "layer_statistics",
    "mean_with_interval",
    "occlusion",
    "random_maps",
    "randomisation_check",
    "rise",
    "score_cam",
    "smooth_grad",
]
