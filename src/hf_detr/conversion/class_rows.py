"""Fine-tuning on other classes: rows of the class heads move with the names of their classes."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.utils import logging

from hf_detr.ranks import rank

from ..modeling.configuration import HfDetrConfig
from ..modeling.configuration_rules import check_labels
from ..modeling.denoising import Denoising
from ..modeling.heads import DetectionHeads

logger = logging.get_logger(__name__)

Rows = Sequence[int | None]
Layer = TypeVar("Layer", nn.Linear, nn.Embedding)
_MOST_NAMES = 10
# Arguments of `from_pretrained` that say where files are found.
_HUB_ARGUMENTS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def load_other_classes(
    model_class: type[PreTrainedModel], name_or_path: str | os.PathLike, *args: Any, **kwargs: Any
) -> Any | None:
    """Load a model whose classes are called otherwise than those of the checkpoint.

    Args:
        model_class, name_or_path, args, kwargs: as in `PreTrainedModel.from_pretrained`.

    Returns:
        What `from_pretrained` returns, or None where no classes have to be matched by name.

    Raises:
        ValueError: `id2label` is no dict, or its keys are no labels.
    """
    change = _class_change(name_or_path, kwargs)
    if change is None:
        return None
    saved, wanted, kwargs = change
    with_info = kwargs.pop("output_loading_info", False)
    loaded: Any = model_class.from_pretrained(name_or_path, *args, **kwargs, output_loading_info=True)
    model, info = loaded
    adapt_classes(model, saved, wanted, info["mismatched_keys"])
    return (model, info) if with_info else model


def _class_change(
    name_or_path: str | os.PathLike, kwargs: dict[str, Any]
) -> tuple[list[str], list[str], dict[str, Any]] | None:
    """The class names of a checkpoint, the names that are wanted instead, and arguments that load it with its own.

    None where no names are to be matched.
    """
    config, id2label = kwargs.get("config"), kwargs.get("id2label")
    if isinstance(config, str | os.PathLike):
        config = HfDetrConfig.from_pretrained(config)
    if config is not None:
        id2label = config.id2label
    if id2label is None or "state_dict" in kwargs:
        return None
    check_labels(id2label)
    wanted = class_names(id2label)
    if wanted is None:
        return None
    try:
        hub = {name: kwargs[name] for name in _HUB_ARGUMENTS if name in kwargs}
        saved = class_names(PreTrainedConfig.get_config_dict(name_or_path, **hub)[0].get("id2label"))
    except OSError:  # a folder with an adapter only, or none: loading says what is wrong
        return None
    if saved is None or saved == wanted:
        return None
    kwargs = {name: value for name, value in kwargs.items() if name != "num_labels"}
    classes = {"id2label": dict(enumerate(saved)), "label2id": {name: label for label, name in enumerate(saved)}}
    if config is None:
        return saved, wanted, kwargs | classes
    config = deepcopy(config)
    config.id2label, config.label2id = classes["id2label"], classes["label2id"]
    return saved, wanted, kwargs | {"config": config}


def adapt_classes(model: PreTrainedModel, saved: list[str], wanted: list[str], mismatched: Collection = ()) -> None:
    """Move the rows of the class heads from the saved classes to the wanted ones, by name, and say so in a line.

    Args:
        model: a model that was loaded with the saved classes.
        saved, wanted: the names of the classes, by label.
        mismatched: the weights that the checkpoint has in another size. Where a class head is one of them, it was not
            loaded, and no class is kept.
    """
    is_lost = any("class_head" in str(key) for key in mismatched)
    rows = [None] * len(wanted) if is_lost else rows_by_name(saved, wanted)
    for module in list(model.modules()):
        if isinstance(module, DetectionHeads):
            move_head_rows(module, rows)
        elif isinstance(module, Denoising):
            move_label_rows(module, rows)
    config = model.config
    config.id2label = dict(enumerate(wanted))
    config.label2id = {name: label for label, name in enumerate(wanted)}
    ids = config.category_ids or {}  # of a class that is new there may be none
    config.category_ids = {name: ids[name] for name in wanted} if set(wanted) <= set(ids) else None
    if rank() == 0:
        logger.warning(describe(saved, wanted, rows))


def class_names(id2label: Mapping[int | str, str] | None) -> list[str] | None:
    """The names by label, or None where there are none but the "LABEL_0" that transformers makes up."""
    if not id2label:
        return None
    names = [name for _, name in sorted((int(label), name) for label, name in id2label.items())]
    return None if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names) else names


def rows_by_name(saved: Sequence[str], wanted: Sequence[str]) -> list[int | None]:
    """For each wanted class the row of the saved class of this name, or None. Names that repeat are taken in order."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(saved):
        rows.setdefault(name, []).append(row)
    return [rows[name].pop(0) if rows.get(name) else None for name in wanted]


def describe(saved: Sequence[str], wanted: Sequence[str], rows: Rows) -> str:
    """One line: which classes were kept by their name, which are new and which were dropped."""
    kept = [name for name, row in zip(wanted, rows, strict=True) if row is not None]
    new = [name for name, row in zip(wanted, rows, strict=True) if row is None]
    dropped = [name for row, name in enumerate(saved) if row not in set(rows)]
    line = f"Class head: kept {len(kept)} of {len(wanted)} classes by name"
    line += f" ({_listed(kept)})" if kept else ""
    for word, names in (("new", new), ("dropped", dropped)):
        line += f"; {word}: {_listed(names)}" if names else ""
    return line + "."


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def move_head_rows(heads: DetectionHeads, rows: Rows) -> None:
    """Give each class the row that it had, or a new one; "no object" stays the last."""
    saved = [head for head in heads.class_head if isinstance(head, nn.Linear)]
    num_saved = saved[0].out_features - (not heads.sigmoid_classes)
    if heads.class_agnostic:  # rows mean the same whatever the classes
        rows = [label if label < num_saved else None for label in range(len(rows))]
    if not heads.sigmoid_classes:
        rows = [*rows, num_saved]
    for index, old in enumerate(saved):
        new = nn.Linear(old.in_features, len(rows))
        init.xavier_uniform_(new.weight)
        init.zeros_(new.bias)
        heads.initialise_classes(new)
        heads.class_head[index] = take_rows(new, old, rows)


def move_label_rows(denoising: Denoising, rows: Rows) -> None:
    """Give each class the embedding that it had, or a new one; "unknown" stays the last."""
    new = nn.Embedding(len(rows) + 1, denoising.label_embedding.embedding_dim)
    denoising.label_embedding = take_rows(new, denoising.label_embedding, [*rows, denoising.num_labels])
    denoising.num_labels = len(rows)


@torch.no_grad()
def take_rows(new: Layer, old: Layer, rows: Rows) -> Layer:
    """`new` with the rows of `old` where a class had one, on the same device, of the same dtype and mode."""
    new = new.to(old.weight)
    places = [place for place, row in enumerate(rows) if row is not None]
    taken = [row for row in rows if row is not None]
    for name, parameter in old.named_parameters():
        getattr(new, name)[places] = parameter[taken]
        getattr(new, name).requires_grad_(parameter.requires_grad)
    return new.train(old.training)
