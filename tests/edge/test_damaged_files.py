"""A damaged `.tflite` file is one error, whatever it does to the interpreter: it does it in another process."""

import hashlib
import json
import os
import runpy
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import kzoo
from kzoo import apart
from kzoo.apart import Apart, open_apart
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.predict.classifier import open_model

SAVED = Path(__file__).parents[2] / "saved_models" / "cifar10_resnet20" / "model_int8.tflite"
needs_saved = pytest.mark.skipif(not SAVED.exists(), reason="a checkout alone has saved models")


def a_convolution(content: bytes) -> tuple[schema.Operator, schema.Tensor]:
    """The second convolution of a file, and the tensor that it writes."""
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    operators = map(graph.Operators, range(graph.OperatorsLength()))
    _, convolution, *_ = (operator for operator in operators if operator.InputsLength() == 3)
    return convolution, graph.Tensors(convolution.Outputs(0))


def start_of(table, field: int) -> int:
    """Where the numbers of a field begin, which has this number in the schema."""
    return table._tab.Vector(table._tab.Offset(4 + 2 * field))


def put(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def without_scale(content: bytes) -> bytes:
    graph = schema.Model.GetRootAs(content).Subgraphs(0)
    first = graph.Tensors(graph.Operators(0).Outputs(0))
    return put(content, start_of(first.Quantization(), 2) - 4, b"\0")


def without_kernel(content: bytes) -> bytes:
    return put(content, start_of(a_convolution(content)[0], 1) + 4, b"\xff" * 4)


def enlarged(content: bytes) -> bytes:
    return put(content, start_of(a_convolution(content)[1], 0) + 4 + 2, b"\x80")


DAMAGE = {
    "abort": without_scale,  # of the process
    "no kernel": without_kernel,
    "memory": enlarged,  # to 8,388,640 columns
    "truncated": lambda content: content[:20_000],
}


def damaged(path: Path, damage: Callable[[bytes], bytes]) -> Path:
    path.write_bytes(damage(SAVED.read_bytes()))
    return path


@needs_saved
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_one_error(damage, tmp_path):
    path = damaged(tmp_path / "model.tflite", DAMAGE[damage])
    for opened in (path, path.read_bytes()):
        with pytest.raises(InvalidValueError, match="no LiteRT file that this interpreter can run") as caught:
            LiteRTModel(opened)
        assert len(str(caught.value).splitlines()) == 1


@needs_saved
def test_a_file_of_no_images_is_refused(tmp_path):
    shape = np.array([1, 32, 32, 3], "int32").tobytes()
    none = shape.replace(b"\1", b"\0")
    assert shape in SAVED.read_bytes()
    path = tmp_path / "model.tflite"
    path.write_bytes(SAVED.read_bytes().replace(shape, none))
    with pytest.raises(InvalidValueError, match=r"one of them is of no numbers|this interpreter can run"):
        LiteRTModel(path)


@needs_saved
def test_a_card_that_disagrees_is_told_first(tmp_path):
    path = damaged(tmp_path / "model.tflite", DAMAGE["abort"])
    card = {"kzoo_card": 1, "sha256": hashlib.sha256(SAVED.read_bytes()).hexdigest()}
    Path(f"{path}.json").write_text(json.dumps(card))
    with pytest.raises(InvalidValueError, match="is the card of another file"):
        open_model(str(path))


@needs_saved
def test_any_damage_leaves_this_process_alive(tmp_path):
    rng = np.random.default_rng(12)
    refused = 0
    graph = start_of(a_convolution(SAVED.read_bytes())[0], 1)
    for _ in range(25):
        place = graph + int(rng.integers(-24_000, 12_000))
        noise = rng.bytes(int(rng.integers(1, 9)))
        path = damaged(tmp_path / "model.tflite", partial(put, place=place, new=noise))
        try:
            LiteRTModel(path).predict(np.zeros((1, 32, 32, 3)))
        except InvalidValueError:
            refused += 1
    assert refused >= 5


@needs_saved
def test_a_file_is_opened_apart_once(monkeypatch):
    asked = []
    monkeypatch.setattr(apart, "_OPENED", set())
    monkeypatch.setattr(apart, "_OPENER", type("Opener", (), {"ask": lambda self, *args: asked.append(args) or {}})())
    for _ in range(3):
        LiteRTModel(SAVED)
    assert len(asked) == 1


def test_a_process_that_was_killed_is_started_again(monkeypatch):
    opener = Apart(Path(apart.__file__).with_name("opener.py"))
    monkeypatch.setattr(apart, "_OPENER", opener)
    for _ in range(2):
        with pytest.raises(InvalidValueError, match=r".+"):
            open_apart("litert", b"nothing", threads=1)
        os.kill(opener._process.pid, signal.SIGKILL)
        opener._process.wait()
    opener.stop()


def test_a_large_file_in_reference_kernels_has_the_time_that_it_needs():
    """As int16x8 and int4 files of this library run in them."""
    seconds = runpy.run_path(str(Path(apart.__file__).with_name("opener.py")))["SECONDS"]["litert"]
    assert seconds > 3 * kzoo.describe("unet").macs / 1.5e9  # a second, see opener.py; and of a slower machine


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import os; os.abort()", "crashes or takes too much memory .SIGABRT"),
        ("bytearray(2**32)", "MemoryError"),
        ("\nwhile True: pass", "takes too long .SIGXCPU"),
    ],
)
def test_limits_of_a_file_that_is_opened(script, message, monkeypatch, tmp_path):
    """What the fork may take, with code in place of a file that would do it."""
    opener = Path(apart.__file__).with_name("opener.py").read_text()
    bad = f"def bad(content):\n    try: exec({script!r})\n    except Exception as error: return repr(error)\n"
    (tmp_path / "opener.py").write_text(f"{opener}\n{bad}\n_OPEN['hdf5'] = bad\nSECONDS['hdf5'] = 1\n")
    monkeypatch.setattr(apart, "_OPENER", Apart(tmp_path / "opener.py"))
    start = time.perf_counter()
    with pytest.raises(InvalidValueError, match=message):
        open_apart("hdf5", str(tmp_path).encode())
    assert time.perf_counter() - start < 60
    apart._OPENER.stop()
    shutil.rmtree(tmp_path)
