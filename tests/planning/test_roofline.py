"""The time of a step, the largest batch, and what is said of them, against numbers computed by hand."""

import dataclasses

import pytest

from kzoo.peaks import PEAKS, peak_of
from kzoo.planning.collectives import reductions
from kzoo.planning.largest import largest_batch, two_programs, verified
from kzoo.planning.roofline import INPUT, MATRIX, MEMORY, NETWORK, Limits, Program, step_time
from kzoo.planning.verdict import Verdict

LIMITS = Limits(flops=200e12, bandwidth=800e9, memory=16e9, network=200e9)
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
    parameters=50_000_000,
    parameter_bytes=150_000_000,
    optimizer_bytes=100_000_000,
)


def test_each_part_of_the_machine_takes_its_own_time():
    time = step_time(PROGRAM, LIMITS)
    # 800 GFLOP at 200 TFLOP/s; 16 GB at 800 GB/s; 2 · 7/8 of 100 MB at 200 GB/s
    assert time.parts == pytest.approx({MATRIX: 4e-3, MEMORY: 20e-3, NETWORK: 0.875e-3})
    assert (time.step, time.bound) == (pytest.approx(20e-3), MEMORY)


@pytest.mark.parametrize(
    ("changes", "bound", "step"),
    [
        ({"flops": 8e12}, MATRIX, 40e-3),
        ({"reduced_bytes": 8_000_000_000}, NETWORK, 70e-3),
    ],
)
def test_what_takes_longest_binds(changes, bound, step):
    time = step_time(dataclasses.replace(PROGRAM, **changes), LIMITS)
    assert (time.bound, time.step) == (bound, pytest.approx(step))


def test_hosts_read_their_images_at_once():
    time = step_time(PROGRAM, dataclasses.replace(LIMITS, input_rate=1000.0))
    assert (time.bound, time.step) == (INPUT, pytest.approx(0.128))  # 256 images, 2,000 a second


def test_on_a_processor_parts_wait_for_each_other_but_not_for_the_input():
    time = step_time(PROGRAM, dataclasses.replace(LIMITS, serial=True))
    assert (time.bound, time.step) == (MEMORY, pytest.approx(24.875e-3))
    time = step_time(PROGRAM, dataclasses.replace(LIMITS, serial=True, input_rate=1000.0))
    assert (time.bound, time.step) == (INPUT, pytest.approx(0.128))


def test_one_device_sends_nothing():
    assert step_time(dataclasses.replace(PROGRAM, devices=1), LIMITS).network == 0


def test_the_largest_batch_is_on_the_line_through_two():
    larger = dataclasses.replace(PROGRAM, batch_size=512, temporary_bytes=3_200_000_000)
    # 320 MB and 6.25 MB an image: (16,000 - 320) / 6.25 = 2,508.8, and a multiple of 8 below it
    assert largest_batch(PROGRAM, larger, 16e9) == 2504
    assert largest_batch(larger, PROGRAM, 16e9) == 2504


def compiler(fits: int, per_image: int = 10_000_000, fixed: int = 1_000_000_000):
    """A compiler that refuses batches above `fits`, and keeps their sizes in `asked`."""

    def program_of(images: int) -> Program:
        program_of.asked.append(images)
        needed = None if images <= fits else fixed + per_image * images
        temporary = fixed + per_image * images - PROGRAM.code_bytes
        program = dataclasses.replace(PROGRAM, batch_size=images, argument_bytes=0, temporary_bytes=temporary)
        return dataclasses.replace(program, needed_bytes=needed)

    program_of.asked = []
    return program_of


