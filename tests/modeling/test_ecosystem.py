"""What a Hugging Face user relies on: Auto classes and pipelines, loading, new classes, compilation, adapters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import images, labels, tiny_config, tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForObjectDetection, pipeline

from hf_detr import HfDetrConfig, HfDetrForObjectDetection, HfDetrImageProcessor, HfDetrModel, available_presets
from hf_detr.hub.remote_code import save_with_code

every_preset = pytest.mark.parametrize("preset", available_presets())


def padded_batch() -> tuple[Tensor, Tensor]:
    """Two images of different size in one batch, and its pixel mask."""
    pixel_values, pixel_mask = images(2, 64, 64), torch.ones(2, 64, 64, dtype=torch.int64)
    pixel_mask[1, 48:], pixel_mask[1, :, 56:] = 0, 0
    return pixel_values * pixel_mask[:, None], pixel_mask


def detect(model: HfDetrForObjectDetection, **keywords) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        outputs = model(*padded_batch(), **keywords)
    return outputs.logits, outputs.pred_boxes


def test_attentions_with_sdpa_warn_and_are_left_out(caplog: pytest.LogCaptureFixture):
    model = tiny_model("detr-resnet-50")
    model.set_attn_implementation("sdpa")
    outputs = model.model(*padded_batch(), output_attentions=True)
    assert outputs.encoder_attentions is None


def test_compiled_by_inductor():
    torch.compiler.reset()
    model = tiny_model("detr-resnet-50")
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        found = compiled(*padded_batch()).logits
    torch.testing.assert_close(found, detect(model)[0], rtol=1e-3, atol=1e-4)


@every_preset
def test_saved_models_load_with_every_tensor(preset: str, tmp_path: Path):
    """Loading builds the model on the meta device: whatever is not restored would be uninitialised memory."""
    model = tiny_model(preset)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.01)
    model.save_pretrained(tmp_path)
    loaded, info = HfDetrForObjectDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    theirs = dict(loaded.named_parameters()) | dict(loaded.named_buffers())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        assert torch.equal(tensor, theirs[name]), name
        assert tensor.requires_grad == theirs[name].requires_grad, name
    for ours, expected in zip(detect(loaded), detect(model), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    mapped = HfDetrForObjectDetection.from_pretrained(tmp_path, device_map="cpu", dtype=torch.bfloat16)
    assert mapped.dtype == torch.bfloat16


@every_preset
def test_auto_classes_and_pipeline(preset: str, tmp_path: Path):
    model = tiny_model(preset)
    model.save_pretrained(tmp_path)
    kind = "softmax" if model.config.classification == "softmax" else "sigmoid"
    HfDetrImageProcessor(size={"height": 128, "width": 160}, classification=kind).save_pretrained(tmp_path)
    assert type(AutoConfig.from_pretrained(tmp_path)) is HfDetrConfig
    assert type(AutoModel.from_pretrained(tmp_path)) is HfDetrModel
    assert type(AutoModelForObjectDetection.from_pretrained(tmp_path)) is HfDetrForObjectDetection
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is HfDetrImageProcessor
    detector = pipeline("object-detection", model=str(tmp_path))
    pictures = [Image.new("RGB", size, color) for size, color in (((80, 60), "red"), ((60, 90), "blue"))]
    single = [detector(picture, threshold=0.0) for picture in pictures]
    batched = detector(pictures, threshold=0.0, batch_size=2)
    for picture, alone, together in zip(pictures, single, batched, strict=True):
        assert alone
        assert [found["label"] for found in alone] == [found["label"] for found in together]
        for found in alone:
            assert 0 <= found["box"]["xmin"] <= found["box"]["xmax"] <= picture.width
            assert 0 <= found["box"]["ymin"] <= found["box"]["ymax"] <= picture.height


WITHOUT_THE_PACKAGE = """
import sys
from pathlib import Path
sys.modules["hf_detr"] = None  # every import of it fails, as if it were not installed
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForObjectDetection

root = Path(sys.argv[1])
inputs = load_file(root / "inputs.safetensors")
found = {}
for folder in sorted(path for path in root.iterdir() if path.is_dir()):
    model = AutoModelForObjectDetection.from_pretrained(folder, trust_remote_code=True)
    assert type(model).__module__.startswith("transformers_modules.")
    with torch.no_grad():
        found[folder.name] = model(**inputs).logits.contiguous()
