"""Objects at random places, the same for all contestants."""

import torch
from torch import Tensor


def random_labels(batch: int, objects: int, num_labels: int, device: str, seed: int = 0) -> list[dict[str, Tensor]]:
    """Labels of a batch: `class_labels` (objects,), `boxes` (objects, 4) normalised cxcywh inside of the image."""
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
