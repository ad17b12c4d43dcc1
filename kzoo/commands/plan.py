"""`kzoo plan`: a recipe on devices that may not be here. Each topology is compiled for in a process of its own."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich import filesize
from rich.console import Console
from rich.table import Table

from kzoo.commands.forms import Plan
from kzoo.commands.train_words import check_flags
from kzoo.console import make_table, show, show_json
from kzoo.errors import InvalidValueError, UnknownNameError, counted, did_you_mean
from kzoo.escape import terminal
from kzoo.planning.order import Order, carry_out, need_compilers
from kzoo.planning.topology import CPU, Topology, topology_of
from kzoo.planning.verdict import Verdict
from kzoo.recipe import is_recipe, list_recipes


def run(form: Plan, settings: Sequence[str]) -> None:
    """Plans, and ends with exit code 1 if the step does not fit somewhere.

    Args:
        form: options of the command.
        settings: words that change the recipe, as of `kzoo train`.
    """
    if not is_recipe(form.recipe):
        hint = did_you_mean(form.recipe, list_recipes()) or f"; there are {', '.join(list_recipes())}"
        raise UnknownNameError(f"unknown recipe {form.recipe!r}{hint}")
    check_flags(settings, f"kzoo plan {form.recipe}")
    for name in ("images", "classes", "price", "input_rate", "jobs"):
        value = getattr(form, name)
        if value is not None and not 0 < value < float("inf"):
            raise InvalidValueError(f"--{name.replace('_', '-')} {value} must be above zero")
    topologies = [topology_of(name) for name in form.topology]
    need_compilers(topologies)
    cache = str(form.cache or _cache())

    def verdict(topology: Topology) -> Verdict:
        order = Order(
            recipe=form.recipe,
            settings=list(settings),
            topology=topology.name,
            images=form.images,
            classes=form.classes,
            thorough=form.thorough,
            verify=form.verify,
            cache=cache,
        )
        return Verdict.of(carry_out(order, topology), form.input_rate, form.price)

    console = Console(stderr=True)
    names = ", ".join(topology.name for topology in topologies)
    with console.status(terminal(f"compiling {form.recipe} for {names}")), ThreadPoolExecutor(form.jobs) as pool:
        verdicts = list(pool.map(verdict, topologies))
    if form.json:
        show_json([each.to_json() for each in verdicts])
    else:
        show(*map(_table, verdicts), *(terminal(line) for each in verdicts for line in _remedies(each)))
    if not all(each.fits for each in verdicts):
        raise SystemExit(1)


def _cache() -> Path:
    """Where compiled programs' needs are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kzoo" / "plan"


def _table(plan: Verdict) -> Table:
    """What is needed of each device, and how long it takes."""
    answer, program = plan.answer, plan.program
    table = make_table(f"{answer['recipe']} on {answer['topology']}", "", header=False)
    share = program.batch_size // program.devices
    rows = [
        ("model", f"{answer['model']}, {answer['precision']}, {program.parameters:,} parameters"),
        ("batch", f"{program.batch_size:,} images, {share:,} on each of {counted(program.devices, 'device')}"),
        ("weights", filesize.decimal(program.parameter_bytes)),
        ("optimizer", filesize.decimal(program.optimizer_bytes)),
    ]
    if program.needed_bytes is None:
        rest = program.memory_bytes - program.parameter_bytes - program.optimizer_bytes
        rows.append(("activations and the rest", filesize.decimal(rest)))
    memory = answer["limits"]["memory"]
    rows += [
        ("memory in use", f"{filesize.decimal(program.memory_bytes)} of {filesize.decimal(int(memory))}"),
        ("headroom", filesize.decimal(int(plan.headroom_bytes)) if plan.fits else "none: it does not fit"),
        ("largest batch", f"{answer['largest_batch']:,}{'' if answer['verified'] else ' (by two compilations)'}"),
    ]
    if plan.time is not None:
        how = "about" if answer["estimated"] or answer["topology"] == CPU else "at least"
        parts = ", ".join(f"{part} {1e3 * seconds:.2f}" for part, seconds in plan.time.parts.items())
        rows += [
            (f"step, {how}", f"{1e3 * plan.time.step:.2f} ms, bound by {plan.time.bound} ({parts})"),
            ("images/s then", f"{plan.images_per_s:,.0f}, read by {counted(program.hosts, 'host')}"),
            (f"epoch, {how}", f"{plan.epoch_s:,.1f} s, {counted(plan.steps, 'step')}"),
            (f"run, {how}", f"{plan.hours:,.2f} h, {counted(answer['epochs'], 'epoch')}"),
        ]
        if plan.cost is not None:
            rows.append((f"cost, {how}", f"{plan.cost:,.2f} for {counted(answer['chips'], 'chip')}"))
    for row in rows:
        table.add_row(*map(terminal, row))
    if answer["estimated"]:
        table.caption = "memory and time by the program for a processor, as no such cards are here"
    return table


def _remedies(plan: Verdict) -> list[str]:
    return [f"{plan.answer['topology']} would take {remedy}" for remedy in plan.remedies]
