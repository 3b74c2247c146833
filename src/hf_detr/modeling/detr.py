"""The whole flow: image → features → memory → queries → decoder → predictions → losses. One class per task.

Shapes: B batch, L decoder layers, Q queries, S memory tokens, D width, K classes, N heads.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, logging
from transformers.utils.generic import can_return_tuple

from .backbone import Backbone
from .configuration import HfDetrConfig
from .decoder import Decoder
from .denoising import Denoising, DenoisingPart
from .dense_supervision import DenseSupervision
from .encoder import Encoder
from .heads import DetectionHeads
from .losses import Criterion, SupervisedSet
from .matching import Matches, Targets
from .queries import LearnedQueries, SelectedQueries

logger = logging.get_logger(__name__)


@dataclass
class HfDetrModelOutput(ModelOutput):
    """Output of `HfDetrModel`.

    Attributes:
        last_hidden_state: (B, Q, D) states of the last decoder layer, normed.
        layer_logits: (L or 1, B, Q, K) class logits, the last decoder layer last.
        layer_boxes: (L or 1, B, Q, 4) normalised cxcywh boxes.
        encoder_last_hidden_state: (B, S, D) the memory.
        decoder_hidden_states: tuple of (B, Q, D), the queries and the output of each layer.
        decoder_attentions, cross_attentions: tuples of weights per layer.
        encoder_hidden_states: tuple of (B, S, D).
        encoder_attentions: tuple of weights per layer.
        encoder_logits, encoder_boxes: the encoder's proposals, (B, Q or S, K) and (…, 4).
        selected_indices: (B, Q) the tokens that were selected as queries.
        denoising: how the leading queries of `layer_logits` are supervised, in training with denoising.
        num_one_to_many: how many queries at the end of `layer_logits` are matched one to many, in training.
        dense_logits, dense_boxes: those of every token, (B, S, K) and (B, S, 4), in training with dense supervision.
    """

    last_hidden_state: Tensor | None = None
    layer_logits: Tensor | None = None
    layer_boxes: Tensor | None = None
    encoder_last_hidden_state: Tensor | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    encoder_logits: Tensor | None = None
    encoder_boxes: Tensor | None = None
    selected_indices: Tensor | None = None
    denoising: DenoisingPart | None = None
    num_one_to_many: int | None = None
    dense_logits: Tensor | None = None
    dense_boxes: Tensor | None = None

    @property
    def one_to_one(self) -> slice:
        """Which queries of `layer_logits` are those of inference."""
        start = self.denoising.num_queries if self.denoising else 0
        return slice(start, self.layer_logits.shape[2] - (self.num_one_to_many or 0))


@dataclass
class HfDetrObjectDetectionOutput(ModelOutput):
    """Output of `HfDetrForObjectDetection`.

    Attributes:
        loss: the weighted sum, a scalar, when labels are given.
        loss_dict: every loss term and measure by name, unweighted.
        logits: (B, Q, K) of the last layer; with a softmax the last class is "no object".
        pred_boxes: (B, Q, 4) normalised cxcywh, relative to the unpadded image.
        auxiliary_outputs: one dict of `logits` and `pred_boxes` per earlier decoder layer, when all are computed.
        last_hidden_state … encoder_attentions: as in `HfDetrModelOutput`.
    """

    loss: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    pred_boxes: Tensor | None = None
    auxiliary_outputs: list[dict[str, Tensor]] | None = None
    last_hidden_state: Tensor | None = None
    encoder_last_hidden_state: Tensor | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None


class HfDetrPreTrainedModel(PreTrainedModel):
    """What all models share: loading, saving, initialisation."""

    config: HfDetrConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _no_split_modules = ("Backbone", "EncoderLayer", "DecoderLayer")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Published initialisation; parts with values of their own have a method `initialise`.

        What timm has initialised or loaded is marked and left alone by the functions used here.
        """
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight)
        elif isinstance(module, nn.PReLU):
            init.constant_(module.weight, 0.25)
        elif hasattr(module, "running_var"):
            init_batch_norm(module)
        elif isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            if module.weight is not None:
                init.ones_(module.weight)
                init.zeros_(module.bias)
        elif type(module).__module__.startswith("timm."):
            init_timm_module(module)
        elif hasattr(module, "initialise"):
            module.initialise()

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Initialise a part that is not initialised yet.

        For code outside transformers the inherited method passes over modules without tensors of their own, and with
        them over `initialise`, as it cannot know that `_init_weights` leaves loaded tensors alone. Ours does.
        """
        super()._initialize_weights(module, False)

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable = checkpoint, **kwargs: Any
    ) -> None:
        """Checkpoint without re-entering autograd, which loses the gradients of what layers take in structures."""
        if getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant"):
            logger.warning_once("use_reentrant=True is not supported; gradient checkpointing runs without it.")
            keywords = gradient_checkpointing_func.keywords | {"use_reentrant": False}
            gradient_checkpointing_func = partial(gradient_checkpointing_func.func, **keywords)
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **kwargs)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike | None, *args: Any, **kwargs: Any
    ) -> "HfDetrPreTrainedModel":
        """Load a model of ours, or a repository of transformers' own DETR models, converted on the fly.

        Args:
            pretrained_model_name_or_path: a local folder or a repository on the Hub.
            kwargs: as in `PreTrainedModel.from_pretrained`.

        Raises:
            ValueError: when a foreign checkpoint has keys that are left over or missing; all are listed.
        """
        try:  # a copy of this file that travels with its weights has no converters beside it
            from hf_detr.conversion import load_foreign
        except ImportError:
            load_foreign = None
        if load_foreign is not None and pretrained_model_name_or_path is not None:
            model = load_foreign(cls, pretrained_model_name_or_path, *args, **kwargs)
            if model is not None:
                return model
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with output_loading_info=True
        for module in model.modules():
            if isinstance(module, Backbone):
                module.freeze()  # loading replaces the parameters, and with them what is trained
        return loaded


def init_batch_norm(module: nn.Module) -> None:
    """Batch norm, frozen or not: identity."""
    init.zeros_(module.running_mean)
    init.ones_(module.running_var)
    if getattr(module, "num_batches_tracked", None) is not None:
        init.zeros_(module.num_batches_tracked)
    if module.weight is not None:
        init.ones_(module.weight)
        init.zeros_(module.bias)


def init_timm_module(module: nn.Module) -> None:
    """What a file lacks of timm's modules: tokens, tables and scales start small, fixed tables as computed."""
    for parameter in module.parameters(recurse=False):
        init.normal_(parameter, std=0.02)
    if hasattr(module, "init_non_persistent_buffers"):
        module.init_non_persistent_buffers()


