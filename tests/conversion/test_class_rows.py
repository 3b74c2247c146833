"""Fine-tuning on other classes: rows of the heads move with the names of their classes."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForObjectDetection

from hf_detr import HfDetrConfig, HfDetrForObjectDetection, HfDetrModel
from hf_detr.conversion.class_rows import class_names, describe, rows_by_name
from modeling.tiny import images, labels, tiny_config, tiny_model

SAVED = {0: "red", 1: "cell", 2: "blue"}
WANTED = {0: "green", 1: "blue", 2: "red"}
# a softmax; denoising, whose labels are embedded; heads of every layer and proposals of no class; selected queries
PRESETS = ["detr-resnet-50", "dn-detr-resnet-50", "deformable-detr-resnet-50-two-stage", "dino-resnet-50-4scale"]


@pytest.fixture(params=PRESETS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[HfDetrForObjectDetection, Path]:
    """A model whose heads are no fresh ones, and its folder."""
    model = tiny_model(request.param, id2label=SAVED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "class_head" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    model.save_pretrained(tmp_path)
    return model, tmp_path


def by_name(model: HfDetrForObjectDetection) -> dict[str, Tensor]:
    """The logits of each class for an image, and those of "no object" where there is such a class."""
    with torch.no_grad():
        logits = model(images(1)).logits
    names = [*model.config.id2label.values(), "no object"]
    return dict(zip(names, logits.unbind(-1), strict=False))


def load_by_keyword(folder: Path, id2label: dict[int, str], **fields: Any) -> HfDetrForObjectDetection:
    return HfDetrForObjectDetection.from_pretrained(folder, id2label=id2label, **fields)


def load_by_config(folder: Path, id2label: dict[int, str], **fields: Any) -> HfDetrForObjectDetection:
    config = HfDetrConfig.from_pretrained(folder, id2label=id2label, **fields)
    return HfDetrForObjectDetection.from_pretrained(folder, config=config)


def load_by_auto_class(folder: Path, id2label: dict[int, str], **fields: Any) -> HfDetrForObjectDetection:
    label2id = {name: label for label, name in id2label.items()}
    return AutoModelForObjectDetection.from_pretrained(folder, id2label=id2label, label2id=label2id, **fields)


@pytest.mark.parametrize("load", [load_by_keyword, load_by_config, load_by_auto_class])
def test_classes_keep_their_predictions(saved, load, caplog: pytest.LogCaptureFixture):
    model, folder = saved
    before = by_name(model)
    with caplog.at_level(logging.WARNING):
        loaded = load(folder, WANTED)
    assert "Class head: kept 2 of 3 classes by name (blue, red); new: green; dropped: cell." in caplog.text
    after = by_name(loaded)
    # selection looks at the most probable class, so that another head may select other tokens
    if model.config.query_reference != "selected" or model.config.query_content == "memory":
        for name in after.keys() & before.keys():
            torch.testing.assert_close(after[name], before[name])
    assert loaded.config.id2label == WANTED
    assert loaded.config.label2id == {name: label for label, name in WANTED.items()}
    saved_heads, heads = (dict(m.named_parameters()) for m in (model, loaded))
    decoder_heads = [name for name in heads if name.startswith("model.heads.class_head")]
    for name in decoder_heads:
        assert torch.equal(heads[name][[1, 2]], saved_heads[name][[2, 0]]), name
    embedding = heads.get("model.denoising.label_embedding.weight")
    if embedding is not None:  # the last row is that of no label
        old = saved_heads["model.denoising.label_embedding.weight"]
        assert torch.equal(embedding[[1, 2, 3]], old[[2, 0, 3]])
        assert not torch.isin(embedding[0], old).all()
    if model.config.query_content == "memory":  # the first class of proposals is any object
        name = "model.queries.heads.class_head.0.weight"
        assert torch.equal(heads[name], saved_heads[name])


def test_fewer_and_more_classes_train_and_save(saved, tmp_path: Path):
    _, folder = saved
    for names in (["blue"], ["a", "red", "b", "blue", "c"]):
        id2label = dict(enumerate(names))
        loaded = load_by_keyword(folder, id2label)
        with_object = loaded.config.classification == "softmax"
        assert loaded(images(1)).logits.shape[-1] == len(names) + with_object
        annotations = [{"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
        loaded.train()(images(1), labels=annotations).loss.backward()
        assert all(head.weight.grad.any() for head in loaded.model.heads.class_head)
        loaded.eval().save_pretrained(tmp_path / "again")
        again = HfDetrForObjectDetection.from_pretrained(tmp_path / "again")
        assert again.config.id2label == id2label
        for name, value in loaded.state_dict().items():
            assert torch.equal(again.state_dict()[name], value), name


def test_the_line_is_said_on_the_first_rank_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    tiny_model("detr-resnet-50", id2label=SAVED).save_pretrained(tmp_path)
    monkeypatch.setenv("RANK", "1")
    load_by_keyword(tmp_path, WANTED)
    assert "Class head" not in caplog.text


@pytest.mark.parametrize(
    ("wanted", "expected"), [({0: "blue", 1: "red"}, {"blue": 9, "red": 4}), (WANTED, None), (SAVED, "as saved")]
)
def test_category_ids_follow_the_classes(wanted: dict[int, str], expected: Any, tmp_path: Path):
    ids = {"red": 4, "cell": 7, "blue": 9}
    tiny_model("detr-resnet-50", id2label=SAVED, category_ids=ids).save_pretrained(tmp_path)
    loaded = load_by_keyword(tmp_path, wanted)
    assert loaded.config.category_ids == (ids if expected == "as saved" else expected)
    given = {name: number for number, name in enumerate(WANTED.values(), start=5)}
    assert load_by_keyword(tmp_path, WANTED, category_ids=given).config.category_ids == given


def test_new_classes_start_as_those_of_a_new_model(tmp_path: Path):
    tiny_model("dino-resnet-50-4scale", id2label=SAVED).save_pretrained(tmp_path)
    fresh = HfDetrForObjectDetection(tiny_config("dino-resnet-50-4scale", id2label=WANTED))
    head = load_by_keyword(tmp_path, WANTED).model.heads.class_head[0]
    assert torch.equal(head.bias[0], fresh.model.heads.class_head[0].bias[0])
    assert 0 < head.weight[0].abs().max() <= (6 / (head.in_features + 3)) ** 0.5


def test_the_order_alone_moves_rows(tmp_path: Path):
    model = tiny_model("detr-resnet-50", id2label=SAVED)
    model.save_pretrained(tmp_path)
    other = load_by_keyword(tmp_path, {0: "blue", 1: "red", 2: "cell"})
    before, after = by_name(model), by_name(other)
    for name in before:
        torch.testing.assert_close(after[name], before[name])
    base = HfDetrModel.from_pretrained(tmp_path, id2label={0: "blue", 1: "red", 2: "cell"})
    assert torch.equal(base.heads.class_head[0].weight, other.model.heads.class_head[0].weight)


@pytest.mark.parametrize(
    ("saved_names", "fields"),
    [
        (SAVED, {"num_labels": 3}),
        (SAVED, {"id2label": {0: "LABEL_2", 1: "LABEL_1", 2: "LABEL_0"}}),
        (None, {"id2label": WANTED}),
        (SAVED, {"dropout": 0.2}),
        (SAVED, {"id2label": SAVED}),
    ],
)
def test_nothing_moves_without_names_or_a_change(saved_names, fields: dict, tmp_path: Path):
    model = tiny_model("detr-resnet-50", **({"id2label": saved_names} if saved_names else {}))
    model.save_pretrained(tmp_path)
    loaded = HfDetrForObjectDetection.from_pretrained(tmp_path, **fields)
    assert torch.equal(loaded.model.heads.class_head[0].weight, model.model.heads.class_head[0].weight)


def test_another_number_of_classes_without_names_is_an_error_that_can_be_overruled(tmp_path: Path):
    tiny_model("detr-resnet-50", id2label=SAVED).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="size"):
        HfDetrForObjectDetection.from_pretrained(tmp_path, num_labels=5)
    loaded = HfDetrForObjectDetection.from_pretrained(tmp_path, num_labels=5, ignore_mismatched_sizes=True)
    assert loaded.model.heads.class_head[0].out_features == 6


def test_a_head_that_is_not_loaded_keeps_no_class(tmp_path: Path):
    """Another loss has another head: nothing in the file belongs to it."""
    tiny_model("detr-resnet-50", id2label=SAVED).save_pretrained(tmp_path)
    fields = {"classification": "focal", "ignore_mismatched_sizes": True, "output_loading_info": True}
    loaded, info = HfDetrForObjectDetection.from_pretrained(tmp_path, id2label=WANTED, **fields)
    assert info["mismatched_keys"]
    assert loaded(images(1)).logits.shape[-1] == 3
    assert (loaded.model.heads.class_head[0].bias == loaded.model.heads.class_head[0].bias[0]).all()


def test_names_that_repeat_are_taken_in_order():
    assert rows_by_name(["N/A", "person", "N/A"], ["N/A", "N/A", "N/A", "person"]) == [0, 2, None, 1]


def test_generic_names_are_none():
    assert class_names({"1": "b", "0": "a"}) == ["a", "b"]
    assert class_names({0: "LABEL_0", 1: "LABEL_1"}) is None
    assert class_names(None) is None


def test_the_line_is_short():
    many = [f"c{index}" for index in range(91)]
    line = describe(many, ["c3", "new"], rows_by_name(many, ["c3", "new"]))
    assert line.startswith("Class head: kept 1 of 2 classes by name (c3); new: new; dropped: c0, c1, c2, c4,")
    assert line.endswith(" and 80 more.")


@pytest.mark.parametrize(
    ("id2label", "expected"),
    [
        (
            {1: "a", 2: "b"},
            r"keys of id2label are 1, 2, but labels are the numbers from 0 to 1\. Write id2label=\{0: 'a'",
        ),
        ({0: "a", 5: "b"}, r"keys of id2label are 0, 5.*\{0: 'a', 1: 'b'\}"),
        ({"0": "a", "2": "b"}, r"keys of id2label are '0', '2'"),
        ({-1: "a", 0: "b"}, r"keys of id2label are -1, 0"),
        ({}, "there is no class"),
        (["a", "b"], r"id2label=\['a', 'b'\] is of type list; a dict from each label"),
        ("cat", "id2label='cat' is of type str; a dict from each label"),
        (3, "id2label=3 is of type int; a dict from each label"),
    ],
)
def test_keys_of_id2label_are_the_labels(id2label: Any, expected: str, tmp_path: Path):
    with pytest.raises(ValueError, match=expected):
        HfDetrConfig(id2label=id2label)
    tiny_model("detr-resnet-50", id2label=SAVED).save_pretrained(tmp_path)
    if id2label:
        with pytest.raises(ValueError, match=expected):
            HfDetrForObjectDetection.from_pretrained(tmp_path, id2label=id2label)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.tensor([0, 3]), r"Image 101 has the class label 3, but the model has num_labels=3.*0 to 2"),
        (torch.tensor([-1, 0]), "Image 101 has the class label -1, but the model has num_labels=3"),
        (torch.tensor([0.0, 1.0]), r"image 101 have 'class_labels' of type torch\.float32.*torch\.int64"),
        (torch.tensor([True, False]), r"image 101 have 'class_labels' of type torch\.bool"),
    ],
)
def test_labels_that_are_no_classes_are_refused(preset: str, bad: Tensor, message: str):
    annotations = labels(2, 2)
    annotations[1]["class_labels"] = bad
    model = tiny_model(preset)
    with pytest.raises(ValueError, match=message):
        model(images(2), labels=annotations)


def test_labels_of_other_integer_types_and_of_empty_images_are_taken():
    annotations = labels(2, 0)
    annotations[0]["class_labels"] = annotations[0]["class_labels"].to(torch.int32)
    annotations[1]["class_labels"] = torch.tensor([])
    assert tiny_model("detr-resnet-50")(images(2), labels=annotations).loss.isfinite()
