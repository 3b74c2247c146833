"""What the suites of maintainers compare is the same work."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest
import torch

from hf_detr.benchmarking.options import BenchOptions

Script = Callable[[str], ModuleType]


def silent(name: str) -> None:
    """A lap that nobody hears."""


@pytest.mark.parametrize("quick", [True, False])
def test_every_suite_names_its_comparisons_and_baselines(script: Script, quick: bool):
    for suite in script("run").MAINTAINERS.suites.values():
        comparisons = list(suite.comparisons(replace(BenchOptions(), quick=quick)))
        names = [comparison.name for comparison in comparisons]
        assert names
        assert len(set(names)) == len(names)
        for comparison in comparisons:
            assert comparison.baseline in [contestant.name for contestant in comparison.contestants]


def test_growth_has_the_batches_asked_for(script: Script):
    options = BenchOptions(quick=True, batches=(3,))
    names = [comparison.name for comparison in script("suite_growth").comparisons(options)]
    assert any("batch 3" in name for name in names)
    assert not any(f"batch {batch}" in name for name in names for batch in (1, 2, 8))


@pytest.mark.parametrize("kind", ["softmax", "focal"])
def test_losses_are_equal_and_so_are_their_gradients(script: Script, kind: str):
    scene = script("matching_work").Scene(kind, batch=2, objects=4, queries=12, device="cpu", layers=3)
    ours, theirs = scene.ours()(silent), scene.theirs()(silent)
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_samples_are_equal(script: Script, part: str):
    suite = script("suite_deformable_sampling")
    expected = suite.their_work(part, False, suite.QUICK_SHAPES, "cpu")(silent)
    for form in ("compiled", "grid_sample", "gather"):
        torch.testing.assert_close(suite.our_work(form, part, True, suite.QUICK_SHAPES, "cpu")(silent), expected)


def test_metrics_are_equal(script: Script):
    suite = script("suite_evaluation")
    expected = suite.pycocotools(5)(silent)
    assert suite.ours(5)(silent) == pytest.approx(expected, abs=1e-9)
    assert suite.faster_coco_eval(5)(silent) == pytest.approx(expected, abs=1e-9)
