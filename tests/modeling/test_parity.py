"""Every member of the family against the original research code, in float64, on the golden cases.

The excerpts in `tests/golden` are always checked; the complete values too where they are beside the repository.
"""

import re
from dataclasses import replace
from functools import cached_property

import pytest
import torch
from torch import Tensor

from golden import weights_rule
from golden.cases import GoldenCase
from hf_detr import HfDetrConfig, HfDetrForObjectDetection
from hf_detr.conversion.published import load_published_checkpoint, published_key_table
from hf_detr.modeling import denoising
from hf_detr.modeling.denoising import Noise
from hf_detr.modeling.outputs import HfDetrModelOutput
from hf_detr.modeling.query_selection import SelectedQueries
from hf_detr.modeling.supervision import PredictionGroup, Predictions
from hf_detr.modeling.targets import Targets
from hf_detr.processing.image_processing import HfDetrImageProcessor
from shared import SHARED_FOLDER

PRESETS = {
    "detr_r50": "detr-resnet-50",
    "detr_r50_dc5": "detr-resnet-50-dc5",
    "dab_detr_r50": "dab-detr-resnet-50",
    "dn_detr_r50": "dn-detr-resnet-50",
    "deformable_r50": "deformable-detr-resnet-50",
    "deformable_r50_single_scale": "deformable-detr-resnet-50-single-scale",
    "deformable_r50_refine": "deformable-detr-resnet-50-refine",
    "deformable_r50_two_stage": "deformable-detr-resnet-50-two-stage",
    "dn_deformable_r50": "dn-deformable-detr-resnet-50",
    "dino_r50_4scale": "dino-resnet-50-4scale",
}
COMPLETE = SHARED_FOLDER / "golden"
ATOL = 1e-5  # with rtol 1e-5: the tolerance that comes with the golden cases for float64


