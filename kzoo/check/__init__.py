"""What every model of the zoo must do, as checks that a command runs: `kzoo check`."""

from kzoo.check.checks import CHECKS, Skipped
from kzoo.check.subject import Subject

__all__ = ["CHECKS", "Skipped", "Subject"]
