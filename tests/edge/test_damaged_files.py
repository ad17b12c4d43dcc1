"""A damaged `.tflite` file is one error, whatever it does to the interpreter: it does it in another process."""

import hashlib
import json
import os
import runpy
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import kzoo
from kzoo import apart
from kzoo.apart import Apart, open_apart
from kzoo.edge import LiteRTModel
from kzoo.errors import InvalidValueError
from kzoo.predict.classifier import open_model

SAVED = Path(__file__).parents[2] / "saved_models" / "cifar10_resnet20" / "model_int8.tflite"
needs_saved = pytest.mark.skipif(not SAVED.exists(), reason="a checkout alone has saved models")
# place -> bytes there, and what the interpreter does: it ends, ends, takes 4 GB, ends
DAMAGE = {
    "abort": {15208: b"\0"},
    "segmentation fault": {7432: b"\xff" * 4},
    "memory": {15826: b"\x80"},
    "truncated": {20_000: None},
}


def damaged(path: Path, damage: dict[int, bytes | None]) -> Path:
    content = bytearray(SAVED.read_bytes())
    for place, value in damage.items():
        if value is None:
            del content[place:]
        else:
            content[place : place + len(value)] = value
    path.write_bytes(content)
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
    for _ in range(25):
        place = int(rng.integers(4, 20_000))
        path = damaged(tmp_path / "model.tflite", {place: rng.bytes(int(rng.integers(1, 9)))})
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
