"""Pictures that are decoded in other processes are those that this process decodes, and so are its errors."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from images.pictures import picture
from PIL import Image

from kzoo.data import workers
from kzoo.data.datasets import load_dataset
from kzoo.data.engine import ArrayBatches
from kzoo.errors import DatasetError


@pytest.fixture
def split(tmp_path, monkeypatch):
    """40 pictures of two classes, and two processes."""
    for number in range(40):
        path = tmp_path / f"{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture(path)).save(path)
    monkeypatch.setattr(workers, "worker_count", lambda: 2)
    return load_dataset(str(tmp_path), image_size=(7, 9), divided=False).train


def test_processes_give_the_examples_that_this_one_does_and_the_error_of_a_broken_file(split, tmp_path):
    numbers = np.random.default_rng(0).integers(0, 40, 61)
    for _ in range(2):
        found, expected = workers.gather(split, numbers), split.gather(numbers)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    (tmp_path / split.files[7].path).write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DatasetError, match=rf"{split.files[7].path}.*repair or remove it"):
        workers.gather(split, np.arange(20))
    assert workers.gather(split, np.arange(6))["image"].shape == (6, 7, 9, 3)


def test_files_of_batches_are_decoded_apart_and_arrays_are_not(split, monkeypatch):
    asked = []
    monkeypatch.setattr(workers, "gather", lambda split, numbers: asked.append(len(numbers)) or split.gather(numbers))
    for one, expected in ((split, [16, 16, 8]), (split.in_memory, [])):
        asked.clear()
        batches = ArrayBatches(one, 16, range(3), 3, lambda epoch: np.arange(40), lambda number, examples: examples)
        sizes = [len(batches[index]["label"]) for index in range(3)]
        assert (sizes, sorted(asked, reverse=True)) == ([16, 16, 8], expected)


def test_a_process_that_is_killed_is_told_and_others_take_its_place(split, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_decode", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(DatasetError, match="a process that decodes images ended before it was done"):
            workers.gather(split, np.arange(40))
    np.testing.assert_array_equal(workers.gather(split, np.arange(4))["label"], split.gather(np.arange(4))["label"])


def test_each_core_but_one_decodes_from_four_on(monkeypatch):
    for cores, processes in ((1, 0), (2, 0), (3, 0), (4, 3), (16, 15)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert workers.worker_count() == processes


def test_the_processes_load_neither_keras_nor_tensorflow():
    code = "import sys, kzoo.data.workers; print(*{'keras', 'tensorflow', 'jax'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
