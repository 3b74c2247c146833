"""Importing the package: with nothing installed but what it requires, and without loading what is not used yet."""

import configparser
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from hf_detr import HfDetrImageProcessor
from modeling.tiny import tiny_model

ROOT = Path(__file__).parent.parent


def names(requirements: str) -> set[str]:
    """Importable names of a list of requirements, without references to the package's own extras."""
    lines = (line for line in requirements.splitlines() if line and not line.startswith("hf-detr["))
    return {re.match(r"[\w-]+", line).group().replace("-", "_") for line in lines}


def test_import_needs_no_extra():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = set().union(*map(names, setup["options.extras_require"].values()))
    assert {"accelerate", "datasets", "faster_coco_eval", "onnx"} <= extras
    # torch requires jinja2 itself; pytest and the like are blocked with the others.
    blocked = extras - {"jinja2"}

    # None in sys.modules makes every import of that name fail, as if it were not installed.
    program = f"import sys; sys.modules.update(dict.fromkeys({sorted(blocked)})); import hf_detr; "
    program += "hf_detr.HfDetrForObjectDetection(hf_detr.HfDetrConfig.from_preset('tiny')); print('built')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "built\n", done.stderr


@pytest.mark.parametrize("room", ["conversion", "data", "doctor", "evaluation", "hub", "prediction", "training"])
def test_no_public_name_is_also_a_file(room):
    """Whoever imports a file sets its name on the package, and would put the module in place of the public name."""
    package = import_module(f"hf_detr.{room}")
    files = {path.stem for path in Path(package.__path__[0]).iterdir()}
    assert not files & set(getattr(package, "__all__", ()))


HEAVY = (
    "transformers.models",
    "transformers.modeling_utils",
    "torchvision",
    "timm",
    "numba",
    "scipy.optimize",
    "datasets",
)
ORDERS = {
    "before": "import hf_detr; from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection",
    "between": "from transformers import AutoConfig; "
    "import hf_detr; from transformers import AutoImageProcessor, AutoModelForObjectDetection",
    "after": "from transformers import AutoConfig, AutoImageProcessor, AutoModelForObjectDetection; import hf_detr",
}


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_nothing_heavy():
    program = "import sys, torch, transformers; before = set(sys.modules); import hf_detr; "
    program += "print(*sorted(set(sys.modules) - before))"
    loaded = run(program).split()
    assert not set(HEAVY) & set(loaded)
    assert len(loaded) < 60
    assert {"HfDetrModel", "available_presets"} <= set(run("import hf_detr; print(*dir(hf_detr))").split())


@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_work_right_after_import(order: str, tmp_path: Path):
    """Whether transformers' Auto classes were there before the package or not."""
    tiny_model("detr-resnet-50").save_pretrained(tmp_path)
    HfDetrImageProcessor(size={"height": 64, "width": 64}, classification="softmax").save_pretrained(tmp_path)
    program = f"""
{ORDERS[order]}
import pickle
from transformers import AutoModel, pipeline
folder = {str(tmp_path)!r}
processor, config = AutoImageProcessor.from_pretrained(folder), AutoConfig.from_pretrained(folder)
pil = AutoImageProcessor.from_pretrained(folder, backend="pil")
model = AutoModelForObjectDetection.from_pretrained(folder)
assert AutoConfig.for_model("hf_detr").d_model == 256
assert type(pickle.loads(pickle.dumps(config))) is hf_detr.HfDetrConfig
assert isinstance(AutoModelForObjectDetection.from_config(config), hf_detr.HfDetrForObjectDetection)
assert isinstance(AutoModel.from_config(config), hf_detr.HfDetrModel)
detector = pipeline("object-detection", model=folder)
for part in (config, processor, pil, model, detector.model):
    print(type(part).__module__ + "." + type(part).__name__)
"""
    assert run(program).split() == [
        "hf_detr.modeling.configuration.HfDetrConfig",
        "hf_detr.processing.image_processing.HfDetrImageProcessor",
        "hf_detr.processing.image_processing.HfDetrImageProcessorPil",
        "hf_detr.modeling.detection.HfDetrForObjectDetection",
        "hf_detr.modeling.detection.HfDetrForObjectDetection",
    ]


def test_an_unknown_name_is_an_attribute_error():
    import hf_detr

    with pytest.raises(AttributeError, match="HfDetrForSegmentations"):
        _ = hf_detr.HfDetrForSegmentations
