"""Suites run, and their records become tables and figures."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from hf_detr import available_presets
from hf_detr.benchmarking import PRODUCT, Program, Suite, report, suites
from hf_detr.benchmarking.commands import bench_app
from hf_detr.benchmarking.figures import plot
from hf_detr.benchmarking.options import BenchOptions
from hf_detr.benchmarking.peers import COUNTERPARTS, NEAREST
from hf_detr.cli import app
from hf_detr.files import write_json

QUICK = BenchOptions(quick=True)
PROGRAM = Program("measure", ("measure.py",), {"products": Suite("suite_of_products", "Products of matrices.")})


@pytest.mark.parametrize("suite", PRODUCT.suites)
@pytest.mark.parametrize("quick", [True, False])
def test_every_suite_names_its_comparisons_and_baselines(suite: str, quick: bool):
    comparisons = list(PRODUCT.suites[suite].comparisons(replace(QUICK, quick=quick)))
    names = [comparison.name for comparison in comparisons]
    assert names
    assert len(set(names)) == len(names)
    for comparison in comparisons:
        contestants = [contestant.name for contestant in comparison.contestants]
        assert len(set(contestants)) == len(contestants)
        assert comparison.baseline in contestants


def test_batches_can_be_asked_for():
    suite = PRODUCT.suites["inference"]
    names = [comparison.name for comparison in suite.comparisons(replace(QUICK, batches=(3,)))]
    assert any("batch 3" in name for name in names)
    assert not any(f"batch {batch}" in name for name in names for batch in (1, 2, 8))


def test_peers_belong_to_presets():
    assert set(COUNTERPARTS) | set(NEAREST) <= set(available_presets())


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    """A run of a suite."""
    torch_threads = torch.get_num_threads()
    told: list[dict[str, Any]] = []
    options = replace(QUICK, rounds=2, threads=torch_threads)
    found = suites.run_suite(PROGRAM, "products", options, lambda comparison, peaks: told.append(comparison))
    assert told == found["comparisons"]
    return found


def test_a_record_survives_its_file(record: dict[str, Any], tmp_path: Path):
    write_json(tmp_path / "new" / "record.json", record)
    found = report.read_record(tmp_path / "new" / "record.json", PROGRAM)
    assert found == json.loads(json.dumps(record))
    assert found["peaks"]["float32"]["matrix_product"] > 0


def test_a_section_says_how_it_was_made(record: dict[str, Any]):
    text = report.section(record, PROGRAM)
    assert "measure products --threads" in text
    assert "--quick" in text
    assert f"torch {torch.__version__.split('+')[0]}" in text
    assert text.count("| transformers |") == 2
    assert text.count("| hf_detr |") == 2


def test_slower_than_a_peer_is_said():
    def entry(name: str, seconds: float, dtype: str = "float32") -> dict[str, Any]:
        return {"name": name, "seconds": seconds, "dtype": dtype}

    contestants = [entry("hf_detr", 2.0), entry("transformers", 1.0), entry("transformers, bfloat16", 0.5, "bfloat16")]
    assert report.lost({"comparisons": [{"name": "c", "contestants": contestants}]}) == ["transformers at c (2.00x)"]


def test_growth_is_an_exponent(tmp_path: Path):
    comparisons = [
        {
            "name": f"detr, image area {area}",
            "axis": ("image area", area),
            "baseline": "hf_detr",
            "contestants": [
                {"name": "hf_detr", "seconds": area**1.5, "peak_memory_mib": {"process": area, "work": 1.0}}
            ],
        }
        for area in (10.0, 20.0, 40.0)
    ]
    [line] = report.growth_lines({"comparisons": comparisons})
    assert "power 1.50 of the image area from 20 to 40" in line
    plot({"comparisons": comparisons}, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 1000


def test_report_writes_the_section_of_a_page(record: dict[str, Any], tmp_path: Path):
    write_json(tmp_path / "record.json", record)
    page, marker = tmp_path / "page.md", "speed products cpu"
    page.write_text(f"before\n<!-- {marker}: begin -->\nold\n<!-- {marker}: end -->\nafter\n")
    words = ["report", str(tmp_path / "record.json"), "--page", str(page)]
    assert CliRunner().invoke(bench_app(PROGRAM), words).exit_code == 0
    text = page.read_text()
    assert "old" not in text
    assert "| hf_detr |" in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert (tmp_path / "record.png").exists()


def test_report_draws_curves_beside_the_page(record: dict[str, Any], tmp_path: Path):
    comparison = record["comparisons"][0]
    grown = [comparison | {"axis": ["queries", value]} for value in (100, 300)]
    write_json(tmp_path / "record.json", record | {"comparisons": grown})
    page, marker = tmp_path / "docs" / "page.md", "speed products cpu"
    page.parent.mkdir()
    page.write_text(f"<!-- {marker}: begin -->\n<!-- {marker}: end -->\n")
    words = ["report", str(tmp_path / "record.json"), "--page", str(page)]
    assert CliRunner().invoke(bench_app(PROGRAM), words).exit_code == 0
    assert "(speed_products_cpu.png)" in page.read_text()
    assert (page.parent / "speed_products_cpu.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["inference", "--preset", "detr-resnet-51"], "no preset 'detr-resnet-51'"),
        (["inference", "--device", "tpu"], "expected cpu or cuda"),
        (["report", "missing.json"], "missing.json"),
    ],
)
def test_what_cannot_be_run_is_said(words: list[str], said: str):
    result = CliRunner().invoke(app, ["bench", *words])
    assert result.exit_code == 2
    assert said in result.output


def test_a_file_that_is_no_record_is_said(tmp_path: Path):
    path = tmp_path / "other.json"
    path.write_text('{"suite": "none"}')
    result = CliRunner().invoke(app, ["bench", "report", str(path)])
    assert result.exit_code == 2
    assert "other.json: expected a record that `hf-detr bench` writes" in result.output


def test_all_goes_on_after_a_suite_that_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    started: list[list[str]] = []

    def run(command: list[str]) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace(returncode=int("pipeline" in command))

    monkeypatch.setattr("hf_detr.benchmarking.commands.subprocess.run", run)
    result = CliRunner().invoke(app, ["bench", "all", "--quick", "--threads", "1", "--output", str(tmp_path)])
    assert result.exit_code == 1
    assert "these suites failed: pipeline" in result.output
    assert len(started) == len(PRODUCT.suites)
    assert all("--quick" in command for command in started)
