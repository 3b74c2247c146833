"""Draws pictures of detections: boxes with captions, two pictures side by side, grids."""

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

GOLDEN_RATIO = 0.618033988749895
TITLE_COLOUR, PAPER_COLOUR = (34, 34, 34), (255, 255, 255)


def draw_detections(
    image: Image.Image,
    boxes: Any,
    labels: Any,
    names: Sequence[str],
    scores: Any = None,
) -> Image.Image:
    """Return a copy of the image with captioned boxes; a class has the same colour in every picture.

    Args:
        image: the picture, drawn on as RGB.
        boxes: (T, 4), tensor, array or list, as (left, top, right, bottom) in pixels of the image.
        labels: (T,), indices into `names`.
        names: the class names.
        scores: (T,), between 0 and 1, shown in percent; None where the boxes are ground truth. Boxes of lower scores
            are drawn first.

    Raises:
        ValueError: the numbers of boxes, labels and scores differ, or a label has no name.
    """
    boxes = _array(boxes, torch.float64).reshape(-1, 4)
    labels = _array(labels, torch.int64)
    scores = None if scores is None else _array(scores, torch.float64)
    if len(labels) != len(boxes) or (scores is not None and len(scores) != len(boxes)):
        counts = f"{len(boxes)} boxes, {len(labels)} labels" + ("" if scores is None else f", {len(scores)} scores")
        raise ValueError(f"expected one label and one score per box, got {counts}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise ValueError(f"expected labels between 0 and {len(names) - 1}, got {sorted(set(labels.tolist()))}")
    picture = image.convert("RGB")  # a copy
    canvas = ImageDraw.Draw(picture)
    unit = max(picture.size) / 640
    font, line = _font(max(10, round(14 * unit))), max(1, round(2.2 * unit))
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    for index in order:
        corners = _ordered(boxes[index])
        canvas.rectangle(corners, outline=class_colour(labels[index]), width=line)
    for index in order:
        caption = names[labels[index]] + ("" if scores is None else f" {scores[index]:.0%}")
        _draw_caption(canvas, caption, _ordered(boxes[index]), class_colour(labels[index]), font, picture.size)
    return picture


def side_by_side(left: Image.Image, right: Image.Image, titles: tuple[str, str]) -> Image.Image:
    """Return two pictures beside each other under their titles, both as high as the left one."""
    right = right.resize((max(1, round(right.width * left.height / right.height)), left.height))
    gap = max(4, left.height // 60)
    font = _font(max(12, left.height // 22))
    band = round(font.size * 1.6)
    sheet = Image.new("RGB", (left.width + gap + right.width, band + left.height), PAPER_COLOUR)
    canvas = ImageDraw.Draw(sheet)
    for picture, title, start in ((left, titles[0], 0), (right, titles[1], left.width + gap)):
        sheet.paste(picture, (start, band))
        canvas.text((start + picture.width / 2, band / 2), title, fill=TITLE_COLOUR, font=font, anchor="mm")
    return sheet


def grid(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Return the pictures in rows of so many columns, each centred in a cell as large as the largest of them.

    Raises:
        ValueError: there are no images, or no columns.
    """
    if not images or columns < 1:
        raise ValueError(f"expected at least one image and one column, got {len(images)} and {columns}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    width, height = max(image.width for image in images), max(image.height for image in images)
    gap = max(2, width // 80)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), PAPER_COLOUR)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        left = column * (width + gap) + (width - image.width) // 2
        top = row * (height + gap) + (height - image.height) // 2
        sheet.paste(image, (left, top))
    return sheet


def class_colour(label: int) -> tuple[int, int, int]:
    """Return the RGB colour of a class: hues a golden section apart, so that neighbours differ."""
    hue = (0.58 + label * GOLDEN_RATIO) % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, 0.5 - 0.08 * (label // 8 % 2), 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def _array(values: Any, dtype: torch.dtype) -> np.ndarray:
    return torch.as_tensor(values, dtype=dtype).detach().cpu().numpy()


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ValueError("captions of a chosen size need a Pillow with FreeType, as its wheels have it")
    return font


def _ordered(box: np.ndarray) -> tuple[float, float, float, float]:
    """Return the corners with left <= right and top <= bottom, which an untrained model may exchange."""
    return min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3])


def _draw_caption(
    canvas: ImageDraw.ImageDraw,
    caption: str,
    box: tuple[float, float, float, float],
    colour: tuple[int, int, int],
    font: ImageFont.FreeTypeFont,
    image_size: tuple[int, int],
) -> None:
    """Write a caption on a plate above the box or, where the image ends there, inside it; never beyond the image."""
    pad = max(1, font.size // 6)
    width = canvas.textlength(caption, font=font) + 2 * pad
    height = round(font.size * 1.15) + pad
    left = min(max(box[0], 0), max(image_size[0] - width, 0))
    top = box[1] - height if box[1] >= height else box[1]
    top = min(max(top, 0), max(image_size[1] - height, 0))
    canvas.rectangle((left, top, left + width - 1, top + height - 1), fill=colour)
    brightness = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (0, 0, 0) if brightness > 140 else (255, 255, 255)
    canvas.text((left + pad, top + height / 2), caption, fill=ink, font=font, anchor="lm")
