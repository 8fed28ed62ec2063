"""The runner: what it keeps, what it ends with, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import runner
from bench.catalogue import BENCHMARKS, Benchmark, find
from bench.environment import environment, file_system
from bench.row import Row, row

ROOT = Path(__file__).parents[3]
NAMES = [
    "pick",
    "chain",
    "breaker",
    "wire",
    "journal",
    "restart",
    "resolve",
    "register",
    "keepalive",
    "idle",
    "watch-storm",
    "publish",
    "subscribe",
    "consume",
    "latency",
    "kill-to-last-call",
]


def benchmark(name: str = "some", **settings: object) -> Benchmark:
    return Benchmark(**{"name": name, "what": "it", "modules": (), "sizes": "1", **settings})  # type: ignore[arg-type]


def measuring(*values: float) -> Callable[[Benchmark, bool, Path], tuple[list[Row], list[str]]]:
    """Stands for a benchmark with a gate of 5 s."""

    def measure(of: Benchmark, quick: bool, folder: Path) -> tuple[list[Row], list[str]]:
        assert folder.is_dir()
        return [row(of.name, "time", [value], "s", gate="value <= 5 s") for value in values], ["$ it"]

    return measure


def failing(of: Benchmark, quick: bool, folder: Path) -> tuple[list[Row], list[str]]:
    raise runner.BenchmarkFailed("ended with 7")


def test_every_benchmark_that_is_promised_is_there() -> None:
    assert {one.name for one in BENCHMARKS} == set(NAMES)
    assert len(BENCHMARKS) == len(NAMES)


def test_no_names_mean_all_and_an_unknown_one_is_named() -> None:
    assert find(()) == BENCHMARKS
    assert [one.name for one in find(("wire", "pick"))] == ["pick", "wire"]
    with pytest.raises(KeyError, match="pikc"):
        find(("pick", "pikc"))


@pytest.mark.parametrize(("values", "status"), [((4.0,), 0), ((4.0, 6.0), 1), ((), 0)])
def test_exit_status_is_1_when_a_gate_is_missed(values: tuple[float, ...], status: int) -> None:
    done = runner.run([benchmark()], quick=True, tell=lambda *_: None, measure=measuring(*values))
    assert done.status == status
    assert [one["value"] for one in done.rows] == list(values)


def test_a_benchmark_that_fails_is_named_and_the_others_go_on() -> None:
    told: list[str] = []

    def measure(of: Benchmark, quick: bool, folder: Path) -> tuple[list[Row], list[str]]:
        return (failing if of.name == "bad" else measuring(1))(of, quick, folder)

    done = runner.run(
        [benchmark("bad"), benchmark("good")], quick=True, tell=lambda of, _: told.append(of.name), measure=measure
    )
    assert done.status == 1
    assert done.failed == {"bad": "ended with 7"}
    assert [one["benchmark"] for one in done.rows] == ["good"]
    assert told == ["bad", "good"]


def test_folders_are_gone_afterwards() -> None:
    seen: list[Path] = []

    def measure(of: Benchmark, quick: bool, folder: Path) -> tuple[list[Row], list[str]]:
        (folder / "data").write_text("x")
        seen.append(folder)
        return [], []

    runner.run([benchmark()], quick=True, tell=lambda *_: None, measure=measure)
    assert seen
    assert not seen[0].exists()


def test_rows_are_a_list_and_the_machine_stands_beside(tmp_path: Path) -> None:
    done = runner.run([benchmark()], quick=True, tell=lambda *_: None, measure=measuring(4))
    beside = runner.save(done, tmp_path / "deep" / "bench.json")
    assert json.loads((tmp_path / "deep" / "bench.json").read_text()) == done.rows
    conditions = json.loads(beside.read_text())
    assert beside.name == "bench.env.json"
    assert conditions["quick"] is True
    assert conditions["benchmarks"]["some"]["said"] == ["$ it"]
    assert {"durability", "sizes", "concurrency"} <= set(conditions["benchmarks"]["some"])


def test_the_page_needs_nothing_else_and_draws_ratios() -> None:
    pytest.importorskip("plotly", reason="needs the extra 'bench'")
    from bench.report import page

    slow = row("resolve", "<calls>", [2], "calls/s", peer="etcd", peer_values=[8], gate="ratio >= 4")
    text = page([slow], {"failed": {"publish": "ended with 1"}})
    assert "1 of 1 gates are missed" in text
    assert "&lt;calls&gt;" in text
    assert "publish gave no rows: ended with 1" in text
    assert "Plotly.newPlot" in text
    assert "All 1 gates hold" in page([row("some", "time", [4], "s", gate="value <= 5 s")], {})
    assert '<script src="' not in text
    assert "<link" not in text.partition("<script")[0]


def test_the_environment_says_what_matters_and_not_whose_machine_it_is(tmp_path: Path) -> None:
    facts = environment(tmp_path)
    assert {"cpu", "cores", "memory", "kernel", "file system", "python", "trunkline", "grpcio", "etcd"} <= set(facts)
    text = json.dumps(facts)
    assert os.uname().nodename not in text
    assert str(Path.home()) not in text
    assert file_system(Path("/proc")) == "proc"


@pytest.mark.parametrize(
    ("folder", "found"), [("/a/b/c", "tmpfs"), ("/ab", "ext4"), ("/", "ext4"), ("/over", "xfs"), ("/a", "tmpfs")]
)
def test_the_file_system_is_that_of_the_nearest_mount_point(folder: str, found: str) -> None:
    mounts = "m /over btrfs\nd / ext4\nm /a tmpfs\nm /over xfs\nm /abc nfs\n"
    assert file_system(Path(folder), mounts) == found


def test_a_benchmark_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("pybreaker", reason="needs the extra 'bench'")
    (breaker,) = find(("breaker",))
    rows, _ = runner.measure_apart(breaker, True, tmp_path)
    assert rows
    assert {one["benchmark"] for one in rows} == {"breaker"}


def test_one_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(runner.BenchmarkFailed, match="longer than 0 s"):
        runner.measure_apart(benchmark("breaker", limit_s=0), True, tmp_path)


def test_one_that_breaks_says_how_it_ended(tmp_path: Path) -> None:
    with pytest.raises(runner.BenchmarkFailed, match="ended with 2"):
        runner.measure_apart(benchmark("not there"), True, tmp_path)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=50
    )


def test_the_command_lists_all() -> None:
    listed = bench("list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines() if not line.startswith(" ")] == [
        one.name for one in BENCHMARKS
    ]


def test_the_command_refuses_an_unknown_name_in_one_line() -> None:
    refused = bench("run", "pikc")
    assert refused.returncode == 2
    assert "no benchmark pikc" in refused.stderr
