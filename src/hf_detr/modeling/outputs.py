"""What the models return.

Shapes: B batch, L decoder layers, Q queries, S memory tokens, D width, K classes.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput

from .supervision import PredictionGroup
from .targets import Matches


@dataclass
class HfDetrModelOutput(ModelOutput):
    """Output of `HfDetrModel`.

    Attributes:
        last_hidden_state: (B, Q, D) states of the last decoder layer, normed.
        layer_logits: (L or 1, B, Q, K) class logits, the last decoder layer last.
        layer_boxes: (L or 1, B, Q, 4) normalised cxcywh boxes.
        groups: all predictions with what they should have been, the above first, when targets are given.
        encoder_last_hidden_state: (B, S, D) the memory.
        decoder_hidden_states: tuple of (B, Q, D), the queries and the output of each layer.
        decoder_attentions, cross_attentions: tuples of weights per layer.
        encoder_hidden_states: tuple of (B, S, D).
        encoder_attentions: tuple of weights per layer.
        feature_maps: tuple of (B, C, H, W), the maps of the backbone, finest first, when asked for.
    """

    last_hidden_state: Tensor | None = None
    layer_logits: Tensor | None = None
    layer_boxes: Tensor | None = None
    groups: list[PredictionGroup] | None = None
    encoder_last_hidden_state: Tensor | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    decoder_attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_attentions: tuple[Tensor, ...] | None = None
    feature_maps: tuple[Tensor, ...] | None = None


@dataclass
class HfDetrObjectDetectionOutput(ModelOutput):
    """Output of `HfDetrForObjectDetection`.

    Attributes:
        loss: the weighted sum, a scalar, when labels are given.
        loss_dict: every loss term and measure by name, unweighted.
        logits: (B, Q, K) of the last layer; with a softmax the last class is "no object".
        pred_boxes: (B, Q, 4) normalised cxcywh, relative to the unpadded image.
        auxiliary_outputs: one dict of `logits` and `pred_boxes` per earlier decoder layer, when all are computed.
        last_hidden_state, encoder_last_hidden_state, decoder_hidden_states, decoder_attentions, cross_attentions,
            encoder_hidden_states, encoder_attentions: as in `HfDetrModelOutput`.
        matches: the query of each object in each decoder layer, when labels are given.
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
    matches: Matches | None = None
