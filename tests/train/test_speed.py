"""The speed that a run tells, and how many steps one program takes."""

import json
from types import SimpleNamespace

import keras
import pytest

from kzoo.graph import count_macs
from kzoo.train import speed
from kzoo.train.steps import steps_per_call


def meter(tmp_path, monkeypatch, model, seconds, waited):
    """What a meter tells of epochs that took these seconds, in which images were waited for."""
    now, batches = [100.0], SimpleNamespace(waited=7.0)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(speed, "_device", lambda: ("NVIDIA H100 80GB HBM3", 5 * 10**9))
    told = speed.SpeedMeter(batches, 32, tmp_path, SimpleNamespace(training=1), devices=8)
    told.set_params({"steps": 50})
    told.set_model(model)
    for epoch, (each, wait) in enumerate(zip(seconds, waited, strict=True)):
        told.on_epoch_begin(epoch)
        now[0] += each
        batches.waited += wait
        told.on_test_begin()
        now[0] += 1000  # of validation
        told.on_test_begin()  # of another evaluation
    return json.loads((tmp_path / "speed.json").read_text())


def test_the_second_epoch_counts_without_validation(tmp_path, monkeypatch, capsys):
    image = keras.Input((16, 16, 3))
    model = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same")(image))
    found = meter(tmp_path, monkeypatch, model, (60, 4, 9), (3, 1, 2))
    rate = 50 * 32 / 4
    assert count_macs(model) == 16 * 16 * 27 * 4
    assert found == {
        "device": "NVIDIA H100 80GB HBM3",
        "devices": 8,
        "images_per_second": rate,
        "step_ms": 80.0,
        "tflops": pytest.approx(3 * 2 * 16 * 16 * 27 * 4 * rate / 1e12),
        "peak_share": pytest.approx(3 * 2 * 16 * 16 * 27 * 4 * rate / (8 * 989.4e12)),
        "input_share": 0.25,
        "memory_bytes": 5 * 10**9,
        "training_programs": 1,
    }
    told = capsys.readouterr().out
    assert told.startswith("400 images/s; 80.0 ms a step; ")
    assert "waiting for images 25.0% of the time; 5.00 GB" in told


def test_operations_of_a_model_for_any_size_are_not_made_up(tmp_path, monkeypatch):
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(4, 3)(image))
    found = meter(tmp_path, monkeypatch, model, (2, 2), (0, 0))
    assert (found["tflops"], found["peak_share"], found["images_per_second"]) == (None, None, 800)


def test_a_program_takes_a_divisor_of_the_steps_whose_images_are_few_bytes(monkeypatch):
    jax = pytest.importorskip("jax")
    assert steps_per_call(64, 1) == 1, "TensorFlow"
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert steps_per_call(64, 1) == 1, "a processor"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [steps_per_call(steps, 1) for steps in (64, 42, 37, 1)] == [32, 21, 1, 1]
    assert [steps_per_call(64, 2**28 // images) for images in (1, 5, 16)] == [1, 4, 16]
    assert steps_per_call(64, 2**40) == 1
