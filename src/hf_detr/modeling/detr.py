"""The whole flow: image → features → memory → queries → decoder → predictions of every layer.

Shapes: B batch, L decoder layers, Q queries, S memory tokens, D width, K classes, N heads.
"""

from torch import Tensor, nn
from transformers.utils import logging
from transformers.utils.generic import can_return_tuple

from .backbone import Backbone
from .configuration import HfDetrConfig
from .decoder import Decoder
from .deformable_encoder import DeformableEncoder
from .denoising import Denoising
from .encoder import Encoder
from .heads import DetectionHeads
from .input_checks import check_pixel_values
from .outputs import HfDetrModelOutput
from .placed_queries import PlacedQueries
from .pretrained import HfDetrPreTrainedModel
from .queries import LearnedQueries
from .query_selection import SelectedQueries
from .supervision import PredictionGroup
from .targets import Targets

logger = logging.get_logger(__name__)

ENCODERS = {"dense": Encoder, "deformable": DeformableEncoder}
QUERIES = {"none": LearnedQueries, "point": PlacedQueries, "box": PlacedQueries, "selected": SelectedQueries}


class HfDetrModel(HfDetrPreTrainedModel):
    """The network of every member of the family, from pixels to the predictions of each decoder layer.

    The heads belong here because refinement and query selection read them on the way.
    """

    def __init__(self, config: HfDetrConfig):
        super().__init__(config)
        self.backbone = Backbone(config)
        self.encoder = ENCODERS[config.encoder](config)
        self.queries = QUERIES[config.query_reference](config)
        self.denoising = Denoising(config) if config.denoising != "none" else None
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
        output_feature_maps: bool = False,
    ) -> HfDetrModelOutput:
        """Run the network.

        Args:
            pixel_values: (B, 3, height, width) normalised images; ValueError for another shape or an integer type.
            pixel_mask: (B, height, width), 1 on real pixels; None when no image is padded.
            targets: the objects of each image, which call for `groups`; in training also for the queries that exist
                only then.
            all_layers: predict from every decoder layer rather than from the last.
            output_attentions: return attention weights (with `attn_implementation="eager"`).
            output_hidden_states: return the states between layers.
            output_feature_maps: return the maps of the backbone.
        """
        check_pixel_values(pixel_values, self.backbone.num_channels)
        output_attentions, output_hidden_states = self.resolve_outputs(output_attentions, output_hidden_states)
        features, raw_maps = self.backbone(pixel_values, pixel_mask)
        memory = self.encoder(features, output_hidden_states, output_attentions)
        queries = self.queries(memory, targets)
        if self.denoising is not None:
            queries = self.denoising(queries, targets if self.training else None)
        decoded = self.decoder(queries, memory, self.heads, all_layers)
        predictions, groups = queries.split(decoded.predictions)
        return HfDetrModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            layer_logits=predictions.logits,
            layer_boxes=predictions.boxes,
            groups=None if targets is None else [PredictionGroup("", predictions, targets), *groups],
            encoder_last_hidden_state=memory.content,
            decoder_hidden_states=tuple(decoded.hidden_states) if output_hidden_states else None,
            decoder_attentions=tuple(decoded.attentions) if output_attentions else None,
            cross_attentions=tuple(decoded.cross_attentions) if output_attentions else None,
            encoder_hidden_states=memory.hidden_states,
            encoder_attentions=memory.attentions,
            feature_maps=tuple(raw_maps) if output_feature_maps else None,
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
        return bool(output_attentions), bool(output_hidden_states)