class Parity:
    """A case, our model with its weights, and what the model gives for its images in evaluation mode."""

    def __init__(self, name: str):
        self.preset = PRESETS[name]
        self.cases = [GoldenCase(name)] + ([GoldenCase(name, COMPLETE)] if COMPLETE.is_dir() else [])
        self.case = self.cases[0]
        assert self.case.manifest.get("rule_version", 1) == weights_rule.RULE_VERSION
        config = HfDetrConfig.from_preset(self.preset, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0)
        self.model: HfDetrForObjectDetection = load_published_checkpoint(self.case.state_dict(), config).double()
        self.pixel_values, self.pixel_mask = self.case.batch()
        self.prefixes = list(self.case.manifest["targets"])
        self.selected: Tensor | None = None
        if self.model.config.query_reference == "selected":
            self._remember_selected(self.model.model.queries)

    def _remember_selected(self, queries: SelectedQueries) -> None:
        select = queries.select

        def remembering(*arguments: Tensor) -> Tensor:
            self.selected = select(*arguments)
            return self.selected

        queries.select = remembering

    def targets(self, prefix: str) -> Targets:
        return Targets.from_labels(self.case.labels(prefix), torch.float64)

    @cached_property
    def outputs(self) -> HfDetrModelOutput:
        """What the model gives for the images, and the groups for the targets of the first loss."""
        self.model.eval()
        return self.model.model(self.pixel_values, self.pixel_mask, targets=self.targets(self.loss_prefixes[0]))

    @property
    def loss_prefixes(self) -> list[str]:
        return [prefix for prefix in self.prefixes if prefix.startswith("loss_")]

    def groups(self, targets: Targets) -> list[PredictionGroup]:
        """The groups of the outputs for other targets, without another pass through the network."""
        own, *proposals = self.outputs.groups
        supervise = getattr(self.model.model.queries, "supervise", None)
        return [replace(own, targets=targets), *(supervise(group.predictions, targets) for group in proposals)]

    def differences(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Those of the values, by name in the golden case, that are further away than the tolerance."""
        found = {}
        for case in self.cases:
            for name, value in values.items():
                difference = case.difference(name, value)
                if difference > ATOL:
                    found[f"{name} ({'complete' if case.complete else 'excerpt'})"] = difference
        return found

    def gradient(self, name: str) -> Tensor:
        """The gradient of the original's parameter `name`, put together from ours."""
        parameters = dict(self.model.named_parameters())
        for line in published_key_table(self.model.config):
            match = re.fullmatch(line.pattern, name)
            if match and line.names:
                parts = [parameters[match.expand(ours)] for ours in line.names]
                # a part that was not used has no gradient here, and a gradient of zero in the golden case
                return torch.cat([torch.zeros_like(p) if p.grad is None else p.grad for p in parts], line.dim)
        raise AssertionError(f"no parameter of ours corresponds to {name}")


@pytest.fixture(scope="module", params=PRESETS)
def parity(request: pytest.FixtureRequest) -> Parity:
    return Parity(request.param)


def thinned(name: str, values: Tensor) -> Tensor:
    """The part of (…, Q, C) values that a golden name asks for: `_everyN` is every N-th row."""
    every = re.search(r"_every(\d+)$", name)
    return values[..., :: int(every.group(1)), :] if every else values


def test_predictions_and_memory(parity: Parity):
    outputs = parity.outputs
    logits, boxes = outputs.layer_logits, outputs.layer_boxes
    memory = outputs.encoder_last_hidden_state
    valid = memory
    if parity.model.config.encoder == "deformable":
        features, _ = parity.model.model.backbone(parity.pixel_values, parity.pixel_mask)
        mask = torch.cat([feature.mask.flatten(1) for feature in features], dim=1)
        valid = memory.masked_fill(~mask[..., None], 0.0)
    values = {}
    for name, wanted in parity.case.expected.items():
        if re.fullmatch(r"pred_(logits|boxes)(_aux)?(_every\d+)?", name):
            layers = logits if "logits" in name else boxes
            stacked = name == "pred_boxes" and "pred_boxes_aux_every3" not in parity.case.expected
            stacked |= name == "pred_logits" and not any("pred_logits_aux" in n for n in parity.case.expected)
            values[name] = thinned(name, layers[:-1] if "_aux" in name else layers if stacked else layers[-1])
        elif name == "memory":
            values[name] = memory
        elif name.startswith("memory_valid"):
            values[name] = thinned(name, valid)
        elif name.endswith("topk_index"):
            values[name] = parity.selected
            assert wanted.dtype == torch.int64
    assert len(values) >= 3
    assert parity.differences(values) == {}


def test_encoder_proposals(parity: Parity):
    """Scores and boxes of the tokens that could become queries, or of those that did."""
    proposals = [group.predictions for group in parity.outputs.groups if group.name == "enc"]
    assert len(proposals) == (parity.model.config.query_reference == "selected")
    if not proposals:
        return
    values = {}
    for name in parity.case.expected:
        if name.startswith(("enc_outputs.pred_logits", "interm.pred_logits")):
            values[name] = thinned(name, proposals[0].logits[0])
        elif name in ("enc_outputs.pred_boxes", "interm.pred_boxes"):
            values[name] = proposals[0].boxes[0]
    assert len(values) == 2
    assert parity.differences(values) == {}


def loss_values(parity: Parity, prefix: str, terms: dict[str, Tensor], total: Tensor) -> dict[str, Tensor]:
    """Our loss terms under the names of the golden case; every golden term must be among them."""
    values = {f"{prefix}.total": total}
    for name in parity.case.expected:
        if not name.startswith(f"{prefix}.") or not re.search(r"\.(tgt_)?(loss|cardinality_error)", name):
            continue
        ours = name.removeprefix(f"{prefix}.").replace("_interm", "_enc")
        tgt = re.fullmatch(r"tgt_(loss_[a-z]+)(_\d)?", ours)  # DN-DETR's name for denoising
        if tgt:
            ours = f"{tgt.group(1)}_dn{tgt.group(2) or ''}"
        if "dn" in ours and ours not in terms and prefix.startswith("loss_"):
            continue  # evaluation: the original reports zeros
        if "tgt" in name and not prefix.startswith("dn_"):
            continue
        if "cardinality_error_dn" in name:
            continue  # DINO compares the number of denoising queries with the number of objects; we do not report it
        values[name] = terms[ours]
    return values


def check_gradients(parity: Parity, prefix: str) -> None:
    """Norms of all gradients, and their products with fixed directions, to 1e-5."""
    norms, dots = (parity.case.expected[f"{prefix}.grad_{kind}"] for kind in ("norm", "dot"))
    noise = 1e-9 * float(norms.square().sum().sqrt())  # gradients that are zero but for rounding
    names = parity.case.grad_names[prefix]
    assert len(names) == len(norms)
    wrong = {}
    for name, norm, dot in zip(names, norms.tolist(), dots.tolist(), strict=True):
        if name in parity.case.manifest["aliases"] or name.startswith("transformer.decoder.bbox_embed"):
            continue
        gradient = parity.gradient(name)
        direction = torch.from_numpy(weights_rule.normal(f"grad:{name}", tuple(gradient.shape))).double()
        error = max(abs(float(gradient.norm()) - norm), abs(float((gradient * direction).sum()) - dot))
        if error > 1e-5 * norm + noise:
            wrong[name] = error / max(norm, 1e-30)
    assert wrong == {}


def test_losses_matches_and_gradients(parity: Parity):
    for prefix in parity.loss_prefixes:
        groups = parity.groups(parity.targets(prefix))
        total, terms, _ = parity.model.compute_loss(groups)
        assert parity.differences(loss_values(parity, prefix, terms, total)) == {}
        check_matches(parity, prefix, groups)
        if f"{prefix}.grad_norm" in parity.case.expected:
            parity.model.zero_grad()
            total.backward(retain_graph=True)
            check_gradients(parity, prefix)


def check_matches(parity: Parity, prefix: str, groups: list[PredictionGroup]) -> None:
    found = []  # in the order of the original's calls: the last decoder layer, the earlier ones, the encoder
    for group in groups:
        per_layer = []
        for query_index, matched in zip(*parity.model.criterion.match(group, 1.0).matches, strict=True):
            images, objects = matched.nonzero(as_tuple=True)
            per_layer.append(set(zip(images.tolist(), query_index[matched].tolist(), objects.tolist(), strict=True)))
        found += per_layer[-1:] + per_layer[:-1]
    for call, triples in enumerate(found):
        assert triples == parity.case.matches(prefix, call), f"{prefix}, matcher call {call}"


def recorded_noise(parity: Parity, prefix: str, targets: Targets, copies: int) -> Noise:
    """The original's draws, which are flat over the objects of the batch, in our padded shape."""
    expected = parity.case.expected
    draws = [expected[name] for name in sorted(expected) if name.startswith(f"{prefix}.draw.")]
    batch, objects = targets.valid.shape
    rate = parity.model.model.denoising.label_noise
    chance, labels = draws[0], torch.zeros(len(draws[0]), dtype=torch.int64)
    labels[chance < rate] = draws[1].long()
    sign = draws[2].double() * 2 - 1 if len(draws) == 4 else torch.ones(len(chance), 4).double()

    def pad(flat: Tensor) -> Tensor:
        padded = flat.new_zeros(batch, copies, objects, *flat.shape[1:])
        for copy, rows in enumerate(flat.unflatten(0, (copies, -1))):
            for image, part in enumerate(rows.split(targets.counts)):
                padded[image, copy, : len(part)] = part
        return padded

    return Noise(pad(chance), pad(labels), pad(draws[-1].double()), pad(sign))


def test_denoising(parity: Parity, monkeypatch: pytest.MonkeyPatch):
    """Noised queries, attention mask, losses and gradients of training with denoising, given the recorded noise."""
    prefixes = [prefix for prefix in parity.prefixes if prefix.startswith("dn_")]
    assert bool(prefixes) == (parity.model.config.denoising != "none")
    for prefix in prefixes:
        monkeypatch.setattr(
            denoising,
            "draw_noise",
            lambda targets, copies, num_labels, prefix=prefix: recorded_noise(parity, prefix, targets, copies),
        )
        parity.model.train()
        parity.model.zero_grad()
        outputs = parity.model.model(parity.pixel_values, parity.pixel_mask, targets=parity.targets(prefix))
        total, terms, _ = parity.model.compute_loss(outputs.groups)
        values = loss_values(parity, prefix, terms, total)
        assert any("dn" in name.removeprefix("dn_") or "tgt" in name for name in values)
        values |= denoising_predictions(parity, prefix, {group.name: group.predictions for group in outputs.groups})
        assert parity.differences(values) == {}
        if f"{prefix}.grad_norm" in parity.case.expected:
            total.backward()
            check_gradients(parity, prefix)


def denoising_predictions(parity: Parity, prefix: str, groups: dict[str, Predictions]) -> dict[str, Tensor]:
    """Predictions of the denoising and of the matching part, under their golden names."""
    values, own, denoised = {}, groups[""], groups["dn"]
    for name in parity.case.expected:
        short = name.removeprefix(f"{prefix}.")
        if short.startswith("out_known_class"):
            values[name] = thinned(name, denoised.logits)
        elif short == "out_known_coord":
            values[name] = denoised.boxes
        elif short.startswith("known_logits"):
            values[name] = thinned(name, denoised.logits[-1])
        elif short == "known_boxes":
            values[name] = denoised.boxes[-1]
        elif re.fullmatch(r"pred_boxes(_every\d+)?", short) and name.startswith(prefix):
            values[name] = thinned(name, own.boxes[-1])
    assert len(values) >= 3
    return values


def test_post_processing(parity: Parity):
    """Detections in pixels. Rows near a score tie may swap, so scores are compared sorted, boxes where unambiguous."""
    outputs = parity.outputs
    softmax = parity.model.config.classification == "softmax"
    processor = HfDetrImageProcessor(classification="softmax" if softmax else "sigmoid")
    post = parity.case.manifest["post"]
    named = {"logits": outputs.layer_logits[-1], "pred_boxes": outputs.layer_boxes[-1]}
    found = processor.post_process_object_detection(
        type("Outputs", (), named)(), threshold=0.0, target_sizes=post["target_sizes"], top_k=post.get("topk")
    )
    wanted_scores = parity.case.expected["post.scores"].reshape(len(found), -1)
    wanted_labels = parity.case.expected["post.labels"].reshape(len(found), -1)
    for detections, scores, labels in zip(found, wanted_scores, wanted_labels, strict=True):
        assert len(detections["scores"]) == len(scores)
        torch.testing.assert_close(
            detections["scores"].double(), scores.double().sort(descending=True).values, rtol=1e-5, atol=1e-6
        )
        assert sorted(detections["labels"].tolist()) == sorted(labels.tolist())
