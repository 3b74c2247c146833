"""Model cards: what they show, what follows from the evidence, and that the Hub's own classes read them back."""

import ast
import re
from dataclasses import replace

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from hf_detr import HfDetrConfig, HfDetrForObjectDetection, HfDetrImageProcessor, available_presets
from hf_detr.evaluation.coco_metrics import SUMMARY_NAMES
from hf_detr.hub.evidence import CardEvidence
from hf_detr.hub.limitations import limitations_of
from hf_detr.hub.model_card import build_model_card, card_for_repository
from hf_detr.hub.papers import CONDITIONAL, DAB, DEFORMABLE, DETR, DINO, DN, paper_of
from hf_detr.hub.speed import Speed, measure_speed

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
    paper=DINO,
    preset="dino-r50-4scale",
    base_model="someone/dino",
    class_names=["red cell", "white | other"],
    num_queries=300,
    dataset_name="Blood cells",
    dataset_fingerprint="0123abcd",
    dataset_id="someone/blood-cell-pictures",
    num_images={"train": 205, "validation": 87},
    train_objects={"red cell": 2000, "white | other": 99},
    object_sides=(11.6, 80.4),
    input_size={"shortest_edge": 256, "longest_edge": 427},
    metrics=METRICS,
    best_by="AP",
    speed=Speed(12.345, 256, 341, "float32", "cpu, 2 threads", 5),
    recipe={"epochs": 12, "learning rate": "1e-4, backbone 1e-5"},
    command="hf-detr train --data someone/blood-cell-pictures --preset dino-r50-4scale",
    hardware="2 CPU cores (Some Processor), no accelerator",
    versions={"torch": "2.99.0", "transformers": "5.98.0"},
    samples={"samples/first.jpg": "Eleven red cells"},
    limitations=["Trained on one microscope."],
    license="cc-by-4.0",
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
    assert saved.data.license == "cc-by-4.0"
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
    assert ["red cell", "2000", "12", "0.500", "0.750", "0.625"] in rows
    assert [r"white \| other", "99", "0", "n/a", "n/a", "n/a"] in rows
    assert ["learning rate", "1e-4, backbone 1e-5"] in rows
    assert f"```bash\n{EVIDENCE.command}\n```" in saved.text
    assert "![Eleven red cells](samples/first.jpg)" in saved.text
    for line in (
        "COCO metrics on Blood cells (validation: 87 images)",
        "- Data: Blood cells (train: 205 images, validation: 87 images)",
        "- Fingerprint of the annotations (train, validation): `0123abcd`",
        "- Size: shortest edge 256, longest edge 427",
        "- Hardware: 2 CPU cores (Some Processor), no accelerator",
        "- Versions: torch 2.99.0, transformers 5.98.0",
        "- Trained on one microscope.",
        "Speed: 12.3 images a second",
        "341 x 256 pixels, in float32 on cpu, 2 threads of 2 CPU cores (Some Processor)",
        "`cc-by-4.0`",
        "Finding red cell, white | other in images like the images of Blood cells",
        DINO.bibtex,
    ):
        assert line in saved.text, line


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


def test_nothing_is_claimed_without_evidence():
    card = build_model_card(CardEvidence(model_id="blood-cells", paper=DETR))
    assert "model-index" not in card.data.to_dict()
    assert card.data.license == "unknown"
    assert "Nobody has stated one" in card.text
    assert "Not evaluated." in card.text
    assert "It was not evaluated: nothing is known of its accuracy." in card.text
    assert "Nothing is recorded of its training." in card.text
    assert "|" not in card.text
    without_paper = card.text.partition("## Citation")[0]
    assert re.findall(r"\d+\.\d+", without_paper) == ["0.5"]  # the threshold in the snippet
    assert "None" not in card.text


def test_a_local_start_is_no_repository_on_the_hub(tmp_path):
    card = build_model_card(replace(EVIDENCE, base_model=str(tmp_path)))
    assert card.data.base_model is None
    assert f"trained from the local model `{tmp_path.name}`" in card.text
    assert str(tmp_path) not in card.text


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


