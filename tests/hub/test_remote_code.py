"""Folders that carry their code: loaded where the package is not installed, and saved again."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection, DetrImageProcessor
from transformers.dynamic_module_utils import get_imports, get_relative_imports

import hf_detr
from hf_detr import HfDetrConfig, HfDetrForObjectDetection, HfDetrImageProcessor, HfDetrModel
from hf_detr.hub.remote_code import code_files, save_with_code

# What a folder with code may ask of whoever loads it, beside the standard library.
REQUIREMENTS = {"PIL", "huggingface_hub", "numpy", "scipy", "timm", "torch", "torchvision", "transformers"}

WITHOUT_THE_PACKAGE = """
import sys
# None makes every import of that name fail, as if it were not installed; so do optional compilers.
sys.modules.update(dict.fromkeys(["hf_detr", "numba", "triton"]))
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForObjectDetection, pipeline

folder, picture, results = sys.argv[1:]
trust = {"trust_remote_code": True}
config = AutoConfig.from_pretrained(folder, **trust)
model = AutoModelForObjectDetection.from_pretrained(folder, **trust)
base = AutoModel.from_pretrained(folder, **trust)
processor = AutoImageProcessor.from_pretrained(folder, **trust)
pillow = AutoImageProcessor.from_pretrained(folder, backend="pil", **trust)
for thing in (config, model, base, processor, pillow):
    assert type(thing).__module__.startswith("transformers_modules."), type(thing)
assert type(pillow).__name__ == "HfDetrImageProcessorPil"
assert model.training is False

inputs = processor(Image.open(picture), return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)
    states = base(**inputs).last_hidden_state
found = pipeline("object-detection", model=folder, threshold=0.0, **trust)(picture)
scores = torch.tensor([detection["score"] for detection in found])

model.save_pretrained(folder + "-again")
processor.save_pretrained(folder + "-again")
again = AutoModelForObjectDetection.from_pretrained(folder + "-again", **trust)
AutoImageProcessor.from_pretrained(folder + "-again", **trust)
with torch.no_grad():
    assert torch.equal(again(**inputs).logits, outputs.logits)
labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
again.train()(**inputs, labels=labels).loss.backward()
save_file({"logits": outputs.logits, "boxes": outputs.pred_boxes, "states": states, "scores": scores}, results)
"""


@pytest.fixture(scope="module")
def model() -> HfDetrForObjectDetection:
    torch.manual_seed(0)
    backbone = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}
    names = {0: "red", 1: "white", 2: "platelet"}
    config = HfDetrConfig.from_preset("tiny", d_model=32, num_queries=20, backbone_kwargs=backbone, id2label=names)
    return HfDetrForObjectDetection(config).eval()


@pytest.fixture(scope="module")
def processor() -> HfDetrImageProcessor:
    return HfDetrImageProcessor(size={"height": 96, "width": 128}, classification="sigmoid")


@pytest.fixture
def folder(model, processor, tmp_path: Path) -> Path:
    save_with_code(model, tmp_path / "model", processor)
    return tmp_path / "model"


def test_loads_where_the_package_is_not_installed(model, processor, folder: Path, tmp_path: Path):
    picture = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, folder, picture, tmp_path / "results.safetensors"],
        env=environment | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    results = load_file(tmp_path / "results.safetensors")

    inputs = processor(Image.open(picture), return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    torch.testing.assert_close(results["logits"], outputs.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(results["boxes"], outputs.pred_boxes, rtol=0, atol=1e-5)
    torch.testing.assert_close(results["states"], outputs.last_hidden_state, rtol=0, atol=1e-5)
    detections = processor.post_process_object_detection(outputs, threshold=0.0)[0]
    torch.testing.assert_close(results["scores"], detections["scores"], rtol=0, atol=1e-4)

    # what was loaded and saved there is whole, too: here it loads with the classes of the package
    again = AutoModelForObjectDetection.from_pretrained(tmp_path / "model-again")
    assert type(again) is HfDetrForObjectDetection


def test_with_the_package_its_own_classes_are_used(folder: Path):
    assert type(AutoConfig.from_pretrained(folder)) is HfDetrConfig
    assert type(AutoModelForObjectDetection.from_pretrained(folder)) is HfDetrForObjectDetection
    assert type(AutoImageProcessor.from_pretrained(folder)) is HfDetrImageProcessor
    trusted = AutoModelForObjectDetection.from_pretrained(folder, trust_remote_code=True)
    assert type(trusted) is HfDetrForObjectDetection


@pytest.mark.parametrize("load", [AutoModelForObjectDetection.from_pretrained, HfDetrModel.from_pretrained])
def test_saving_again_does_not_promise_code(load, folder: Path, tmp_path: Path):
    again = tmp_path / "again"
    load(folder).save_pretrained(again)
    AutoImageProcessor.from_pretrained(folder).save_pretrained(again)
    assert not list(again.glob("*.py"))
    for file in again.glob("*.json"):
        assert "auto_map" not in json.loads(file.read_text()), file


def test_other_files_are_kept_and_no_temporary_one_stays(model, folder: Path):
    (folder / "README.md").write_text("A card.")
    copies = save_with_code(model, folder)
    assert (folder / "README.md").read_text() == "A card."
    expected = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert {file.name for file in folder.iterdir()} == expected | {file.name for file in copies}


def test_the_code_asks_for_nothing_but_the_requirements():
    """transformers takes every import for a requirement, and every module file named in the text for a part."""
    names = {file.stem for file in code_files()}
    assert {"configuration", "detection", "detr", "image_processing", "deformable_cpu", "deformable_triton"} <= names
    for file in code_files():
        assert set(get_imports(file)) - sys.stdlib_module_names <= REQUIREMENTS, file
        assert set(get_relative_imports(file)) <= names, file


def test_the_code_stays_flat():
    """Only `from .sibling import name` survives the copy."""
    for file in code_files():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level == 1, (file, node.lineno)
                assert node.module, (file, node.lineno)
                assert "." not in node.module, (file, node.lineno)


def test_the_two_folders_make_one():
    """Both are copied into one folder, so no file may take the place of another."""
    package = Path(hf_detr.__file__).parent
    modeling, processing = (
        {file.name for file in (package / room).glob("*.py")} for room in ("modeling", "processing")
    )
    assert modeling & processing == {"__init__.py"}


def test_other_models_and_processors_are_refused(model, tmp_path: Path):
    with pytest.raises(ValueError, match=r"torch\.nn.*Linear"):
        save_with_code(torch.nn.Linear(1, 1), tmp_path / "linear")
    with pytest.raises(ValueError, match="DetrImageProcessor"):
        save_with_code(model, tmp_path / "detr", DetrImageProcessor())
    assert not list(tmp_path.iterdir())


def test_loading_fetches_no_weights_of_the_backbone(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A model that was built on ImageNet weights says so in its configuration, and has its own weights by now."""
    model.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_pretrained_backbone": True}))
    asked, create_model = [], timm.create_model

    def recording(name: str, pretrained: bool = False, **arguments) -> torch.nn.Module:
        asked.append(pretrained)
        return create_model(name, **arguments)

    monkeypatch.setattr(timm, "create_model", recording)
    loaded = HfDetrForObjectDetection.from_pretrained(tmp_path)
    assert asked == [False]
    HfDetrForObjectDetection(loaded.config)
    assert asked == [False, True]
