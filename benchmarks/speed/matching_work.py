"""Makes contestants of matching and losses, ours and transformers', on equal predictions."""

from dataclasses import dataclass
from functools import partial
from importlib import import_module

import torch
from torch import Tensor

from hf_detr.benchmarking.contest import Contestant, Lap, Work
from hf_detr.benchmarking.models import keeping, our_model
from hf_detr.benchmarking.scenes import random_labels
from hf_detr.modeling.supervision import PredictionGroup, Predictions

NUM_LABELS = 91
# Only the losses of the model are used; transformers counts their class term once.
_SMALL = {
    "backbone": "resnet18",
    "encoder_layers": 1,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "class_loss_coefficient": 1,
}
# To our preset with the losses, the function and configuration of transformers that compute the same.
KINDS = {
    "softmax": ("detr-resnet-50", "ForObjectDetection", "Detr"),
    "focal": ("deformable-detr-resnet-50", "DeformableDetrForObjectDetection", "DeformableDetr"),
}


@dataclass(frozen=True)
class Scene:
    """The sizes of the predictions of all decoder layers, and of the objects that they are matched with."""

    kind: str
    batch: int
    objects: int
    queries: int
    device: str
    layers: int = 6

    def predictions(self) -> tuple[Tensor, Tensor]:
        """Return logits (layers, batch, queries, classes) and boxes (layers, batch, queries, 4), with gradients."""
        generator = torch.Generator().manual_seed(1)
        classes = NUM_LABELS + (self.kind == "softmax")
        logits = torch.randn(self.layers, self.batch, self.queries, classes, generator=generator)
        boxes = torch.rand(self.layers, self.batch, self.queries, 4, generator=generator)
        boxes = boxes * torch.tensor([1.0, 1.0, 0.3, 0.3]) + torch.tensor([0.0, 0.0, 0.01, 0.01])
        return logits.to(self.device).requires_grad_(), boxes.to(self.device).requires_grad_()

    def labels(self) -> list[dict[str, Tensor]]:
        """Return the labels with the objects."""
        return random_labels(self.batch, self.objects, NUM_LABELS, self.device)

    def contestants(self) -> list[Contestant]:
        """Return ours, which keeps freed memory on a CPU as our trainer does, and transformers' in both ways."""
        contestants = [Contestant("hf_detr", partial(keeping, self.ours)), Contestant("transformers", self.theirs)]
        if self.device == "cpu":
            contestants.append(Contestant("transformers, freed memory kept", partial(keeping, self.theirs)))
        return contestants

    def ours(self) -> Work:
        """Return our matching and losses, forward and backward."""
        preset, _, _ = KINDS[self.kind]
        queries = max(self.queries, self.objects)
        model = our_model(preset, num_labels=NUM_LABELS, num_queries=queries, decoder_layers=self.layers, **_SMALL)
        logits, boxes, labels = *self.predictions(), self.labels()

        def work(lap: Lap) -> tuple[Tensor, Tensor, Tensor]:
            logits.grad = boxes.grad = None
            targets = model.prepare_targets(labels, logits.dtype)
            loss = model.compute_loss([PredictionGroup("", Predictions(logits, boxes), targets)]).loss
            lap("matching and losses")
            loss.backward()
            lap("backward")
            return loss.detach(), logits.grad, boxes.grad

        return work

    def theirs(self) -> Work:
        """Return the matching and losses of transformers, forward and backward, as its models call them."""
        _, function, kind = KINDS[self.kind]
        # As in its models, the head of DETR has one class more than `num_labels`.
        config = getattr(import_module("transformers"), f"{kind}Config")(
            num_labels=NUM_LABELS, auxiliary_loss=True, decoder_layers=self.layers, class_cost=self.class_cost()
        )
        loss_of = import_module("transformers.loss.loss_utils").LOSS_MAPPING[function]
        logits, boxes, labels = *self.predictions(), self.labels()

        def work(lap: Lap) -> tuple[Tensor, Tensor, Tensor]:
            logits.grad = boxes.grad = None
            loss, _, _ = loss_of(logits[-1], labels, logits.device, boxes[-1], config, logits, boxes)
            lap("matching and losses")
            loss.backward()
            lap("backward")
            return loss.detach(), logits.grad, boxes.grad

        return work

    def class_cost(self) -> float:
        """Return the class cost of our preset, with which both find the same matches."""
        return 1 if self.kind == "softmax" else 2
