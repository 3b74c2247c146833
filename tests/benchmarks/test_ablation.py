"""The ablation: what a variant changes, what is left to run, and the table."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def ablation(script):
    return script("ablation")


def test_a_variant_joins_options(ablation):
    assert ablation.differences("varifocal+distinct") == {"classification": "varifocal", "distinct_iou": 0.7}


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("varifocal+many", "no option 'many'; there are baseline"),
        ("varifocal+matchability", "classification is set to"),
    ],
)
def test_a_variant_that_means_nothing_is_refused(ablation, variant: str, message: str):
    with pytest.raises(ValueError, match=message):
        ablation.differences(variant)


def test_every_default_variant_is_a_valid_configuration(ablation):
    from hf_detr import HfDetrConfig
    from hf_detr.data import AUGMENTATIONS

    for variant in ablation.DEFAULT_VARIANTS:
        fields = {**ablation.BASELINE_FIELDS, **ablation.differences(variant)}
        assert fields.pop("augmentation", "published") in AUGMENTATIONS
        HfDetrConfig.from_preset("tiny", **fields)


def record(ablation, variant: str, seed: int, ap: float) -> dict:
    return {**ablation.settings_of(variant, seed, {"steps": 9}), "result": {"AP": ap, "AP50": 2 * ap}}


def test_finished_runs_are_not_repeated(ablation):
    finished = [record(ablation, "baseline", 0, 0.1), record(ablation, "varifocal", 0, 0.2)]
    wanted = [ablation.settings_of(name, seed, {"steps": 9}) for name in ("baseline", "varifocal") for seed in (0, 1)]
    assert [(run["variant"], run["seed"]) for run in ablation.missing(wanted, finished)] == [
        ("baseline", 1),
        ("varifocal", 1),
    ]
    longer = ablation.settings_of("baseline", 0, {"steps": 10})
    assert ablation.missing([longer], finished) == [longer]


def test_the_table_compares_runs_of_the_same_seed(ablation):
    records = [record(ablation, "baseline", seed, ap) for seed, ap in ((0, 0.10), (1, 0.20), (2, 0.30))]
    records += [record(ablation, "varifocal", seed, ap) for seed, ap in ((0, 0.12), (2, 0.34))]
    rows = ablation.table(records).splitlines()[2:]
    assert rows == [
        "| varifocal | `classification='varifocal'` | 2 | 23.0 ± 15.6 | 46.0 ± 31.1 | 3.0 ± 1.4 |",
        "| baseline |  | 3 | 20.0 ± 10.0 | 40.0 ± 20.0 |  |",
    ]


def test_the_page_is_written_from_finished_runs(ablation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    app = ablation.typer.Typer()
    app.command()(ablation.main)
    monkeypatch.setattr(ablation, "train", None)  # only finished runs: nothing may be trained
    finished = tmp_path / "finished.json"
    budget = {"preset": "tiny", "data": "synthetic:5", "steps": 2, "image_size": 64, "batch_size": 2}
    kept = {**ablation.settings_of("baseline", 0, budget), "result": {"AP": 0.25, "AP50": 0.5}}
    elsewhere = {
        **ablation.settings_of("varifocal", 1, budget | {"data": "cells"}),
        "result": {"AP": 0.5, "AP50": 0.75},
    }
    finished.write_text(json.dumps([kept, elsewhere]))
    page = tmp_path / "page.md"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in budget.items()]
    options += ["--seed=0", "--variant=baseline"]
    outcome = CliRunner().invoke(app, [*options, "--results", str(finished), "--output", str(page)])
    assert outcome.exit_code == 0, outcome.output
    assert "| baseline |  | 1 | 25.0 | 50.0 |  |" in page.read_text()
    assert "| varifocal | `classification='varifocal'` | 1 | 50.0 | 75.0 |  |" in page.read_text()
    assert (
        "--data path/to/cells --steps 2 --batch-size 2 --image-size 64 --variant varifocal --seed 1\n"
        in page.read_text()
    )
    assert json.loads(finished.read_text()) == [kept, elsewhere]


def test_what_was_removed_stays_in_the_tables_and_not_in_the_command(ablation):
    budget = {"preset": "tiny", "data": "synthetic:5", "steps": 2, "image_size": 64, "batch_size": 2}
    kept = {**ablation.settings_of("baseline", 0, budget), "result": {"AP": 0.25, "AP50": 0.5}}
    gone = kept | {"variant": "one_to_many", "differences": {"queries": 7}, "result": {"AP": 0.2, "AP50": 0.4}}
    page = ablation.page([kept, gone])
    assert "| one_to_many | `queries=7` | 1 | 20.0 | 40.0 | -5.0 |" in page
    assert f"- `one_to_many`: {ablation.REMOVED['one_to_many']}." in page
    assert f"commit {ablation.LAST_COMMIT}" in page
    assert "--variant baseline --seed 0" in page
    assert "--variant one_to_many" not in page
    assert "no longer in the package" not in ablation.page([kept])
    with pytest.raises(ValueError, match="no option 'one_to_many'"):
        ablation.differences("one_to_many")
