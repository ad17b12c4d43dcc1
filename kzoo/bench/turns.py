"""Timing by turns, so that the slow phases of a shared machine hit all alike, and medians and quartiles of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kzoo.errors import explain

REST_S = 0.05  # the threads of a matrix product spin for about 30 ms after it, and would slow down what comes next


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some numbers."""

    median: float
    lower: float
    upper: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, linear between neighbours.

    >>> spread([1.0, 2.0, 3.0, 4.0, 9.0])
    Spread(median=3.0, lower=2.0, upper=4.0)
    """
    lower, median, upper = (float(value) for value in np.quantile(values, (0.25, 0.5, 0.75)))
    return Spread(median, lower, upper)


@dataclass
class Times:
    """What was measured so far.

    Attributes:
        seconds: subject -> one time in seconds for each round; those that fail go.
        problems: subject that failed -> the reason.
    """

    seconds: dict[str, list[float]]
    problems: dict[str, str] = field(default_factory=dict)

    def ratio(self, over: str, under: str) -> list[float]:
        """The time of one subject over that of another, round by round."""
        return [a / b for a, b in zip(self.seconds[over], self.seconds[under], strict=True)]


def take_turns(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Times]:
    """Times every subject once in each round, and yields what there is after each round.

    Each turn is a rest, a call that nobody times, which brings the caches and threads to the subject, and the call
    that counts. A subject that raises is out, with its reason, and the others go on.

    Args:
        runs: subject -> the function that is timed.
        rounds: number of rounds at most.
        seconds: time in seconds after which no other round begins; one is always made.
        clock: function that gives seconds.
        sleep: function that rests so many seconds.
    """
    times = Times({name: [] for name in runs})
    started = clock()
    for index in range(rounds):
        if index and seconds is not None and clock() - started >= seconds:
            return
        for name in list(times.seconds):
            sleep(REST_S)
            try:
                runs[name]()
                start = clock()
                runs[name]()
                times.seconds[name].append(clock() - start)
            except Exception as error:  # of any library that is measured
                times.problems[name] = explain(error)
                del times.seconds[name]
        yield times
