"""From times to timings, ratios, tables, JSON, Markdown and a chart."""

import json
import os

import pytest
from PIL import Image

from kzoo.bench.plan import Plan
from kzoo.bench.subjects import CEILING, Subject
from kzoo.bench.timings import (
    BenchReport,
    ModelBench,
    make_timings,
    read_environment,
    refuse_directory,
    short,
    tabulate,
    to_markdown,
)
from kzoo.bench.turns import Spread, Times
from kzoo.errors import OutputError

SUBJECTS = [
    Subject("float32", macs=50, threads=1, size_bytes=4_000_000, partitions=1, over={CEILING: "product"}),
    Subject(
        "int8",
        macs=50,
        threads=1,
        size_bytes=1_000_000,
        partitions=2,
        over={CEILING: "product", "speed / float32": "float32", "speed / lost": "lost"},
    ),
    Subject("float16", problem="no kernel | here"),
    Subject("lost", threads=1, over={CEILING: "product"}),
    Subject("product", macs=1000, threads=1),
    Subject("plain", batch=4),
    Subject("folded", batch=4, over={"speed / plain": "plain"}),
]
# seconds: the second round is three times as slow for all
TIMES = Times(
    {
        "float32": [0.12, 0.36, 0.12],
        "int8": [0.03, 0.09, 0.03],
        "product": [2.0, 6.0, 2.0],
        "plain": [0.05, 0.15, 0.05],
        "folded": [0.04, 0.12, 0.04],
    },
    {"lost": "RuntimeError: gone"},
)


@pytest.fixture
def bench():
    return ModelBench("tiny", (8, 8, 3), macs=50, rounds=3, rows=make_timings(SUBJECTS, TIMES))


@pytest.fixture
def report(bench):
    broken = ModelBench("broken", (8, 8, 3), problem="ValueError: <no> [model]")
    return BenchReport(read_environment(), Plan(names=("tiny", "broken"), threads=(1,)), [bench, broken])


def same(value):
    return Spread(*[pytest.approx(value)] * 3)


@pytest.mark.quick
def test_ratios(bench):
    # 0.12 s for 50 multiply-adds, where the product takes 2 s / 1000 * 50 = 0.1 s
    assert bench.timing("float32").ratios == {CEILING: same(1.2)}
    assert bench.timing("int8").ratios == {CEILING: same(0.3), "speed / float32": same(4.0)}
    assert bench.timing("folded").ratios == {"speed / plain": same(1.25)}
    assert bench.timing("plain").ratios == bench.timing("product").ratios == {}


def test_milliseconds_are_those_of_one_image(bench):
    assert bench.timing("float32").ms == Spread(*map(pytest.approx, (120, 120, 240)))
    assert bench.timing("folded").fastest_ms == pytest.approx(10)
    assert bench.timing("folded").ms == Spread(*map(pytest.approx, (10, 10, 20)))


def test_failures_have_rows_and_reasons(bench, report):
    assert [row.name for row in bench.rows] == [subject.name for subject in SUBJECTS]
    assert bench.timing("float16").ms is bench.timing("lost").ms is None
    assert report.problems == [
        "tiny, float16: no kernel | here",
        "tiny, lost: RuntimeError: gone",
        "broken: ValueError: <no> [model]",
    ]


def test_rows_before_the_first_round_have_no_numbers():
    rows = make_timings(SUBJECTS, Times({}))
    assert [row.name for row in rows] == [subject.name for subject in SUBJECTS]
    assert all(row.ms is None and row.ratios == {} for row in rows)
    assert ModelBench("tiny", (8, 8, 3), rows=rows).groups == []


def test_tables_have_ratios_first_and_no_empty_columns(bench):
    files, functions = bench.groups
    titles, lines = tabulate(files)
    assert titles == ["", CEILING, "speed / float32", "ms / image", "fastest", "GMACs", "MB", "partitions"]
    assert lines[1] == ["int8", "0.30 (0.30–0.30)", "4.00 (4.00–4.00)", "30 (30–60)", "30", "0.00", "1.0", "2"]
    assert [line[0] for line in lines] == ["float32", "int8", "product"]
    titles, lines = tabulate(functions)
    assert titles == ["", "speed / plain", "ms / image", "fastest"]
    assert lines == [["plain", "–", "12.5 (12.5–25)", "12.5"], ["folded", "1.25 (1.25–1.25)", "10 (10–20)", "10"]]


def test_files(report, tmp_path):
    report.save(tmp_path / "new")
    content = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert content["plan"]["names"] == ["tiny", "broken"]
    assert content["environment"]["cores"] >= 1
    tiny, broken = content["models"]
    assert tiny["macs"] == 50
    assert tiny["rows"][1]["ratios"]["speed / float32"]["median"] == pytest.approx(4)
    assert tiny["rows"][2]["problem"] == "no kernel | here"
    assert broken["problem"] == "ValueError: <no> [model]"
    page = (tmp_path / "new" / "README.md").read_text()
    assert "## tiny, 8×8×3" in page
    assert "| int8 | 0.30 (0.30–0.30) | 4.00 (4.00–4.00) | 30 (30–60) |" in page
    assert "- tiny, float16: no kernel | here\n" in page
    with Image.open(tmp_path / "new" / "bench.png") as chart:
        assert chart.format == "PNG"
        assert chart.width > 1000
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["README.md", "bench.json", "bench.png"]
    refuse_directory(tmp_path / "new")  # its own page is written anew


def test_the_page_of_another_is_not_replaced(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(OutputError, match=r"README\.md was not written by kzoo bench; choose another --output"):
        refuse_directory(tmp_path)


def test_a_busy_machine_is_told(report):
    cores = os.cpu_count()
    for load, told in ((0.4 * cores, False), (0.6 * cores, True)):
        report.environment["load before"] = load
        assert ("trust the fastest times alone" in to_markdown(report)) is told
    del report.environment["load before"]  # a system that does not tell
    assert "busy" not in to_markdown(report)


def test_a_report_without_any_time_is_written_too(tmp_path):
    report = BenchReport({}, Plan(names=("a",)), [ModelBench("a", (8, 8, 3), problem="broken")])
    report.save(tmp_path)
    assert "- a: broken" in to_markdown(report)
    assert (tmp_path / "bench.png").exists()


@pytest.mark.parametrize(
    ("number", "text"), [(0.04257, "0.0426"), (4.257, "4.26"), (999.4, "999"), (999.6, "1000"), (1574.6, "1575")]
)
def test_numbers_are_short_but_never_powers_of_ten(number, text):
    assert short(number) == text
