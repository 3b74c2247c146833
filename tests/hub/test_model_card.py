"""Model cards: what they show, and that the Hub's own classes read them back."""

import ast
import re
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from hf_detr.evaluation.coco_metrics import SUMMARY_NAMES
from hf_detr.hub.model_card import CardEvidence, build_model_card, hardware_line, package_versions

METRICS = {
    **{name: 0.1 + 0.05 * place for place, name in enumerate(SUMMARY_NAMES)},
    "AP_small": -1.0,
    "per_class": {
        "red cell": {"AP": 0.5, "AP50": 0.75, "AR_100": 0.625, "num_objects": 12},
        "white | other": {"AP": -1.0, "AP50": -1.0, "AR_100": -1.0, "num_objects": 0},
    },
}

EVIDENCE = CardEvidence(
    model_id="someone/blood-cells",
    preset="dino-r50-4scale",
    dataset_name="Blood cells",
    dataset_fingerprint="0123abcd",
    dataset_id="someone/blood-cell-pictures",
    base_model="someone/dino",
    metrics=METRICS,
    recipe={"epochs": 12, "learning rate": "1e-4, backbone 1e-5"},
    command="hf-detr train --data someone/blood-cell-pictures --preset dino-r50-4scale",
    hardware="1 x Some Accelerator",
    versions={"torch": "2.99.0", "transformers": "5.98.0"},
    samples={"samples/first.jpg": "Eleven red cells"},
    limitations=["Trained on one microscope."],
)


@pytest.fixture
def saved(tmp_path) -> ModelCard:
    build_model_card(EVIDENCE).save(tmp_path / "README.md")
    return ModelCard.load(tmp_path / "README.md")


def test_the_metadata_survives_the_file(saved):
    written = build_model_card(EVIDENCE).data
    assert saved.data.to_dict() == written.to_dict()
    assert saved.data.pipeline_tag == "object-detection"
    assert saved.data.library_name == "hf_detr"
    assert saved.data.license == "apache-2.0"
    assert saved.data.base_model == "someone/dino"
    assert saved.data.datasets == ["someone/blood-cell-pictures"]
    assert "dino-r50-4scale" in saved.data.tags


def test_the_model_index_holds_what_was_measured(saved):
    [entry] = saved.data.to_dict()["model-index"]
    assert entry["name"] == "blood-cells"
    [result] = entry["results"]
    assert result["task"]["type"] == "object-detection"
    assert result["dataset"] == {
        "name": "Blood cells",
        "type": "someone/blood-cell-pictures",
        "split": "validation",
        "args": {"fingerprint": "0123abcd"},
    }
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {name: pytest.approx(METRICS[name]) for name in SUMMARY_NAMES if name != "AP_small"}


def test_the_text_shows_the_evidence(saved):
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in saved.text.splitlines()]
    assert ["AP", "0.100"] in rows
    assert ["AP_small", "n/a"] in rows
    assert ["red cell", "12", "0.500", "0.750", "0.625"] in rows
    assert [r"white \| other", "0", "n/a", "n/a", "n/a"] in rows
    assert ["learning rate", "1e-4, backbone 1e-5"] in rows
    assert f"```bash\n{EVIDENCE.command}\n```" in saved.text
    assert "![Eleven red cells](samples/first.jpg)" in saved.text
    assert "1 x Some Accelerator" in saved.text
    assert "torch 2.99.0, transformers 5.98.0" in saved.text
    assert "fingerprint `0123abcd`" in saved.text
    assert "- Trained on one microscope." in saved.text


def test_tables_are_not_torn_apart(saved):
    """A blank line or a missing one between rows would end or swallow a Markdown table."""
    blocks = [block.splitlines() for block in saved.text.split("\n\n")]
    tables = [block for block in blocks if any(line.startswith("|") for line in block)]
    assert [len(table) for table in tables] == [2 + len(SUMMARY_NAMES), 2 + 2, 2 + 2]
    assert all(line.startswith("|") for table in tables for line in table)


def test_the_snippet_is_python_and_names_the_model(saved):
    [snippet] = re.findall(r"```python\n(.*?)```", saved.text, flags=re.DOTALL)
    calls = [node for node in ast.walk(ast.parse(snippet)) if isinstance(node, ast.Call)]
    assert any(keyword.value.value == "someone/blood-cells" for call in calls for keyword in call.keywords)


def test_a_card_without_results_claims_none():
    evidence = CardEvidence(
        model_id="blood-cells", preset="tiny", dataset_name="none", dataset_fingerprint="-", hardware="-", versions={}
    )
    card = build_model_card(evidence)
    assert "model-index" not in card.data.to_dict()
    assert "Not evaluated." in card.text
    assert "Not trained by hf-detr." in card.text
    assert "|" not in card.text


def test_a_card_without_one_defined_value_has_no_model_index():
    metrics = {**dict.fromkeys(SUMMARY_NAMES, -1.0), "per_class": {}}
    card = build_model_card(replace(EVIDENCE, metrics=metrics))
    assert "model-index" not in card.data.to_dict()


def test_incomplete_metrics_are_named():
    with pytest.raises(ValueError, match="AP75, per_class are missing"):
        build_model_card(replace(EVIDENCE, metrics={name: 0.5 for name in SUMMARY_NAMES if name != "AP75"}))


@pytest.mark.parametrize("path", ["/pictures/first.jpg", "../first.jpg", "samples/../../first.jpg"])
def test_a_sample_outside_the_repository_is_an_error(path):
    with pytest.raises(ValueError, match=re.escape(path)):
        build_model_card(replace(EVIDENCE, samples={path: "x"}))


def test_hardware_and_versions_describe_this_machine():
    assert hardware_line().count("\n") == 0
    assert re.search(r"\d", hardware_line())
    versions = package_versions()
    assert set(versions) >= {"hf-detr", "torch", "transformers"}
    assert all(re.match(r"\d+\.", version) for version in versions.values())
