"""CocoMetrics against pycocotools, and what it says about wrong input."""

import contextlib
import io
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import hf_detr.evaluation
from hf_detr.evaluation import CocoMetrics, format_table
from hf_detr.evaluation.coco_metrics import SUMMARY_NAMES

NAMES = ["cat", "dog", "bird", "never seen"]


def random_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    corners = random.uniform(0, 300, (count, 2))
    # Sides from a few to a few hundred pixels: all three area ranges occur. A few have no area, as in real data.
    sides = np.exp(random.uniform(1, 5.5, (count, 2))) * (random.random((count, 2)) < 0.98)
    return np.concatenate([corners, corners + sides], axis=1)


def random_case(seed: int, num_images: int, max_objects: int, max_false: int, crowds: float):
    """Detections that are shaken copies of the objects, plus false ones; with ties in the scores."""
    random = np.random.default_rng(seed)
    predictions, references = [], []
    image_ids = random.permutation(10 * num_images)[:num_images]
    for image_id in image_ids.tolist():
        boxes = random_boxes(random, random.integers(0, max_objects + 1))
        labels = random.integers(0, 3, len(boxes))
        references.append(
            {
                "image_id": image_id,
                "boxes": boxes,
                "labels": labels,
                # Not the area of the box, as for a mask's: the ranges must follow this one.
                "area": np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * random.uniform(0.3, 1, len(boxes)),
                "iscrowd": (random.random(len(boxes)) < crowds).astype(int),
            }
        )
        found = random.random(len(boxes)) < 0.8
        false_boxes = random_boxes(random, random.integers(0, max_false + 1))
        shaken = boxes[found] + random.normal(0, 1, (found.sum(), 4))
        detected = np.concatenate([shaken, false_boxes])
        detected = np.concatenate([np.minimum(detected[:, :2], detected[:, 2:]), detected[:, 2:]], axis=1)
        predictions.append(
            {
                "image_id": image_id,
                "boxes": detected,
                "labels": np.concatenate([labels[found], random.integers(0, 3, len(false_boxes))]),
                "scores": random.random(len(detected)).round(2),
            }
        )
    random.shuffle(predictions)
    return predictions, references


