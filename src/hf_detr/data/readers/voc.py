"""Pascal VOC: one xml file of objects for each image.

Corners are taken as the files have them: (xmin, ymin, xmax, ymax) are the edges of the box, so that it is
xmax - xmin pixels wide. That is what annotation tools and exporters write today. The data sets of the VOC challenges
themselves count pixels from 1 and include the last one; their files say so under `source/database`, "The VOC2007
Database" or the like, and only theirs are shifted by xmin - 1 and ymin - 1.

A `difficult` object becomes a crowd region: as in the challenge, finding it counts neither for nor against a model,
and no model is trained on it. `truncated` and `occluded` objects are objects like any other.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..schema import SourceImage, SourceObject, SourceSplit, locate
from .layouts import Layout, images_by_stem, split_folders

CHALLENGE = re.compile(r"The VOC\d{4} Database")
CORNERS = ("xmin", "ymin", "xmax", "ymax")
ANNOTATION_FOLDERS = ("Annotations", "annotations")
IMAGE_FOLDERS = ("JPEGImages", "images", "Images")
IMAGE_SETS = Path("ImageSets", "Main")


@dataclass(frozen=True)
class VocFiles:
    """The xml files of a split, the folders where their images may be, and the folder that errors name."""

    annotations: Sequence[Path]
    image_folders: Sequence[Path]
    source: Path


def voc_splits(files: dict[str, VocFiles]) -> dict[str, SourceSplit]:
    """Read splits in Pascal VOC format; the classes are the names found in any of them, in alphabetical order.

    The image of an xml file is the one of the same name, or else the one that it names. Images are numbered
    from 1 within a split, objects from 1 within an image.

    Raises:
        DataError: a file is missing or is no xml.
    """
    records = {split: [*_records(found)] for split, found in files.items()}
    names = {item.category for found in records.values() for record in found for item in record.objects}
    classes = {name: name for name in sorted(name for name in names if name)}
    return {split: SourceSplit(records[split], classes, found.source) for split, found in files.items()}


def _records(files: VocFiles) -> list[SourceImage]:
    images = images_by_stem(files.image_folders)
    return [_record(path, number, images, files) for number, path in enumerate(files.annotations, start=1)]


def _record(path: Path, number: int, images: dict[str, Path], files: VocFiles) -> SourceImage:
    root = _parsed(path)
    named = Path(root.findtext("filename", "").strip() or f"{path.stem}.jpg").name
    image = images.get(path.stem) or images.get(Path(named).stem) or files.image_folders[0] / named
    width, height = (_number(root.findtext(f"size/{name}")) for name in ("width", "height"))
    if not width or not height:  # some tools write 0 where they do not know
        width = height = None
    shift = 1 if CHALLENGE.match(root.findtext("source/database", "").strip()) else 0
    objects = [_object(entry, index, shift) for index, entry in enumerate(root.findall("object"), start=1)]
    return SourceImage(image, number, _integer(width), _integer(height), objects, annotation_file=path)


def _parsed(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise locate("the annotation file does not exist", path) from error
    except (ElementTree.ParseError, UnicodeDecodeError, LookupError, ValueError) as error:
        raise locate(f"expected a Pascal VOC xml, but this is not xml ({error})", path) from error
    if root.tag != "annotation":
        raise locate(f"expected a Pascal VOC xml with the root 'annotation', found '{root.tag}'", path)
    return root


def _object(entry: ElementTree.Element, index: int, shift: int) -> SourceObject:
    corners = [_number(entry.findtext(f"bndbox/{name}")) for name in CORNERS]
    bbox = corners
    if all(isinstance(value, float) for value in corners):
        left, top, right, bottom = corners
        bbox = [left - shift, top - shift, right, bottom]
    difficult = entry.findtext("difficult", "0").strip() == "1"
    category = entry.findtext("name", "").strip() or None
    return SourceObject(index, bbox, category, iscrowd=int(difficult), box_format="xyxy")


def _number(text: str | None) -> float | str | None:
    """Return a number, or the text that is none, for the check to complain about."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _integer(value: float | str | None) -> int | float | str | None:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Where the files are


def _devkit(folder: Path) -> dict[str, VocFiles]:
    """The layout of the challenge: Annotations/, JPEGImages/ and lists of names in ImageSets/Main/."""
    annotations = next((folder / name for name in ANNOTATION_FOLDERS if any((folder / name).glob("*.xml"))), None)
    if annotations is None:
        return {}
    images = [folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()] or [folder / IMAGE_FOLDERS[0]]
    images += [folder, annotations]
    lists = {path.stem: path for path in (folder / IMAGE_SETS).glob("*.txt")}
    found = {
        split: lists[name]
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))
        if name in lists
    }
    if "train" not in found and "trainval" in lists:
        found["train"] = lists["trainval"]
    if "train" not in found:
        return {"train": VocFiles(sorted(annotations.glob("*.xml")), images, annotations)}
    return {split: VocFiles(_listed(path, annotations), images, path) for split, path in found.items()}


def _listed(path: Path, annotations: Path) -> list[Path]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [annotations / f"{line.split()[0]}.xml" for line in lines if line.strip()]


def _beside(folder: Path) -> VocFiles | None:
    """The xml files in a folder or its annotations/, with their images beside them or in its images/."""
    parents = [folder, *(folder / name for name in ANNOTATION_FOLDERS)]
    parent = next((path for path in parents if any(path.glob("*.xml"))), None)
    if parent is None:
        return None
    return VocFiles(sorted(parent.glob("*.xml")), [parent, *(folder / name for name in IMAGE_FOLDERS), folder], parent)


def _folders(folder: Path) -> dict[str, VocFiles]:
    found = {split: _beside(path) for split, path in split_folders(folder).items()}
    return {split: files for split, files in found.items() if files is not None}


def _flat(folder: Path) -> dict[str, VocFiles]:
    files = _beside(folder)
    return {"train": files} if files is not None else {}


def _layout(description: str, find) -> Layout:
    return Layout(description, lambda folder: "train" in find(folder), lambda folder: voc_splits(find(folder)))


VOC_LAYOUTS = (
    _layout(
        "Pascal VOC: Annotations/*.xml, JPEGImages/ and, for the splits, ImageSets/Main/{train,val,test}.txt", _devkit
    ),
    _layout("Pascal VOC in folders train/, valid/ and test/, each with *.xml beside the images", _folders),
    _layout("Pascal VOC: *.xml beside the images", _flat),
)
