"""The choices that make a model: one config class describes every member of the DETR family."""

import os
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .configuration_rules import check_labels, reject_impossible, reject_unknown
from .foreign import FOREIGN
from .presets import get_preset


@strict
class HfDetrConfig(PreTrainedConfig):
    """Configuration of every model of the family. The defaults are DETR with a ResNet-50 (Carion et al. 2020).

    Published models are presets: `HfDetrConfig.from_preset("dino-resnet-50-4scale", num_labels=3)`.

    Args:
        backbone: name of any timm model that gives feature maps.
        backbone_kwargs: keyword arguments for `timm.create_model`.
        use_pretrained_backbone: load timm's ImageNet weights when a new model is built (never by `from_pretrained`).
        dilation: replace the stride of the last backbone stage by dilation (the DC5 models).
        freeze_batch_norm: keep the statistics and the affine part of the backbone's batch norms fixed.
        frozen_stages: number of backbone stages that are not trained: -1 none, 0 the stem, 1 stem and first stage….
        backbone_output_norm: a layer norm on each map taken from the backbone (the Swin backbones of DINO).
        position_embedding: of the feature maps, "sine" or "learned".
        position_temperature, position_offset: constants of the sine embedding (20 in DAB, DN and DINO; offset -0.5
            in Deformable DETR).
        d_model, encoder_layers, decoder_layers, encoder_attention_heads, decoder_attention_heads, encoder_ffn_dim,
            decoder_ffn_dim, dropout, attention_dropout, activation_dropout, activation_function: the transformer.
        encoder: "dense" self-attention over one map, or "deformable" over several.
        encoder_position_scale: scale the encoder's positions by a function of the content (DAB-DETR).
        cross_attention: "dense", "conditional" (Meng et al. 2021) or "deformable" (Zhu et al. 2021).
        num_queries: the largest number of objects that the model can find in an image.
        query_content: what a query starts with: "zeros", "learned", "memory" (computed from the selected proposal's
            place) or "token" (the selected token itself, as in RT-DETR, Zhao et al. 2024).
        query_reference: where a query looks first: "none", a learned "point" or "box", or "selected" from the
            proposals of the encoder (two-stage).
        distinct_iou: selected boxes that overlap a better one by more than this IoU give way to others (after
            DDQ-DETR, Zhang et al. 2023); 1 is off.
        query_position: "learned" (fixed over the layers) or "sine" (of the reference box, through an MLP).
        query_position_scale: scale the sine query position by a function of the content (DAB-Deformable-DETR).
        box_refinement: "none", "per_layer" (Deformable DETR) or "look_forward_twice" (DAB-DETR, DINO).
        decoder_norm: a layer norm, shared by all layers, on the decoder states that are predicted from.
        inverse_sigmoid_eps: clamp of the logit of reference coordinates.
        num_feature_levels: maps given to a deformable encoder; the last one is a stride-2 convolution further.
        encoder_n_points, decoder_n_points: sampling points per head and level of deformable attention.
        denoising: "none", "dn" (Li et al. 2022) or "contrastive" (DINO, Zhang et al. 2022).
        num_denoising: number of denoising groups ("dn") or of denoising queries to aim at ("contrastive"); 0 is off.
        label_noise_ratio: share of the labels that are replaced ("contrastive" replaces half as many).
        box_noise_scale: size of the box noise relative to the box.
        classification: "softmax" with a no-object class, or a sigmoid per class trained with "focal", "varifocal"
            (Zhang et al. 2021) or "matchability" (DEIM, Huang et al. 2025) loss; the last two teach the score how well
            the box fits.
        class_cost, bbox_cost, giou_cost: weights of the matching cost.
        class_loss_coefficient, bbox_loss_coefficient, giou_loss_coefficient: weights of the losses.
        eos_coefficient: class weight of "no object" (softmax).
        focal_alpha: balance of the focal loss (its gamma is 2): objects weigh focal_alpha, all else 1 - focal_alpha.
            Varifocal loss takes only the second.
        auxiliary_loss: supervise every decoder layer, not only the last.
        learning_rate_multipliers: published learning-rate factors, by substring of the parameter name.
        category_ids: the id that the data set gives each class, by the name of the class. Detections are written with
            these ids, so that they can be scored against the data set's own files. None: the labels are the ids.

    Raises:
        ValueError: for an unknown field, an undefined value, a number out of its range, or choices that mean nothing
            together.
    """

    model_type = "hf_detr"
    # `Trainer` adds to this list, and keeps what is not on it: loss_dict, logits and pred_boxes, in this order.
    keys_to_ignore_at_inference = [  # noqa: RUF012 - transformers reads it from the class
        "auxiliary_outputs",
        "last_hidden_state",
        "encoder_last_hidden_state",
        "matches",
    ]
    attribute_map = {  # noqa: RUF012 - transformers reads it from the class
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    }

    is_encoder_decoder: bool = True
    num_channels: int = 3
    backbone: str = "resnet50"
    backbone_kwargs: dict | None = None
    use_pretrained_backbone: bool = False
    dilation: bool = False
    freeze_batch_norm: bool = True
    frozen_stages: int = 1
    backbone_output_norm: bool = False

    position_embedding: Literal["sine", "learned"] = "sine"
    position_temperature: float | int = 10000
    position_offset: float | int = 0.0

    d_model: int = 256
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 8
    decoder_attention_heads: int = 8
    encoder_ffn_dim: int = 2048
    decoder_ffn_dim: int = 2048
    dropout: float | int = 0.1
    attention_dropout: float | int = 0.1
    activation_dropout: float | int = 0.1
    activation_function: str = "relu"

    encoder: Literal["dense", "deformable"] = "dense"
    encoder_position_scale: bool = False
    cross_attention: Literal["dense", "conditional", "deformable"] = "dense"
    num_queries: int = 100
    query_content: Literal["zeros", "learned", "memory", "token"] = "zeros"
    query_reference: Literal["none", "point", "box", "selected"] = "none"
    distinct_iou: float | int = 1
    query_position: Literal["learned", "sine"] = "learned"
    query_position_scale: bool = False
    box_refinement: Literal["none", "per_layer", "look_forward_twice"] = "none"
    decoder_norm: bool = True
    inverse_sigmoid_eps: float = 1e-5
    num_feature_levels: int = 1
    encoder_n_points: int = 4
    decoder_n_points: int = 4

    denoising: Literal["none", "dn", "contrastive"] = "none"
    num_denoising: int = 0
    label_noise_ratio: float | int = 0.0
    box_noise_scale: float | int = 0.0

    classification: Literal["softmax", "focal", "varifocal", "matchability"] = "softmax"
    class_cost: float | int = 1
    bbox_cost: float | int = 5
    giou_cost: float | int = 2
    class_loss_coefficient: float | int = 1
    bbox_loss_coefficient: float | int = 5
    giou_loss_coefficient: float | int = 2
    eos_coefficient: float | int = 0.1
    focal_alpha: float | int = 0.25
    auxiliary_loss: bool = True
    learning_rate_multipliers: dict | None = None
    category_ids: dict[str, int | str] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        reject_unknown(kwargs, {*self.__dataclass_fields__, *self.attribute_map})
        if self._auto_class is None:  # not a copy that travels with its weights: saving does not copy the code
            kwargs.pop("auto_map", None)
        if self.learning_rate_multipliers is None:
            self.learning_rate_multipliers = {"backbone.body": 0.1}
        if self.id2label is not None:
            check_labels(self.id2label)
        super().__post_init__(**kwargs)
        if self.label2id is None and self.id2label is not None:
            self.label2id = {name: int(label) for label, name in self.id2label.items()}
        reject_impossible(self)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes in the order of their labels."""
        return [name for _, name in sorted((int(label), name) for label, name in (self.id2label or {}).items())]

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "HfDetrConfig":
        """The configuration of a published model, with fields replaced by `overrides`.

        Args:
            name: one of `available_presets()`.
            overrides: fields of this class, for example `num_labels=3` or `id2label={0: "cat"}`.

        Raises:
            ValueError: for an unknown preset (the nearest names are suggested) or an unknown field.
        """
        fields = get_preset(name)
        if {"num_labels", "id2label"} & set(overrides):
            fields.pop("id2label", None)  # the published class names describe the published classes only
        return cls(**{**fields, **overrides})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration with these fields, of which `kwargs` replaces some; ValueError as for a new one."""
        made = super().from_dict(config_dict, **kwargs)
        reject_impossible(made[0] if isinstance(made, tuple) else made)
        return made

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields of a saved configuration. Fields of transformers' own DETR models are translated to ours."""
        fields, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if FOREIGN.translate_config is not None:
            fields = FOREIGN.translate_config(fields, kwargs)
        return fields, unused
