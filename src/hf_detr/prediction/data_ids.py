"""Finds the ids that a data set gives its pictures and classes, so that predictions.json can be scored against it."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hf_detr.data.readers.folder import DataFolder
from hf_detr.data.schema import locate
from hf_detr.files import read_json
from hf_detr.modeling.configuration import HfDetrConfig

from .sources import Stream

Id = int | str
EXPECTED = "a COCO json with the lists 'images' and 'categories'"
SHOWN = 3
"""A remark names this many pictures."""


@dataclass
class DataIds:
    """The ids of pictures and classes, and what they leave out.

    Attributes:
        categories: the category id of each label; None where the annotation file does not declare the class.
        source: the annotation file; without one, pictures keep the ids that the run gives them.
        images: the ids of the pictures in the annotation file, by the keys that `_keys` makes of a picture's name.
        keeps_image_ids: whether the pictures come with ids of their own, as rows of a data set do.
        doubt: a sentence about these ids that the user should know.
    """

    categories: Sequence[Id | None]
    source: Path | None = None
    images: Mapping[str, Id] = field(default_factory=dict)
    keeps_image_ids: bool = False
    doubt: str | None = None
    _used: set[Id] = field(default_factory=set)
    _without_entry: list[str] = field(default_factory=list)
    _without_category: Counter[str] = field(default_factory=Counter)

    @cached_property
    def _known(self) -> frozenset[Id]:
        return frozenset(self.images.values())

    def image_id(self, name: str, number: int) -> Id | None:
        """Return the id of a picture; None, which is counted, where the annotation file has no entry for it.

        Args:
            name: the name of the picture in the run: a path, or the name of a table and the number of the row.
            number: its id in the run.
        """
        if self.source is None:
            return number
        found = next((self.images[key] for key in _keys(name) if key in self.images), None)
        if found is None and self.keeps_image_ids and number in self._known:
            found = number
        if found is None:
            self._without_entry.append(name)
        else:
            self._used.add(found)
        return found

    def category_id(self, label: int, name: str) -> Id | None:
        """Return the id of a class; None, which is counted, where the annotation file does not declare it."""
        found = self.categories[label]
        if found is None:
            self._without_category[name] += 1
        return found

    def remarks(self) -> list[str]:
        """Return sentences about what predictions.json lacks, because the annotation file does not know it."""
        remarks = [] if self.doubt is None else [self.doubt]
        if self._without_entry:
            shown = ", ".join(self._without_entry[:SHOWN]) + ", …" * (len(self._without_entry) > SHOWN)
            remarks.append(
                f"{self.source} has no entry for {len(self._without_entry)} of the pictures, and predictions.json "
                f"leaves them out: {shown}"
            )
        if self._without_category:
            names = ", ".join(repr(name) for name in self._without_category)
            remarks.append(
                f"{self.source} does not declare the classes {names}, and predictions.json leaves out "
                f"{sum(self._without_category.values())} detections of them"
            )
        missing = len(self._known - self._used)
        if missing:
            remarks.append(
                f"{missing} images of {self.source} are not among the pictures, and a score against the whole file "
                "counts their objects as not found"
            )
        return remarks


def ids_of_run(
    annotations: Path | None, config: HfDetrConfig, sources: Sequence[str], streams: Sequence[Stream]
) -> DataIds:
    """Return the ids that `predictions.json` of a run shall have.

    Args:
        annotations: see `PredictionOptions`.
        config: the configuration of the model.
        sources, streams: the pictures, as the user named them and opened.

    Raises:
        ValueError: see `ids_of_file`.
    """
    names = config.class_names
    if annotations is None:
        return ids_of_model(names, config.category_ids)
    places = [Path(source) for source in sources]
    folders = dict.fromkeys(place if place.is_dir() else place.parent for place in places if place.exists())
    return ids_of_file(annotations, names, list(folders), all(stream.has_image_ids for stream in streams))


def ids_of_model(names: Sequence[str], category_ids: Mapping[str, Id] | None) -> DataIds:
    """Return the ids that a model was told of when it was trained: `config.category_ids`, else the labels."""
    labels = list(range(len(names)))
    if category_ids is None:
        return DataIds(labels)
    missing = [name for name in names if name not in category_ids]
    if not missing:
        return DataIds([category_ids[name] for name in names])
    doubt = (
        f"the configuration of the model has category_ids {category_ids}, in which the classes {missing} are missing: "
        "the category ids in predictions.json are the labels of the model"
    )
    return DataIds(labels, doubt=doubt)


def ids_of_file(path: Path, names: Sequence[str], folders: Sequence[Path], keeps_image_ids: bool) -> DataIds:
    """Return the ids of a COCO annotation file, in which a list of annotations may be missing.

    Args:
        path: the file.
        names: the classes of the model in the order of its labels; ids are found by these names.
        folders: where the pictures of the run are.
        keeps_image_ids: see `DataIds`.

    Raises:
        ValueError: the file cannot be read, lacks ids or names, gives an id or a name twice, or has no class of the
            model.
    """
    content = read_json(path, ("images", "categories"), EXPECTED)
    for name in ("images", "categories"):
        if not isinstance(content[name], list):
            raise locate(f"expected {EXPECTED}, found a {type(content[name]).__name__}", path, field=name)
    categories = _category_ids(content, path)
    ids = [categories.get(name) for name in names]
    if not any(category is not None for category in ids):
        raise locate(
            f"expected classes of the model, {list(names)}, found {list(categories)}", path, field="categories"
        )
    return DataIds(ids, path, _image_ids(content["images"], path, folders), keeps_image_ids)


def _category_ids(content: Mapping[str, Any], path: Path) -> dict[str, Id]:
    """Return the category ids by name. Of several categories of one name, only one may have objects: it is taken."""
    used = {annotation.get("category_id") for annotation in content.get("annotations") or ()}
    found: dict[str, list[Id]] = {}
    for entry in content["categories"]:
        found.setdefault(str(_get(entry, "name", path)), []).append(_get(entry, "id", path))
    for name, ids in found.items():
        if len(ids) > 1:
            found[name] = [category for category in ids if category in used]
            if len(found[name]) != 1:
                raise locate(f"the name {name!r} appears more than once, with the ids {ids}", path, field="categories")
    return {name: category for name, [category] in found.items()}


def _image_ids(entries: Sequence[Any], path: Path, folders: Sequence[Path]) -> dict[str, Id]:
    ids = [_get(entry, "id", path) for entry in entries]
    repeated = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if repeated:
        raise locate("this image id appears more than once", path, repeated[0])
    names = [str(_get(entry, "file_name", path)) for entry in entries]
    found = _find(names, folders)
    images: dict[str, Id] = {}
    others: dict[str, Id] = {}  # a row of a table is called by the name of its file, which may lie in no folder
    for name, image_id in zip(names, ids, strict=True):
        if name in found:
            images[os.path.abspath(found[name])] = image_id
        else:
            others[name] = image_id
    alone = Counter(map(_last_part, others))
    return {_last_part(name): own for name, own in others.items() if alone[_last_part(name)] == 1} | others | images


def _find(names: Sequence[str], folders: Sequence[Path]) -> dict[str, Path]:
    """Return where pictures are, found as the readers of training data find them; missing ones have no place."""
    found: dict[str, Path] = {}
    for folder in map(DataFolder, folders):
        wanted = [name for name in names if name not in found]
        places = zip(wanted, folder.find_all(wanted), strict=True)
        found |= {name: place for name, place in places if place not in folder.not_found}
    return found


def _keys(name: str) -> tuple[str, ...]:
    """Return what a picture may be called in `DataIds.images`, the surest first."""
    return os.path.abspath(name), name, _last_part(name)


def _last_part(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _get(entry: Any, name: str, path: Path) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if value is None or isinstance(value, list | dict | bool):
        raise locate(f"expected a number or a text, got {value!r} in {entry!r}", path, field=name)
    return value
