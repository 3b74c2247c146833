"""Recommends how to train on a data set: each choice with its reason, and the command to paste."""

import math
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.processing.sizes import LONGEST_TO_SHORTEST, SHORTEST_EDGE
from hf_detr.training.recipe import default_image_size, training_arguments

from ..data.options import ReadOptions
from .examined import ExaminedSplit
from .findings import Finding, Severity, finding

TINY_SIDE = 8.0
"""An object is tiny below this side, in pixels of the resized image: the finest feature map has stride 8, so that a
smaller object has no cell of its own."""
TINY_SHARE = 0.05
"""With a larger share of tiny objects than this, the finding is a warning and not a note."""
SMALL_SIDE = 16.0
"""Nearly all objects should have this side, two cells, so that they can be told from their neighbours."""
SMALL_SHARE = 0.05
"""This share of the objects may be smaller than `SMALL_SIDE`, so that outliers do not make every image larger."""
SIZE_STEP = 32
"""Input sizes are multiples of the coarsest backbone stride, so that its map has no half cells."""
LARGEST_SIZE = SHORTEST_EDGE
"""The published input size. Beyond it, tiles of an image cost less than the whole image."""
QUERY_MARGIN = 1.5
"""The recommended number of queries for each object of the fullest image. Every object needs a query to itself, and
new images may show more objects."""
QUERY_STEP = 50
LEAST_STEPS = 2000
"""The optimizer steps below which a run ends while losses still fall steeply, by a rule of thumb for small data
sets."""
MOST_EPOCHS = 300
"""The most epochs that are recommended, from the ablations in Carion et al. 2020. Go on longer if this ends too
early."""


