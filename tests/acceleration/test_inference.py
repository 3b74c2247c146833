"""Optimised detectors against the plain ones they were made from."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import pipeline

from hf_detr import HfDetrForObjectDetection, HfDetrImageProcessor, available_presets
from hf_detr.acceleration.batch_norm_folding import FoldedBatchNorm, fold_batch_norms_of
from hf_detr.acceleration.inference import is_convolutional, optimize_for_inference
from hf_detr.acceleration.shape_cache import MOST_SHAPES, ConstantSelfAttention
from hf_detr.prediction import detect
from modeling.tiny import images, labels, tiny_model


def detector(preset: str, **overrides) -> HfDetrForObjectDetection:
    """A small detector in which nothing is zero or one by initialisation: norms, biases, box heads."""
    model = tiny_model(preset, **overrides)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.add_(noise.mul(0.2) if name.endswith("running_var") else noise.sub(0.5).mul(0.1))
    return model


def padded(count: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Images, the first whole and the others padded, and their mask."""
    mask = torch.zeros(count, height, width, dtype=torch.int64)
    for index in range(count):
        mask[index, : height - 16 * index, : width - 24 * index] = 1
    return images(count, height, width) * mask[:, None], mask


@torch.no_grad()
def assert_equal(model: nn.Module, optimised: nn.Module, *arguments: Tensor) -> None:
    expected, found = model(*arguments), optimised(*arguments)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.pred_boxes, expected.pred_boxes, rtol=0, atol=1e-4)


@torch.no_grad()
def assert_each_as_alone(model: nn.Module, optimised: nn.Module, pixel_values: Tensor, mask: Tensor) -> None:
    found = optimised(pixel_values, mask)
    assert found.encoder_last_hidden_state is None
    for index in range(len(mask)):
        height, width = int(mask[index].any(1).sum()), int(mask[index].any(0).sum())
        expected = model(pixel_values[index : index + 1, :, :height, :width])
        for name in ("logits", "pred_boxes", "last_hidden_state"):
            torch.testing.assert_close(found[name][index : index + 1], expected[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("preset", available_presets())
def test_equal_to_the_plain_model(preset: str):
    """Several shapes after another and again, with a mask that masks nothing, without one; images of several sizes."""
    model = detector(preset)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimised = optimize_for_inference(model)
    full = torch.ones(2, 96, 128, dtype=torch.int64)
    for arguments in (
        (images(2, 96, 128),),
        (images(2, 96, 128), full),
        (images(1, 128, 96),),
        (images(2, 96, 128, seed=3),),
    ):
        assert_equal(model, optimised, *arguments)
    if optimised.removes_padding:
        assert_each_as_alone(model, optimised, *padded(3, 128, 160))
    else:
        assert_equal(model, optimised, *padded(2, 96, 128))
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    norms_left = sum(getattr(module, "running_var", None) is not None for module in optimised.modules())
    assert norms_left == 0


@pytest.mark.parametrize("preset", ["detr-resnet-50", "conditional-detr-resnet-50", "deformable-detr-resnet-50"])
def test_bfloat16(preset: str):
    """As near to float32 as the plain model in bfloat16 is."""
    model, pixel_values = detector(preset), images(2)
    optimised = optimize_for_inference(model, dtype="bfloat16")
    with torch.no_grad():
        expected, found = model(pixel_values), optimised(pixel_values)
        plain = model.to(torch.bfloat16)(pixel_values.to(torch.bfloat16))
    assert found.logits.dtype == torch.bfloat16
    assert found.pred_boxes.dtype == torch.float32

    def distance(outputs) -> float:
        return (outputs.logits.float() - expected.logits).abs().mean().item()

    assert distance(found) <= 1.5 * distance(plain)
    assert (found.pred_boxes - expected.pred_boxes).abs().mean() < 0.02


def test_constants_are_used_and_bounded():
    optimised = optimize_for_inference(detector("detr-resnet-50"))
    attention = optimised.model.decoder.layers[0].self_attn
    assert isinstance(attention, ConstantSelfAttention)
    calls = []
    attention.attention.register_forward_hook(lambda *_: calls.append(1))
    for width in range(64, 64 + 32 * (MOST_SHAPES + 2), 32):
        optimised(images(1, 64, width))
    assert len(calls) == 1  # the queries do not depend on the shape
    assert len(optimised.model.backbone.position_embedding.constants) == MOST_SHAPES
    assert len(copy.deepcopy(optimised).model.backbone.position_embedding.constants) == 0


def test_copied_moved_and_used_by_threads():
    model = detector("dino-resnet-50-4scale")
    optimised = optimize_for_inference(model)
    assert_equal(model, copy.deepcopy(optimised).to("cpu"), images(1))
    assert_equal(model.double(), copy.deepcopy(optimised).double(), images(1).double())
    model.float()
    pictures = [images(1, 96, 96 + 32 * (index % 3), seed=index) for index in range(6)]
    with ThreadPoolExecutor(3) as pool, torch.no_grad():
        found = list(pool.map(lambda picture: optimised(picture).logits, pictures))
        for picture, logits in zip(pictures, found, strict=True):
            torch.testing.assert_close(logits, model(picture).logits, rtol=0, atol=1e-4)


def test_for_inference_only(tmp_path):
    model = detector("detr-resnet-50").train()
    optimised = optimize_for_inference(model)
    assert model.training
    assert not optimised.eval().training
    assert not optimised(images(1)).logits.requires_grad
    with pytest.raises(ValueError, match="cannot be trained"):
        optimised.train()
    with pytest.raises(ValueError, match="cannot be saved"):
        optimised.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no losses"):
        optimised(images(1), labels=labels(1))
    with pytest.raises(ValueError, match="already"):
        optimize_for_inference(optimised)
    with pytest.raises(ValueError, match="dtype='int8'"):
        optimize_for_inference(model, dtype="int8")
    with pytest.raises(ValueError, match="HfDetrModel"):
        optimize_for_inference(model.model)
    assert list(tmp_path.iterdir()) == []
    assert optimize_for_inference(model, copy=False) is model


def test_pipeline_and_pictures_of_several_sizes(caplog: pytest.LogCaptureFixture):
    model = detector("deformable-detr-resnet-50-two-stage")
    processor = HfDetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 128}, classification="sigmoid")
    pictures = [Image.effect_noise(size, 80).convert("RGB") for size in ((100, 80), (80, 100), (100, 80))]
    optimised = optimize_for_inference(model)
    found = pipeline("object-detection", model=optimised, image_processor=processor)(pictures[0], threshold=0.0)
    expected = pipeline("object-detection", model=model, image_processor=processor)(pictures[0], threshold=0.0)
    assert [item["box"] for item in found] == [item["box"] for item in expected]
    assert "not supported" not in caplog.text
    together = detect(optimised, processor, pictures, threshold=0.0)
    for picture, found in zip(pictures, together, strict=True):
        [alone] = detect(model, processor, [picture], threshold=0.0)
        torch.testing.assert_close(found["scores"], alone["scores"], rtol=0, atol=1e-4)


