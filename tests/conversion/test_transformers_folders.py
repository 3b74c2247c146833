"""Folders that transformers' own DETR models have saved, loaded into ours: the same predictions, or an error."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForObjectDetection,
    ConditionalDetrImageProcessor,
    DeformableDetrForObjectDetection,
    DeformableDetrImageProcessor,
    DetrForObjectDetection,
    DetrImageProcessor,
    PreTrainedModel,
)
from transformers_models import (
    REFINE,
    TWO_STAGE,
    padded_batch,
    resnet_backbone,
    save,
    timm_backbone,
    transformers_model,
)

from hf_detr import HfDetrConfig, HfDetrForObjectDetection, HfDetrModel
from hf_detr.conversion import ConversionError, translate_config
from hf_detr.processing.image_processing import HfDetrImageProcessor

THREE_STAGES = resnet_backbone("stage2", "stage3", "stage4")
VARIANTS = {
    "detr": ("detr", {}),
    "detr-resnet": ("detr", {"backbone_config": resnet_backbone("stage4")}),
    "detr-learned-positions": ("detr", {"position_embedding_type": "learned"}),
    "detr-prelu": ("detr", {"activation_function": "prelu"}),
    "detr-dilated": ("detr", {"dilation": True, "backbone_config": timm_backbone(4, output_stride=16)}),
    "detr-grey": ("detr", {"num_channels": 1, "backbone_config": timm_backbone(4, num_channels=1)}),
    "conditional": ("conditional_detr", {}),
    "conditional-resnet": ("conditional_detr", {"backbone_config": resnet_backbone("stage4")}),
    "dab": ("dab-detr", {}),
    "dab-resnet": ("dab-detr", {"backbone_config": resnet_backbone("stage4")}),
    "dab-other-constants": (
        "dab-detr",
        {"activation_function": "relu", "temperature_height": 10000, "temperature_width": 10000},
    ),
    "deformable": ("deformable_detr", {}),
    "deformable-resnet": ("deformable_detr", {"backbone_config": THREE_STAGES}),
    "deformable-refine": ("deformable_detr", REFINE),
    "deformable-two-stage": ("deformable_detr", TWO_STAGE),
    "deformable-single": ("deformable_detr", {"num_feature_levels": 1, "backbone_config": timm_backbone(4)}),
    "deformable-points": ("deformable_detr", {"encoder_n_points": 2, "decoder_n_points": 3, **REFINE}),
}


@torch.no_grad()
def assert_same_predictions(theirs: PreTrainedModel, ours: HfDetrForObjectDetection) -> None:
    pixel_values, pixel_mask = padded_batch(theirs)
    pixel_values = pixel_values[:, : ours.config.num_channels]
    expected, got = theirs(pixel_values, pixel_mask), ours(pixel_values, pixel_mask)
    for image in expected.logits:  # the comparison would mean little if all queries answered alike
        assert image.std(0).mean() > 2e-3
    assert not torch.allclose(expected.logits[0], expected.logits[1], atol=1e-2)
    torch.testing.assert_close(got.logits, expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(got.pred_boxes, expected.pred_boxes, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def detr() -> DetrForObjectDetection:
    return transformers_model("detr")


@pytest.fixture
def detr_folder(detr: DetrForObjectDetection, tmp_path: Path) -> Path:
    return save(detr, tmp_path / "detr")


def edit_config(folder: Path, **changes: Any) -> None:
    """Change fields of a saved configuration; None removes one."""
    file = folder / "config.json"
    fields = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in fields.items() if value is not None}))


def edit_weights(folder: Path, **changes: Tensor | None) -> None:
    """Change tensors of saved weights; None removes one. Dots in names are spelled as double underscores."""
    tensors = load_file(folder / "model.safetensors")
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("layout", ["version-4", "version-5"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_predictions(variant: str, layout: str, tmp_path: Path):
    model_type, overrides = VARIANTS[variant]
    theirs = transformers_model(model_type, **overrides)
    save(theirs, tmp_path, save_original_format=layout == "version-4")
    ours, info = HfDetrForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    assert not ours.training
    assert_same_predictions(theirs, ours)


@pytest.mark.parametrize(
    ("model_type", "overrides"),
    [("detr", {}), ("detr", {"dilation": True, "backbone_config": timm_backbone(4, output_stride=16)})],
)
@pytest.mark.parametrize("backbone_kwargs", [None, {"out_indices": [1, 2, 3, 4], "in_chans": 3}])
def test_configuration_with_the_backbone_in_fields_of_version_4(
    model_type: str, overrides: dict, backbone_kwargs: dict | None, tmp_path: Path
):
    theirs = transformers_model(model_type, **overrides)
    save(theirs, tmp_path)
    edit_config(
        tmp_path,
        backbone_config=None,
        backbone="test_resnet",
        backbone_kwargs=backbone_kwargs,
        use_timm_backbone=True,
        use_pretrained_backbone=True,
        num_hidden_layers=2,
        torch_dtype="float64",
        dtype=None,
        max_position_embeddings=1024,
        scale_embedding=False,
    )
    ours = HfDetrForObjectDetection.from_pretrained(tmp_path)
    assert ours.dtype == torch.float64
    assert_same_predictions(theirs, ours)


def test_keys_of_version_4_that_version_5_no_longer_writes(tmp_path: Path):
    """The position embedding stood in the backbone, and batch norms counted their batches."""
    theirs = transformers_model("detr", position_embedding_type="learned")
    save(theirs, tmp_path)
    embeddings = {
        f"{kind}_embeddings.weight": getattr(theirs.model.position_embedding, f"{kind}_embeddings").weight
        for kind in ("row", "column")
    }
    edit_weights(
        tmp_path,
        **{f"model.position_embedding.{name}": None for name in embeddings},
        **{f"model.backbone.position_embedding.{name}": tensor for name, tensor in embeddings.items()},
        **{"model.backbone.conv_encoder.model.bn1.num_batches_tracked": torch.tensor(7)},
    )
    assert_same_predictions(theirs, HfDetrForObjectDetection.from_pretrained(tmp_path))


def test_refinement_with_a_class_head_of_its_own_in_each_layer(tmp_path: Path):
    """As published; a model that transformers builds itself has one head for all layers and saves it once."""
    save(transformers_model("deformable_detr", **REFINE), tmp_path)
    head = load_file(tmp_path / "model.safetensors")["class_embed.0.weight"]
    heads = {f"class_embed.{layer}.weight": head * (1 + layer) for layer in range(3)}
    biases = {f"class_embed.{layer}.bias": torch.full_like(head[:, 0], layer) for layer in range(3)}
    edit_weights(tmp_path, **heads, **biases)
    theirs = DeformableDetrForObjectDetection.from_pretrained(tmp_path)
    ours = HfDetrForObjectDetection.from_pretrained(tmp_path)
    assert torch.equal(ours.model.heads.class_head[1].weight, heads["class_embed.1.weight"])
    assert_same_predictions(theirs, ours)


def test_heads_saved_twice_must_agree(tmp_path: Path):
    theirs = transformers_model("dab-detr")
    save(theirs, tmp_path)
    head = load_file(tmp_path / "model.safetensors")["bbox_predictor.layers.0.bias"]
    edit_weights(tmp_path, **{"model.decoder.bbox_embed.layers.0.bias": head.clone()})
    assert_same_predictions(theirs, HfDetrForObjectDetection.from_pretrained(tmp_path))
    edit_weights(tmp_path, **{"model.decoder.bbox_embed.layers.0.bias": head + 1})
    with pytest.raises(ConversionError, match=r"differ.*layers\.0\.bias"):
        HfDetrForObjectDetection.from_pretrained(tmp_path)


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_sharded_pickle(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = sorted(tensors)[::2], sorted(tensors)[1::2]
    files = [f"pytorch_model-0000{part}-of-00002.bin" for part in (1, 2)]
    for keys, file in zip(halves, files, strict=True):
        torch.save({key: tensors[key] for key in keys}, folder / file)
    weight_map = {key: file for keys, file in zip(halves, files, strict=True) for key in keys}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize(
    ("saving", "afterwards", "loading"),
    [
        ({"max_shard_size": "500KB"}, None, {}),
        ({}, as_pickle, {}),
        ({}, as_sharded_pickle, {}),
        ({}, as_pickle, {"use_safetensors": False}),
        ({"variant": "half"}, None, {"variant": "half"}),
        ({"variant": "half", "max_shard_size": "500KB"}, None, {"variant": "half"}),
    ],
    ids=["shards", "pickle", "pickle-shards", "no-safetensors", "variant", "variant-shards"],
)
def test_every_form_of_weight_file(detr, saving: dict, afterwards: Any, loading: dict, tmp_path: Path):
    folder = save(detr, tmp_path / "repository" / "part", **saving)
    if afterwards:
        afterwards(folder)
    if "max_shard_size" in saving:
        assert len(list(folder.glob("*.safetensors"))) > 1
    assert_same_predictions(detr, HfDetrForObjectDetection.from_pretrained(folder, **loading))
    ours = HfDetrForObjectDetection.from_pretrained(tmp_path / "repository", subfolder="part", **loading)
    assert_same_predictions(detr, ours)


def test_weights_that_are_not_there(detr_folder: Path):
    with pytest.raises(OSError, match=r"pytorch_model\.bin"):
        HfDetrForObjectDetection.from_pretrained(detr_folder, use_safetensors=False)
    as_sharded_pickle(detr_folder)
    (detr_folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(OSError, match=r"pytorch_model-00002-of-00002\.bin"):
        HfDetrForObjectDetection.from_pretrained(detr_folder)


def test_repository_on_the_hub(detr, detr_folder: Path, tmp_path: Path):
    """From the cache of huggingface_hub, at a revision that is not the main one."""
    repository = tmp_path / "cache" / "models--someone--detr"
    commit = "0123456789" * 4
    shutil.copytree(detr_folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "published").write_text(commit)
    place = {"cache_dir": tmp_path / "cache", "revision": "published", "local_files_only": True}
    ours = HfDetrForObjectDetection.from_pretrained("someone/detr", **place)
    assert ours.config.name_or_path == "someone/detr"
    assert_same_predictions(detr, ours)
    assert HfDetrConfig.from_pretrained("someone/detr", **place).num_queries == detr.config.num_queries
    with pytest.raises(OSError, match="cached files"):
        HfDetrForObjectDetection.from_pretrained("someone/detr", **{**place, "revision": "main"})


def test_a_converted_model_is_saved_as_ours(detr, detr_folder: Path, tmp_path: Path):
    ours = HfDetrForObjectDetection.from_pretrained(detr_folder)
    assert ours.config.name_or_path == str(detr_folder)
    ours.save_pretrained(tmp_path / "ours")
    fields = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert fields["model_type"] == "hf_detr"
    assert fields["architectures"] == ["HfDetrForObjectDetection"]
    assert set(load_file(tmp_path / "ours" / "model.safetensors")) == set(ours.state_dict())
    assert_same_predictions(detr, AutoModelForObjectDetection.from_pretrained(tmp_path / "ours"))


def test_auto_classes_keep_giving_the_model_of_transformers(detr_folder: Path):
    assert type(AutoModelForObjectDetection.from_pretrained(detr_folder)) is DetrForObjectDetection


def test_base_model(detr, detr_folder: Path):
    model, info = HfDetrModel.from_pretrained(detr_folder, output_loading_info=True)
    assert not any(info.values()), info
    pixel_values, pixel_mask = padded_batch(detr)
    with torch.no_grad():
        expected, outputs = detr(pixel_values, pixel_mask), model(pixel_values, pixel_mask)
    torch.testing.assert_close(outputs.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.layer_boxes[-1], expected.pred_boxes, rtol=0, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"dtype": torch.bfloat16}, {"dtype": "bfloat16"}, {"torch_dtype": "bfloat16"}])
def test_precision(detr_folder: Path, arguments: dict):
    model = HfDetrForObjectDetection.from_pretrained(detr_folder, **arguments)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert HfDetrForObjectDetection.from_pretrained(detr_folder).dtype == torch.float64  # that of the folder


def test_placement_and_attention(detr, detr_folder: Path):
    model = HfDetrForObjectDetection.from_pretrained(detr_folder, device_map="cpu", attn_implementation="eager")
    assert model.config._attn_implementation == "eager"
    assert model.model.encoder.layers[0].self_attn.config._attn_implementation == "eager"
    assert_same_predictions(detr, model)


def test_other_classes_need_to_be_asked_for(detr, detr_folder: Path):
    names = {"num_labels": 2, "id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        HfDetrForObjectDetection.from_pretrained(detr_folder, **names)
    model, info = HfDetrForObjectDetection.from_pretrained(
        detr_folder, ignore_mismatched_sizes=True, output_loading_info=True, **names
    )
    assert {key for key, *_ in info["mismatched_keys"]} == {
        f"model.heads.class_head.0.{n}" for n in ("weight", "bias")
    }
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.config.id2label == {0: "cat", 1: "dog"}
    assert model.model.heads.class_head[0].weight.shape == (3, 32)
    assert model.model.heads.class_head[0].weight.std() > 0
    original = HfDetrForObjectDetection.from_pretrained(detr_folder)
    assert torch.equal(
        model.model.heads.box_head[0].layers[2].weight, original.model.heads.box_head[0].layers[2].weight
    )


@pytest.mark.parametrize(
    ("model_type", "overrides"), [("detr", {}), ("deformable_detr", REFINE), ("deformable_detr", TWO_STAGE)]
)
def test_classes_of_a_converted_folder_keep_their_rows_by_name(model_type: str, overrides: dict, tmp_path: Path):
    names = ("N/A", "person", "cat", "N/A", "dog")
    original = transformers_model(model_type, id2label=dict(enumerate(names)), **overrides)
    folder = save(original, tmp_path)
    pixel_values, pixel_mask = padded_batch(original)
    with torch.no_grad():
        before = original(pixel_values, pixel_mask).logits
        model = HfDetrForObjectDetection.from_pretrained(folder, id2label={0: "cat", 1: "bird", 2: "person"})
        after = model.double()(pixel_values, pixel_mask).logits
    torch.testing.assert_close(after[..., [0, 2]], before[..., [2, 1]], rtol=0, atol=1e-5)
    if model_type == "detr":
        torch.testing.assert_close(after[..., -1], before[..., -1], rtol=0, atol=1e-5)


def test_fields_and_configuration_of_the_caller(detr_folder: Path):
    model = HfDetrForObjectDetection.from_pretrained(detr_folder, dropout=0.3, eos_coefficient=0.2)
    assert (model.config.dropout, model.config.eos_coefficient) == (0.3, 0.2)
    config = HfDetrConfig.from_pretrained(detr_folder, giou_cost=7)
    model = AutoModelForObjectDetection.from_pretrained(detr_folder, config=config, dtype="float32")
    assert type(model) is HfDetrForObjectDetection
    assert (model.config.giou_cost, model.dtype) == (7, torch.float32)


def test_adapter_of_a_converted_model(detr, detr_folder: Path, tmp_path: Path):
    """An adapter names its base model, which is a folder of transformers."""
    lora = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = get_peft_model(HfDetrForObjectDetection.from_pretrained(detr_folder), lora).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = HfDetrForObjectDetection.from_pretrained(tmp_path / "adapter")
    pixel_values, pixel_mask = padded_batch(detr)
    with torch.no_grad():
        expected, got = adapted(pixel_values, pixel_mask).logits, loaded(pixel_values, pixel_mask).logits
        assert not torch.allclose(got, detr(pixel_values, pixel_mask).logits, atol=1e-3)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_left_over_and_missing_keys_are_listed(detr_folder: Path):
    edit_weights(
        detr_folder,
        **{
            "mask_head.lay1.weight": torch.zeros(2),
            "model.encoder.layers.0.fc1.bias": None,
            "class_labels_classifier.bias": torch.zeros(9),
        },
    )
    with pytest.raises(ConversionError) as raised:
        HfDetrForObjectDetection.from_pretrained(detr_folder)
    for expected in (
        "not understood (1): mask_head.lay1.weight",
        "does not fill (1): model.encoder.layers.0.ffn.fc1.bias",
        "model.heads.class_head.0.bias is (9,), expected (6,)",
    ):
        assert expected in str(raised.value)


def test_a_layer_that_the_configuration_does_not_have(detr_folder: Path):
    edit_config(detr_folder, decoder_layers=2)
    with pytest.raises(ConversionError, match=r"no place for \(\d+\).*model\.decoder\.layers\.2\."):
        HfDetrForObjectDetection.from_pretrained(detr_folder)


def test_every_loss_and_training_field_is_taken(tmp_path: Path):
    chosen = {
        "dropout": 0.01,
        "attention_dropout": 0.02,
        "activation_dropout": 0.03,
        "class_cost": 3,
        "bbox_cost": 4,
        "giou_cost": 6,
        "bbox_loss_coefficient": 7,
        "giou_loss_coefficient": 8,
        "focal_alpha": 0.4,
        "auxiliary_loss": True,
        "id2label": {0: "cat", 1: "dog"},
        "label2id": {"cat": 0, "dog": 1},
    }
    theirs = transformers_model("dab-detr", num_labels=2, cls_loss_coefficient=9, **chosen)
    config = HfDetrConfig.from_pretrained(save(theirs, tmp_path))
    assert {name: getattr(config, name) for name in chosen} == chosen
    assert config.class_loss_coefficient == 9
    assert config.architectures is None


@pytest.mark.parametrize(
    ("model_type", "fields", "named"),
    [
        ("dab-detr", {"keep_query_pos": True}, "keep_query_pos=True"),
        ("dab-detr", {"num_patterns": 3}, "num_patterns=3"),
        ("dab-detr", {"normalize_before": True}, "normalize_before"),
        ("dab-detr", {"temperature_width": 10}, "temperature_width=10"),
        ("dab-detr", {"sine_position_embedding_scale": 1.0}, "sine_position_embedding_scale=1.0"),
        ("conditional_detr", {"decoder_layerdrop": 0.1}, "decoder_layerdrop=0.1"),
        ("deformable_detr", {"two_stage": True}, "with_box_refine=False"),
        ("deformable_detr", {"num_feature_levels": 5, "backbone_config": timm_backbone(2, 3, 4)}, "out_indices"),
        ("deformable_detr", {"num_feature_levels": 3, "backbone_config": THREE_STAGES}, "num_feature_levels=3"),
        ("detr", {"backbone_config": {"model_type": "swin"}}, "'swin'"),
        ("detr", {"backbone_config": {**resnet_backbone("stage4"), "depths": [1, 1, 1, 1]}}, "depths"),
        ("detr", {"backbone_config": {**resnet_backbone("stage4"), "hidden_act": "gelu"}}, "hidden_act='gelu'"),
        ("detr", {"backbone_config": {**resnet_backbone("stage4"), "hidden_sizes": [8, 8, 8, 8]}}, "hidden_sizes"),
        ("detr", {"backbone": "someone/resnet", "use_timm_backbone": False}, "someone/resnet"),
        ("detr", {"backbone": "resnet18", "backbone_kwargs": {"drop_rate": 0.1}}, "drop_rate"),
        ("detr", {"backbone_config": timm_backbone(4, features_only=False)}, "features_only"),
    ],
)
def test_what_cannot_be_expressed_is_named(model_type: str, fields: dict, named: str):
    with pytest.raises(ConversionError) as raised:
        translate_config({"model_type": model_type, **fields})
    assert named in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "backbone"),
    [
        ({"use_timm_backbone": False}, "resnet50"),
        ({}, "resnet50"),
        ({"backbone": "resnet101"}, "resnet101"),
        ({"backbone_config": {"model_type": "resnet", "depths": [3, 8, 36, 3]}}, "resnet152"),
    ],
)
def test_backbones_that_are_left_to_the_defaults(fields: dict, backbone: str):
    translated = translate_config({"model_type": "detr", **fields})
    assert (translated["backbone"], translated["frozen_stages"]) == (backbone, 1)
    HfDetrConfig.from_dict(translated)


@pytest.mark.parametrize("model_type", ["detr", "conditional_detr"])
def test_norms_between_decoder_layers_are_refused(model_type: str, tmp_path: Path):
    """With auxiliary_loss transformers computes something else than the published models."""
    theirs = transformers_model(model_type)
    save(theirs, tmp_path)
    edit_config(tmp_path, auxiliary_loss=True)
    with pytest.raises(ConversionError, match="auxiliary_loss=True"):
        HfDetrForObjectDetection.from_pretrained(tmp_path)
    ours = HfDetrForObjectDetection.from_pretrained(tmp_path, auxiliary_loss=True)
    assert ours.config.auxiliary_loss
    assert_same_predictions(theirs, ours)  # without the field theirs computes as published


def test_backbones_whose_batch_norms_transformers_cuts_short_are_refused(tmp_path: Path):
    save(transformers_model("detr", backbone_config=timm_backbone(4, backbone="test_efficientnet")), tmp_path)
    with pytest.raises(ConversionError, match=r"test_efficientnet.*bn1"):
        HfDetrForObjectDetection.from_pretrained(tmp_path)


def test_other_configurations_are_left_alone():
    for fields in ({"model_type": "hf_detr", "num_queries": 5}, {"model_type": "rt_detr"}, {}):
        assert translate_config(fields) == fields


@pytest.mark.parametrize(
    ("processor_class", "model_type"),
    [
        (DetrImageProcessor, "detr"),
        (ConditionalDetrImageProcessor, "dab-detr"),
        (DeformableDetrImageProcessor, "deformable_detr"),
    ],
)
def test_processor_of_the_folder_reads_the_same_detections(processor_class, model_type: str, tmp_path: Path):
    theirs, their_processor = transformers_model(model_type), processor_class()
    save(theirs, tmp_path)
    their_processor.save_pretrained(tmp_path)
    outputs = theirs(*padded_batch(theirs))
    sizes = [(480, 640), (300, 200)]
    arguments = {"threshold": 0.0, "target_sizes": sizes}
    if model_type != "detr":
        arguments["top_k"] = 20
    expected = their_processor.post_process_object_detection(outputs, **arguments)
    got = HfDetrImageProcessor.from_pretrained(tmp_path).post_process_object_detection(outputs, **arguments)
    for ours, reference, (height, width) in zip(got, expected, sizes, strict=True):
        order = reference["scores"].argsort(descending=True)
        limits = torch.tensor([width, height, width, height])
        boxes = reference["boxes"][order].float().clamp(min=0).minimum(limits)
        torch.testing.assert_close(ours["scores"], reference["scores"][order].float())
        torch.testing.assert_close(ours["boxes"], boxes, atol=1e-3, rtol=0)
        assert torch.equal(ours["labels"], reference["labels"][order])
