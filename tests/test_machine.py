"""What is said of the machine."""

import os
import re

import pytest

from hf_detr.machine import cores, describe, hardware_line, package_versions


def test_hardware_and_versions_describe_this_machine():
    assert hardware_line().count("\n") == 0
    assert re.search(r"\d", hardware_line())
    versions = package_versions()
    assert set(versions) >= {"hf-detr", "torch", "transformers"}
    assert all(re.match(r"\d+\.", version) for version in versions.values())


def test_a_package_that_is_not_installed_has_no_version():
    assert set(package_versions(["torch", "no-such-package"])) == {"torch"}


def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 7}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1
    assert describe("cpu")["cores"] == 1