@pytest.mark.parametrize("batch", [8, 64, 1024, 1496, 4096, 30_000 // 8 * 8])
def test_few_compilations_find_the_largest_batch(batch):
    program_of = compiler(fits=1500)
    one, two = two_programs(program_of(batch), program_of, 16e9)
    assert largest_batch(one, two, 16e9) == 1496  # 15 GB of 10 MB each, a multiple of 8 devices
    assert len(program_of.asked) <= 4
    assert all(images % 8 == 0 for images in program_of.asked)


def test_where_one_image_for_each_device_does_not_fit_no_batch_does():
    program_of = compiler(fits=0, fixed=20_000_000_000)
    one, two = two_programs(program_of(8), program_of, 16e9)
    assert largest_batch(one, two, 16e9) == 0


def test_a_verified_batch_was_compiled():
    program_of = compiler(fits=1400)
    assert verified(1496, program_of, 16e9) == 1344  # a tenth less, a multiple of 8
    assert program_of.asked == [1496, 1344]


def answer(**changes) -> dict:
    return {
        "program": PROGRAM.to_json() | changes,
        "limits": dataclasses.asdict(LIMITS),
        "training_images": 1_000_000,
        "epochs": 90,
        "chips": 8,
        "largest_batch": 96,
        "verified": False,
        "topology": "v5e:2x4",
    }


def test_epochs_hours_and_cost_follow_from_the_step():
    plan = Verdict.of(answer(), price=1.2)
    assert (plan.steps, plan.fits, plan.remedies) == (3906, True, [])
    assert plan.epoch_s == pytest.approx(78.12)
    assert plan.images_per_s == pytest.approx(12_800)
    assert plan.hours == pytest.approx(90 * 78.12 / 3600)
    assert plan.cost == pytest.approx(8 * 1.2 * 90 * 78.12 / 3600)
    assert plan.headroom_bytes == 16e9 - 1.92e9


def test_what_does_not_fit_says_what_would():
    plan = Verdict.of(answer(needed_bytes=20_000_000_000))
    assert (plan.fits, plan.time, plan.cost, plan.headroom_bytes) == (False, None, None, -4e9)
    smaller, accumulated, remat = plan.remedies
    assert "--batch-size 96" in smaller
    assert "--batch-size 64 --accumulate 4" in accumulated  # of 3 parts of 256 none is whole
    assert "keras.RematScope" in remat
    assert not Verdict.of(answer(temporary_bytes=16_000_000_000)).fits


def test_sums_over_devices_are_read_from_the_program():
    text = """
    %all-reduce.1 = f32[16]{0:T(128)} all-reduce(%x), channel_id=1
    %all-reduce.2 = (bf16[3,3,16,16]{3,2,1,0:T(8,128)(2,1)}, /*index=1*/f32[64]{0}, pred[7]) all-reduce(%a, %b, %c)
    %start = s32[] all-reduce-start(%y)
    %done = s32[] all-reduce-done(%start)
    %fusion = f32[100] fusion(%all-reduce.1), kind=kLoop
    """
    assert reductions(text) == (16 * 4 + 3 * 3 * 16 * 16 * 2 + 64 * 4 + 7 + 4, 3)


@pytest.mark.parametrize(
    ("device", "tflops", "memory"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4, 80),
        ("NVIDIA H100 PCIe", 756.0, 80),
        ("NVIDIA A100-SXM4-40GB", 312.0, 40),
        ("NVIDIA A100-SXM4-80GB", 312.0, 80),
        ("NVIDIA L40S", 362.0, 48),
        ("NVIDIA L4", 121.0, 24),
        ("TPU v5 lite", 197.0, 17.2),
        ("TPU v5", 459.0, 102.0),
    ],
)
def test_a_device_has_the_peak_of_its_own_kind(device, tflops, memory):
    peak = peak_of(device)
    assert (peak.tflops, peak.memory) == (tflops, memory)


def test_every_peak_has_a_source_and_can_be_found():
    assert peak_of("cpu") is None
    for peak in PEAKS:
        assert peak_of(peak.name) is peak, "another one stands before it"
        assert peak.source
        assert 0 < peak.float32_tflops <= peak.tflops