@dataclass(frozen=True)
class Choice:
    """A recommended value and its reason."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Recommendation:
    """The recommended way to train; `command` is ready to paste."""

    preset: Choice
    image_size: Choice
    queries: Choice
    epochs: Choice
    batch_size: Choice
    command: str

    @property
    def choices(self) -> dict[str, Choice]:
        """The choices by the name of the thing chosen."""
        return {name: Choice(**choice) for name, choice in asdict(self).items() if name != "command"}


def recommend(data: str, splits: Mapping[str, ExaminedSplit], options: ReadOptions) -> Recommendation:
    """Recommend how to train on a data set, on this machine; `options` are those that its files need."""
    train = splits["train"]
    preset = _preset()
    image_size = _image_size(preset.value, train)
    queries = _queries(preset.value, splits)
    epochs, batch_size = _schedule(preset.value, len(train.records))
    words = ["hf-detr", "train", "--data", data, "--preset", preset.value, "--image-size", str(image_size.value)]
    if queries.value != num_queries(preset.value):
        words += ["--set", f"num_queries={queries.value}"]
    words += ["--box-format", options.box_format] if options.box_format else []
    words += ["--clip-boxes"] if options.clip_boxes else []
    words += ["--skip-unusable"] if options.skip_unusable else []
    words += ["--epochs", str(epochs.value), "--batch-size", str(batch_size.value), "--output", "my-detector"]
    return Recommendation(preset, image_size, queries, epochs, batch_size, shlex.join(words))


def num_queries(preset: str) -> int:
    """Return the number of queries of a preset."""
    return HfDetrConfig.from_preset(preset).num_queries


def resized_sides(split: ExaminedSplit, image_size: int) -> np.ndarray:
    """Return the side of a square as large as each box, in pixels at an input size; float64, NaN for unusable ones."""
    boxes = split.boxes
    shortest, longest = boxes.image_size.min(axis=1), boxes.image_size.max(axis=1)
    scale = np.minimum(image_size / shortest, image_size * LONGEST_TO_SHORTEST / longest)
    area = np.where(boxes.solid, boxes.bbox[:, 2] * boxes.bbox[:, 3], np.nan)
    return np.sqrt(area) * scale


def tiny_findings(split: ExaminedSplit, image_size: int) -> list[Finding]:
    """Return the objects that are tiny at the input size that would be used."""
    sides = resized_sides(split, image_size)
    tiny = np.flatnonzero(sides < TINY_SIDE).tolist()
    known = np.count_nonzero(~np.isnan(sides))
    severity = Severity.WARNING if len(tiny) > TINY_SHARE * known else Severity.NOTE
    return finding(
        "tiny_object",
        severity,
        f"objects, of {known} in {split.name}, are smaller than {TINY_SIDE:g}x{TINY_SIDE:g} pixels when images are "
        f"resized to {image_size}",
        "train with larger images (--image-size), or cut the images into tiles",
        (split.box_place(index, f"{sides[index]:.1f} pixels") for index in tiny),
    )


def _preset() -> Choice:
    if torch.cuda.is_available():
        reason = "there is a GPU; from a published model (--model instead of --preset) it needs fewer epochs"
        return Choice("dino-resnet-50-4scale", reason)
    return Choice("tiny", "there is no GPU here, and this one learns from nothing on a CPU")


def _image_size(preset: str, train: ExaminedSplit) -> Choice:
    default = default_image_size(preset)
    sides = resized_sides(train, default)
    sides = sides[~np.isnan(sides)]
    if not len(sides):
        return Choice(default, f"the default of '{preset}'; there are no boxes to judge by")
    small = float(np.quantile(sides, SMALL_SHARE))
    if small >= SMALL_SIDE:
        enough = f"all but {SMALL_SHARE:.0%} of the objects cover at least {small:.0f} pixels a side"
        return Choice(default, f"the default of '{preset}': {enough}")
    wanted = _next_multiple(default * SMALL_SIDE / small)
    native = float(np.median([min(fact.size) for fact in train.facts if fact.size] or [LARGEST_SIZE]))
    largest = max(default, min(LARGEST_SIZE, _next_multiple(native)))
    size = min(wanted, largest)
    goal = f"at {default}, {SMALL_SHARE:.0%} of the objects are smaller than {small:.0f} pixels a side"
    if size == default:
        return Choice(size, f"{goal}, but the images have no more pixels to show")
    limit = "" if size == wanted else "; more than that the images, or memory, do not have"
    return Choice(size, f"{goal}; here that is {small * size / default:.0f}{limit}")


def _queries(preset: str, splits: Mapping[str, ExaminedSplit]) -> Choice:
    default = num_queries(preset)
    most = max(most_objects(split) for split in splits.values())
    wanted = math.ceil(QUERY_MARGIN * most)
    if wanted <= default:
        return Choice(default, f"the default of '{preset}'; no image shows more than {most} objects")
    wanted = math.ceil(wanted / QUERY_STEP) * QUERY_STEP
    return Choice(wanted, f"an image shows {most} objects, and '{preset}' has {default} queries")


def most_objects(split: ExaminedSplit) -> int:
    """Return the most objects, crowd regions aside, that an image of the split shows."""
    return int(np.bincount(split.boxes.image[split.boxes.solid & ~split.boxes.crowd], minlength=1).max())


def _schedule(preset: str, num_images: int) -> tuple[Choice, Choice]:
    with tempfile.TemporaryDirectory() as scratch:
        args = training_arguments(preset, max(1, num_images), scratch)
    batch_size, epochs = args.per_device_train_batch_size, math.ceil(args.num_train_epochs)
    per_epoch = math.ceil(max(1, num_images) / batch_size)
    needed = min(MOST_EPOCHS, math.ceil(LEAST_STEPS / per_epoch))
    batch = Choice(batch_size, f"the default of '{preset}'")
    if needed <= epochs:
        return Choice(epochs, f"the default; {epochs * per_epoch} steps on {num_images} images"), batch
    reason = f"{num_images} images make only {per_epoch} steps an epoch; this makes {needed * per_epoch}"
    return Choice(needed, reason), batch


def _next_multiple(size: float) -> int:
    return math.ceil(size / SIZE_STEP) * SIZE_STEP
