"""The door to the converters of checkpoints: checkpoints in other layouts than ours, or of other classes.

The package opens it (`hf_detr.registration`). Where these files travel with the weights of a model there are no
converters beside them, and it stays closed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Foreign:
    """The converters of the package; None where it is not there.

    Attributes:
        translate_config: fields of a configuration as they were written, and what the caller sets besides → the fields
            of `HfDetrConfig`.
        load: class of the model, folder or repository, and arguments of `from_pretrained` → what `from_pretrained`
            returns, or None where nothing has to be converted.
    """

    translate_config: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None
    load: Callable[..., Any] | None = None


FOREIGN = Foreign()