class HfDetrModel(HfDetrPreTrainedModel):
    """The network of every member of the family, from pixels to the predictions of each decoder layer.

    The heads belong here because refinement and query selection read them on the way.
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__(config)
        self.backbone = Backbone(config)
        self.encoder = Encoder(config)
        if config.query_reference == "selected":
            self.queries = SelectedQueries(config)
        else:
            self.queries = LearnedQueries(config, config.num_queries, config.num_one_to_many_queries)
        self.denoising = Denoising(config) if config.denoising != "none" else None
        self.dense = DenseSupervision(config) if config.dense_repeats else None
        self.decoder = Decoder(config)
        self.heads = DetectionHeads(config, config.decoder_layers if config.box_refinement == "per_layer" else 1)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The backbone: there is no token embedding."""
        return self.backbone

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        targets: Targets | None = None,
        all_layers: bool = True,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> HfDetrModelOutput:
        """Run the network.

        Args:
            pixel_values: (B, 3, height, width) normalised images.
            pixel_mask: (B, height, width), 1 on real pixels; None when no image is padded.
            targets: the objects of each image; in training, they call for the queries that exist only then.
            all_layers: predict from every decoder layer rather than from the last.
            output_attentions: return attention weights (with `attn_implementation="eager"`).
            output_hidden_states: return the states between layers.
        """
        output_attentions, output_hidden_states = self.resolve_outputs(output_attentions, output_hidden_states)
        features, _ = self.backbone(pixel_values, pixel_mask)
        memory = self.encoder(features, output_hidden_states, output_attentions)
        targets = targets if self.training else None
        queries, part = self.queries(memory, one_to_many=targets is not None), None
        if self.denoising is not None:
            queries, part = self.denoising(queries, targets)
        decoded = self.decoder(queries, memory, self.heads, all_layers)
        dense_logits, dense_boxes = (None, None) if self.dense is None or targets is None else self.dense(memory)
        proposals = queries.proposals
        return HfDetrModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            layer_logits=torch.stack(decoded.logits),
            layer_boxes=torch.stack(decoded.boxes),
            encoder_last_hidden_state=memory.content,
            decoder_hidden_states=tuple(decoded.hidden_states) if output_hidden_states else None,
            decoder_attentions=tuple(decoded.attentions) if output_attentions else None,
            cross_attentions=tuple(decoded.cross_attentions) if output_attentions else None,
            encoder_hidden_states=memory.hidden_states,
            encoder_attentions=memory.attentions,
            encoder_logits=proposals.logits if proposals else None,
            encoder_boxes=proposals.boxes if proposals else None,
            selected_indices=proposals.indices if proposals else None,
            denoising=part,
            num_one_to_many=queries.num_one_to_many,
            dense_logits=dense_logits,
            dense_boxes=dense_boxes,
        )

    def resolve_outputs(self, output_attentions: bool | None, output_hidden_states: bool | None) -> tuple[bool, bool]:
        """Arguments given, or else the defaults of the config; dense attention has weights only when eager."""
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions and self.config._attn_implementation != "eager":
            logger.warning_once("output_attentions=True needs attn_implementation='eager'; no weights are returned.")
            output_attentions = False
        return output_attentions, output_hidden_states


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
