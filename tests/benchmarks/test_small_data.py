import json
from types import SimpleNamespace

import pytest
import torch
from datasets import concatenate_datasets
from torchvision import tv_tensors
from typer.testing import CliRunner

from hf_detr.data import category_names, make_synthetic_dataset, undecoded
from hf_detr.files import write_json

DATA = "synthetic:6"


def settings(script, benchmark, model):
    return script("runs").Settings(
        benchmark=benchmark, model=model, data="synthetic-6", seed=0, budget_seconds=0.01, threads=1, image_size=128
    )


@pytest.mark.parametrize(
    ("benchmark", "model"),
    [
        *(("small_data", model) for model in ("ours", "detr", "deformable_detr", "rt_detr_v2", "d_fine")),
        *(("convergence", model) for model in ("detr", "dab", "dn", "deformable", "dino")),
    ],
)
def test_every_model_trains_and_leaves_a_record(benchmark, model, script, two_steps):
    threads = torch.get_num_threads()
    timed = {"machine": "that of the steps", "models": {model: {"step_seconds": 0.5, "steps_per_epoch": 3}}}
    run_one, make_train = script("runs").run_one, script(benchmark).make_train
    record = run_one(settings(script, benchmark, model), timed, DATA, make_train, 1)
    torch.set_num_threads(threads)
    assert record["steps"] == (2 if model == "ours" else 1)  # ours trains for whole epochs
    assert record["seconds"] == 0.5 * record["steps"]
    assert 4e6 < record["parameters"] < 21e6
    assert record["train_images"] == 6
    assert record["machine"] == "that of the steps"
    assert [point["step"] for point in record["curve"]] == [record["steps"]]
    assert record["metrics"]["AP"] == pytest.approx(record["curve"][0]["AP"])
    json.dumps(record)


@pytest.mark.parametrize("model", ["ours", "detr"])
def test_the_steps_of_a_model_are_timed(model, script, two_steps):
    step_seconds, steps_per_epoch = script("timed_training").time_steps(
        0.0, script("small_data").make_train(model, DATA, 128, 0)
    )
    assert step_seconds > 0
    assert steps_per_epoch == (2 if model == "ours" else 3)  # batches of 4 and of 2


@pytest.mark.parametrize("name", ["detr", "deformable_detr", "rt_detr_v2", "d_fine"])
def test_every_part_of_a_peer_learns(name, script):
    peers = script("transformers_peers")
    model = peers.PEERS[name].build({0: "a", 1: "b"})
    constant = {part for part, parameter in model.named_parameters() if not parameter.requires_grad}
    assert {part.rsplit(".", 1)[-1] for part in constant} <= {"up", "reg_scale"}  # of D-FINE's box distributions
    kinds = {type(module).__name__ for module in model.modules()}
    assert "BatchNorm2d" in kinds
    assert not [kind for kind in kinds if "Frozen" in kind]
    assert model.config.num_labels == 2


class Perfect(torch.nn.Module):
    """Answers with the labels of the batches that it is going to be given."""

    device = torch.device("cpu")

    def __init__(self, batches, num_logits, background):
        super().__init__()
        self.labels = iter([batch["labels"] for batch in batches])
        self.num_logits, self.background = num_logits, background

    def forward(self, **inputs):
        labels = next(self.labels)
        logits = torch.full((len(labels), 30, self.num_logits), -20.0)
        boxes = torch.full((len(labels), 30, 4), 0.5)
        if self.background:
            logits[..., -1] = 20.0
        for image, label in enumerate(labels):
            count = len(label["class_labels"])
            logits[image, torch.arange(count), label["class_labels"]] = 30.0
            boxes[image, :count] = label["boxes"]
        return SimpleNamespace(logits=logits, pred_boxes=boxes)


@pytest.mark.parametrize("name", ["detr", "rt_detr_v2"])
def test_a_peer_that_finds_everything_has_an_average_precision_of_one(name, script):
    """Padding, where images of a batch differ in shape, and stretching are undone: boxes return to original pixels."""
    peers = script("transformers_peers")
    parts = [make_synthetic_dataset(2, size, first_image_id=first) for first, size in ((0, (96, 64)), (2, (64, 80)))]
    data = undecoded(concatenate_datasets(parts)).select([0, 2, 1, 3])
    processor = peers.PEERS[name].image_processor((64, 96))
    collate = peers.PeerCollator(processor)
    background = name == "detr"
    batches = [collate([data[0], data[1]]), collate([data[2], data[3]])]
    assert ("pixel_mask" in batches[0]) == background
    model = Perfect(batches, len(category_names(data)) + background, background)
    metrics = peers.evaluate_peer(model, processor, data, 2)
    assert metrics["AP"] == pytest.approx(1.0, abs=1e-3)


