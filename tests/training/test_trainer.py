"""Losses, steps and resuming of `HfDetrTrainer`."""

import logging
from pathlib import Path

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from hf_detr.data import DetectionCollator, DetrAugmentation, category_names, detection_features
from hf_detr.processing.image_processing import HfDetrImageProcessor
from hf_detr.training import HfDetrTrainer, HfDetrTrainingArguments

NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
FOCAL = {
    "cross_attention": "conditional",
    "query_reference": "point",
    "classification": "focal",
}


class RecordGradients(TrainerCallback):
    """Keeps the gradients of the first optimizer step."""

    def __init__(self):
        self.gradients = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if not self.gradients:
            self.gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def parameters(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("family", [{}, FOCAL], ids=["softmax", "focal"])
def test_accumulated_batches_give_the_gradients_and_logs_of_one_batch(build_trainer, build_model, train_data, family):
    data = train_data.select(range(4))
    assert len({len(objects["category"]) for objects in data["objects"]}) > 1
    recorded, logs = [], []
    for batch_size, steps in ((4, 1), (1, 4)):
        record = RecordGradients()
        arguments = {
            "per_device_train_batch_size": batch_size,
            "gradient_accumulation_steps": steps,
            "max_steps": 1,
            "max_grad_norm": 0.0,
            "train_sampling_strategy": "sequential",
        }
        # double precision: what differs is then the arithmetic asked for, not its rounding
        model = build_model(**NO_DROPOUT, **family).double()
        trainer = build_trainer(arguments, model=model, train_dataset=data, callbacks=[record])
        collate = trainer.data_collator.collator

        def in_double(rows, collate=collate):
            batch = collate(rows)
            return {**batch, "pixel_values": batch["pixel_values"].double()}

        trainer.data_collator.collator = in_double
        trainer.train()
        recorded.append(record.gradients)
        logs.append(trainer.state.log_history[0])

    assert recorded[0].keys() == recorded[1].keys()
    for name, gradient in recorded[0].items():
        torch.testing.assert_close(
            recorded[1][name], gradient, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert any(name.startswith("loss_ce") for name in logs[0])
    for name in (key for key in logs[0] if key.startswith(("loss", "cardinality"))):
        assert logs[1][name] == pytest.approx(logs[0][name], rel=1e-5), name


def test_logged_terms_are_means_over_the_steps_since_the_last_log(build_trainer):
    every = build_trainer({"max_steps": 4, "logging_steps": 1})
    every.train()
    pairs = build_trainer({"max_steps": 4, "logging_steps": 2})
    pairs.train()
    single = [row for row in every.state.log_history if "loss" in row]
    double = [row for row in pairs.state.log_history if "loss" in row]
    assert [row["step"] for row in double] == [2, 4]
    for name in ("loss", "loss_ce", "loss_bbox_0", "cardinality_error"):
        means = [(single[i][name] + single[i + 1][name]) / 2 for i in (0, 2)]
        assert [row[name] for row in double] == pytest.approx(means, rel=1e-4), name


class Poison:
    """A collator that makes the pixels of chosen calls NaN."""

    def __init__(self, collator, calls):
        self.collator, self.calls, self.count = collator, calls, 0

    def __call__(self, rows):
        batch = self.collator(rows)
        if self.count in self.calls:
            batch["pixel_values"].fill_(float("nan"))
        self.count += 1
        return batch


class RecordParameters(TrainerCallback):
    def __init__(self):
        self.history = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.history.append(parameters(model))

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.history.append(parameters(model))


def test_a_batch_without_finite_loss_is_skipped_and_reported(build_trainer, image_processor, train_data, caplog):
    record = RecordParameters()
    trainer = build_trainer(
        {"max_steps": 4, "train_sampling_strategy": "sequential"},
        data_collator=Poison(DetectionCollator(image_processor), calls=[2]),
        callbacks=[record],
    )
    with caplog.at_level(logging.WARNING, logger="hf_detr"):
        trainer.train()
    start, first, second, third, fourth = record.history
    assert_same(second, third)
    for before, after in ((start, first), (first, second), (third, fourth)):
        assert any(not torch.equal(before[name], after[name]) for name in before)
    ids = train_data["image_id"][4:6]
    assert [message for message in caplog.messages if "skipped" in message] == [
        f"Step 3 is skipped: the loss is nan on the images {ids}"
    ]
    assert trainer.state.global_step == 4
    state = trainer.optimizer.state_dict()["state"]
    assert all(torch.isfinite(value).all() for entry in state.values() for value in entry.values())
    assert {int(entry["step"]) for entry in state.values()} == {3}


def test_one_bad_batch_of_an_accumulated_step_skips_the_step(build_trainer, image_processor):
    record = RecordParameters()
    trainer = build_trainer(
        {"max_steps": 2, "gradient_accumulation_steps": 2},
        data_collator=Poison(DetectionCollator(image_processor), calls=[0]),
        callbacks=[record],
    )
    trainer.train()
    start, first, second = record.history
    assert_same(start, first)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_gradient_that_is_not_finite_is_skipped(build_trainer, build_model, caplog):
    model = build_model()
    weight = next(parameter for parameter in model.parameters() if parameter.requires_grad)
    weight.register_hook(lambda gradient: torch.full_like(gradient, float("inf")))
    before = parameters(model)
    trainer = build_trainer({"max_steps": 1}, model=model)
    with caplog.at_level(logging.WARNING, logger="hf_detr"):
        trainer.train()
    assert_same(before, parameters(model))
    assert "Step 1 is skipped: the gradient norm is" in caplog.text


def test_too_many_skipped_steps_in_a_row_end_the_training(build_trainer, image_processor):
    poison = Poison(DetectionCollator(image_processor), calls=[0, *range(3, 100)])
    trainer = build_trainer({"max_steps": 50}, data_collator=poison)
    with pytest.raises(
        RuntimeError, match=r"no finite loss for 10 steps in a row, the last one step 13 on the images"
    ):
        trainer.train()


def test_more_objects_than_queries_are_refused_before_training(build_trainer, build_model, train_data):
    counts = [len(objects["category"]) for objects in train_data["objects"]]
    worst = train_data["image_id"][counts.index(max(counts))]

    def no_batch(rows):
        raise AssertionError("training has started")

    trainer = build_trainer(model=build_model(num_queries=max(counts) - 1), data_collator=no_batch)
    with pytest.raises(
        ValueError, match=f"image id {worst} .* has {max(counts)} objects.* only {max(counts) - 1} quer"
    ):
        trainer.train()


def test_a_model_of_other_classes_is_refused_before_training(build_trainer, build_model):
    names = {0: "star", 1: "ball", 2: "cone", 3: "crate", 4: "leaf", 5: "ring"}
    with pytest.raises(
        ValueError, match=r"the classes of the model are .'star', 'ball'.* the training set are .'ball'"
    ):
        build_trainer(model=build_model(id2label=names)).train()


def test_category_ids_of_the_data_go_into_the_configuration(build_trainer, build_model, train_data):
    ids = {name: 10 * label for label, name in enumerate(category_names(train_data), start=1)}
    known = train_data.cast(detection_features(list(ids), instance_masks=True, category_ids=ids))
    trainer = build_trainer({"max_steps": 1}, train_dataset=known)
    trainer.train()
    assert trainer.model.config.category_ids == ids
    model = build_model(category_ids=ids)  # by a user, who knows the ids of data that do not tell
    build_trainer({"max_steps": 1}, model=model).train()
    assert model.config.category_ids == ids


def test_parts_learn_at_their_own_rates(build_trainer, build_model):
    def rates(trainer: HfDetrTrainer) -> dict[str, set[float]]:
        names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
        optimizer = trainer.create_optimizer()
        found: dict[str, set[float]] = {"backbone": set(), "rest": set()}
        for group in optimizer.param_groups:
            assert group["weight_decay"] == 1e-4
            for parameter in group["params"]:
                found["backbone" if "backbone.body" in names.pop(id(parameter)) else "rest"].add(group["lr"])
        assert not [name for name in names.values() if trainer.model.get_parameter(name).requires_grad]
        return found

    from_scratch = build_model()
    assert rates(build_trainer(model=from_scratch)) == {"backbone": {1e-4}, "rest": {1e-4}}
    loaded = build_model()
    loaded.config.name_or_path = "someone/model"
    assert rates(build_trainer(model=loaded)) == {"backbone": {1e-5}, "rest": {1e-4}}
    chosen = build_trainer({"backbone_learning_rate": 5e-5}, model=build_model())
    assert rates(chosen) == {"backbone": {5e-5}, "rest": {1e-4}}
    multipliers = build_model(learning_rate_multipliers={"heads": 0.5})
    assert rates(build_trainer(model=multipliers))["rest"] == {1e-4, 5e-5}


def test_frozen_parameters_stay_out_of_the_optimizer(build_trainer, build_model):
    model = build_model()
    model.model.backbone.requires_grad_(False)
    optimizer = build_trainer(model=model).create_optimizer()
    assert sum(len(group["params"]) for group in optimizer.param_groups) == sum(
        parameter.requires_grad for parameter in model.parameters()
    )


@pytest.mark.parametrize(("workers", "save_step"), [(0, 3), (0, 4), (2, 3)])
def test_a_resumed_run_continues_bit_by_bit(
    build_trainer, build_model, image_processor, tmp_path: Path, workers: int, save_step: int
):
    def trainer() -> HfDetrTrainer:
        return build_trainer(
            {
                "num_train_epochs": 2,
                "save_strategy": "steps",
                "save_steps": save_step,
                "eval_strategy": "epoch",
                "dataloader_num_workers": workers,
            },
            model=build_model(dropout=0.1),
            data_collator=DetectionCollator(image_processor, DetrAugmentation(64, 96)),
        )

    whole = trainer()
    whole.train()
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{save_step}"))
    assert_same(parameters(whole.model), parameters(resumed.model))
    assert whole.state.log_history[-2]["eval_loss"] == resumed.state.log_history[-2]["eval_loss"]


def test_the_same_seed_gives_the_same_batches_with_any_number_of_workers(build_trainer, image_processor):
    batches = []
    for workers in (0, 1):
        trainer = build_trainer(
            {"dataloader_num_workers": workers},
            data_collator=DetectionCollator(image_processor, DetrAugmentation(64, 96)),
        )
        batches.append(list(trainer.get_train_dataloader()))
    for first, second in zip(*batches, strict=True):
        assert torch.equal(first["pixel_values"], second["pixel_values"])
    assert len({tuple(batch["pixel_values"].shape) for batch in batches[0]}) > 1


def test_batches_are_augmented_anew_in_each_epoch(build_trainer, image_processor):
    trainer = build_trainer(
        {"train_sampling_strategy": "sequential"},
        data_collator=DetectionCollator(image_processor, DetrAugmentation(64, 96)),
    )
    first = list(trainer.get_train_dataloader())
    trainer.state.epoch = 1.0
    trainer.callback_handler.on_epoch_begin(trainer.args, trainer.state, trainer.control)
    second = list(trainer.get_train_dataloader())
    assert any(a["pixel_values"].shape != b["pixel_values"].shape for a, b in zip(first, second, strict=True))


def test_other_arguments_are_refused(build_model, tmp_path: Path):
    with pytest.raises(ValueError, match="args must be HfDetrTrainingArguments, got TrainingArguments"):
        HfDetrTrainer(build_model(), TrainingArguments(str(tmp_path)))


def test_a_saved_checkpoint_holds_the_image_processor(build_trainer, tmp_path: Path):
    trainer = build_trainer({"max_steps": 1, "save_strategy": "steps", "save_steps": 1})
    trainer.train()
    loaded = HfDetrImageProcessor.from_pretrained(tmp_path / "run" / "checkpoint-1")
    assert dict(loaded.size) == {"shortest_edge": 64, "longest_edge": 96}


def test_default_arguments(tmp_path: Path):
    args = HfDetrTrainingArguments(str(tmp_path))
    assert args.remove_unused_columns is False
    assert (args.learning_rate, args.weight_decay, args.max_grad_norm) == (1e-4, 1e-4, 0.1)
