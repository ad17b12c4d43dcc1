"""What `kzoo plan` prints, and how it ends; what compiles is in tests/planning."""

import dataclasses
import json

import pytest

from kzoo.cli import main
from kzoo.commands import plan
from kzoo.planning.roofline import Limits, Program

PROGRAM = Program(
    batch_size=256,
    devices=8,
    hosts=2,
    flops=800e9,
    moved_bytes=16e9,
    reduced_bytes=100_000_000,
    reductions=3,
    argument_bytes=300_000_000,
    temporary_bytes=1_600_000_000,
    code_bytes=20_000_000,
    needed_bytes=None,
    compile_s=30.0,
    parameters=1_000_000,
    parameter_bytes=4_000_000,
    optimizer_bytes=8_000_000,
)


@pytest.fixture
def orders(monkeypatch):
    """The orders that processes are given, and what they answer, instead of processes."""
    given, changes = [], {}

    def carry_out(order, topology):
        given.append(order)
        return {
            "recipe": "quickstart",
            "model": "cifar_resnet20_cbam",
            "precision": "float32",
            "training_images": 1_000_000,
            "epochs": 90,
            "topology": topology.name,
            "chips": topology.chips,
            "estimated": False,
            "program": dataclasses.asdict(PROGRAM) | changes,
            "limits": dataclasses.asdict(Limits(200e12, 800e9, 16e9, 200e9)),
            "largest_batch": 96,
            "verified": False,
        }

    monkeypatch.setattr(plan, "carry_out", carry_out)
    monkeypatch.setattr(plan, "need_compilers", lambda topologies: None)
    return given, changes


def test_a_plan_says_what_is_needed_how_long_it_takes_and_what_it_costs(orders, capsys):
    given, _ = orders
    main(["plan", "quickstart", "--topology", "v5e:2x4", "v5e:4x8", "--price", "1.2", "--batch-size", "256"])
    first, second = [dict(row.split("\t") for row in part.splitlines()[1:]) for part in _parts(capsys)]
    assert first["batch"] == "256 images, 32 on each of 8 devices"
    assert (first["weights"], first["optimizer"], first["activations and the rest"]) == ("4.0 MB", "8.0 MB", "1.9 GB")
    assert (first["memory in use"], first["headroom"]) == ("1.9 GB of 16.0 GB", "14.1 GB")
    assert first["step, at least"].startswith("20.00 ms, bound by memory (matrix units 4.00, memory 20.00, network 0.")
    assert first["images/s then"] == "12,800, read by 2 hosts"
    assert (first["epoch, at least"], first["run, at least"]) == ("78.1 s, 3,906 steps", "1.95 h, 90 epochs")
    assert (first["cost, at least"], second["cost, at least"]) == ("18.75 for 8 chips", "75.00 for 32 chips")
    assert [(order.topology, order.settings) for order in given] == [
        ("v5e:2x4", ["--batch-size", "256"]),
        ("v5e:4x8", ["--batch-size", "256"]),
    ]


def test_one_device_is_no_devices(orders, capsys):
    orders[1].update(devices=1, hosts=1)
    main(["plan", "quickstart"])
    told = capsys.readouterr().out
    assert "on each of 1 device\n" in told
    assert "read by 1 host\n" in told


def _parts(capsys) -> list[str]:
    return capsys.readouterr().out.strip().split("\n\n")


def test_a_plan_that_does_not_fit_says_what_would_and_ends_with_1(orders, capsys):
    _, changes = orders
    changes["needed_bytes"] = 20_000_000_000
    with pytest.raises(SystemExit) as stop:
        main(["plan", "quickstart", "--topology", "v5e:2x4"])
    assert stop.value.code == 1
    shown = capsys.readouterr().out
    assert "headroom\tnone: it does not fit" in shown
    assert "v5e:2x4 would take a batch of at most 96: --batch-size 96" in shown
    assert "step, " not in shown


def test_programs_read_a_plan_as_json(orders, capsys):
    main(["plan", "quickstart", "--topology", "v5e:2x4", "--json", "--input-rate", "500"])
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["bound"], found["step_s"], found["fits"]) == ("input pipeline", 0.256, True)
    assert found["program"]["flops"] == 800e9
