"""The model that learns boxes: it is trained by one loss of all its outputs together."""

import keras


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

    def compile(self, *args, loss=None, **kwargs):
        super().compile(*args, loss=loss, **kwargs)
        self._of_parts = {name: keras.metrics.Mean(f"{name}_loss") for name in loss.PARTS}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        parts = self.loss.parts(y, y_pred)
        for name, part in parts.items():
            self._of_parts[name].update_state(part)
        return sum(parts.values()) + sum(self.losses)
