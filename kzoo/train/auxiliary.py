"""Auxiliary heads of a network, which learn with it and are gone when it is finished."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("kzoo")
class AuxiliaryHeads(keras.Model):
    """A functional model with a dict of outputs, trained on all of them and judged by `"head"` alone.

    The loss of training is that of `"head"` plus `auxiliary_weight` times the loss of each other output, for the same
    targets; that of validation, and the metrics, are of `"head"`, as the finished model has nothing else.

    Args:
        auxiliary_weight: weight of the loss of each other output (arXiv:1409.4842, section 5).

    Example:
        >>> network = kzoo.build("inception_v3", auxiliary=True, classifier_activation=None)
        >>> model = AuxiliaryHeads(network.input, network.output, auxiliary_weight=0.4)
        >>> model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    """

    def __init__(self, *args, auxiliary_weight: float, **kwargs):
        super().__init__(*args, **kwargs)
        self.auxiliary_weight = auxiliary_weight

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred["head"], sample_weight, training)
        if training:
            others = (outputs for name, outputs in y_pred.items() if name != "head")
            loss += self.auxiliary_weight * sum(self.loss(y, outputs, sample_weight) for outputs in others)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, y, y_pred["head"], sample_weight)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"auxiliary_weight": self.auxiliary_weight}