def as_coco(images: list[dict], kind: str) -> COCO:
    coco = COCO()
    annotations = []
    for image in images:
        for row, (x0, y0, x1, y1) in enumerate(np.asarray(image["boxes"], dtype=float).reshape(-1, 4).tolist()):
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image["image_id"],
                "category_id": int(image["labels"][row]),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
            }
            if kind == "references":
                annotation |= {"area": float(image["area"][row]), "iscrowd": int(image["iscrowd"][row])}
            else:
                area = (x1 - x0) * (y1 - y0)
                annotation |= {"area": area, "iscrowd": 0, "score": float(image["scores"][row])}
            annotations.append(annotation)
    coco.dataset = {
        "images": [{"id": image["image_id"]} for image in images],
        "categories": [{"id": label, "name": name} for label, name in enumerate(NAMES)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def judged_by_pycocotools(predictions: list[dict], references: list[dict]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(as_coco(references, "references"), as_coco(predictions, "predictions"), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def assert_equal_to_pycocotools(predictions: list[dict], references: list[dict]) -> dict:
    result = CocoMetrics(class_names=NAMES, keep_in_memory=True).compute(
        predictions=predictions, references=references
    )
    judge = judged_by_pycocotools(predictions, references)
    np.testing.assert_allclose([result[name] for name in SUMMARY_NAMES], judge.stats, rtol=0, atol=1e-9)

    assert list(result["per_class"]) == NAMES
    for label, name in enumerate(NAMES):
        precision, recall = judge.eval["precision"][:, :, label, 0, 2], judge.eval["recall"][:, label, 0, 2]
        expected = [precision.mean(), precision[0].mean(), recall.mean()]
        row = result["per_class"][name]
        np.testing.assert_allclose([row["AP"], row["AP50"], row["AR_100"]], expected, rtol=0, atol=1e-9)
        real = [image["labels"][image["iscrowd"] == 0] for image in references]
        assert row["num_objects"] == sum((labels == label).sum() for labels in real)
    return result


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_images=st.integers(1, 8),
    max_objects=st.integers(0, 12),
    max_false=st.integers(0, 12),
    crowds=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_equals_pycocotools(seed, num_images, max_objects, max_false, crowds):
    assert_equal_to_pycocotools(*random_case(seed, num_images, max_objects, max_false, crowds))


def test_equals_pycocotools_beyond_a_hundred_detections():
    predictions, references = random_case(1, num_images=3, max_objects=60, max_false=600, crowds=0.1)
    assert any(np.bincount(image["labels"]).max() > 100 for image in predictions)
    result = assert_equal_to_pycocotools(predictions, references)
    assert 0 < result["AR_1"] < result["AR_10"] < result["AR_100"]


def test_equals_pycocotools_on_boxes_without_area():
    predictions, references = perfect()
    for images in (predictions, references):
        images[0]["boxes"] = [[10.0, 20.0, 110.0, 120.0], [30.0, 30.0, 30.0, 90.0], [5.0, 5.0, 5.0, 5.0]]
        images[0]["labels"] = np.array([0, 0, 0])
    predictions[0]["scores"] = [0.9, 0.8, 0.7]
    references[0] |= {"area": [10000.0, 0.0, 0.0], "iscrowd": np.array([0, 0, 0])}
    assert_equal_to_pycocotools(predictions, references)


def test_equals_pycocotools_without_detections():
    _, references = random_case(2, num_images=4, max_objects=9, max_false=0, crowds=0.0)
    empty = {"boxes": [], "scores": [], "labels": []}
    predictions = [{"image_id": image["image_id"], **empty} for image in references]
    result = assert_equal_to_pycocotools(predictions, references)
    assert result["AP"] == 0
    assert result["per_class"]["never seen"] == {"AP": -1, "AP50": -1, "AR_100": -1, "num_objects": 0}


def test_the_given_area_decides_the_size_range():
    """A box of 100x100 pixels around a thin object of 500 square pixels counts as small."""
    predictions, references = perfect()
    references[0]["area"] = [500.0]
    result = CocoMetrics(class_names=["thing"]).compute(predictions=predictions, references=references)
    assert result["AP_small"] == pytest.approx(1)
    assert result["AP_medium"] == result["AP_large"] == -1


def perfect() -> tuple[list[dict], list[dict]]:
    box = [10.0, 20.0, 110.0, 120.0]
    predictions = [{"image_id": 7, "boxes": [box], "scores": [0.9], "labels": [0]}]
    references = [{"image_id": 7, "boxes": [box], "labels": [0], "area": [10000.0], "iscrowd": [0]}]
    return predictions, references


def test_loads_through_evaluate(monkeypatch, tmp_path):
    monkeypatch.setattr("evaluate.loading.init_dynamic_modules", lambda: _importable(monkeypatch, tmp_path))
    folder = Path(hf_detr.evaluation.__file__).parent / "coco_metrics"
    metric = evaluate.load(str(folder), cache_dir=str(tmp_path / "cache"), class_names=NAMES)
    assert type(metric).__module__ != CocoMetrics.__module__, "expected the copy that evaluate makes"

    predictions, references = random_case(3, num_images=4, max_objects=6, max_false=6, crowds=0.2)
    for prediction, reference in zip(predictions, references, strict=True):
        metric.add(prediction=prediction, reference=reference)
    direct = CocoMetrics(class_names=NAMES, cache_dir=str(tmp_path / "cache"))
    assert metric.compute() == direct.compute(predictions=predictions, references=references)


def _importable(monkeypatch, tmp_path: Path) -> str:
    """A folder for the copies that `evaluate` makes, in place of the one in the user's cache."""
    folder = tmp_path / "copied_modules"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    return str(folder)


def test_tensors_of_any_precision_are_welcome():
    predictions, references = perfect()
    predictions = [
        {
            "image_id": torch.tensor(7),
            "boxes": torch.tensor(predictions[0]["boxes"]),
            "scores": torch.tensor([0.9], dtype=torch.bfloat16).float(),
            "labels": torch.tensor([0]),
        }
    ]
    references = [{name: np.array(values) for name, values in references[0].items()}]
    assert CocoMetrics().compute(predictions=predictions, references=references)["AP"] == pytest.approx(1)


def test_classes_without_names_are_numbered():
    predictions, references = perfect()
    predictions[0]["labels"] = [2]
    result = CocoMetrics().compute(predictions=predictions, references=references)
    assert list(result["per_class"]) == ["0", "1", "2"]


def test_nothing_at_all_is_undefined():
    predictions = [{"image_id": 1, "boxes": [], "scores": [], "labels": []}]
    references = [{"image_id": 1, "boxes": [], "labels": [], "area": [], "iscrowd": []}]
    result = CocoMetrics().compute(predictions=predictions, references=references)
    assert {result[name] for name in SUMMARY_NAMES} == {-1}
    assert result["per_class"] == {}


@pytest.mark.parametrize(
    ("source", "field", "value", "message"),
    [
        ("predictions", "image_id", 8, "predictions: image_id 8 is not among"),
        ("predictions", "labels", [1], r"predictions, image_id 7: label 1 is outside 0\.\.0"),
        ("references", "labels", [-1], r"references, image_id 7: label -1 is outside 0\.\.0"),
        ("predictions", "scores", [], "predictions, image_id 7: 1 boxes but 0 values of scores"),
        ("predictions", "scores", [float("nan")], "predictions, image_id 7: scores must be finite"),
        ("references", "area", [1.0, 2.0], "references, image_id 7: 1 boxes but 2 values of area"),
        ("predictions", "boxes", [[0, 0, 1]], "predictions, image_id 7: boxes must have 4 numbers"),
        ("predictions", "boxes", [[5, 0, 1, 1]], "predictions, image_id 7: boxes must be .* x0 <= x1"),
        ("predictions", "boxes", [[0, 0, 1, float("inf")]], "predictions, image_id 7: boxes must be finite"),
    ],
)
def test_wrong_input_is_named(source, field, value, message):
    predictions, references = perfect()
    (predictions if source == "predictions" else references)[0][field] = value
    with pytest.raises(ValueError, match=message):
        CocoMetrics(class_names=["thing"], keep_in_memory=True).compute(predictions=predictions, references=references)


@pytest.mark.parametrize("source", ["predictions", "references"])
def test_an_image_given_twice_is_an_error(source):
    predictions, references = perfect()
    # The two lists must be equally long: the other one gets a second image of its own.
    predictions.append({**predictions[0], "image_id": 7 if source == "predictions" else 8})
    references.append({**references[0], "image_id": 7 if source == "references" else 8})
    with pytest.raises(ValueError, match=f"{source}: image_id 7 is given more than once"):
        CocoMetrics(keep_in_memory=True).compute(predictions=predictions, references=references)


def test_class_names_must_differ():
    with pytest.raises(ValueError, match="must not repeat"):
        CocoMetrics(class_names=["cat", "cat"])


def test_the_table_shows_every_number():
    predictions, references = random_case(4, num_images=20, max_objects=9, max_false=5, crowds=0.0)
    result = CocoMetrics(class_names=["[red]cat", *NAMES[1:]]).compute(predictions=predictions, references=references)
    lines = [[cell.strip() for cell in line.strip("│\n ").split("│")] for line in format_table(result).splitlines()]
    table = {cells[0]: cells[-1] for cells in lines}
    for name in SUMMARY_NAMES:
        assert table[name] == f"{result[name]:.3f}"
    row = result["per_class"]["[red]cat"]
    assert ["[red]cat", str(row["num_objects"]), *(f"{row[key]:.3f}" for key in ("AP", "AP50", "AR_100"))] in lines
    assert ["never seen", "0", "n/a", "n/a", "n/a"] in lines
