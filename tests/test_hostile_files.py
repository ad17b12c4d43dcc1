"""Forty damaged files of each format; `tests/fuzz.py` opens as many as one has time for."""

from pathlib import Path

import fuzz
import pytest

SAVED = Path(__file__).parents[1] / "saved_models" / "cifar10_resnet20" / "model_float32.tflite"
CASES = 40
SEED = 12


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    files = fuzz.Files(tmp_path_factory.mktemp("hostile"))
    files.make()
    if SAVED.exists():  # a conversion takes longer than all the rest
        files.put_litert(SAVED)
    return files


@pytest.mark.parametrize("kind", fuzz.FORMATS)
def test_a_damaged_file_is_opened_or_one_error(kind, files):
    if kind in (".tflite", "card") and not SAVED.exists():
        pytest.skip("a checkout alone has saved models")
    outcomes = [fuzz.run_case(kind, SEED, index, files) for index in range(CASES)]
    bad = [
        f"{index}: {what}" for index, (outcome, what) in enumerate(outcomes) if outcome not in ("refused", "accepted")
    ]
    assert bad == []
    assert {outcome for outcome, _ in outcomes} == {"refused", "accepted"}
