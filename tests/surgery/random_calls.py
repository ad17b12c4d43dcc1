"""Random models whose calls carry more than one tensor: keywords, masks, nested structures, several outputs."""

import random

import keras
import numpy as np
from helpers import feature_map
from keras import layers
from random_models import RandomModel

from kzoo.layers import MultiHeadSelfAttention


@keras.saving.register_keras_serializable("tests")
class Spread(layers.Layer):
    """Mean and deviation from it of every channel, as a dict."""

    def call(self, x):
        mean = keras.ops.mean(x, axis=-1, keepdims=True)
        return {"away": x - mean, "mean": mean}

    def compute_output_spec(self, x):
        mean = keras.KerasTensor((*x.shape[:-1], 1), x.dtype)
        return {"away": keras.KerasTensor(x.shape, x.dtype), "mean": mean}


class RandomCalls(RandomModel):
    """Draws a model from a seed; its inputs are a dict, and its outputs lists in a dict.

    Args:
        seed: the same gives the same model.

    Attributes:
        given: inputs for it.
    """

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.masks: dict[str, keras.KerasTensor] = {}
        self.others: list[keras.KerasTensor] = []
        super().__init__(None, images=self.one_of(False, False, False, True))
        self.given = {"image": feature_map(2, *self.inputs.shape[1:], seed=seed)}
        if self.rank == 1:
            self.given["image"][:, 3:] *= self.random.choice([0, 1])  # steps that Masking leaves out
        rng = np.random.default_rng(seed)
        for name, mask in self.masks.items():
            length = mask.shape[-1]
            self.given[name] = (rng.random((2, length, length)) < 0.4) | np.eye(length, dtype=bool)

    def make(self, outputs: list) -> keras.Model:
        main, *more = outputs
        outputs = {"main": [main], "more": {"blocks": more, "others": self.others}}
        return keras.Model({"image": self.inputs, **self.masks}, outputs)

    def one_of(self, *values):
        return self.random.choice(values)

    def blocks(self, x, depth: int):
        if self.rank == 1 and self.one_of(False, True):
            x = layers.Masking()(x)
        return super().blocks(x, depth)

    def block(self, x, depth: int):
        choices = [super().block, super().block, self.split, self.spread, self.by_keyword, self.structured]
        if self.rank < 3 and np.prod(x.shape[1:-1]) <= 80:
            choices += [self.attention, self.attention]
        if self.rank == 1:
            choices += [self.recurrent]
        chosen = self.one_of(*choices)
        return chosen(x, depth) if chosen == choices[0] else chosen(x)

    def attention(self, x):
        """Attention with a mask or without, called once or twice with other arguments, read by normalisations."""
        layer = MultiHeadSelfAttention(1 if x.shape[-1] % 2 else 2)
        with_weights = self.one_of(True, False)  # Keras takes no calls of one layer with as many outputs as they like

        def attend(x):
            options = {}
            if self.one_of(True, True, False):
                options["attention_mask"] = self.mask(int(np.prod(x.shape[1:-1])))
            if with_weights:
                y, weights = layer(x, return_attention_weights=True, **options)
                self.others.append(self.one_of(layers.ReLU(), self.norm, layers.Dense(2))(weights))
                return y
            return layer(x, **options)

        norm = self.norm_layer(x.shape)
        y = norm(attend(x))
        return norm(attend(y)) if self.one_of(True, False) else y

    def mask(self, length: int) -> keras.KerasTensor:
        same = [mask for mask in self.masks.values() if mask.shape[-1] == length]
        if same and self.one_of(True, False):
            return same[0]
        name = f"mask{len(self.masks) + 1}"
        self.masks[name] = keras.Input((length, length), dtype="bool", name=name)
        return self.masks[name]

    def split(self, x):
        """An operation of two outputs, of which one or both go on."""
        if x.shape[-1] % 2:
            return self.norm(x)
        first, second = keras.ops.split(x, 2, axis=-1)
        second = self.norm(second)
        return self.one_of(lambda: second, lambda: layers.Concatenate()([self.norm(first), second]))()

    def spread(self, x):
        """A layer that gives a dict."""
        given = Spread()(self.linear(x))
        y = self.norm(given["away"])
        return self.one_of(lambda: y, lambda: layers.Add()([y, self.norm(given["mean"])]))()

    def by_keyword(self, x):
        """A linear layer and a normalisation that are given their tensor by keyword, dropout its mode."""
        y = self.linear_layer(x.shape, None, like_input=True)(inputs=x)
        y = layers.Dropout(0.5)(y, training=False)
        return self.norm_layer(y.shape)(inputs=y, training=self.one_of(None, False))

    def structured(self, x):
        """A model inside with a dict or a list as input and output, in which normalisations fold or do not."""
        first, second = keras.Input(x.shape[1:], name="b"), keras.Input(x.shape[1:], name="a")
        y = self.norm(self.linear(first, x.shape[-1], like_input=True))
        z = self.norm(layers.Add()([y, second]))
        if self.one_of(True, False):
            inner = keras.Model({"b": first, "a": second}, {"z": z, "y": [y]})
            given = inner({"b": x, "a": layers.ReLU()(x)})
            y, z = given["y"][0], given["z"]
        else:
            y, z = keras.Model([first, second], [y, z])([x, layers.ReLU()(x)])
        return self.one_of(lambda: self.norm(y), lambda: self.norm(z), lambda: layers.Add()([self.norm(y), z]))()

    def recurrent(self, x):
        """A layer over a sequence with its states, given and read."""
        units = self.one_of(2, 4)
        state = layers.Dense(units)(x[:, 0])
        y, last = layers.GRU(units, return_sequences=True, return_state=True)(x, initial_state=state)
        self.others.append(layers.Dense(2)(self.norm_of_vector(last)))
        return self.norm(y)

    def norm_of_vector(self, x):
        return layers.BatchNormalization(epsilon=0.01)(x)
