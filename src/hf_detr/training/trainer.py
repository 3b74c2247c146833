"""The subclass of `transformers.Trainer` that trains and evaluates DETR models."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EvalPrediction, PreTrainedModel, ProgressCallback, Trainer
from transformers.optimization import get_wsd_schedule
from transformers.trainer_utils import EvalLoopOutput

from hf_detr.data import DetectionCollator, category_ids, category_names
from hf_detr.hub.model_card import CARD_NAME, build_model_card

from ..acceleration.training import faster_training
from ..evaluation.detection_evaluator import ANNOTATION_COLUMNS, DetectionEvaluator, annotation_rows, same_classes
from ..evaluation.packed_labels import pack_labels
from ..modeling.pretrained import HfDetrPreTrainedModel
from ..processing.image_processing import DetectionProcessing
from .arguments import HfDetrTrainingArguments
from .callbacks import LossProgress
from .ema import TRAINING_WEIGHTS, WeightAverage
from .evidence import evidence_of
from .finite_steps import FiniteSteps, NonFiniteLossError
from .matching_stability import MatchingStability
from .optimizer_groups import parameter_groups, report_frozen_class_heads
from .seeding import SeededCollator
from .streaming import TrainingStream, check_object_count


class HfDetrTrainer(Trainer):
    """`transformers.Trainer` that trains and evaluates DETR models the way they are published.

    - The loss of an optimizer step is normalised by the boxes of all its batches on all processes, so gradient
      accumulation and data parallelism change nothing but the time.
    - Parts of the model learn at their own rates (`config.learning_rate_multipliers`).
    - Evaluation reports COCO metrics in original pixels; `per_class` holds the class table of the last evaluation.
    - A moving average of the weights is evaluated and saved, and the model holds it after training.
    - A step whose loss or gradient is not finite leaves model and optimizer as they were.
    - A resumed run continues bit by bit, whatever the number of workers.

    Args:
        model: a model for object detection.
        args: the training arguments.
        data_collator: makes a batch of rows of the training set; by default a `DetectionCollator` that does not
            augment.
        train_dataset, eval_dataset: data sets in the schema of `hf_detr.data`; the training set may be a stream
            (`load_streaming_data`), which needs `args.max_steps` and is read and divided by `TrainingStream`.
        processing_class: the image processor; it is saved with the model.
        plain_data_collator: takes the place of `data_collator` in the last `args.plain_epochs_share` of the epochs.
        eval_data_collator: makes a batch of rows of an evaluation set; by default a `DetectionCollator`.
        compute_metrics: replaces COCO metrics. It gets (logits, pred_boxes) and labels for `unpack_labels`.
        **kwargs: passed to `Trainer`.

    Raises:
        ValueError: for arguments of another class, for several GPUs in one process, or for an average of weights that
            FSDP or DeepSpeed cut into pieces.
    """

    model: HfDetrPreTrainedModel
    args: HfDetrTrainingArguments
    processing_class: DetectionProcessing | None

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | None = None,
        args: HfDetrTrainingArguments | None = None,
        data_collator: Callable[[Sequence[dict]], Any] | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: DetectionProcessing | None = None,
        *,
        plain_data_collator: Callable[[Sequence[dict]], Any] | None = None,
        eval_data_collator: Callable[[Sequence[dict]], Any] | None = None,
        compute_metrics: Callable[..., dict] | None = None,
        **kwargs: Any,
    ):
        args = args if args is not None else HfDetrTrainingArguments("trainer_output")
        if not isinstance(args, HfDetrTrainingArguments):
            raise ValueError(f"args must be HfDetrTrainingArguments, got {type(args).__name__}")
        if args.n_gpu > 1:
            raise ValueError(f"one process cannot train on {args.n_gpu} GPUs; start one process a GPU with torchrun")
        if compute_metrics is None and processing_class is not None:
            args.batch_eval_metrics = True
            compute_metrics = self._collect_detections
        if processing_class is not None:
            data_collator = data_collator or DetectionCollator(processing_class)
            eval_data_collator = eval_data_collator or DetectionCollator(processing_class)
        if data_collator is not None:
            data_collator = SeededCollator(data_collator, args.seed, plain_data_collator, args.plain_epochs_share)

        super().__init__(
            model, args, data_collator, train_dataset, eval_dataset, processing_class,
            compute_metrics=compute_metrics, **kwargs,
        )  # fmt: skip
        self.eval_data_collator = eval_data_collator or self.data_collator
        if isinstance(data_collator, SeededCollator):
            self.add_callback(data_collator)
        if not args.disable_tqdm:
            self.remove_callback(ProgressCallback)
            self.add_callback(LossProgress())
        # The loss is normalised over the whole optimizer step, so `Trainer` must not divide it again.
        self.model_accepts_loss_kwargs = True
        self.per_class: dict[str, dict[str, float]] = {}
        # The result of `CocoMetrics` that belongs to the present weights and the evaluation set.
        self._result: dict[str, Any] | None = None
        self._evaluated_step: int | None = None
        self._evaluator: DetectionEvaluator | None = None
        # Loss terms of the batches of this optimizer step, and of the steps since the last log.
        self._step_terms: list[dict[str, Tensor]] = []
        self._logged_terms: list[dict[str, Tensor]] = []
        self._finite_steps = FiniteSteps(self.accelerator, args.max_skipped_steps)
        self._average: WeightAverage | None = None
        self._matching = MatchingStability(self.log)
        if args.ema and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError("the moving average needs whole weights on each process; add ema=False")

    # ---- data ----

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Check the training set against the model, then train; see `Trainer.train`.

        Raises:
            ValueError: the model has other classes than the training set, or fewer queries than an image has objects.
            RuntimeError: `max_skipped_steps` steps in a row had no finite loss.
        """
        if _has_annotations(self.train_dataset):
            check_classes(self.train_dataset, self._class_names())
            ids = category_ids(self.train_dataset)
            if ids is not None:
                self.model.config.category_ids = ids  # the class ids of predictions.json
            if isinstance(self.train_dataset, Dataset):  # a stream is checked row by row
                check_object_counts(self.train_dataset, self.model.config.num_queries)
        report_frozen_class_heads(self.model)
        # accelerate marks a model that was evaluated before as prepared for training too, and would then not average
        # the gradients of several processes.
        if self.model_wrapped is self.model:
            self.model.__dict__.pop("_is_accelerate_prepared", None)
        self._follow_training()
        with faster_training(self.model, self.args.device.type):
            output = super().train(*args, **kwargs)
        best = self.state.best_global_step if self.args.load_best_model_at_end else None
        if self._evaluated_step != (best or self.state.global_step):
            self._result = None  # it belongs to other weights
        return output

    def get_train_dataloader(self) -> DataLoader:
        """Return the training data loader; a stream is divided between the ranks by `TrainingStream`."""
        if not isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        args = self.args
        batch_size = args.per_device_train_batch_size
        steps_of_rank = args.max_steps * args.gradient_accumulation_steps
        stream = TrainingStream(
            self.train_dataset, args.seed, args.shuffle_buffer, self.model.config.num_queries,
            steps_of_rank * batch_size, batch_size, args.process_index, args.world_size,
        )  # fmt: skip
        # accelerate does not prepare the loader, because it would divide the stream once more.
        return DataLoader(
            stream,
            batch_size,
            num_workers=args.dataloader_num_workers,
            collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory,
            prefetch_factor=args.dataloader_prefetch_factor,
        )

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """Return the evaluation data loader, which does not augment."""
        return self._with_eval_collator(super().get_eval_dataloader, eval_dataset)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Return the test data loader, which does not augment."""
        return self._with_eval_collator(super().get_test_dataloader, test_dataset)

    def _with_eval_collator(self, make: Callable[[Any], DataLoader], dataset: Any) -> DataLoader:
        train_collator, self.data_collator = self.data_collator, self.eval_data_collator
        try:
            return make(dataset)
        finally:
            self.data_collator = train_collator

    def _class_names(self) -> list[str]:
        return self.model.config.class_names

    # ---- optimization ----

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer that `args.optim` names over the groups of `parameter_groups`."""
        if self.optimizer is None:
            groups = parameter_groups(
                self.model if model is None else model,
                self.args.learning_rate,
                self.args.weight_decay,
                self._learning_rate_multipliers(),
                self.args.decay_biases_and_norms,
            )
            optimizer_class, keywords = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(
                self.args, self.model
            )
            self.optimizer = optimizer_class(groups, **keywords)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Build the schedule of the learning rate over a run of `num_training_steps` optimizer steps."""
        if self.lr_scheduler is not None or not self.args.flat_share:
            return super().create_scheduler(num_training_steps, optimizer)
        warmup = self.args.get_warmup_steps(num_training_steps)
        flat = min(round(self.args.flat_share * num_training_steps), num_training_steps - warmup)
        self.lr_scheduler = get_wsd_schedule(
            self.create_optimizer() if optimizer is None else optimizer,
            num_warmup_steps=warmup,
            num_stable_steps=flat,
            num_decay_steps=num_training_steps - warmup - flat,
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _learning_rate_multipliers(self) -> dict[str, float]:
        config = self.model.config
        multipliers = dict(getattr(config, "learning_rate_multipliers", None) or {})
        backbone = [part for part in multipliers if part.startswith("backbone")] or ["backbone.body"]
        if self.args.backbone_learning_rate is not None:
            multipliers |= dict.fromkeys(backbone, self.args.backbone_learning_rate / self.args.learning_rate)
        elif not getattr(config, "use_pretrained_backbone", False) and not config.name_or_path:
            for part in backbone:  # nothing in a random backbone is worth preserving
                multipliers.pop(part, None)
        return multipliers

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor]:
        """Return the batches of an optimizer step, and the numbers of boxes and of images that their losses share.

        Both are counted over all processes and divided by the number of processes, because gradients are averaged over
        them.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        labels = [label for batch in batches for label in batch["labels"]]
        self._finite_steps.begin(self.state.global_step + 1, labels)
        self._step_terms = []
        counts = torch.tensor([sum(len(label["class_labels"]) for label in labels), len(labels)], device=device)
        return batches, self.accelerator.reduce(counts.float(), "mean")

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the loss; `num_items_in_batch` are the boxes and images of `get_batch_samples`, or None."""
        if not isinstance(num_items_in_batch, Tensor):
            outputs = model(**inputs)
            return (outputs.loss, outputs) if return_outputs else outputs.loss

        num_boxes, num_images = num_items_in_batch
        # Published losses are divided by at least one box.
        num_boxes = num_boxes.clamp(min=1.0 / self.accelerator.num_processes)
        outputs = model(**inputs, num_boxes=num_boxes, num_images=num_images)
        self._finite_steps.check_loss(outputs.loss, inputs["labels"])
        self._step_terms.append({name: value.detach() for name, value in outputs.loss_dict.items()})
        self._matching.observe(inputs["labels"], outputs.matches)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Accumulate the gradients of a batch; see `Trainer.training_step`."""
        try:
            return super().training_step(model, inputs, num_items_in_batch)
        except NonFiniteLossError:
            return torch.tensor(float("nan"), device=self.args.device)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | float | None = None) -> Tensor | float:
        # `Trainer` calls this after all backward passes and the clipping, right before the optimizer's step.
        norm = super()._get_grad_norm(model, grad_norm)
        if self._finite_steps.finish(model, norm):
            self._logged_terms.append(_step_totals(self._step_terms))
        return norm

    # ---- moving average of the weights ----

    def _follow_training(self) -> None:
        for callback in (WeightAverage, MatchingStability):
            self.remove_callback(callback)
        self._matching = MatchingStability(self.log)
        self.add_callback(self._matching)
        self._average = None
        if self.args.ema:
            self._average = WeightAverage(self.model, self.args.ema_share, self._step_was_skipped)
            self.add_callback(self._average)

    def _step_was_skipped(self) -> bool:
        return self.accelerator.optimizer_step_was_skipped or not self._finite_steps.is_finite

    def averaged(self) -> AbstractContextManager[None]:
        """Return a context in which the model holds the weights that are evaluated and saved."""
        return nullcontext() if self._average is None else self._average.applied()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate the model. During training the average of its weights is evaluated; see `Trainer.evaluate`."""
        if self._average is not None and self._average.is_running:
            self._average.share_statistics()
        with self.averaged():
            return super().evaluate(*args, **kwargs)

    def evaluate_by_class(self, eval_dataset: Dataset | None = None) -> dict[str, Any]:
        """Evaluate; return the metrics without the prefix "eval_", and `per_class`, as `CocoMetrics` names them."""
        metrics = {name.removeprefix("eval_"): value for name, value in self.evaluate(eval_dataset).items()}
        return {**metrics, "per_class": self.per_class}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model. During training the average of its weights is saved; see `Trainer.save_model`."""
        with self.averaged():
            super().save_model(output_dir, _internal_call)
        if _internal_call and output_dir is not None:  # a checkpoint also gets the files from which a run goes on
            self._matching.save(output_dir, self.args.should_save)
            if self.args.should_save and self._average is not None:
                self._average.save_training_weights(output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        has_average = (Path(resume_from_checkpoint) / TRAINING_WEIGHTS).is_file()
        if has_average != self.args.ema:
            raise ValueError(f"{resume_from_checkpoint} is of a run with ema={has_average}: resume it with the same")
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._average is not None:
            self._average.resume(resume_from_checkpoint)
        self._matching.resume(resume_from_checkpoint, self.is_world_process_zero())

    def _load_best_model(self) -> None:
        super()._load_best_model()
        if self._average is not None:
            self._average.stop()

    # ---- evaluation ----

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Run over an evaluation or test set; see `Trainer.evaluation_loop`."""
        if self.processing_class is not None:
            self._evaluator = DetectionEvaluator(dataloader.dataset, self.processing_class, self._class_names())
        # Evaluation must not move the random numbers of training, or a run would depend on how often it evaluates.
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):
            return super().evaluation_loop(dataloader, *args, **kwargs)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Tensor | None]:
        """Return the loss, (logits, pred_boxes) and the labels as of `pack_labels`, which can all be gathered."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**inputs)
        if prediction_loss_only:
            return outputs.loss, None, None
        labels = pack_labels(inputs["labels"])
        if self.args.world_size > 1:
            labels = labels.to(self.args.device)
        return outputs.loss, (outputs.logits, outputs.pred_boxes), labels

    def _collect_detections(self, prediction: EvalPrediction, compute_result: bool) -> dict[str, float]:
        evaluator = self._evaluator
        assert evaluator is not None  # `evaluation_loop` makes one for each pass
        evaluator.add(prediction)
        if not compute_result:
            return {}
        metrics = evaluator.compute()
        if evaluator.dataset is self.eval_dataset:
            self._result, self._evaluated_step = dict(metrics), self.state.global_step
        self.per_class = metrics.pop("per_class")
        return metrics

    # ---- reports ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log `logs` and, with a training loss, the mean of each loss term since the last time."""
        if "loss" in logs:
            steps, self._logged_terms = self._logged_terms, []
            if not steps:
                logs["loss"] = math.nan  # all steps were skipped
            for name in steps[0] if steps else ():
                mean = torch.stack([step[name] for step in steps]).mean()
                logs[name] = self.accelerator.reduce(mean, "mean").item()
        super().log(logs, start_time)

    # It takes the fields of `CardEvidence` in place of the fields of transformers' card.
    def create_model_card(self, **known: Any) -> None:  # type: ignore[override]
        """Write the model card, README.md in `args.output_dir`, from what is known of this run.

        Args:
            **known: fields of `CardEvidence` that replace what is found, for example `dataset_name` or `license`.
                `push_to_hub` passes on what it is given; its `model_name` and `tags` are left out.
        """
        if not self.is_world_process_zero():
            return
        for name in ("model_name", "tags"):
            known.pop(name, None)
        known.setdefault("model_id", self.hub_model_id or str(self.args.output_dir))
        build_model_card(evidence_of(self, self._result, **known)).save(Path(str(self.args.output_dir)) / CARD_NAME)


def _step_totals(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Combine the terms of an optimizer step's batches: losses are added up, everything else is averaged."""
    totals = {}
    for name in batches[0]:
        values = torch.stack([terms[name] for terms in batches])
        totals[name] = values.sum() if name.startswith("loss") else values.mean()
    return totals


def check_classes(dataset: Dataset, model_names: Sequence[str]) -> None:
    """Check that the labels of a model mean the classes of the data.

    Raises:
        ValueError: the labels mean other classes, or the same classes in another order.
    """
    data_names = category_names(dataset)
    if not same_classes(model_names, data_names):
        raise ValueError(
            f"the classes of the model are {list(model_names)}, the classes of the training set are {data_names}: "
            "build or load the model with id2label of the training set"
        )


def check_object_counts(dataset: Dataset, num_queries: int) -> None:
    """Check that a model with `num_queries` queries can find all objects of each image, without decoding images.

    Raises:
        ValueError: see `check_object_count`.
    """
    for image_id, objects in annotation_rows(dataset):
        check_object_count(image_id, objects, num_queries)


def _has_annotations(dataset: Any) -> bool:
    is_set = isinstance(dataset, Dataset | IterableDataset)
    return is_set and set(ANNOTATION_COLUMNS) <= set(dataset.column_names or ())