def test_images_of_one_size_run_together_without_their_padding():
    model = detector("deformable-detr-resnet-50")
    optimised = optimize_for_inference(model)
    shapes = []
    optimised.model.register_forward_pre_hook(lambda _, arguments: shapes.append(tuple(arguments[0].shape)))
    mask = torch.zeros(4, 128, 160, dtype=torch.int64)
    for index, (height, width) in enumerate(((128, 96), (96, 96), (128, 96), (96, 160))):
        mask[index, :height, :width] = 1
    pixel_values = images(4, 128, 160) * mask[:, None]
    assert_each_as_alone(model, optimised, pixel_values, mask)
    assert shapes == [(2, 3, 128, 96), (1, 3, 96, 96), (1, 3, 96, 160)]
    outputs = optimised(pixel_values, mask)
    for found, expected in zip(optimised(pixel_values, mask, return_dict=False), outputs.to_tuple(), strict=True):
        assert torch.equal(found, expected)


def test_an_image_with_fewer_tokens_than_queries_beside_a_larger_one():
    optimised = optimize_for_inference(detector("dino-resnet-50-4scale", num_queries=200))
    pixel_values, mask = padded(2, 128, 160)
    pixel_values, mask[1] = pixel_values * mask[:, None], 0
    mask[1, :96, :96] = 1
    outputs = optimised(pixel_values, mask)
    tokens = optimised(pixel_values[1:, :, :96, :96]).logits.shape[1]
    assert outputs.logits.shape[1] == outputs.pred_boxes.shape[1] == 200 > tokens
    assert outputs.logits[1, :tokens].isfinite().all()
    assert (outputs.logits[1, tokens:].sigmoid() == 0).all()
    assert outputs.pred_boxes.isfinite().all()


def test_padding_that_must_stay():
    """A hole in an image is no padding to cut off, and hidden states of several lengths are no tensor."""
    model = detector("detr-resnet-50")
    optimised = optimize_for_inference(model)
    pixel_values, mask = padded(2, 96, 128)
    assert_equal(model, optimised, pixel_values, mask.flip(2))
    found = optimised(pixel_values, mask, output_hidden_states=True)
    assert len(found.encoder_hidden_states) > 1
    assert found.encoder_last_hidden_state is not None


class Entangled(nn.Module):
    """The output of the convolution is read twice: folding would change the second."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_var.fill_(4.0)

    def forward(self, pixel_values: Tensor) -> list[Tensor]:
        maps = self.convolution(pixel_values)
        return [self.norm(maps) + maps]


def test_a_batch_norm_that_cannot_be_folded_stays():
    body = Entangled().eval()
    fold_batch_norms_of(body)
    assert type(body.norm) is nn.BatchNorm2d
    assert body.convolution.weight.requires_grad


def test_norms_with_activations_and_without_a_backbone_of_convolutions():
    import timm

    torch.manual_seed(0)
    body = timm.create_model("mobilenetv3_small_050", features_only=True).eval()  # norms carry their activations
    for module in body.modules():
        if hasattr(module, "running_mean"):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    picture = images(1, 96, 64)
    expected_maps = body(picture)
    fold_batch_norms_of(body)
    assert not any(hasattr(module, "running_var") for module in body.modules())
    assert any(isinstance(module, FoldedBatchNorm) for module in body.modules())
    for found, expected in zip(body(picture), expected_maps, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert is_convolutional(body)
    assert not is_convolutional(tiny_model("dino-swin-large-4scale").model.backbone.body)
