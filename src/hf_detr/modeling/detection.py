"""Object detection: the network, and the losses of its predictions."""

import torch
from torch import Tensor
from transformers.utils.generic import can_return_tuple

from .configuration import HfDetrConfig
from .detr import HfDetrModel
from .losses import Criterion, SupervisedSet
from .outputs import HfDetrModelOutput, HfDetrObjectDetectionOutput
from .pretrained import HfDetrPreTrainedModel
from .targets import Matches, Targets


class HfDetrForObjectDetection(HfDetrPreTrainedModel):
    """Object detection: the model and, given labels, its losses.

    Example:
        >>> config = HfDetrConfig.from_preset("detr-resnet-50", num_labels=3)
        >>> model = HfDetrForObjectDetection(config)
        >>> outputs = model(pixel_values)  # logits (B, 100, 4), pred_boxes (B, 100, 4)
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__(config)
        self.model = HfDetrModel(config)
        self.criterion = Criterion(config)
        self.auxiliary_loss = config.auxiliary_loss
        self.class_agnostic_proposals = config.query_content == "memory"
        self.one_to_many_repeats = config.one_to_many_repeats
        self.one_to_many_weight = config.one_to_many_loss_coefficient
        self.dense_repeats, self.dense_weight = config.dense_repeats, config.dense_loss_coefficient
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        labels: list[dict[str, Tensor]] | None = None,
        num_boxes: Tensor | float | None = None,
        num_images: Tensor | float | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> HfDetrObjectDetectionOutput:
        """Detect objects; with labels, also compute the losses.

        Args:
            pixel_values: (B, 3, height, width) normalised images.
            pixel_mask: (B, height, width), 1 on real pixels; None when no image is padded.
            labels: per image `class_labels` (T,) int64 and `boxes` (T, 4) normalised cxcywh; T may be 0.
            num_boxes: what the losses are divided by; by default the objects of this batch, averaged over the ranks.
                Give that of a whole optimiser step when accumulating gradients.
            num_images: the images that `num_boxes` was counted over; a softmax needs both to normalise its loss.
            output_attentions, output_hidden_states: as in `HfDetrModel`.

        Raises:
            ValueError: when an image has more objects than the model has queries, or labels lack a field.
        """
        targets = None if labels is None else self.prepare_targets(labels, pixel_values.dtype)
        outputs = self.model(
            pixel_values,
            pixel_mask,
            targets=targets,
            all_layers=self.auxiliary_loss and (self.training or targets is not None),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        loss, loss_dict = None, None
        if targets is not None:
            loss, loss_dict = self.compute_loss(outputs, targets, num_boxes, num_images)
        own = outputs.one_to_one
        logits, boxes = outputs.layer_logits[:, :, own], outputs.layer_boxes[:, :, own]
        auxiliary = [{"logits": a, "pred_boxes": b} for a, b in zip(logits[:-1], boxes[:-1], strict=True)]
        return HfDetrObjectDetectionOutput(
            loss=loss,
            loss_dict=loss_dict,
            logits=logits[-1],
            pred_boxes=boxes[-1],
            auxiliary_outputs=auxiliary or None,
            **{key: outputs[key] for key in outputs if key in HfDetrObjectDetectionOutput.__dataclass_fields__},
        )

    def optimize_for_inference(
        self,
        dtype: torch.dtype | str | None = None,
        channels_last: bool | None = None,
        compile: bool | str = False,
        copy: bool = True,
    ) -> "HfDetrForObjectDetection":
        """The same detector, faster, for inference only; see `hf_detr.deployment.optimize_for_inference`.

        Raises:
            ImportError: where only this file is there, not the package `hf_detr`.
        """
        try:  # a copy of this file that travels with its weights has no optimisation beside it
            from hf_detr.deployment import optimize_for_inference
        except ImportError as error:
            raise ImportError("optimize_for_inference needs the package: pip install hf-detr") from error
        return optimize_for_inference(self, dtype, channels_last, compile, copy)

    def prepare_targets(self, labels: list[dict[str, Tensor]], dtype: torch.dtype) -> Targets:
        """Pad the labels, refusing images with more objects than queries."""
        targets = Targets.from_labels(labels, dtype)
        for image_id, count in zip(targets.image_ids, targets.counts, strict=True):
            if count > self.config.num_queries:
                raise ValueError(
                    f"Image {image_id} has {count} objects, but the model has num_queries={self.config.num_queries}: "
                    "it cannot learn to find them all. Raise num_queries in the config."
                )
        return targets

    def compute_loss(
        self,
        outputs: HfDetrModelOutput,
        targets: Targets,
        num_boxes: Tensor | float | None = None,
        num_images: Tensor | float | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms for the outputs of the model, in float32 or float64 whatever the autocast."""
        with torch.autocast(outputs.layer_logits.device.type, enabled=False):
            if num_boxes is None:
                num_boxes = count_boxes(targets)
            return self.criterion(self.supervised_sets(outputs, targets, num_boxes), num_images)

    def supervised_sets(
        self, outputs: HfDetrModelOutput, targets: Targets, num_boxes: Tensor | float
    ) -> list[SupervisedSet]:
        """All predictions, each kind with its matches: the decoder's one-to-one, the encoder's, those of training."""
        dtype = torch.promote_types(outputs.layer_logits.dtype, torch.float32)
        logits, boxes, part = outputs.layer_logits.to(dtype), outputs.layer_boxes.to(dtype), outputs.denoising
        own = outputs.one_to_one
        suffixes = [f"_{layer}" for layer in range(len(logits) - 1)] + [""]
        sets = [self.match(suffixes, logits[:, :, own], boxes[:, :, own], targets, num_boxes)]
        if outputs.encoder_logits is not None:
            wanted = targets.class_agnostic() if self.class_agnostic_proposals else targets
            proposals = outputs.encoder_logits[None].to(dtype), outputs.encoder_boxes[None].to(dtype)
            sets.append(self.match(["_enc"], *proposals, wanted, num_boxes))
        if part is not None:
            sets.append(
                SupervisedSet(
                    [f"_dn{suffix}" for suffix in suffixes],
                    logits[:, :, : own.start],
                    boxes[:, :, : own.start],
                    part.targets,
                    part.matches,
                    num_boxes * part.num_groups,
                    part.supervised,
                    kind="denoising",
                )
            )
        if outputs.num_one_to_many:
            more = logits[:, :, own.stop :], boxes[:, :, own.stop :]
            names = [f"_o2m{suffix}" for suffix in suffixes]
            repeats, weight = self.one_to_many_repeats, self.one_to_many_weight
            sets.append(self.match_one_to_many(names, *more, targets, num_boxes, repeats, weight))
        if outputs.dense_logits is not None:
            dense = outputs.dense_logits[None].to(dtype), outputs.dense_boxes[None].to(dtype)
            repeats, weight = self.dense_repeats, self.dense_weight
            sets.append(self.match_one_to_many(["_dense"], *dense, targets, num_boxes, repeats, weight))
        return sets

    def match(
        self, suffixes: list[str], logits: Tensor, boxes: Tensor, targets: Targets, num_boxes: Tensor | float
    ) -> SupervisedSet:
        """A supervised set whose matches are found by the matcher."""
        matches: Matches = self.criterion.matcher(logits, boxes, targets)
        return SupervisedSet(suffixes, logits, boxes, targets, matches, num_boxes)

    def match_one_to_many(
        self,
        suffixes: list[str],
        logits: Tensor,
        boxes: Tensor,
        targets: Targets,
        num_boxes: Tensor | float,
        repeats: int,
        weight: float,
    ) -> SupervisedSet:
        """A supervised set in which each object is found `repeats` times (H-DETR)."""
        matches: Matches = self.criterion.matcher(logits, boxes, targets, repeats)
        repeated = targets.repeat(repeats)
        return SupervisedSet(
            suffixes, logits, boxes, repeated, matches, num_boxes * repeats, kind="one_to_many", weight=weight
        )


def count_boxes(targets: Targets) -> Tensor:
    """Number of objects per rank, averaged over the ranks, at least 1."""
    count = torch.tensor(float(sum(targets.counts)), device=targets.boxes.device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count.clamp(min=1)
