"""Rewrites of functional models that keep their outputs, or bring them close to those of an integer file.

fold: to put a batch normalisation, or the normalisation of pixels, into the weights of a layer next to it.
plan: what a rewrite would do, and why the rest stays, without doing it.
level: one graph of a model, without those of the models inside it.
affine: a scale and an offset for each channel, which is what can be folded.
equalise: to scale channels of one layer against those of the next, so that kernels round with a smaller error.
correct: to take out of biases the mean error that rounded kernels make.
fake quantization: rounding inside the training step, as the integer file will round.
"""

from kzoo.surgery.bias_correction import correct_bias
from kzoo.surgery.depthwise import norm_to_depthwise, plan_norms, plan_pooling, pooling_to_conv
from kzoo.surgery.equalize import EqualizationPlan, equalize_ranges, plan_equalization
from kzoo.surgery.fake_quantization import insert_fake_quantization, remove_fake_quantization
from kzoo.surgery.fold_batch_norm import fold_batch_norm, plan_folding
from kzoo.surgery.fold_preprocessing import fold_preprocessing, plan_preprocessing
from kzoo.surgery.heatmap import with_heatmap
from kzoo.surgery.plan import FoldPlan

__all__ = [
    "EqualizationPlan",
    "FoldPlan",
    "correct_bias",
    "equalize_ranges",
    "fold_batch_norm",
    "fold_preprocessing",
    "insert_fake_quantization",
    "norm_to_depthwise",
    "plan_equalization",
    "plan_folding",
    "plan_norms",
    "plan_pooling",
    "plan_preprocessing",
    "pooling_to_conv",
    "remove_fake_quantization",
    "with_heatmap",
]
