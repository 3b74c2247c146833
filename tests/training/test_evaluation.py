"""COCO metrics inside `HfDetrTrainer`, on one and on two processes."""

import json
import subprocess
import sys
from pathlib import Path

import evaluate_distributed
import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from hf_detr.data import detection_features
from hf_detr.evaluation import CocoMetrics
from hf_detr.training import pack_labels, unpack_labels


class Oracle(torch.nn.Module):
    """Answers each image with given boxes (relative cxcywh) and classes, whatever it sees."""

    def __init__(self, config, answers: dict[int, tuple[list, list]]):
        super().__init__()
        self.config, self.answers = config, answers
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, pixel_values, pixel_mask=None, labels=None, num_boxes=None):
        from hf_detr.modeling.outputs import HfDetrObjectDetectionOutput

        logits = torch.zeros(len(labels), 10, self.config.num_labels + 1)
        logits[..., -1] = 20.0
        boxes = torch.full((len(labels), 10, 4), 0.5)
        for image, label in enumerate(labels):
            for query, (box, category) in enumerate(zip(*self.answers[label["image_id"].item()], strict=True)):
                boxes[image, query] = torch.tensor(box)
                logits[image, query, category] = 40.0
        loss = self.anchor * 0.0
        return HfDetrObjectDetectionOutput(loss=loss, loss_dict={}, logits=logits, pred_boxes=boxes)


def answers(data: Dataset) -> dict[int, tuple[list, list]]:
    """The ground truth of a data set, as an `Oracle` takes it."""
    found = {}
    for row in data:
        scale = np.array([row["width"], row["height"]] * 2)
        boxes = np.array(row["objects"]["bbox"], dtype=np.float64).reshape(-1, 4)
        boxes[:, :2] += boxes[:, 2:] / 2
        found[row["image_id"]] = ((boxes / scale).tolist(), row["objects"]["category"])
    return found


def test_an_oracle_reaches_full_average_precision(build_trainer, build_model, validation_data):
    trainer = build_trainer(model=Oracle(build_model().config, answers(validation_data)))
    metrics = trainer.evaluate()
    assert metrics["eval_AP"] == pytest.approx(1.0, abs=1e-6)
    objects = sum(row["num_objects"] for row in trainer.per_class.values())
    assert objects == sum(len(row["category"]) for row in validation_data["objects"])


def test_crowd_regions_are_neither_rewarded_nor_punished(build_trainer, build_model, image_processor):
    """The crowd is no label of a batch, but evaluation knows it: detections inside it are no false positives."""
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    objects = {
        "id": [1, 2],
        "bbox": [[4.0, 4.0, 20.0, 20.0], [30.0, 30.0, 30.0, 30.0]],
        "category": [0, 0],
        "area": [400.0, 900.0],
        "iscrowd": [0, 1],
    }
    row = {"image": [pixels], "image_id": [7], "width": [64], "height": [64], "objects": [objects]}
    config = build_model().config
    data = Dataset.from_dict(row, features=detection_features(list(config.id2label.values())))
    inside_the_crowd = [[0.6, 0.6, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]]
    oracle = Oracle(config, {7: ([[14 / 64, 14 / 64, 20 / 64, 20 / 64], *inside_the_crowd], [0, 0, 0])})
    assert build_trainer(model=oracle, eval_dataset=data).evaluate()["eval_AP"] == pytest.approx(1.0, abs=1e-6)


def test_a_model_of_more_classes_is_evaluated_by_their_names(build_trainer, build_model, validation_data):
    names = ["moon", "star", "ring", "leaf", "crate", "cone", "ball"]
    config = build_model(id2label=dict(enumerate(names))).config
    data_names = validation_data.features["objects"]["category"].feature.names
    found = {
        image_id: (boxes, [names.index(data_names[label]) for label in labels])
        for image_id, (boxes, labels) in answers(validation_data).items()
    }
    metrics = build_trainer(model=Oracle(config, found)).evaluate()
    assert metrics["eval_AP"] == pytest.approx(1.0, abs=1e-6)

    unknown = build_model(id2label=dict(enumerate(names[:-1]))).config
    with pytest.raises(ValueError, match=r"does not know the classes \['ball'\]"):
        build_trainer(model=Oracle(unknown, found)).evaluate()


