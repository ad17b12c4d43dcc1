"""oneDNN is asked for before TensorFlow loads, where the processor gains by it and the user has not decided."""

import subprocess
import sys

import pytest

from kzoo import onednn

# Imports kzoo as often as the arguments say, on a processor and with a variable of their choice, and prints what Keras
# would find in the environment, and what was logged. Keras itself is kept out, which saves its time.
CHILD = """
import builtins, io, logging, os, sys, types

os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)
real_open = open

class NoKeras:
    def find_spec(self, name, path=None, target=None):
        if name == "keras":
            print("keras", os.environ.get("TF_ENABLE_ONEDNN_OPTS"))
            raise ImportError(name)

sys.meta_path.insert(0, NoKeras())
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")

def ask(flags, variable=None, loaded=False):
    text = f"processor : 0\\nflags : {flags}\\n"
    builtins.open = lambda path, *args, **kwargs: (
        io.StringIO(text) if path == "/proc/cpuinfo" else real_open(path, *args, **kwargs)
    )
    if variable is not None:
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = variable
    if loaded:
        sys.modules["tensorflow"] = types.ModuleType("tensorflow")
    try:
        import kzoo
        import kzoo.layers
    except ImportError:
        pass
    for name in [name for name in sys.modules if name.split(".")[0] in ("kzoo", "tensorflow")]:
        del sys.modules[name]
    os.environ.pop("TF_ENABLE_ONEDNN_OPTS", None)
    print("--")

ask("fpu avx avx2 fma")
ask("fpu avx avx2 fma", "0")
ask("fpu avx avx2 fma", loaded=True)
ask("fpu avx avx2 fma", "1", loaded=True)
ask("fpu avx avx2 avx512f avx512_vnni")
ask("fpu avx")
assert "numpy" not in sys.modules, "import kzoo asks for oneDNN first of all"
"""


@pytest.fixture(scope="module")
def answers():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = ("gains", "user says 0", "loaded before", "loaded with it", "by itself", "too old")
    return dict(zip(names, (part.strip() for part in done.stdout.split("--\n")), strict=False))


def test_the_variable_is_set_before_keras_is_imported_and_the_log_says_so(answers):
    log, keras = answers["gains"].splitlines()
    assert log.startswith("kzoo INFO oneDNN is on (TF_ENABLE_ONEDNN_OPTS=1)")
    assert keras == "keras 1"


@pytest.mark.parametrize(("case", "found"), [("user says 0", "0"), ("loaded with it", "1")])
def test_the_user_decides(answers, case, found):
    assert answers[case] == f"keras {found}"


def test_one_line_says_how_to_have_it_where_tensorflow_is_loaded(answers):
    log, keras = answers["loaded before"].splitlines()
    assert log.startswith("kzoo INFO TensorFlow was loaded without oneDNN")
    assert "import kzoo first, or set TF_ENABLE_ONEDNN_OPTS=1" in log
    assert keras == "keras None"


@pytest.mark.parametrize("case", ["by itself", "too old"])
def test_other_processors_are_left_to_tensorflow(answers, case):
    assert answers[case] == "keras None"


def test_systems_without_linux_processor_files_are_left_alone(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert onednn.processor_features() == set()
    assert not onednn.gains(set())
