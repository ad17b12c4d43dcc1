"""Timing by turns under a clock of our own: what is timed, in which order, and what becomes of it."""

import pytest

from kzoo.bench.turns import REST_S, Spread, Times, spread, take_turns
from kzoo.errors import InvalidValueError, explain


class Clock:
    """Time that passes only when a subject or a rest lets it."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.log.append(("rest", seconds))
        self.now += 0.5  # so that every sum is exact

    def subject(self, name, *seconds):
        """Takes these times, call after call, the last one for good."""
        left = list(seconds)

        def run():
            self.log.append(name)
            taken = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(taken, Exception):
                raise taken
            self.now += taken

        return run

    def turns(self, runs, rounds, seconds=None):
        return list(take_turns(runs, rounds, seconds, clock=self, sleep=self.sleep))


def test_spread_is_median_and_quartiles():
    assert spread([9.0, 1.0, 4.0, 3.0, 2.0]) == Spread(median=3.0, lower=2.0, upper=4.0)
    assert spread([1.0, 2.0]) == Spread(median=1.5, lower=1.25, upper=1.75)
    assert spread([7.0]) == Spread(7.0, 7.0, 7.0)


@pytest.mark.quick
def test_every_subject_has_its_turn_in_each_round_and_its_second_call_counts():
    clock = Clock()
    runs = {"a": clock.subject("a", 100.0, 1.0, 100.0, 2.0), "b": clock.subject("b", 50.0, 4.0, 50.0, 8.0)}
    times = clock.turns(runs, rounds=2)[-1]
    assert times.seconds == {"a": [1.0, 2.0], "b": [4.0, 8.0]}
    assert [each for each in clock.log if isinstance(each, str)] == ["a", "a", "b", "b", "a", "a", "b", "b"]
    assert clock.log[::3] == [("rest", REST_S)] * 4


def test_times_are_given_after_each_round():
    clock = Clock()
    seen = []
    for times in take_turns({"a": clock.subject("a", 1.0)}, 3, clock=clock, sleep=clock.sleep):
        seen.append(len(times.seconds["a"]))
    assert seen == [1, 2, 3]


def test_ratios_are_taken_within_a_round():
    """Where the machine is slow for a while, both are; the ratio of the medians would be 3, or 1/3."""
    times = Times({"a": [1.0, 10.0, 30.0], "b": [2.0, 20.0, 60.0]})
    assert times.ratio("b", "a") == [2.0, 2.0, 2.0]
    assert times.ratio("a", "b") == [0.5, 0.5, 0.5]
    slow = Times({"a": [1.0, 1.0, 9.0], "b": [3.0, 3.0, 3.0]})
    assert spread(slow.ratio("a", "b")).median == pytest.approx(1 / 3)


def test_no_round_begins_after_the_time_is_up():
    def rounds(seconds):
        clock = Clock()  # a round takes a rest and two calls of 1 s, 2.5 s
        return len(clock.turns({"a": clock.subject("a", 1.0)}, rounds=9, seconds=seconds))

    assert rounds(0.001) == 1
    assert rounds(2.5) == 1
    assert rounds(2.6) == 2
    assert rounds(7.4) == 3
    assert rounds(None) == 9


def test_a_subject_that_fails_is_out_and_the_others_go_on():
    clock = Clock()
    broken = clock.subject("b", 1.0, 1.0, ValueError("no\n memory"))
    times = clock.turns({"a": clock.subject("a", 2.0), "b": broken, "c": clock.subject("c", 3.0)}, rounds=3)[-1]
    assert times.seconds == {"a": [2.0] * 3, "c": [3.0] * 3}
    assert times.problems == {"b": "ValueError: no memory"}
    assert clock.log.count("b") == 3


def test_an_interrupt_is_no_failure_of_a_subject():
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(take_turns({"a": stop}, 3))


def test_reasons_are_one_line():
    assert explain(InvalidValueError("threads=0\nis not accepted")) == "threads=0 is not accepted"
    assert explain(RuntimeError("x " * 400)).endswith("…")
    assert len(explain(RuntimeError("x " * 400))) == 201
