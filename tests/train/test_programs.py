"""How often the steps of a run are compiled is counted and told; programs of accelerators are kept."""

import logging
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from kzoo.train.programs import Programs, keep_programs


@pytest.mark.parametrize("jit_compile", [False, True])
def test_each_shape_of_a_batch_is_a_program(jit_compile, caplog):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(image)))
    model.compile("sgd", "mse", jit_compile=jit_compile)
    programs = Programs(model)

    def fit(size: int) -> None:
        images = tf.data.Dataset.from_tensor_slices((np.ones((8, size, size, 3), "float32"), np.zeros((8, 2))))
        model.fit(images.batch(4, drop_remainder=True), epochs=2, verbose=0)

    for size, training in ((8, 1), (8, 1), (9, 2)):
        fit(size)
        programs.warn()
        assert (programs.training, programs.validation) == (training, 0)
    assert "the training step was compiled 2 times instead of 1: its batches differ" in caplog.text
    assert sum(record.name == "kzoo" for record in caplog.records) == 1
    for size in (8, 9):
        model.evaluate(np.ones((4, size, size, 3), "float32"), np.zeros((4, 2)), verbose=0)
    with caplog.at_level(logging.WARNING):
        programs.warn()
    assert 1 <= programs.validation <= 2
    assert "validation" not in caplog.text


def test_programs_of_an_accelerator_are_kept_where_keras_keeps_its_files(monkeypatch, tmp_path):
    jax = pytest.importorskip("jax")
    assert keep_programs() is None, "TensorFlow"
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert keep_programs() is None, "a processor"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    settings = {}
    update = SimpleNamespace(jax_compilation_cache_dir=None, update=lambda name, value: settings.update({name: value}))
    monkeypatch.setattr(jax, "config", update)
    assert keep_programs() == tmp_path / "programs"
    assert settings["jax_compilation_cache_dir"] == str(tmp_path / "programs")
    update.jax_compilation_cache_dir = "/their/own"
    settings.clear()
    assert str(keep_programs()) == "/their/own"
    assert not settings
