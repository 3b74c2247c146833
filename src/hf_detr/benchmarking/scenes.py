"""Makes random pictures and objects, the same for all contestants."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def random_labels(batch: int, objects: int, num_labels: int, device: str, seed: int = 0) -> list[dict[str, Tensor]]:
    """Return labels of a batch: `class_labels` (objects,), `boxes` (objects, 4) normalised cxcywh inside the image."""
    generator = torch.Generator().manual_seed(seed)
    labels = []
    for index in range(batch):
        sides = 0.02 + 0.3 * torch.rand(objects, 2, generator=generator)
        centres = sides / 2 + (1 - sides) * torch.rand(objects, 2, generator=generator)
        label = {
            "class_labels": torch.randint(0, num_labels, (objects,), generator=generator),
            "boxes": torch.cat([centres, sides], dim=1),
            "image_id": torch.tensor([index]),
        }
        labels.append({name: value.to(device) for name, value in label.items()})
    return labels


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return a picture of smooth colours with some noise, as JPEG files hold them."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height))
    noise = random.integers(-8, 9, (height, width, 3))
    return Image.fromarray((np.asarray(coarse).astype(int) + noise).clip(0, 255).astype(np.uint8))
