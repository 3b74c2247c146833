"""What the parts of a model do: padding, denoising, backbones, bad input, learning."""

import logging

import pytest
import torch
from test_presets import NO_DROPOUT, matching_loss
from tiny import images, labels, tiny_config, tiny_model
from torch import Tensor

from hf_detr import HfDetrForObjectDetection, available_presets
from hf_detr.modeling.backbone import FeatureMap
from hf_detr.modeling.queries import Queries
from hf_detr.modeling.supervision import Predictions
from hf_detr.modeling.training_queries import TrainingQueries

DENSE = [preset for preset in available_presets() if tiny_config(preset).encoder == "dense"]
DEFORMABLE = [preset for preset in available_presets() if tiny_config(preset).encoder == "deformable"]
# These embed the reference box relative to the padded image, as published: their predictions follow the padding
RELATIVE_TO_PADDING = [preset for preset in DEFORMABLE if tiny_config(preset).query_position == "sine"]

# A ConvNeXt without any convolution over neighbours: each cell sees its own 32×32 pixels
LOCAL_BACKBONE = {
    "backbone": "convnext_atto",
    "backbone_kwargs": {"kernel_sizes": [1, 1, 1, 1], "depths": [1, 1, 1, 1], "dims": [8, 8, 16, 16]},
    "dilation": False,
}


@pytest.mark.parametrize("preset", DENSE)
def test_an_image_alone_gives_what_it_gives_in_a_padded_batch(preset: str):
    model = tiny_model(preset, **LOCAL_BACKBONE).double()
    sizes = [(96, 128), (64, 128), (96, 32)]
    batch, mask = torch.zeros(3, 3, 96, 128, dtype=torch.float64), torch.zeros(3, 96, 128, dtype=torch.int64)
    pictures = [images(1, *size, seed=index).double() for index, size in enumerate(sizes)]
    for index, (height, width) in enumerate(sizes):
        batch[index, :, :height, :width] = pictures[index][0]
        mask[index, :height, :width] = 1
    with torch.no_grad():
        together = model(batch, mask)
        for index, picture in enumerate(pictures):
            alone = model(picture)
            torch.testing.assert_close(together.logits[index], alone.logits[0], rtol=0, atol=1e-9)
            torch.testing.assert_close(together.pred_boxes[index], alone.pred_boxes[0], rtol=0, atol=1e-9)


