"""Loading what the authors published. That the converted models compute the same is in `test_parity.py`."""

import re
from argparse import Namespace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.swin_transformer import checkpoint_filter_fn
from torch import Tensor

from golden.cases import GoldenCase
from hf_detr import HfDetrConfig, HfDetrForObjectDetection
from hf_detr.conversion import ConversionError, load_published_checkpoint
from hf_detr.conversion.published import published_key_table, read_checkpoint


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """A state dict in the layout of facebookresearch/detr."""
    return GoldenCase("detr_r50").state_dict()


@pytest.mark.parametrize(
    "wrap", [lambda tensors: tensors, lambda tensors: {"model": tensors, "epoch": 299, "args": Namespace(lr=1e-4)}]
)
def test_pth_files_load_with_and_without_the_outer_model(tmp_path: Path, published: dict[str, Tensor], wrap):
    path = tmp_path / "detr.pth"
    torch.save(wrap(published), path)
    model = load_published_checkpoint(path, "detr-resnet-50")
    assert not model.training
    wanted = published["transformer.decoder.layers.3.multihead_attn.in_proj_weight"].chunk(3)[1]
    assert torch.equal(model.model.decoder.layers[3].cross_attn.k_proj.weight, wanted)
    assert torch.equal(model.model.heads.class_head[0].bias, published["class_embed.bias"])


def test_safetensors_files_load(tmp_path: Path, published: dict[str, Tensor]):
    save_file(published, tmp_path / "detr.safetensors")
    model = load_published_checkpoint(tmp_path / "detr.safetensors", "detr-resnet-50")
    assert torch.equal(model.model.queries.position.weight, published["query_embed.weight"])


def test_leftover_and_missing_keys_are_all_listed(published: dict[str, Tensor]):
    wrong = dict(published)
    del wrong["class_embed.bias"], wrong["input_proj.bias"]
    wrong |= {"segmentation.weight": torch.zeros(1), "refpoint_embed.weight": torch.zeros(300, 4)}
    with pytest.raises(ConversionError) as caught:
        load_published_checkpoint(wrong, "detr-resnet-50")
    message = str(caught.value)
    assert "not understood (1): segmentation.weight" in message
    assert "no place for (1): model.queries.reference_box.weight" in message
    assert "does not fill (2): model.backbone.projections.0.bias, model.heads.class_head.0.bias" in message


def test_a_checkpoint_of_another_model_is_refused(published: dict[str, Tensor]):
    with pytest.raises(
        ConversionError, match=r"Tensors of another shape.*class_head.0.bias is \(92,\), expected \(4,\)"
    ):
        load_published_checkpoint(published, HfDetrConfig.from_preset("detr-resnet-50", num_labels=3))
    with pytest.raises(ConversionError, match="not understood"):
        load_published_checkpoint(published, "dino-resnet-50-4scale")


def test_an_unknown_preset_is_refused_before_reading():
    with pytest.raises(ValueError, match="no preset 'detr-r50'"):
        load_published_checkpoint("no-such-file.pth", "detr-r50")


class Dangerous:
    """Something whose unpickling would run code."""

    def __reduce__(self):
        return (print, ("executed",))


def test_a_file_that_would_execute_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "evil.pth"
    torch.save({"model": Dangerous()}, path)
    with pytest.raises(ConversionError, match=r"evil.pth cannot be read"):
        read_checkpoint(path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {"a": "text"}])
def test_a_file_without_state_dict_is_refused(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ConversionError, match=r"other.pth holds no state dict"):
        read_checkpoint(tmp_path / "other.pth")


def test_the_swin_of_dino_is_that_of_timm():
    """timm's own converter of the original Swin layout is the oracle; the published models use windows that shift."""
    size = {"embed_dim": 24, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 3, 4), "window_size": 7, "img_size": 64}
    name = "swin_tiny_patch4_window7_224"
    classifier = timm.create_model(name, always_partition=True, **size).eval()
    original = {}
    for key, value in classifier.state_dict().items():
        moved = re.fullmatch(r"layers\.(\d)\.downsample\.(.*)", key)
        key = f"layers.{int(moved[1]) - 1}.downsample.{moved[2]}" if moved else key
        original[key] = torch.randn_like(value)
        if key.endswith("relative_position_bias_table"):
            original[key.replace("bias_table", "index")] = torch.zeros(49, 49, dtype=torch.int64)
    classifier.load_state_dict(checkpoint_filter_fn({"model": dict(original)}, classifier), strict=False)  # its head

    config = HfDetrConfig.from_preset(
        "dino-swin-large-4scale", backbone=name, backbone_kwargs=size, num_labels=3, d_model=64, encoder_layers=1
    )
    model = HfDetrForObjectDetection(config).eval()
    converted = {}
    for key, value in original.items():
        if key.startswith(("head", "norm")):
            continue
        line = next(line for line in published_key_table(config) if re.fullmatch(line.pattern, f"backbone.0.{key}"))
        match = re.fullmatch(line.pattern, f"backbone.0.{key}")
        converted |= {match.expand(name).removeprefix("model.backbone.body."): value for name in line.names}
    model.model.backbone.body.load_state_dict(converted)
    images = torch.randn(2, 3, 64, 64)
    _, expected = classifier.forward_intermediates(images, indices=(1, 2, 3))
    for ours, theirs in zip(model.model.backbone.body(images), expected, strict=True):
        torch.testing.assert_close(ours.permute(0, 3, 1, 2), theirs)


def test_output_norms_of_swin_are_numbered_by_stage():
    for levels, stages in ((4, (1, 2, 3)), (5, (0, 1, 2, 3))):
        config = HfDetrConfig.from_preset("dino-swin-large-4scale", num_feature_levels=levels)
        for index, stage in enumerate(stages):
            [line] = [
                r for r in published_key_table(config) if re.fullmatch(r.pattern, f"backbone.0.norm{stage}.bias")
            ]
            assert line.names == (rf"model.backbone.norms.{index}.\1",)
