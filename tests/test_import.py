"""The package with nothing installed but what it requires."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

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