def test_padding_is_taken_back(script):
    mask = torch.zeros(2, 64, 96, dtype=torch.int64)
    mask[0, :64, :48] = 1
    mask[1, :32, :96] = 1
    batch = {"pixel_values": torch.zeros(2, 3, 64, 96), "pixel_mask": mask}
    assert script("transformers_peers").padding(batch).tolist() == [[1.0, 2.0], [2.0, 1.0]]
    del batch["pixel_mask"]
    assert script("transformers_peers").padding(batch).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_real_time_peers_get_sides_that_are_multiples_of_32(script):
    size = script("transformers_peers").PEERS["rt_detr_v2"].image_processor((256, 341)).size
    assert (size["height"], size["width"]) == (256, 352)


@pytest.mark.parametrize("boxes", [[], [[10.0, 20.0, 30.0, 40.0], [5.0, 30.0, 60.0, 44.0]]])
def test_the_crop_keeps_all_boxes(boxes, script):
    crop = script("transformers_peers").BoxSafeCrop()
    image = torch.zeros(3, 48, 64, dtype=torch.uint8)
    shape = (image.shape[1], image.shape[2])
    target = tv_tensors.BoundingBoxes(torch.tensor(boxes).reshape(-1, 4), format="XYXY", canvas_size=shape)
    sides = (target[:, 2:] - target[:, :2]).tolist()
    for seed in range(20):
        torch.manual_seed(seed)
        cropped, moved = crop(image, target)
        assert moved.canvas_size == tuple(cropped.shape[1:])
        assert (moved[:, 2:] - moved[:, :2]).tolist() == sides
        assert (moved >= 0).all()
        limit = torch.tensor([cropped.shape[2], cropped.shape[1]])
        assert (moved[:, 2:] <= limit).all()


@pytest.fixture
def records(script, tmp_path):
    """Made-up records of two models, one of them with two seeds."""
    results = tmp_path / "results"
    for model, seed, precision in (("ours", 0, 0.5), ("ours", 1, 0.6), ("detr", 0, 0.001)):
        run = script("runs").Settings(
            benchmark="small_data", model=model, data="cells", seed=seed, budget_seconds=60.0, threads=2,
            image_size=256,
        )  # fmt: skip
        metrics = dict.fromkeys(script("timed_training").SUMMARY_NAMES, precision) | {"AP_small": -1.0}
        record = {
            "settings": vars(run), "train_images": 8, "validation_images": 2, "fingerprint": "abc", "seconds": 59.0,
            "parameters": 13_000_000, "epochs": 7.0, "images_per_second": 3.0, "metrics": metrics, "machine": "some",
            "versions": {"torch": "2"}, "curve": [{"seconds": 30.0, "step": 3, **metrics}],
        }  # fmt: skip
        write_json(results / run.file_name, record)
    return results


def test_the_report_goes_between_the_markers(records, script, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- small_data cells: begin -->\nold\n<!-- small_data cells: end -->\nafter\n")
    arguments = ["report", "--results", str(records), "--page", str(page), "--figures", str(tmp_path)]
    result = CliRunner().invoke(script("small_data").app, arguments)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| hf_detr | 13.0 | 0.550 (0.500 to 0.600) |" in text
    assert "| transformers DETR | 13.0 | 0.001 |" in text
    assert "small_data.py time --data path/to/cells --threads 2 --image-size 256\n" in text
    assert "--threads 2 --image-size 256 --model ours --budget 1 --seed 0 --seed 1\n" in text
    assert (tmp_path / "benchmark_cells.png").stat().st_size > 1000
    assert CliRunner().invoke(script("small_data").app, arguments).exit_code == 0
    assert page.read_text() == text


def test_finished_runs_are_not_repeated_and_others_not_replaced(records, script):
    runs = script("runs")
    done = runs.read_record(records / "small_data_cells_ours_seed0.json")["settings"]
    path = records / "small_data_cells_ours_seed0.json"
    assert runs.is_done(path, runs.Settings(**done))
    assert not runs.is_done(records / "small_data_cells_ours_seed9.json", runs.Settings(**{**done, "seed": 9}))
    with pytest.raises(ValueError, match=r"seed0.json is the record of a run with \{'threads': 2\}"):
        runs.is_done(path, runs.Settings(**{**done, "threads": 1}))


def test_bad_records_are_named(records, script, tmp_path):
    runs = script("runs")
    (records / "small_data_broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"small_data_broken\.json is not JSON"):
        runs.read_records(records, "small_data")
    (records / "small_data_broken.json").write_text("[]")
    with pytest.raises(ValueError, match=r"small_data_broken\.json: expected the record of a run"):
        runs.read_records(records, "small_data")
    with pytest.raises(ValueError, match="holds no convergence_"):
        runs.read_records(records, "convergence")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "there is no such folder"),
        (["--data", "synthetic:6"], "run `time` first"),
        (["--data", "synthetic:6", "--model", "yolo"], "there is no model 'yolo'; choose from ours, detr"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, message, script, tmp_path):
    result = CliRunner().invoke(script("small_data").app, ["run", *arguments, "--results", str(tmp_path)])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []
