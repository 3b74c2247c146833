"""Checks a single record on its way into the schema."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .box_checks import BoxesOutsideError, Changes, checked_objects
from .image_headers import ImageHeader, header_or_error
from .options import ReadOptions
from .problems import boxes_remedy
from .schema import DataError, SourceImage, is_integer, locate
from .turned_images import as_displayed, drawn_upright, states_stored_size


def check_record(
    record: SourceImage, labels: Mapping[Hashable, int], source: str | Path, options: ReadOptions | None = None
) -> tuple[dict[str, Any], Changes]:
    """Check one record and return it as a row of the schema, with the counts of boxes that were left out or clipped.

    Args:
        record: the image and its objects as the file has them, with the size of the displayed picture.
        labels: the declared categories, from the file's key to the label 0..K-1.
        source: the file that errors name.
        options: how the boxes are to be taken; by default `ReadOptions()`.

    Raises:
        DataError: a size, box or area is not a finite number in range, a box lies more than two pixels outside the
            image and boxes are not clipped, or a category is not declared.
    """
    if record.image is None:
        annotation_id = record.objects[0].id if record.objects else None
        raise locate("no image of this id is declared", source, record.image_id, annotation_id, "image_id")
    source = record.annotation_file or source
    for name, size in (("width", record.width), ("height", record.height)):
        if not is_integer(size) or size <= 0:
            raise locate(f"expected a positive integer, got {size!r}", source, record.image_id, field=name)
    objects, changes = checked_objects(record, labels, source, options or ReadOptions())
    row = {
        "image": str(record.image) if isinstance(record.image, Path) else record.image,
        "image_id": int(record.image_id),
        "width": int(record.width),
        "height": int(record.height),
        "objects": {
            "id": [found.item.id for found in objects],
            "bbox": [list(found.box) for found in objects],
            "category": [labels[found.item.category] for found in objects],
            "area": [found.area for found in objects],
            "iscrowd": [int(found.item.iscrowd) for found in objects],
        },
    }
    if record.instance_mask is not None:
        row["instance_mask"] = record.instance_mask
    return row, changes


def check_streamed_record(
    record: SourceImage, labels: Mapping[Hashable, int], source: str | Path, options: ReadOptions
) -> dict[str, Any]:
    """Check one record of a stream, its size against its image, and return it as a row of the schema.

    Unlike in `check_split` no other record helps to decide how the boxes of a turned photograph were drawn.

    Raises:
        DataError: see `check_record`; or the header of the image cannot be read or gives another size.
    """
    header = header_or_error(record)
    if isinstance(header, ImageHeader) and states_stored_size(record, header):
        [upright] = drawn_upright([(record, header)], options)
        record = as_displayed(record, header, upright, options)
    record = with_size(record, header, source)
    try:
        return check_record(record, labels, source, options)[0]
    except BoxesOutsideError as error:
        raise DataError(f"{error}; {boxes_remedy([record], options, error.clipping)}") from error


def with_size(record: SourceImage, header: ImageHeader | DataError | None, source: str | Path) -> SourceImage:
    """Return a record with the size of its displayed picture, which its annotations must not contradict.

    Raises:
        DataError: the header cannot be read, is needed and missing, or gives another size than the annotations.
    """
    if isinstance(header, DataError):
        raise header
    stated = (record.width, record.height)
    if None in stated:
        if header is None and record.image is not None:
            problem = "expected an image, but it has no header to learn its size from"
            raise locate(problem, _file(record, source), record.image_id)
        return record if header is None else replace(record, width=header.size[0], height=header.size[1])
    if header is not None and all(is_integer(side) and side > 0 for side in stated) and stated != header.size:
        raise locate(
            f"the annotations say {stated[0]}x{stated[1]} pixels, but the image is displayed at "
            f"{header.size[0]}x{header.size[1]}",
            _file(record, source),
            record.image_id,
            field="width, height",
        )
    return record


def _file(record: SourceImage, source: str | Path) -> str | Path:
    """Return the file of a record's image where it has one, else the file that errors name."""
    image = record.image.get("path") if isinstance(record.image, Mapping) else record.image
    return image if isinstance(image, str | Path) else source