def sentences_of(**changes) -> str:
    return "\n".join(limitations_of(replace(EVIDENCE, **changes)))


def test_limitations_follow_from_the_data():
    text = sentences_of()
    assert "205 training images of Blood cells" in text
    assert "That is little" in text
    assert "fewer than 100 objects in training: white | other (99)." in text
    assert "sides of 12 to 80 pixels" in text
    assert "at most 300 objects" in text
    assert "evaluation rests on few images (87)" in text
    assert "Classes without an object in the evaluation, of which nothing is known: white | other." in text
    plenty = sentences_of(num_images={"train": 118287, "validation": 5000}, train_objects={"red cell": 100})
    for absent in ("That is little", "fewer than", "evaluation rests on"):
        assert absent not in plenty


def test_limitations_follow_from_the_metrics():
    def metrics(**changes) -> dict:
        return {**METRICS, "AP": 0.6, "AP50": 0.8, "AP_small": 0.6, "per_class": {}, **changes}

    good = sentences_of(metrics=metrics())
    for absent in ("not ready", "less than half", "Small objects", "no small objects", "without an object"):
        assert absent not in good
    classes = {
        name: {"AP": ap, "AP50": ap, "AR_100": ap, "num_objects": 5} for name, ap in {"a": 0.3, "b": 0.29}.items()
    }
    assert "less than half of the overall AP: b (0.290)." in sentences_of(metrics=metrics(per_class=classes))
    assert "found badly: AP 0.290" in sentences_of(metrics=metrics(AP_small=0.29))
    assert "no small objects" in sentences_of(metrics=metrics(AP_small=-1.0))
    assert "AP50 is 0.499" in sentences_of(metrics=metrics(AP50=0.499))
    assert "weights were chosen by AP" in good
    assert "weights were chosen" not in sentences_of(best_by=None)


def test_a_card_in_a_repository_keeps_what_was_written_by_hand():
    card = build_model_card(replace(EVIDENCE, model_id="/home/me/out", license="unknown"))
    card.text = card.text.replace("## Limitations", "## My own words\n\nHands off.\n\n## Limitations")
    moved = card_for_repository(card, "someone/cells", license="mit", with_code=True)
    assert "Hands off." in moved.text
    assert "/home/me" not in moved.text
    assert "# cells\n" in moved.text
    assert 'model="someone/cells", trust_remote_code=True)' in moved.text
    assert "import hf_detr  #" not in moved.text
    assert moved.data.license == "mit"
    assert "`mit`." in moved.text
    assert "Nobody has stated" not in moved.text
    [entry] = moved.data.to_dict()["model-index"]
    assert entry["name"] == "cells"
    headings = re.findall(r"^## .*$", card.text, re.MULTILINE)
    assert re.findall(r"^## .*$", moved.text, re.MULTILINE) == headings
    again = card_for_repository(moved, "someone/cells")
    assert "import hf_detr  #" in again.text
    assert again.data.license == "mit"


def test_the_paper_is_that_of_the_preset():
    expected = {"detr": DETR, "conditional": CONDITIONAL, "dab": DAB, "dn": DN, "deformable": DEFORMABLE}
    for preset in available_presets():
        paper = expected.get(preset.split("-")[0], DINO)
        assert paper_of(HfDetrConfig.from_preset(preset)) is paper, preset


def test_speed_is_measured_at_the_size_that_the_model_sees():
    backbone = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}
    model = HfDetrForObjectDetection(HfDetrConfig.from_preset("tiny", d_model=32, backbone_kwargs=backbone)).train()
    processor = HfDetrImageProcessor(size={"height": 64, "width": 96}, classification="sigmoid")
    speed = measure_speed(model, processor, Image.new("RGB", (200, 100)), repetitions=1)
    assert (speed.height, speed.width, speed.dtype, speed.repetitions) == (64, 96, "float32", 1)
    assert speed.device == f"cpu, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    assert speed.images_per_second > 0
    assert model.training
