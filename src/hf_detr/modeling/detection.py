"""Object detection: the network, and the losses of its predictions."""

import torch
from torch import Tensor
from transformers.utils.generic import can_return_tuple

from .configuration import HfDetrConfig
from .detr import HfDetrModel
from .input_checks import check_label_count, check_pixel_values
from .losses import Criterion, Losses
from .outputs import HfDetrObjectDetectionOutput
from .pretrained import HfDetrPreTrainedModel
from .supervision import PredictionGroup
from .targets import Targets, count_boxes


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
                Give the number of a whole optimiser step when gradients are accumulated.
            num_images: the images that `num_boxes` was counted over; a softmax needs both to normalise its loss.
            output_attentions, output_hidden_states: as in `HfDetrModel`.

        Raises:
            ValueError: `pixel_values` have the wrong shape or type, or `labels` are not those of as many images. The
                message names the image when it has more objects than the model has queries, a label is no class, a
                box is not normalised or not finite, or a field is missing or of the wrong shape or type.
        """
        targets = None
        if labels is not None:
            check_pixel_values(pixel_values, self.model.backbone.num_channels)
            check_label_count(labels, len(pixel_values))
            targets = self.prepare_targets(labels, pixel_values.dtype)
        outputs = self.model(
            pixel_values,
            pixel_mask,
            targets=targets,
            all_layers=self.auxiliary_loss and (self.training or targets is not None),
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        losses = None
        if targets is not None:
            losses = self.compute_loss(outputs.groups, num_boxes, num_images)
        *earlier, (logits, boxes) = zip(outputs.layer_logits, outputs.layer_boxes, strict=True)
        return HfDetrObjectDetectionOutput(
            **({} if losses is None else losses._asdict()),
            logits=logits,
            pred_boxes=boxes,
            auxiliary_outputs=[{"logits": a, "pred_boxes": b} for a, b in earlier] or None,
            **{key: outputs[key] for key in outputs if key in HfDetrObjectDetectionOutput.__dataclass_fields__},
        )

    def prepare_targets(self, labels: list[dict[str, Tensor]], dtype: torch.dtype) -> Targets:
        """Pad the labels, refusing images with more objects than queries and what `Targets.from_labels` refuses."""
        targets = Targets.from_labels(labels, dtype, self.config.num_labels)
        for image, count in enumerate(targets.counts):
            if count > self.config.num_queries:
                raise ValueError(
                    f"Image {targets.image_id(image)} has {count} objects, but the model has "
                    f"num_queries={self.config.num_queries}: it cannot learn to find them all. Raise num_queries in "
                    "the config."
                )
        return targets

    def compute_loss(
        self,
        groups: list[PredictionGroup],
        num_boxes: Tensor | float | None = None,
        num_images: Tensor | float | None = None,
    ) -> Losses:
        """The loss of all groups, its terms and the matches, in float32 or float64 whatever the autocast."""
        first = groups[0]
        with torch.autocast(first.predictions.logits.device.type, enabled=False):
            return self.criterion(groups, count_boxes(first.targets) if num_boxes is None else num_boxes, num_images)