def decode(model: HfDetrForObjectDetection, contents: list[Tensor], masks: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The predictions of the transformer for given feature maps."""
    embed = model.model.backbone.position_embedding
    features = [FeatureMap(c, m, embed(c, m)) for c, m in zip(contents, masks, strict=True)]
    memory = model.model.encoder(features)
    queries = model.model.queries(memory)
    if model.model.denoising is not None:
        queries = model.model.denoising(queries, None)
    predictions = model.model.decoder(queries, memory, model.model.heads, all_layers=False).predictions
    return predictions.logits[-1], predictions.boxes[-1]


def padded_maps(model: HfDetrForObjectDetection, rows: float, columns: float, filling: float, seed: int = 0):
    """Maps of every level for a 96×128 image, and those of the image with more rows and columns of padding."""
    generator = torch.Generator().manual_seed(seed)
    contents, masks = [], []
    for level in range(model.config.num_feature_levels):
        height, width = 24 >> level or 1, 32 >> level or 1
        content = torch.randn(1, model.config.d_model, height, width, generator=generator, dtype=torch.float64)
        canvas = torch.full((1, model.config.d_model, int(height * rows), int(width * columns)), filling).double()
        canvas[:, :, :height, :width] = content
        mask = torch.zeros(1, *canvas.shape[-2:], dtype=torch.bool)
        mask[:, :height, :width] = True
        contents.append(canvas)
        masks.append(mask)
    return contents, masks


@pytest.mark.parametrize("preset", available_presets())
def test_what_stands_in_padded_cells_means_nothing(preset: str):
    model = tiny_model(preset).double()
    with torch.no_grad():
        zeros = decode(model, *padded_maps(model, 2, 3, filling=0.0))
        garbage = decode(model, *padded_maps(model, 2, 3, filling=1e4))
    for expected, found in zip(zeros, garbage, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("preset", [preset for preset in available_presets() if preset not in RELATIVE_TO_PADDING])
def test_the_transformer_does_not_notice_padding(preset: str):
    model = tiny_model(preset).double()
    with torch.no_grad():
        bare = decode(model, *padded_maps(model, 1, 1, filling=0.0))
        padded = decode(model, *padded_maps(model, 2, 3, filling=1.0))
    for expected, found in zip(bare, padded, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


def test_who_sees_whom():
    """Two groups of two queries and a kind of one that exist in training only, before three of inference."""
    training = [TrainingQueries(4, 2, lambda predictions: None), TrainingQueries(1, 1, lambda predictions: None)]
    mask = Queries(torch.zeros(1, 8, 8), None, None, training=training).attention_mask[0, 0]
    expected = """
        11...111
        11...111
        ..11.111
        ..11.111
        ....1111
        .....111
        .....111
        .....111
    """
    assert ["".join(".1"[int(cell)] for cell in row) for row in mask] == expected.split()


def test_each_kind_of_training_query_gets_its_own_predictions():
    predictions = Predictions(
        torch.arange(8.0).view(1, 1, 8, 1), torch.arange(8.0).view(1, 1, 8, 1).expand(-1, -1, -1, 4)
    )
    training = [TrainingQueries(count, 1, lambda part: part.logits.flatten().tolist()) for count in (4, 1)]
    own, groups = Queries(torch.zeros(1, 8, 8), None, None, groups=["proposals"], training=training).split(predictions)
    assert groups == ["proposals", [0, 1, 2, 3], [4]]
    assert own.logits.flatten().tolist() == [5, 6, 7]
    assert own.boxes.shape == (1, 1, 3, 4)


@pytest.mark.parametrize("preset", ["dn-detr-resnet-50", "dino-resnet-50-4scale"])
def test_denoising_trains_on_what_it_was_given(preset: str):
    """Without noise the first references of the (positive) denoising queries are the boxes themselves."""
    model = tiny_model(preset, label_noise_ratio=0.0, box_noise_scale=0.0, **NO_DROPOUT).train()
    seen = {}
    model.model.decoder.register_forward_pre_hook(lambda module, arguments: seen.update(queries=arguments[0]))
    annotations = labels(2, 2)
    outputs = model.model(images(2), targets=model.prepare_targets(annotations, torch.float32))
    (part,) = (group for group in outputs.groups if group.name == "dn")
    references = seen["queries"].reference_points
    for image, annotation in enumerate(annotations):
        index = part.matching.query_index[0, image].view(part.copies, -1)
        for group in index:
            torch.testing.assert_close(references[image, group], annotation["boxes"], rtol=0, atol=1e-4)


BACKBONES = [
    ("resnet18", {}),
    ("resnet50", {"layers": [1, 1, 1, 1]}),
    ("convnext_tiny", {"depths": [1, 1, 1, 1], "dims": [16, 16, 32, 32]}),
    ("mobilenetv4_conv_small", {}),
    ("swin_tiny_patch4_window7_224", {"depths": [1, 1, 1, 1], "embed_dim": 24}),
    ("vit_tiny_patch16_224", {"depth": 4}),
]


@pytest.mark.parametrize(("backbone", "arguments"), BACKBONES)
@pytest.mark.parametrize("preset", ["detr-resnet-50", "deformable-detr-resnet-50"])
def test_any_backbone_of_timm(preset: str, backbone: str, arguments: dict):
    """Sizes that are no multiple of anything; the stem and one stage frozen, the rest trained."""
    model = tiny_model(preset, d_model=64, backbone=backbone, backbone_kwargs=arguments).train()
    outputs = model(images(2, 101, 139), labels=labels(1, 2))
    outputs.loss.backward()
    body = dict(model.model.backbone.body.named_parameters())
    frozen = [name for name, p in body.items() if not p.requires_grad]
    assert frozen == list(body)[: len(frozen)]  # the stem is at the beginning
    assert 0 < len(frozen) < len(body)
    used = [name for name, p in body.items() if p.grad is not None and p.grad.any()]
    assert used
    assert not set(used) & set(frozen)
    assert next(p for name, p in body.items() if name not in frozen).grad is not None  # down to the first trained one


def test_number_of_frozen_stages():
    frozen = {}
    for stages in (-1, 0, 1, 4):
        body = tiny_model("detr-resnet-50", frozen_stages=stages).model.backbone.body
        frozen[stages] = {name.split(".")[0] for name, p in body.named_parameters() if not p.requires_grad}
    assert frozen[-1] == set()
    assert frozen[0] == {"conv1"}
    assert frozen[1] == {"conv1", "layer1"}
    assert frozen[4] == {"conv1", "layer1", "layer2", "layer3", "layer4"}
    with pytest.raises(ValueError, match="frozen_stages=7"):
        tiny_model("detr-resnet-50", frozen_stages=7)


@pytest.mark.parametrize(("preset", "maps"), [("dino-resnet-50-5scale", 5), ("dino-swin-large-4scale", 4)])
def test_more_levels_than_the_backbone_and_one_more_give(preset: str, maps: int):
    tiny_model(preset, num_feature_levels=maps + 1)
    with pytest.raises(ValueError, match=f"num_feature_levels={maps + 2}: .* allows at most {maps + 1}"):
        tiny_model(preset, num_feature_levels=maps + 2)


def test_frozen_batch_norm_does_not_move():
    for freeze, moves in ((True, False), (False, True)):
        model = tiny_model("detr-resnet-50", freeze_batch_norm=freeze, frozen_stages=-1).train()
        before = model.model.backbone.body.bn1.running_mean.clone()
        model(images(2))
        assert torch.equal(model.model.backbone.body.bn1.running_mean, before) is not moves


def test_dc5_has_twice_the_resolution():
    tokens = {
        dilation: tiny_model("detr-resnet-50", dilation=dilation)(images(1)).encoder_last_hidden_state.shape[1]
        for dilation in (False, True)
    }
    assert tokens == {False: 3 * 3, True: 6 * 6}


def test_more_objects_than_queries():
    model = tiny_model("detr-resnet-50")
    with pytest.raises(ValueError, match=r"Image 101 has 11 objects.*num_queries=10"):
        model(images(2), labels=labels(2, 11))


def test_an_image_smaller_than_its_queries():
    """Two-stage models select what there is."""
    model = tiny_model("dino-resnet-50-4scale", num_queries=300, d_model=64)
    outputs = model(images(1, 64, 64))
    assert outputs.logits.shape[1] == 8 * 8 + 4 * 4 + 2 * 2 + 1


@pytest.mark.parametrize("preset", ["detr-resnet-50", "dino-resnet-50-4scale"])
def test_pixels_that_are_not_finite(preset: str, caplog: pytest.LogCaptureFixture):
    """No crash in the matcher: the image is named, and the loss is not finite."""
    model, pixel_values = tiny_model(preset).train(), images(2)
    pixel_values[1, :, 3, 5] = torch.nan
    with caplog.at_level(logging.WARNING):
        outputs = model(pixel_values, labels=labels(2, 3))
    assert "101" in caplog.text
    assert "100" not in caplog.text
    assert not outputs.loss.isfinite()


def four_scenes(size: int = 64) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """A bright square in another corner of each image, coloured by its class."""
    pixel_values, annotations = 0.1 * images(4, size, size), []
    for index, image in enumerate(pixel_values):
        column, row, class_label = index % 2, index // 2, index % 3
        box = torch.tensor([[0.3 + 0.4 * column, 0.3 + 0.4 * row, 0.4, 0.4]])
        left, top = ((box[0, :2] - 0.2) * size).round().int().tolist()
        side = round(0.4 * size)
        image[class_label, top : top + side, left : left + side] += 2.0
        annotations.append({"class_labels": torch.tensor([class_label]), "boxes": box})
    return pixel_values, annotations


@pytest.mark.parametrize("preset", available_presets())
def test_thirty_steps_overfit_four_images(preset: str):
    """The loss of the matching queries falls to a fifth; the backbone starts from noise, so its norms are trained.

    The learning rate rises for five steps and falls over the last twelve. The settings were searched for: with many
    others DAB- and DN-DETR fell by 2 to 5 times only. With this seed the loss falls by 5.3 (DETR) to 42 times (DINO);
    over three seeds, tried for five of the dense presets, the least was 5.3, so the margin is thin.
    """
    sizes = {"d_model": 128, "encoder_attention_heads": 8, "decoder_attention_heads": 8, "num_queries": 6}
    trained = {"encoder_layers": 1, "freeze_batch_norm": False, "frozen_stages": -1, **NO_DROPOUT}
    model = tiny_model(preset, **sizes, **trained).train()
    pixel_values, annotations = four_scenes()
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 5, (33 - step) / 12))
    losses = []
    for _ in range(31):
        outputs = model(pixel_values, labels=annotations)
        losses.append(matching_loss(model, outputs.loss_dict).item())
        optimizer.zero_grad()
        outputs.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        schedule.step()
    assert losses[-1] < losses[0] / 5, losses
