"""Reading golden cases, and writing the excerpts of them that live beside this file.

A case is the manifest (state-dict keys and shapes, image sizes, targets) and the values the original code gave in
float64. `python tests/golden/cases.py FOLDER` makes the excerpts from the complete cases: every large tensor is
thinned by the same rule, so that a test can compare its own values thinned likewise.
"""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from golden import weights_rule

EXCERPTS = Path(__file__).parent
_UNUSED = "loss_xy|loss_hw|class_error|lvl_pos_embed|feature|max_score|mask_flatten|init_box_proposal|decoder\\."
_LARGEST = 1000  # elements kept of a tensor
_KEPT = ("case", "images", "post", "targets", "aliases", "grad_names", "weight_dict", "dn", "source", "weights_sha256")


def thin(tensor: Tensor) -> Tensor:
    """At most about 1000 elements of a tensor, spread over all of it (the stride is odd: no column is favoured)."""
    if tensor.numel() <= _LARGEST:
        return tensor
    return tensor.flatten()[:: math.ceil(tensor.numel() / _LARGEST) | 1]


class GoldenCase:
    """One case: the weights and inputs that the rule makes, and the values expected for them.

    Args:
        name: of the case.
        folder: of the complete cases; without it the excerpt is read, whose tensors are thinned.
    """

    def __init__(self, name: str, folder: Path | None = None):
        self.complete = folder is not None
        if folder is None:
            path = EXCERPTS / f"{name}.safetensors"
            with safe_open(path, "pt") as file:
                self.manifest: dict[str, Any] = json.loads(file.metadata()["manifest"])
        else:
            path = folder / name / "expected.safetensors"
            self.manifest = json.loads((folder / name / "manifest.json").read_text())
        self.expected: dict[str, Tensor] = load_file(path)
        keys = [entry["key"] for entry in self.manifest["state_dict"]]
        # an excerpt holds positions instead of names
        self.grad_names: dict[str, list[str]] = {
            prefix: [keys[name] if isinstance(name, int) else name for name in names]
            for prefix, names in self.manifest["grad_names"].items()
        }

    def state_dict(self) -> dict[str, Tensor]:
        """The original's state dict, every alias present."""
        return {key: torch.from_numpy(np.asarray(value)) for key, value in weights_rule.state(self.manifest).items()}

    def batch(self) -> tuple[Tensor, Tensor]:
        """(pixel_values float64, pixel_mask int64 with 1 on real pixels)."""
        images, padding = weights_rule.batch(self.manifest["images"])
        return torch.from_numpy(images).double(), torch.from_numpy(~padding).long()

    def labels(self, prefix: str) -> list[dict[str, Tensor]]:
        """The targets of one set of losses, as our models take them."""
        targets = [weights_rule.target(t["seed"], t["n"], t["num_classes"]) for t in self.manifest["targets"][prefix]]
        return [
            {"class_labels": torch.from_numpy(t["labels"]), "boxes": torch.from_numpy(t["boxes"]).double()}
            for t in targets
        ]

    def matches(self, prefix: str, call: int) -> set[tuple[int, int, int]]:
        """(image, query, object) triples of the original's matcher."""
        return set(map(tuple, self.expected[f"{prefix}.match.{call}"].T.tolist()))

    def difference(self, name: str, value: Tensor) -> float:
        """Largest |ours - expected| beyond rtol 1e-5, for comparison with atol 1e-5."""
        wanted = self.expected[name]
        if self.complete:
            assert value.shape == wanted.shape, f"{name}: {tuple(value.shape)} instead of {tuple(wanted.shape)}"
        value = thin(value.detach())
        wanted = (thin(wanted) if self.complete else wanted).to(value.dtype)
        return float(((value - wanted).abs() - 1e-5 * wanted.abs()).clamp(min=0).nan_to_num(nan=torch.inf).max())


def write_excerpts(folder: Path) -> None:
    """Thin every complete case to a file of at most 200 kB."""
    for manifest_path in sorted(folder.glob("*/manifest.json")):
        manifest = json.loads(manifest_path.read_text())
        kept = {key: manifest[key] for key in _KEPT if key in manifest}
        kept["state_dict"] = [{"key": e["key"], "shape": e["shape"]} for e in manifest["state_dict"]]
        keys = [entry["key"] for entry in manifest["state_dict"]]
        kept["grad_names"] = {p: [keys.index(n) for n in names] for p, names in manifest["grad_names"].items()}
        tensors = {
            key: (value if ".draw." in key else thin(value)).clone()
            for key, value in load_file(manifest_path.with_name("expected.safetensors")).items()
            if not re.search(_UNUSED, key)
        }
        for key, value in tensors.items():
            if value.dtype == torch.float64 and "grad" not in key and value.numel() > 8:
                tensors[key] = value.float()
        path = EXCERPTS / f"{manifest['case']}.safetensors"
        save_file(tensors, path, metadata={"manifest": json.dumps(kept, separators=(",", ":"))})
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    write_excerpts(Path(sys.argv[1]))
