"""Draws pictures of a data set: samples with their boxes, the sizes of the boxes, the frequency of the classes."""

from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..data.drawing import draw_detections, grid
from ..data.images import decode_image
from ..data.schema import DataError, SourceImage, SourceSplit
from .class_checks import class_counts
from .examined import NOT_DECLARED, ExaminedSplit
from .recommendation import TINY_SIDE, resized_sides

SAMPLES, COLUMNS = 12, 4
CELL = (420, 340)
"""The width and height into which a sample is fitted."""
MOST_CLASSES = 40
"""The number of bars that can be read; further classes are left out."""
MOST_POINTS = 5000
"""The number of points that are drawn. More points would make the scatter darker, not clearer."""


def sample_sheet(source: SourceSplit, split: ExaminedSplit) -> Image.Image | None:
    """Return a grid of pictures spread over a split, with boxes as training reads them; None if there are none."""
    readable = [index for index, fact in enumerate(split.facts) if fact.problem is None]
    telling = [index for index in readable if split.records[index].objects] or readable
    count = min(SAMPLES, len(telling))
    chosen = {telling[position * len(telling) // count] for position in range(count)}
    samples = [picture for index, record in _chosen(source, chosen) for picture in _sample(record, index, split)]
    return grid(samples, COLUMNS) if samples else None


def size_figure(splits: Mapping[str, ExaminedSplit], image_size: int) -> Figure:
    """Plot the sizes of the objects after resizing, with the limit of tiny objects, and the shapes of the boxes."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    sizes, shapes = figure.subplots(1, 2)
    sides = {name: resized_sides(split, image_size) for name, split in splits.items()}
    sides = {name: values[np.isfinite(values)] for name, values in sides.items()}
    everything = np.concatenate([*sides.values(), [TINY_SIDE]])
    bins = np.geomspace(max(everything.min(), 0.1) * 0.9, everything.max() * 1.1, 40)
    for name, values in sides.items():
        sizes.hist(values, bins, alpha=0.6, label=f"{name} ({len(values)})")
    sizes.axvline(TINY_SIDE, color="black", linestyle="--", label=f"{TINY_SIDE:g} pixels: tiny")
    sizes.set(
        xscale="log", xlabel=f"side in pixels, images at {image_size}", ylabel="objects", title="Size of objects"
    )
    sizes.xaxis.set_major_formatter("{x:g}")
    sizes.legend()
    for name, split in splits.items():
        boxes = split.boxes
        relative = (boxes.bbox[:, 2:] / boxes.image_size)[boxes.solid]
        relative = relative[np.linspace(0, len(relative) - 1, min(len(relative), MOST_POINTS)).astype(int)]
        shapes.scatter(*relative.T, s=5, alpha=0.35, linewidths=0, label=name)
    shapes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title="Shape of boxes")
    shapes.set(xlabel="width, as a share of the image's", ylabel="height, as a share of the image's")
    shapes.grid(alpha=0.3)
    shapes.legend()
    return figure


def class_figure(splits: Mapping[str, ExaminedSplit]) -> Figure:
    """Plot how many objects of each class each split has, the most frequent class first."""
    counts = {name: class_counts(split) for name, split in splits.items()}
    classes = sorted(counts["train"], key=lambda name: -counts["train"][name])
    shown = classes[:MOST_CLASSES]
    figure = Figure(figsize=(9, 1.6 + 0.34 * max(2, len(shown))), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(splits)
    for row, (name, of_class) in enumerate(counts.items()):
        values = [of_class.get(class_name, 0) for class_name in shown]
        places = np.arange(len(shown)) + (row - (len(splits) - 1) / 2) * height
        axes.bar_label(axes.barh(places, values, height, label=name), padding=3, fontsize=8)
    axes.set_yticks(range(len(shown)), [name if len(name) <= 30 else f"{name[:29]}…" for name in shown])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    left_out = f", {len(classes) - len(shown)} rarer ones not shown" if len(classes) > len(shown) else ""
    axes.set(xlabel="objects", title=f"{len(classes)} classes{left_out}")
    axes.legend()
    return figure


def _chosen(source: SourceSplit, indices: Set[int]) -> Iterator[tuple[int, SourceImage]]:
    for index, record in enumerate(source.records):
        if index in indices:
            yield index, record
        if index >= max(indices, default=-1):
            return


def _sample(record: SourceImage, index: int, split: ExaminedSplit) -> Sequence[Image.Image]:
    """Return one picture with its boxes, or none where it cannot be decoded after all."""
    image = record.image
    try:
        picture = decode_image(image if isinstance(image, dict) else {"path": str(image), "bytes": None})
    except DataError:
        return []
    scale = min(CELL[0] / picture.width, CELL[1] / picture.height)
    shown = (split.boxes.image == index) & (split.boxes.label != NOT_DECLARED)
    shown &= np.isfinite(split.boxes.bbox).all(axis=1)
    boxes, labels = split.boxes.bbox[shown], split.boxes.label[shown]
    boxes[:, 2:] += boxes[:, :2]
    boxes = np.clip(boxes, -2, np.tile(picture.size, 2) + 2) * scale
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return [draw_detections(picture.resize(size), boxes, labels, list(split.names.values()))]