def test_predict_gathers_every_image_with_its_labels(build_trainer, validation_data):
    output = build_trainer().predict(validation_data)
    logits, boxes = output.predictions
    assert logits.shape[:2] == boxes.shape[:2] == (5, 10)
    labels = unpack_labels(torch.as_tensor(output.label_ids))
    assert [label["image_id"].item() for label in labels] == validation_data["image_id"]
    for label, row in zip(labels, validation_data, strict=True):
        assert label["class_labels"].tolist() == row["objects"]["category"]
        assert label["orig_size"].tolist() == [row["height"], row["width"]]


def test_own_metrics_replace_those_of_coco(build_trainer, validation_data):
    def count(prediction) -> dict[str, float]:
        return {"objects": sum(len(label["boxes"]) for label in unpack_labels(torch.as_tensor(prediction.label_ids)))}

    metrics = build_trainer(compute_metrics=count).evaluate()
    assert metrics["eval_objects"] == sum(len(row["category"]) for row in validation_data["objects"])
    assert "eval_AP" not in metrics


def test_metrics_agree_with_detections_collected_by_hand(build_trainer, build_model, image_processor, validation_data):
    from hf_detr.evaluation.detection_evaluator import reference_objects
    from hf_detr.prediction import detect

    model = build_model().eval()
    names = list(model.config.id2label.values())
    detections = [
        {"image_id": row["image_id"], **detect(model, image_processor, [row["image"]], threshold=0.0)[0]}
        for row in validation_data
    ]
    by_hand = CocoMetrics(class_names=names, keep_in_memory=True).compute(
        predictions=[{k: v if k == "image_id" else v.numpy() for k, v in d.items()} for d in detections],
        references=list(reference_objects(validation_data)),
    )
    by_hand.pop("per_class")
    metrics = build_trainer({"per_device_eval_batch_size": 1}, model=model).evaluate()
    assert {name: metrics[f"eval_{name}"] for name in by_hand} == pytest.approx(by_hand, abs=1e-6)


image_ids = st.integers(0, 2**53)
labels = st.builds(
    lambda image_id, size, classes, seed: {
        "image_id": torch.tensor([image_id]),
        "orig_size": torch.tensor(size),
        "class_labels": torch.tensor(classes, dtype=torch.int64),
        "boxes": torch.rand(len(classes), 4, generator=torch.Generator().manual_seed(seed)),
    },
    image_ids,
    st.tuples(st.integers(1, 20000), st.integers(1, 20000)),
    st.lists(st.integers(0, 2**20), max_size=5),
    st.integers(0, 1000),
)


@given(st.lists(labels, min_size=1, max_size=4), st.integers(0, 3))
def test_packed_labels_survive_padding(batch, padding):
    packed = torch.nn.functional.pad(pack_labels(batch), (0, 0, 0, padding), value=-100)
    for label, unpacked in zip(batch, unpack_labels(packed), strict=True):
        assert label.keys() == unpacked.keys()
        for name, value in label.items():
            assert value.dtype == unpacked[name].dtype
            assert torch.equal(value, unpacked[name])


def test_two_processes_train_and_evaluate_as_one(tmp_path: Path):
    """Seven images in batches of two: the last batch of two processes is filled up with copies."""
    script, output = Path(evaluate_distributed.__file__), tmp_path / "two.json"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*launcher, str(script), str(output)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    two, one = json.loads(output.read_text()), evaluate_distributed.run()
    assert (one["processes"], two["processes"]) == (1, 2)
    assert 0.1 < one["metrics"]["eval_AP"] < 0.9
    assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-9)
    assert two["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)
    for losses, expected in zip(two["losses"], one["losses"], strict=True):
        assert losses == pytest.approx(expected, rel=1e-4)
    # the last batch of each epoch is not finite, on one of the two processes
    assert one["loss_is_nan"] == two["loss_is_nan"] == [False, False, False, True] * 2
    # what is left in the model is the average of its weights; biases of keys have no gradient but rounding, which Adam
    # makes as large as any
    assert two["averaged_norms"] == pytest.approx(one["averaged_norms"], rel=1e-4, abs=1e-5)
    assert two["matching_changed"] == one["matching_changed"]
    assert len(one["matching_changed"]) == 1
