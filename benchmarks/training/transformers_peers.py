"""Builds, trains and evaluates the detectors of transformers as peers in a comparison from scratch.

The training follows transformers' object-detection example (`Trainer`, AdamW, batch 8, its augmentation) and its task
guide (cosine decay). The example fine-tunes. Training from scratch also needs batch norms that are trained, warm-up,
and the gradient clipping and the learning rates of the papers.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional
from transformers import (
    BaseImageProcessor,
    DeformableDetrConfig,
    DeformableDetrForObjectDetection,
    DeformableDetrImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    DFineConfig,
    DFineForObjectDetection,
    PreTrainedModel,
    RTDetrImageProcessor,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from hf_detr.data import category_names, decode_image, undecoded
from hf_detr.data.collate import detection_target
from hf_detr.evaluation import CocoMetrics
from hf_detr.evaluation.detection_evaluator import reference_objects

NUM_QUERIES = 100  # as many as the preset `tiny` has
BATCH_SIZE = 8
EVALUATIONS = 10
STRIDE = 32
"""RT-DETR and D-FINE fail on images whose sides are no multiples of this."""


@dataclass(frozen=True)
class Peer:
    """A model of transformers.

    Attributes:
        title: its name in reports.
        build: makes a new model of the class names by label.
        image_processor: makes its image processor of the (height, width) of the images.
        learning_rate: the learning rate of the paper, or of its published configuration for the smallest backbone.
        slow_parts: parts of the names of parameters that learn at a tenth of the rate.
    """

    title: str
    build: Callable[[dict[int, str]], PreTrainedModel]
    image_processor: Callable[[tuple[int, int]], BaseImageProcessor]
    learning_rate: float
    slow_parts: tuple[str, ...] = ()


def timm_resnet(*stages: int) -> dict[str, Any]:
    """Return the configuration of timm's ResNet-18 with random weights that gives the maps of `stages` (1 to 4)."""
    return {
        "model_type": "timm_backbone",
        "backbone": "resnet18",
        "features_only": True,
        "use_pretrained_backbone": False,
        "out_indices": list(stages),
    }


def build_detr(names: dict[int, str]) -> PreTrainedModel:
    """Return DETR with a ResNet-18 and three layers on each side: 17 M parameters."""
    config = DetrConfig(
        backbone_config=timm_resnet(1, 2, 3, 4),
        encoder_layers=3,
        decoder_layers=3,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        num_queries=NUM_QUERIES,
        auxiliary_loss=True,
        id2label=names,
    )
    return thawed(DetrForObjectDetection(config))


def build_deformable_detr(names: dict[int, str]) -> PreTrainedModel:
    """Return Deformable DETR, two-stage with box refinement, with three layers on each side: 19 M parameters."""
    config = DeformableDetrConfig(
        backbone_config=timm_resnet(2, 3, 4),
        encoder_layers=3,
        decoder_layers=3,
        num_queries=NUM_QUERIES,
        two_stage_num_proposals=NUM_QUERIES,
        with_box_refine=True,
        two_stage=True,
        auxiliary_loss=True,
        id2label=names,
    )
    return thawed(DeformableDetrForObjectDetection(config))


# The published RT-DETR and D-FINE models with the smallest backbones have these settings in common.
_REAL_TIME = {
    "encoder_in_channels": [128, 256, 512],
    "hidden_expansion": 0.5,
    "decoder_layers": 3,
    "num_queries": NUM_QUERIES,
    "freeze_backbone_batch_norms": False,
}


def rt_detr_resnet() -> RTDetrResNetConfig:
    """Return the ResNet-18 of RT-DETR, with its stem of three convolutions."""
    return RTDetrResNetConfig(
        hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", out_indices=[2, 3, 4]
    )


def build_rt_detr_v2(names: dict[int, str]) -> PreTrainedModel:
    """Return RT-DETRv2 as published for a ResNet-18: 20 M parameters."""
    return RTDetrV2ForObjectDetection(RTDetrV2Config(backbone_config=rt_detr_resnet(), id2label=names, **_REAL_TIME))


def build_d_fine(names: dict[int, str]) -> PreTrainedModel:
    """Return D-FINE of the published size S, with a ResNet-18 in place of its HGNetV2: 19 M parameters."""
    config = DFineConfig(
        backbone_config=rt_detr_resnet(), depth_mult=0.34, decoder_n_points=[3, 6, 3], id2label=names, **_REAL_TIME
    )
    return DFineForObjectDetection(config)


def keeping_the_ratio(kind: type[BaseImageProcessor], size: tuple[int, int]) -> BaseImageProcessor:
    """Return a processor that resizes to fit into `size` and pads to the largest image of the batch, as DETR does."""
    return kind(size={"shortest_edge": min(size), "longest_edge": max(size)})


