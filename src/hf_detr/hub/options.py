"""The options of `hf-detr push`."""

from dataclasses import dataclass
from pathlib import Path

from hf_detr.command_line import argument, option


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """The options of a push. A repository given without an owner belongs to the owner of the token."""

    folder: Path = argument("The model folder, as `hf-detr train` writes it.")
    repo: str = argument("The repository on the Hub, given as OWNER/NAME. It is made where there is none.")
    private: bool = option(
        "Make a new repository private. An existing public one is refused.", "--private", default=False
    )
    with_code: bool = option(
        "Add the code of the model, so that it loads where this package is not installed.",
        "--with-code",
        default=False,
    )
    license: str | None = option(
        "The licence of the weights by its name on the Hub, for example mit or cc-by-4.0. Without it, the licence on "
        "the model card stays.",
        "--license",
        "--licence",
        default=None,
    )
    branch: str = option("The branch to push to. It is made from main where there is none.", default="main")
    message: str | None = option("The message of the commit.", default=None)
