"""The demonstration trains as long as the machine allows."""

from pathlib import Path

import pytest

from hf_detr import demo
from hf_detr.demo import DemoOptions, Pace, affordable_steps, evaluations, plan_run, seconds_of
from hf_detr.training.options import RunOptions


@pytest.mark.parametrize("step", [0.02, 0.2, 3.0])
@pytest.mark.parametrize("seconds", [30.0, 270.0, 3600.0])
def test_steps_and_evaluations_fill_the_time(step: float, seconds: float):
    pace = Pace(step, evaluation=4.0)
    steps = affordable_steps(pace, seconds)
    if steps > demo.LEAST_STEPS:
        assert seconds_of(steps, pace) <= seconds
    # one step more may ask for one evaluation more
    assert seconds_of(steps + 1, pace) + pace.evaluation > seconds


def test_a_run_evaluates_as_often_as_planned():
    assert evaluations(1000) == 11
    assert evaluations(120) == 3
    assert evaluations(20) == 2


def test_the_time_spent_on_measuring_is_not_spent_again(monkeypatch: pytest.MonkeyPatch):
    now = 0.0

    def measured(run: RunOptions, clock) -> Pace:
        nonlocal now
        now += 40.0
        return Pace(0.1, 2.0)

    monkeypatch.setattr(demo, "measure_pace", measured)
    run, told = plan_run(DemoOptions(minutes=2), clock=lambda: now)
    assert run.output == Path("demo-output")
    seconds = seconds_of(run.steps, Pace(0.1, 2.0))
    assert 70 < seconds <= 120 - 40 - demo.PICTURES_SECONDS
    assert told == f"A step takes 0.10 s: {run.steps} steps and their evaluations take about 1.3 minutes"


def test_a_demonstration_that_takes_longer_than_asked_for_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "measure_pace", lambda run, clock: Pace(6.0, 2.0))
    run, told = plan_run(DemoOptions(minutes=1), clock=lambda: 0.0)
    assert run.steps == demo.LEAST_STEPS
    assert told.endswith("2.1 minutes, longer than the 1 asked for, because the demo trains at least 20 steps")


def test_steps_are_timed_without_the_first_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The clock of this test advances by the hour until everything is warm, then by a quarter of a second a step."""
    calls = 0

    def clock() -> float:
        nonlocal calls
        calls += 1
        cold = min(calls, demo.WARM_UP_STEPS)
        return 3600.0 * cold + 0.25 * (calls - cold)

    monkeypatch.setattr(demo, "TIMED_SECONDS", 0.5)
    monkeypatch.setattr(demo, "WARM_UP_STEPS", 2)
    monkeypatch.setattr(demo, "LEAST_TIMED_STEPS", 2)
    run = RunOptions(data="synthetic:4", output=tmp_path / "model", image_size=32, overwrite=True)
    pace = demo.measure_pace(run, clock)
    assert pace.step == pytest.approx(0.25)
    assert pace.evaluation == pytest.approx(0.25)
    assert not (tmp_path / "model").exists()
