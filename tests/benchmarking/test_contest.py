"""Measuring contestants against each other."""

import time

import pytest
import torch

from hf_detr.benchmarking import Suite, contest
from hf_detr.benchmarking.contest import (
    Comparison,
    Contestant,
    ExcusedError,
    Lap,
    SkipContestant,
    count_flops,
    excuse,
    measure,
    statistics_of,
    timed,
)
from hf_detr.benchmarking.entrants import InOwnProcess, InThisProcess, peak_mib
from hf_detr.benchmarking.options import BenchOptions


def here(contestant: Contestant) -> InThisProcess:
    return InThisProcess(contestant, "cpu")


def sleeper(seconds: float, order: list[str] | None = None, name: str = "") -> Contestant:
    """A contestant that takes its time and notes its turns."""

    def work(lap: Lap) -> None:
        if order is not None:
            order.append(name)
        time.sleep(seconds)

    return Contestant(name or str(seconds), lambda: work)


def failing(name: str, error: Exception, after: int = 0) -> Contestant:
    """A contestant that fails after some turns."""
    turns = []

    def work(lap: Lap) -> None:
        turns.append(name)
        if len(turns) > after:
            raise error

    return Contestant(name, lambda: work)


def test_contestants_take_turns():
    order: list[str] = []
    contestants = [sleeper(0.0, order, "a"), sleeper(0.0, order, "b")]
    measure(Comparison("c", contestants, "a"), "cpu", 3, here)
    assert order == ["a", "b"] * 4  # one turn of each to warm up


def test_long_comparisons_end_early(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contest, "ENOUGH_SECONDS", 0.0)
    result = measure(Comparison("c", [sleeper(0.001, name="a")], "a"), "cpu", 50, here)
    assert result["rounds"] == contest.ENOUGH_ROUNDS


def test_ratios_are_those_of_a_round():
    theirs = [{"": 2.0}, {"": 20.0}, {"": 200.0}]
    ours = [{"": 1.0, "part": 0.5}, {"": 10.0, "part": 5.0}, {"": 100.0, "part": 0.25}]
    result = statistics_of(ours, theirs)
    assert result["seconds"] == 10
    assert result["times_as_fast"] == 2
    assert result["times_as_fast_quartiles"] == (2, 2)
    assert result["extra_seconds"] == -10
    assert result["parts"] == {"part": 0.5}


def test_who_fails_or_is_missing_stops_nobody():
    contestants = [
        sleeper(0.001, name="baseline"),
        failing("broken", RuntimeError("two\nlines")),
        failing("late", RuntimeError("later"), after=2),
        failing("missing", SkipContestant("it is not installed")),
        sleeper(0.002, name="last"),
    ]
    result = measure(Comparison("c", contestants, "baseline"), "cpu", 3, here)
    reports = {entry["name"]: entry for entry in result["contestants"]}
    assert list(reports) == ["baseline", "broken", "late", "missing", "last"]
    assert reports["broken"]["failed"] == "RuntimeError: two lines"
    assert reports["late"]["failed"] == "RuntimeError: later"
    assert reports["missing"]["skipped"] == "it is not installed"
    assert reports["baseline"]["times_as_fast"] == 1
    assert reports["last"]["seconds"] >= 0.002


def test_without_its_baseline_a_comparison_has_times_but_no_ratios():
    contestants = [sleeper(0.001, name="ours"), failing("theirs", RuntimeError("no"))]
    result = measure(Comparison("c", contestants, "theirs"), "cpu", 2, here)
    assert "seconds" in result["contestants"][0]
    assert "times_as_fast" not in result["contestants"][0]


def test_laps_are_the_parts_of_the_whole():
    def work(lap: Lap) -> None:
        time.sleep(0.02)
        lap("first")
        lap("second")

    seconds = timed(work, "cpu")
    assert seconds["first"] >= 0.02
    assert seconds["first"] + seconds["second"] <= seconds[""]


def test_operations_are_counted():
    left, right = torch.zeros(3, 5), torch.zeros(5, 7)
    assert count_flops(lambda lap: left @ right) == 2 * 3 * 5 * 7


NAMES = (Suite("suite_of_products", "Products of matrices."), "8 rows")


@pytest.fixture
def own_process():
    entrants = []

    def start(contestant: str) -> InOwnProcess:
        entrants.append(InOwnProcess(*NAMES, contestant, BenchOptions(quick=True, threads=1)))
        return entrants[-1]

    yield start
    for entrant in entrants:
        entrant.leave()


def test_a_contestant_has_its_process_and_memory_to_itself(own_process):
    ballast = torch.ones(100 * 2**20)  # 400 MiB here, which the other process does not have
    contestant = Contestant("hf_detr", lambda: pytest.fail("it is built in the other process"))
    result = measure(Comparison(NAMES[1], [contestant], "hf_detr"), "cpu", 2, lambda entry: own_process(entry.name))
    [report] = result["contestants"]
    assert result["rounds"] == 2
    assert set(report["parts"]) == {"product", "sum"}
    memory = report["peak_memory_mib"]
    assert 0 <= memory["work"] < memory["process"] < peak_mib("cpu")
    assert ballast.numel()


def test_a_process_that_fails_or_ends_is_excused(own_process):
    nobody = own_process("nobody")  # its process ends, since there is no such contestant
    with pytest.raises(RuntimeError, match="exit code 1"):
        nobody.prepare()
    early = own_process("hf_detr")
    with pytest.raises(ExcusedError) as raised:
        early.turn()  # before it is prepared
    assert excuse(raised.value)["failed"].startswith("TypeError")
