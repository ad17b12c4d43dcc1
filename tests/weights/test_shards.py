"""Safetensors in shards, and every way in which an index and its shards disagree."""

import json

import numpy as np
import pytest
from helpers import assert_weights_are, weights_of
from weights.torch_files import assert_layer_is, random_state, save, save_shards, tiny

import kzoo
from kzoo.errors import WeightsError

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def test_by_the_index_or_the_folder(tmp_path):
    state = random_state()
    index = save_shards(state, tmp_path)
    for source in (index, tmp_path, str(tmp_path)):
        model = tiny()
        report = kzoo.load_weights(model, source)
        assert (len(report.loaded), report.source) == (len(model.weights), str(source))
        assert_layer_is(model, "stem_conv", state, "conv1")
        assert_layer_is(model, "stage2_block1_shortcut_bn", state, "layer2.0.downsample.1")
    other = random_state() | {"fc.bias": np.full(10, 7, "float32")}
    save(other, tmp_path / "model.safetensors")  # a single file comes before shards
    model = tiny()
    kzoo.load_weights(model, tmp_path)
    np.testing.assert_array_equal(model.get_layer("head_dense").bias, 7)


def edit(change):
    def damage(folder):
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index["weight_map"])
        path.write_text(json.dumps(index))

    return damage


def write(text):
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text)


def put_also_in_second(folder):
    state = random_state()
    names = [*sorted(state)[1::2], "bn1.bias"]
    save({name: state[name] for name in names}, folder / SECOND)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / SECOND).unlink(), f"lists {SECOND}, which is not beside it; fetch all 2"),
        (put_also_in_second, f"{SECOND} and another shard both hold bn1.bias"),
        (edit(lambda index: index.pop("bn1.bias")), f"index.json and {FIRST} disagree about bn1.bias"),
        (edit(lambda index: index.update({"extra": SECOND})), f"and {SECOND} disagree about extra"),
        (edit(lambda index: index.update({"x": "../other.safetensors"})), "'../other.safetensors', which is no safe"),
        (edit(lambda index: index.update({"x": "/etc/a.safetensors"})), "'/etc/a.safetensors', which is no safe"),
        (edit(lambda index: index.update({"x": "a\\b.safetensors"})), "which is no safetensors file beside it"),
        (edit(lambda index: index.update({"x": "pytorch_model.bin"})), "which is no safetensors file beside it"),
        (edit(lambda index: index.update({"x": 3})), "its weight_map names no files"),
        (
            write('{"weight_map": {"a": "b.safetensors", "a": "c.safetensors"}}'),
            "'a' is there twice",
        ),
        (write('{"weight_map": {}}'), "its weight_map names no files"),
        (write('{"weight_map": ["a"]}'), "is no index of safetensors shards"),
        (write("[]"), "it has no weight_map"),
        (write('{"weight_'), "is no index of safetensors shards"),
        (write(""), "is no index of safetensors shards"),
        (lambda folder: (folder / FIRST).write_bytes(b""), f"{FIRST} is no readable safetensors file .*is empty"),
    ],
)
def test_index_and_shards_that_disagree(damage, message, tmp_path):
    index = save_shards(random_state(), tmp_path)
    damage(tmp_path)
    model = tiny()
    before = weights_of(model)
    with pytest.raises(WeightsError, match=message.replace("\\", "\\\\")):
        kzoo.load_weights(model, index)
    assert_weights_are(model, before)
