"""The model that learns boxes: it is trained by one loss of all its outputs together."""

import keras

PARTS = {"logits": "classes", "offsets": "boxes", "centerness": "centerness"}  # output -> part of the loss


@keras.saving.register_keras_serializable("kzoo")
class BoxLearner(keras.Model):
    """A functional model of a detector's raw outputs, whose loss takes all of them at once and tells its parts.

    `compile(loss=)` of a plain model with a dict of outputs gives each a loss of its own, and places are assigned to
    boxes once for classes, offsets and centerness.

    Example:
        >>> raw = raw_outputs(kzoo.build("fcos", num_classes=3, input_shape=(240, 320, 3)))
        >>> model = BoxLearner(raw.input, raw.output)
        >>> model.compile("adam", loss=FCOSLoss(places))
        >>> model.fit(images, {"boxes": boxes, "classes": classes})  # logs loss, classes_loss, boxes_loss, ...
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._means = {part: keras.metrics.Mean(f"{part}_loss") for name, part in PARTS.items() if name in self.output}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        parts = self.loss.parts(y, y_pred)
        for name, part in parts.items():
            self._means[name].update_state(part)
        return sum(parts.values()) + sum(self.losses)
