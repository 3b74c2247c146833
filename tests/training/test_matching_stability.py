"""The share of objects whose query changed."""

from pathlib import Path

import pytest
import torch

from hf_detr.data import DetectionCollator, DetrAugmentation
from hf_detr.modeling.targets import Matches
from hf_detr.training.matching_stability import MatchingStability, share_changed


def pairs(queries: dict[int, int]) -> torch.Tensor:
    return torch.tensor([list(queries), list(queries.values())], dtype=torch.int64).reshape(2, -1)


def test_only_objects_of_both_epochs_count():
    assert share_changed(pairs({1: 5, 2: 6, 3: 7}), pairs({3: 8, 2: 6, 4: 1})) == 0.5
    assert share_changed(pairs({1: 5}), pairs({2: 5})) is None
    assert share_changed(pairs({}), pairs({2: 5})) is None


def label(*ids: int) -> dict[str, torch.Tensor]:
    return {"annotation_ids": torch.tensor(ids, dtype=torch.int64)}


def test_the_last_layer_is_watched_and_padding_is_not():
    logged = []
    stability = MatchingStability(logged.append)
    matched = torch.tensor([[[True, True], [True, False]]])
    before = torch.tensor([[3, 4], [6, 7]])
    for last in ([[3, 4], [5, 0]], [[3, 9], [5, 1]]):
        query_index = torch.stack([torch.randint(10, (2, 2)), before, torch.tensor(last)])
        stability.observe([label(11, 12), label(13)], Matches(query_index, matched.expand(3, -1, -1)))
        stability.on_epoch_end(None, None, None)
    first, second = logged
    assert first == {"matching_changed_by_layer": pytest.approx(1 / 3)}
    assert second == {
        "matching_changed": pytest.approx(1 / 3),
        "matching_changed_by_layer": pytest.approx(2 / 3),
    }


def test_objects_without_a_number_or_a_query_are_left_out():
    logged = []
    stability = MatchingStability(logged.append)
    matches = Matches(torch.tensor([[[3, 4, 5]]]), torch.tensor([[[True, False, True]]]))
    for _ in range(2):
        stability.observe([label(-1, 12, 13)], matches)
        stability.observe([{"class_labels": torch.tensor([1, 2, 3])}], matches)
        stability.on_epoch_end(None, None, None)
        assert stability.previous.tolist() == [[13], [5]]
    unchanged = {"matching_changed_by_layer": 0.0}
    assert logged == [unchanged, {"matching_changed": 0.0, **unchanged}]


@pytest.mark.parametrize("save_step", [5, 6, 8])
def test_a_run_logs_it_each_epoch_and_a_resumed_one_the_same(
    build_trainer, build_model, image_processor, tmp_path: Path, save_step: int
):
    def trainer():
        return build_trainer(
            {"num_train_epochs": 4, "save_strategy": "steps", "save_steps": save_step, "learning_rate": 1e-3},
            model=build_model(dropout=0.1),
            data_collator=DetectionCollator(image_processor, DetrAugmentation(64, 96)),
        )

    def curve(trainer):
        return [
            (row["step"], row.get("matching_changed"), row["matching_changed_by_layer"])
            for row in trainer.state.log_history
            if "matching_changed_by_layer" in row
        ]

    whole = trainer()
    whole.train()
    assert [step for step, *_ in curve(whole)] == [4, 8, 12, 16]
    assert curve(whole)[0][1] is None
    for column in (1, 2):
        shares = [row[column] for row in curve(whole)[1:]]
        assert all(0 <= share <= 1 for share in shares)
        assert any(share > 0 for share in shares)
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{save_step}"))
    assert curve(resumed) == curve(whole)
