"""Pictures of flat rectangles whose colour tells which object they are, to compare boxes with pixels."""

import numpy as np
from hypothesis import strategies as st
from PIL import Image

COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1))
"""By label: the channels of its colour. Blended with black they stay apart."""


def painted_row(image_id, size, boxes, labels, crowd=()):
    """A row of the schema: boxes in xyxy pixels, painted on black in the colours of their labels, with masks."""
    height, width = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    instances = np.zeros((height, width), dtype=np.uint8)
    for number, ((left, top, right, bottom), label) in enumerate(zip(boxes, labels, strict=True), start=1):
        pixels[top:bottom, left:right] = 255 * np.array(COLOURS[label], dtype=np.uint8)
        instances[top:bottom, left:right] = number
    objects = {
        "id": list(range(len(boxes))),
        "bbox": [[left, top, right - left, bottom - top] for left, top, right, bottom in boxes],
        "category": list(labels),
        "area": [float((right - left) * (bottom - top)) for left, top, right, bottom in boxes],
        "iscrowd": [int(label in crowd) for label in labels],
    }
    picture, mask = Image.fromarray(pixels), Image.fromarray(instances)
    return {"image": picture, "image_id": image_id, "width": width, "height": height, "objects": objects} | {
        "instance_mask": mask
    }


def pixels_of(image, label):
    """Where an image (3, H, W) shows the colour of a label, (H, W) bool."""
    bright = image.numpy() >= 128
    return (bright == np.array(COLOURS[label], dtype=bool)[:, None, None]).all(0)


def tight_box(shown):
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@st.composite
def painted_rows(draw, labels, image_id=1):
    """Rows with an object of each of the (at most four) labels, well apart from each other."""
    height, width = draw(st.integers(64, 120)), draw(st.integers(64, 120))
    boxes = []
    for index in range(len(labels)):
        top, left = (index // 2) * height // 2 + 4, (index % 2) * width // 2 + 4
        box_height, box_width = draw(st.integers(10, height // 2 - 8)), draw(st.integers(10, width // 2 - 8))
        top += draw(st.integers(0, height // 2 - 8 - box_height))
        left += draw(st.integers(0, width // 2 - 8 - box_width))
        boxes.append((left, top, left + box_width, top + box_height))
    return painted_row(image_id, (height, width), boxes, labels)
