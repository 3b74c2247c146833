"""Bounds the caches in which PyTorch keeps what it has compiled for each shape on a CPU.

oneDNN compiles every convolution, and every linear layer that it computes, anew for each shape of its input. It keeps
the last 1,024 of these primitives. ideep, PyTorch's layer above oneDNN, keeps 1,024 more of its own, also after oneDNN
dropped them. One primitive of a linear layer holds up to half a megabyte. A model that sees images of many sizes fills
both caches, and small blocks that stay for long break up the memory between them: the process grows by gigabytes.

Both libraries read the bound of their cache from the environment, once: ideep mostly when torch is loaded, oneDNN when
it first computes. `import hf_detr` sets both, with full effect where it stands before `import torch`.
"""

import os
from collections.abc import MutableMapping

BOUNDS = {"LRU_CACHE_CAPACITY": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512"}
"""The bound of ideep's and of oneDNN's cache.

ideep asks oneDNN's cache for what its own lacks, so a single entry costs no time. oneDNN's bound leaves room for what
several shapes need: a training step of DINO with a ResNet-50 has 121 primitives, a step of `tiny` 78, and a forward
pass of DINO 41. So nothing is compiled twice where all images have one of a few sizes. Where there are hundreds of
sizes, a size comes back after more primitives than the larger cache would hold.
"""
_OLD_NAMES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "DNNL_PRIMITIVE_CACHE_CAPACITY"}
"""Older names of the variables. oneDNN still reads them, so a user may have set them."""


def bound_primitive_caches(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the bounds for this process and its children, where the user has not set them."""
    for name, bound in BOUNDS.items():
        if _OLD_NAMES.get(name, name) not in environment:
            environment.setdefault(name, bound)
