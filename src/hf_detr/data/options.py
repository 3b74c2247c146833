"""How the files of a data set are to be taken: options of every command that reads one."""

from dataclasses import dataclass

from hf_detr.command_line import option

from .box_formats import BOX_FORMATS, BOX_FORMATS_IN_WORDS, BoxFormat


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What the owner of a data set says about its files, and what may be done to make them usable.

    Attributes:
        box_format: what the four numbers of every box are, for files whose boxes are not what their layout says; None
            takes them as the layout says. One of `BOX_FORMATS`.
        clip_boxes: boxes that reach beyond their image are cut at its edge, and those of which nothing is left are
            dropped; both are counted in a warning. Without it such a box is an error.
        skip_unusable: images that cannot be used are left out, counted and listed in a warning; an image goes as a
            whole, because a picture of which one object is missing teaches that the object is background. Without it
            they are an error.

    Raises:
        ValueError: there is no such format.
    """

    box_format: BoxFormat | None = option(
        f"Take the four numbers of every box for {BOX_FORMATS_IN_WORDS}. Without it, they are what the layout of the "
        "files says.",
        default=None,
        typed=str,
        metavar="FORMAT",
    )
    clip_boxes: bool = option(
        "Cut boxes that reach beyond their image at its edge, and drop those of which nothing is left.",
        "--clip-boxes",
        default=False,
    )
    skip_unusable: bool = option(
        "Leave out images that cannot be used, and say which, instead of stopping.", "--skip-unusable", default=False
    )

    def __post_init__(self) -> None:
        if self.box_format is not None and self.box_format not in BOX_FORMATS:
            raise ValueError(f"--box-format: expected {BOX_FORMATS_IN_WORDS}; got {self.box_format!r}")
