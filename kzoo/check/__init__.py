"""What every model of the zoo must do, as checks that a command runs: `kzoo check`.

narrow model: a small model of the same kind with random weights, built and saved once for all checks.
check: a function that takes a narrow model, returns a short note and raises an error with the reason if it fails.
outcome: what one check said of one model: passed, failed or skipped, with a note.
verdict: the outcomes of all checks of one model.
matrix: models by checks; kept in `matrix.json`, so that what passed is not checked again.
"""

from kzoo.check.checks import CHECKS, Skipped
from kzoo.check.narrow_model import NarrowModel

__all__ = ["CHECKS", "NarrowModel", "Skipped"]