def stretching(size: tuple[int, int]) -> BaseImageProcessor:
    """Return a processor that resizes all images to `size`, rounded up to multiples of 32, as RT-DETR does."""
    height, width = (-(-side // STRIDE) * STRIDE for side in size)
    return RTDetrImageProcessor(size={"height": height, "width": width})


PEERS = {
    "detr": Peer("transformers DETR", build_detr, partial(keeping_the_ratio, DetrImageProcessor), 1e-4),
    "deformable_detr": Peer(
        "transformers Deformable DETR",
        build_deformable_detr,
        partial(keeping_the_ratio, DeformableDetrImageProcessor),
        2e-4,
        ("sampling_offsets", "reference_points"),
    ),
    "rt_detr_v2": Peer("transformers RT-DETRv2", build_rt_detr_v2, stretching, 2e-4),
    "d_fine": Peer("transformers D-FINE", build_d_fine, stretching, 2e-4),
}


def thawed(model: PreTrainedModel) -> PreTrainedModel:
    """Let the whole backbone learn, batch norms included: transformers freezes them, which needs trained weights."""
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if type(module).__name__.endswith("FrozenBatchNorm2d"):
                setattr(parent, name, nn.BatchNorm2d(len(module.weight)))
    return model.requires_grad_(True)


class BoxSafeCrop(v2.Transform):
    """Crop to a rectangle between the whole image and the smallest one that holds all boxes."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        """Draw the crop."""
        height, width = v2.query_size(flat_inputs)
        boxes = next(value for value in flat_inputs if type(value).__name__ == "BoundingBoxes").as_subclass(Tensor)
        if not len(boxes):
            return {"top": 0, "left": 0, "height": height, "width": width}
        left, top = (boxes[:, :2].amin(0).clamp(min=0) * torch.rand(2)).floor().int().tolist()
        corner, limit = boxes[:, 2:].amax(0), torch.tensor([width, height])
        right, bottom = (limit - (limit - corner).clamp(min=0) * torch.rand(2)).ceil().int().tolist()
        return {"top": top, "left": left, "height": bottom - top, "width": right - left}

    def transform(self, inpt: Any, params: dict[str, int]) -> Any:
        """Crop one image or set of boxes."""
        return self._call_kernel(functional.crop, inpt, **params)


def example_augmentation() -> v2.Transform:
    """Return the augmentation of transformers' object-detection example in torchvision, with its kinds and chances."""
    return v2.Compose(
        [
            v2.RandomApply([BoxSafeCrop()], p=0.2),
            v2.RandomApply([v2.GaussianBlur(kernel_size=7)], p=0.1),
            v2.RandomPerspective(distortion_scale=0.2, p=0.1),
            v2.RandomHorizontalFlip(p=0.5),
            v2.RandomApply([v2.ColorJitter(brightness=0.2, contrast=0.2)], p=0.5),
            v2.RandomApply([v2.ColorJitter(brightness=0.08, saturation=0.12, hue=0.055)], p=0.1),
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(min_area=25, labels_getter=_per_object_tensors),
        ]
    )


def _per_object_tensors(inputs: tuple[Any, dict[str, Any]]) -> list[Tensor]:
    return [value for name, value in inputs[1].items() if name != "boxes"]


class PeerCollator:
    """Turns rows of a data set into the batch of a peer: it augments and calls the image processor of the peer."""

    def __init__(self, image_processor: BaseImageProcessor, augmentation: v2.Transform | None = None):
        self.image_processor = image_processor
        self.augmentation = augmentation

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return `pixel_values`, `labels` and, where the processor makes one, `pixel_mask`."""
        images, annotations = [], []
        for row in rows:
            image = decode_image(row["image"], row["image_id"])
            pixels, target = functional.pil_to_tensor(image), detection_target(row, image)
            if self.augmentation is not None:
                pixels, target = self.augmentation(pixels, target)
            images.append(pixels)
            annotations.append(coco_annotation(row["image_id"], target))
        batch = self.image_processor(images=images, annotations=annotations, return_tensors="pt")
        return {name: batch[name] for name in ("pixel_values", "pixel_mask", "labels") if name in batch}


def coco_annotation(image_id: int, target: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return a target as the COCO detection annotation of one image, boxes as (x, y, width, height)."""
    boxes = target["boxes"].as_subclass(torch.Tensor).clone()
    boxes[:, 2:] -= boxes[:, :2]
    columns = (boxes.tolist(), *(target[name].tolist() for name in ("labels", "area", "iscrowd")))
    names = ("bbox", "category_id", "area", "iscrowd")
    return {
        "image_id": image_id,
        "annotations": [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)],
    }


class PeerTrainer(Trainer):
    """`Trainer` that evaluates as hf_detr does, on the same references and in original pixels, and keeps the best.

    Attributes:
        best: the metrics with the highest AP so far.
        slow_parts: parts of the names of parameters that learn at a tenth of the rate.
    """

    best: dict[str, Any] | None = None
    slow_parts: tuple[str, ...] = ()

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build AdamW over the groups of `Trainer`, without decay of biases and norms, each split by `slow_parts`."""
        decayed = set(self.get_decay_parameter_names(self.model))
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            factor = 0.1 if any(part in name for part in self.slow_parts) else 1.0
            decay = self.args.weight_decay if name in decayed else 0.0
            groups.setdefault((decay, self.args.learning_rate * factor), []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters, "weight_decay": decay, "lr": rate} for (decay, rate), parameters in groups.items()]
        )
        return self.optimizer

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the COCO metrics on the evaluation set."""
        metrics = evaluate_peer(
            self.model, self.processing_class, self.eval_dataset, self.args.per_device_eval_batch_size
        )
        if self.best is None or metrics["AP"] > self.best["AP"]:
            self.best = copy.deepcopy(metrics)
        logs = {f"eval_{name}": value for name, value in metrics.items() if name != "per_class"}
        self.log(logs)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, logs)
        return logs


