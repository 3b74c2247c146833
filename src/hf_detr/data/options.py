"""The options of every command that reads a data set: how its files are to be taken."""

from dataclasses import dataclass

from hf_detr.command_line import option

from .box_formats import BOX_FORMATS, BOX_FORMATS_IN_WORDS, BoxFormat


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """The owner's statements about the files of a data set, and the changes that are allowed to make them usable.

    Attributes:
        box_format: the format of the four numbers of every box, one of `BOX_FORMATS`, for files whose boxes are not in
            the format of their layout. With None they are.
        clip_boxes: whether boxes that reach beyond their image are cut at its edge, and dropped where nothing is left
            of them. A warning counts both. Without this option such a box is an error.
        skip_unusable: whether images that cannot be used are left out, and a warning counts and lists them. An image
            is left out as a whole, because a picture in which one object is not annotated teaches that the object is
            background. Without this option such an image is an error.

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
        "Cut boxes that reach beyond their image at its edge, and drop boxes of which nothing is left.",
        "--clip-boxes",
        default=False,
    )
    skip_unusable: bool = option(
        "Leave out images that cannot be used, and say which, instead of stopping.", "--skip-unusable", default=False
    )

    def __post_init__(self) -> None:
        if self.box_format is not None and self.box_format not in BOX_FORMATS:
            raise ValueError(f"--box-format: expected {BOX_FORMATS_IN_WORDS}; got {self.box_format!r}")
