"""How fast a model runs, all its forms by turns in one run, as ratios: `kzoo bench`."""

from kzoo.bench.plan import Plan
from kzoo.bench.report import BenchReport
from kzoo.bench.session import run

__all__ = ["BenchReport", "Plan", "run"]
