"""Measuring models one after the other, the subjects of each by turns."""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import keras

from kzoo.bench.plan import COUNTERPARTS, KERAS_APPLICATIONS, Plan
from kzoo.bench.subjects import (
    Subject,
    ceilings,
    keras_functions,
    litert_files,
    litert_products,
    random_images,
    with_threads,
)
from kzoo.bench.timings import BenchReport, ModelBench, make_timings, read_environment
from kzoo.bench.turns import Times, take_turns
from kzoo.errors import explain
from kzoo.graph import count_macs
from kzoo.models.inception import without_auxiliary
from kzoo.registry import DETECTION, lookup
from kzoo.surgery import fold_batch_norm, fold_preprocessing
from kzoo.zoo import build

IMAGES = 8  # random ones, to calibrate on

Watch = Callable[[BenchReport, str], None]


def run(plan: Plan, watch: Watch = lambda report, stage: None) -> BenchReport:
    """Measures every model of a plan, with random weights.

    Every subject of a model is timed once in each round; ratios are taken within a round, and their median and
    quartiles reported. What fails has its reason in the report, and the others go on.

    Args:
        plan: what is measured.
        watch: function that is often called with the report so far and what happens now; with "" when a model is
            finished.

    Raises:
        InvalidValueError, UnknownNameError: the plan asks for what cannot be measured; nothing was done.

    Example:
        >>> report = run(Plan(names=("resnet50",), precisions=("float32", "int8"), threads=(2,)))
        >>> report.models[0].timing("int8, 2 threads").ratios["speed / float32"].median
        3.41
    """
    plan.check()
    report = BenchReport(read_environment(), plan, [])
    for name in plan.models:
        bench = ModelBench(name, plan.image_shape(name))
        report.models.append(bench)

        def say(stage: str, name: str = name) -> None:
            watch(report, f"{name}: {stage}")

        try:
            with _quiet(), tempfile.TemporaryDirectory() as directory:
                bench.macs, subjects = _subjects(name, plan, Path(directory), say)
                runs = {subject.name: subject.run for subject in subjects if subject.run}
                bench.rows = make_timings(subjects, Times({}))
                for times in take_turns(runs, plan.rounds, plan.seconds):
                    bench.rounds += 1
                    bench.rows = make_timings(subjects, times)
                    say(f"round {bench.rounds} of {plan.rounds}")
        except Exception as error:  # one model does not lose the others
            bench.problem = explain(error)
        keras.backend.clear_session()
        watch(report, "")
    return report


def _subjects(name: str, plan: Plan, directory: Path, say: Callable[[str], None]) -> tuple[int, list[Subject]]:
    """The multiply-adds of a model, and all that is timed of it."""
    say("building")
    shape = plan.image_shape(name)
    images = random_images(IMAGES, shape)
    # logits: behind a softmax random weights give each of a thousand classes less than the step of an 8-bit integer;
    # detectors as they are used
    activation = "sigmoid" if lookup(name).task == DETECTION else None
    model = without_auxiliary(build(name, input_shape=shape, classifier_activation=activation))
    folded = fold_batch_norm(model)
    macs = count_macs(model)
    files_of = partial(litert_files, threads=plan.threads, images=images, directory=directory, say=say)
    rivals: dict[str, dict[str, str]] = {}
    theirs: list[Subject] = []
    for rival in plan.against:
        if rival != KERAS_APPLICATIONS:
            rivals[rival] = dict.fromkeys(plan.precisions, rival)
            theirs += with_threads(rival, Path(rival), plan.threads)
            continue
        peer = f"Keras' {COUNTERPARTS[name]}"
        rivals[peer] = {precision: f"{peer} {precision}" for precision in plan.precisions}
        say(f"building {peer}")
        other = getattr(keras.applications, COUNTERPARTS[name])
        other = other(weights=None, input_shape=shape, classifier_activation=None)
        theirs += files_of(fold_batch_norm(other), count_macs(other), plan.precisions, maker=peer)
    subjects = files_of(fold_preprocessing(folded), macs, plan.precisions, rivals=rivals)
    subjects += theirs + ceilings(plan.threads) + litert_products(plan.threads, directory)
    if plan.keras:
        subjects += keras_functions(model, folded, list(dict.fromkeys((1, plan.batch_size))), say)
    return macs, subjects


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps TensorFlow from warning that every function is compiled anew, which is what is wanted here."""
    log = logging.getLogger("tensorflow")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