save_file(found, root / "found.safetensors")
"""


def test_every_preset_loads_with_its_code_where_the_package_is_not_installed(tmp_path: Path):
    pixel_values, pixel_mask = padded_batch()
    save_file({"pixel_values": pixel_values, "pixel_mask": pixel_mask}, tmp_path / "inputs.safetensors")
    expected = {}
    for preset in available_presets():
        model = tiny_model(preset)
        save_with_code(model, tmp_path / preset)
        expected[preset] = detect(model)[0]
    environment = os.environ | {"HF_HOME": str(tmp_path.parent / "hf_home")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = load_file(tmp_path / "found.safetensors")
    assert found.keys() == expected.keys()
    for preset, logits in expected.items():
        torch.testing.assert_close(found[preset], logits, rtol=1e-4, atol=1e-5, msg=preset)


def test_the_base_model_alone_loads_from_a_detector(tmp_path: Path):
    model = tiny_model("dino-resnet-50-4scale")
    model.save_pretrained(tmp_path)
    base = HfDetrModel.from_pretrained(tmp_path)
    with torch.no_grad():
        found = base(*padded_batch())
    assert torch.equal(found.layer_logits[-1], detect(model)[0])


@pytest.mark.parametrize("preset", ["detr-resnet-50", "tiny"])
@pytest.mark.filterwarnings("ignore")  # tracing warns of every check of a shape, and the exporter of its age
def test_the_exporter_of_onnx_that_traces(preset: str, tmp_path: Path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")

    class Tensors(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = tiny_model(preset)

        def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
            outputs = self.model(pixel_values)
            return outputs.logits, outputs.pred_boxes

    pictures, model, file = images(1, 128, 160), Tensors(), tmp_path / "model.onnx"
    with torch.no_grad():
        own = model(pictures)
        torch.onnx.export(model, (pictures,), file, dynamo=False, opset_version=17, input_names=["pixel_values"])
    exported = onnxruntime.InferenceSession(file).run(None, {"pixel_values": pictures.numpy()})
    for expected, found in zip(own, exported, strict=True):
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", ["detr-resnet-50", "deformable-detr-resnet-50-refine", "dino-resnet-50-4scale"])
def test_another_number_of_classes(preset: str, tmp_path: Path):
    """The class heads are new, with their published start; all else is kept."""
    model = tiny_model(preset)
    model.save_pretrained(tmp_path)
    changed = HfDetrForObjectDetection.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    classes = 7 + (changed.config.classification == "softmax")
    assert detect(changed)[0].shape[-1] == classes
    if changed.config.classification == "focal":
        bias = changed.model.heads.class_head[0].bias
        torch.testing.assert_close(bias.sigmoid(), torch.full_like(bias, 0.01))
    kept = dict(model.named_parameters())
    for name, parameter in changed.named_parameters():
        if "class_head" not in name and "label_embedding" not in name:
            assert torch.equal(parameter, kept[name]), name


def test_missing_weights_get_their_published_start(tmp_path: Path):
    torch.manual_seed(0)
    model = tiny_model("deformable-detr-resnet-50-refine")
    state = {name: t for name, t in model.state_dict().items() if "heads" not in name and "cross_attn" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded = HfDetrForObjectDetection.from_pretrained(tmp_path)
    first, second = loaded.model.heads.box_head[0].layers[-1], loaded.model.heads.box_head[1].layers[-1]
    assert first.bias.tolist() == [0, 0, -2, -2]
    assert second.bias.tolist() == [0, 0, 0, 0]
    assert not first.weight.any()
    offsets = loaded.model.decoder.layers[0].cross_attn.sampling_offsets
    assert not offsets.weight.any()
    assert torch.equal(
        offsets.bias, tiny_model("deformable-detr-resnet-50").model.decoder.layers[0].cross_attn.sampling_offsets.bias
    )
    assert offsets.bias.abs().max() == 4


@pytest.mark.parametrize("preset", ["detr-resnet-50", "dino-resnet-50-4scale"])
def test_lora_on_queries_and_values(preset: str, tmp_path: Path):
    peft = pytest.importorskip("peft")
    model = tiny_model(preset)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora" in name for name in trained)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    adapted.train()
    pixel_values, pixel_mask = padded_batch()
    for _ in range(2):
        adapted(pixel_values=pixel_values, pixel_mask=pixel_mask, labels=labels(2, 1)).loss.backward()
        optimizer.step()
    adapted.eval()
    adapted.save_pretrained(tmp_path)
    restored = peft.PeftModel.from_pretrained(tiny_model(preset), tmp_path)
    with torch.no_grad():
        found = restored(pixel_values=pixel_values, pixel_mask=pixel_mask).logits
        wanted = adapted(pixel_values=pixel_values, pixel_mask=pixel_mask).logits
        plain = tiny_model(preset)(pixel_values, pixel_mask).logits
    torch.testing.assert_close(found, wanted)
    assert not torch.allclose(found, plain)


@every_preset
def test_tuple_outputs_are_the_values_of_the_dict(preset: str):
    model = tiny_model(preset)
    with torch.no_grad():
        as_dict = model(*padded_batch())
        as_tuple = model(*padded_batch(), return_dict=False)
    assert len(as_tuple) == len(as_dict)
    assert torch.equal(as_tuple[0], as_dict.logits)


def test_unknown_backbones_are_refused():
    with pytest.raises(ValueError, match=r"'resnet5000' is not a timm model. Similar names: .*resnet"):
        HfDetrForObjectDetection(tiny_config("detr-resnet-50", backbone="resnet5000", backbone_kwargs={}))


def test_pretrained_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch):
    """Offline, the message says how to go on without them."""

    def refuse(*args, **kwargs):
        raise FileNotFoundError("offline")

    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(OSError, match=r"weights of backbone='resnet50.*--no-pretrained-backbone"):
        HfDetrForObjectDetection(HfDetrConfig.from_preset("detr-resnet-50", use_pretrained_backbone=True))
