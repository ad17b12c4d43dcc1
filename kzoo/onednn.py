"""oneDNN's kernels for TensorFlow on the processors that gain by them.

TensorFlow uses them by itself on newer processors alone, and asks the environment once, when it is loaded. Importing
this module sets the variable, so that it must come before anything that imports Keras; `kzoo` does so first of all.

Measured on two AVX2 cores: recipes/studies/training_speed.py.
"""

import logging
import os
import sys

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
# Linux' names of the processor features for which TensorFlow turns oneDNN on by itself
BY_ITSELF = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}

_log = logging.getLogger("kzoo")


def processor_features() -> set[str]:
    """What the processor can do, in Linux' names; nothing where Linux does not run or says nothing."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            flags = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return set()
    return set(flags.partition(":")[2].split())


def gains(features: set[str]) -> bool:
    """Whether TensorFlow is faster with oneDNN on a processor with these features, and has to be told so."""
    return "avx2" in features and not features & BY_ITSELF


def turn_on() -> None:
    """Sets the variable where the processor gains by it, unless the user has decided or TensorFlow is loaded."""
    if VARIABLE in os.environ or not gains(processor_features()):
        return
    if "tensorflow" in sys.modules:
        _log.info(
            "TensorFlow was loaded without oneDNN, which is faster here; import kzoo first, or set %s=1", VARIABLE
        )
        return
    os.environ[VARIABLE] = "1"
    _log.info("oneDNN is on (%s=1), which is faster on this processor; set it to 0 to leave it off", VARIABLE)


turn_on()
