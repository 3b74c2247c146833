"""Reads fields of a model's configuration from the command line, without loading torch or transformers."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_detr.modeling.configuration import HfDetrConfig

CLASS_FIELDS = ("num_labels", "id2label", "label2id")


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read `NAME=VALUE` texts; values are JSON (`100`, `0.5`, `true`, `null`, `{"a": 1}`), anything else is a text.

    Raises:
        ValueError: a text has no name or no `=`, sets the classes, or sets a field that another text has set.
    """
    fields: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = (part.strip() for part in setting.partition("="))
        if not (name and equals):
            raise ValueError(f"--set {setting}: expected NAME=VALUE, for example --set num_queries=50")
        if name in CLASS_FIELDS:
            raise ValueError(f"--set {setting}: the classes come from the data")
        if name in fields:
            raise ValueError(f"--set {setting}: {name} is set twice")
        try:
            fields[name] = json.loads(text)
        except json.JSONDecodeError:
            fields[name] = text
    return fields


def check_settings(config: "HfDetrConfig", fields: Mapping[str, Any]) -> None:
    """Check that a configuration with these fields replaced would be a valid one.

    Raises:
        ValueError: a field is unknown, has a value of a wrong kind, contradicts another, asks for pictures of other
            than three channels, which the readers of data sets do not give, or is `model_type`, which nothing reads.
    """
    from huggingface_hub.errors import StrictDataclassError

    from hf_detr.modeling.configuration import HfDetrConfig

    if "model_type" in fields:
        raise ValueError(
            f"model_type={fields['model_type']}: this field cannot be set, because every model of this package has "
            f"model_type={HfDetrConfig.model_type}; the preset chooses the kind of model"
        )
    declared = {name: getattr(config, name) for name in config.__dataclass_fields__ if name in config.to_dict()}
    try:
        changed = HfDetrConfig(**{**declared, **fields})
    except StrictDataclassError as error:
        raise ValueError(f"HfDetrConfig: {' '.join(str(error).split())}") from error
    if changed.num_channels != 3:
        raise ValueError(f"num_channels={changed.num_channels}: must be 3, as pictures of data sets are read as RGB")