@torch.no_grad()
def evaluate_peer(
    model: PreTrainedModel, image_processor: BaseImageProcessor, dataset: Dataset, batch_size: int
) -> dict[str, Any]:
    """Return the result of `CocoMetrics` on a data set, in the pixels of the original images."""
    model.eval()
    predictions = []
    for batch in DataLoader(dataset, batch_size, collate_fn=PeerCollator(image_processor)):
        labels = batch.pop("labels")
        outputs = model(**{name: value.to(model.device) for name, value in batch.items()})
        original = torch.stack([label["orig_size"] for label in labels])
        found = image_processor.post_process_object_detection(
            outputs, threshold=0.0, target_sizes=(original * padding(batch)).to(model.device)
        )
        for label, (height, width), detection in zip(labels, original.tolist(), found, strict=True):
            boxes = detection["boxes"].float().cpu().clamp(min=0)
            boxes = boxes.minimum(torch.tensor([width, height, width, height]))
            others = {name: detection[name].float().cpu().numpy() for name in ("scores", "labels")}
            predictions.append({"image_id": label["image_id"].item(), "boxes": boxes.numpy(), **others})
    model.train()
    metrics = CocoMetrics(class_names=category_names(dataset), keep_in_memory=True)
    return metrics.compute(predictions=predictions, references=list(reference_objects(dataset)))


def padding(batch: Mapping[str, Tensor]) -> Tensor:
    """Return (B, 2), the factors by which padding enlarged height and width; boxes refer to the padded image."""
    if "pixel_mask" not in batch:
        return torch.ones(len(batch["pixel_values"]), 2)
    mask = batch["pixel_mask"].bool()
    real = torch.stack([mask.any(2).sum(1), mask.any(1).sum(1)], dim=1)
    return torch.tensor(mask.shape[1:]) / real


def peer_arguments(peer: Peer, output: Path, epochs: float, num_images: int, seed: int) -> TrainingArguments:
    """Return the arguments of a peer's training, which evaluates about ten times, as `hf-detr train` does."""
    on_cuda = torch.cuda.is_available()
    steps_per_epoch = -(-num_images // BATCH_SIZE)
    return TrainingArguments(
        output_dir=str(output),
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=BATCH_SIZE,
        learning_rate=peer.learning_rate,
        weight_decay=1e-4,
        max_grad_norm=0.1,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        seed=seed,
        bf16=on_cuda and torch.cuda.is_bf16_supported(),
        dataloader_num_workers=4 if on_cuda else 0,
        dataloader_pin_memory=on_cuda,
        remove_unused_columns=False,
        logging_steps=min(20, steps_per_epoch),
        eval_strategy="steps",
        eval_steps=steps_per_epoch * math.ceil(epochs / EVALUATIONS),
        save_strategy="no",
        report_to="none",
    )


def image_size_of(dataset: Dataset, shortest_edge: int) -> tuple[int, int]:
    """Return height and width of the images of a data set, at their median ratio, with the given shortest edge."""
    ratio = torch.tensor(dataset["width"]).div(torch.tensor(dataset["height"])).median().item()
    return round(shortest_edge * max(1.0, 1 / ratio)), round(shortest_edge * max(1.0, ratio))


def train_peer(
    peer: Peer,
    data: DatasetDict,
    output: Path,
    epochs: float,
    callbacks: Sequence[TrainerCallback],
    *,
    shortest_edge: int,
    seed: int,
) -> dict[str, Any]:
    """Train a peer from scratch; return the result of `CocoMetrics` for the best of its evaluations."""
    set_seed(seed)
    train, validation = undecoded(data["train"]), undecoded(data["validation"])
    model = peer.build(dict(enumerate(category_names(train))))
    image_processor = peer.image_processor(image_size_of(train, shortest_edge))
    args = peer_arguments(peer, output, epochs, len(train), seed)
    trainer = PeerTrainer(
        model,
        args,
        PeerCollator(image_processor, example_augmentation()),
        train,
        validation,
        image_processor,
        callbacks=list(callbacks),
    )
    trainer.slow_parts = peer.slow_parts
    trainer.train()
    if trainer.state.global_step % args.eval_steps:  # the model of the last steps is not evaluated yet
        trainer.evaluate()
    return trainer.best
