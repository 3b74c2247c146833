"""What the models return.

Shapes: B batch, L decoder layers, Q queries, S memory tokens, D width, K classes.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput

from .denoising import DenoisingPart


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
