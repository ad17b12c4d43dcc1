"""An import that waits for Keras: layers are known to Keras as soon as both are there, and `import kzoo` is quick."""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from typing import Any

from kzoo.needs import need_tensorflow


def import_after_keras(module: str) -> None:
    """Imports a module when Keras has been imported, or now if it has been."""
    if "keras" in sys.modules:
        importlib.import_module(module)
    else:
        sys.meta_path.insert(0, _Waiting(module))


class _Waiting(importlib.abc.MetaPathFinder):
    """Finds Keras as others do, and imports a module once Keras has run."""

    def __init__(self, module: str):
        self._module = module

    def find_spec(self, name, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader  # of this module alone, so that its method can be another
            run = loader.exec_module

            def exec_module(module) -> None:
                try:
                    run(module)
                except ModuleNotFoundError as error:
                    sys.meta_path.insert(0, self)  # it may be tried again
                    if error.name == "tensorflow":
                        need_tensorflow("Keras", instead=", or set KERAS_BACKEND=jax")
                    raise
                importlib.import_module(self._module)

            loader.exec_module = exec_module
        return spec
