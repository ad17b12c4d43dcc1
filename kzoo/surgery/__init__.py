"""Rewrites of functional models that keep their outputs."""

from kzoo.surgery.fold_batch_norm import FoldPlan, fold_batch_norm, plan_folding

__all__ = ["FoldPlan", "fold_batch_norm", "plan_folding"]
