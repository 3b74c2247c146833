"""The options of `hf-detr predict`."""

from dataclasses import dataclass
from pathlib import Path

from hf_detr.command_line import argument, option

FORMATS = ("pictures", "coco", "parquet")


def parse_formats(text: str) -> tuple[str, ...]:
    """Read the names of formats, separated by commas."""
    return tuple(name.strip() for name in text.split(","))


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """The options of a prediction run. Ranks on several machines must share the output folder.

    A chunk is the unit that is not lost when a run is killed. `open_sources` says what a source may be.
    """

    sources: tuple[str, ...] = argument(
        "Image files, parquet shards, folders of either, or data sets of the `datasets` library, saved or on the Hub.",
        metavar="SOURCE...",
    )
    model: str = option("The model: a folder, or a repository on the Hub.")
    output: Path = option("The folder to write.")
    formats: tuple[str, ...] = option(
        "What is written, separated by commas: pictures with boxes, coco (predictions.json), parquet (parts/).",
        "--format",
        default=("pictures", "coco"),
        typed=str,
        parse=parse_formats,
        show_default="pictures,coco",
    )
    threshold: float = option("The lowest score that a detection may have.", default=0.5, min=0.0, max=1.0)
    batch_size: int = option("The most images in a batch.", default=8, min=1)
    chunk_size: int = option("Results are safe on disk after every so many images.", default=100, min=1)
    workers: int | None = option(
        "The number of processes that read images, for each rank. Without it, the cores and the images decide.",
        default=None,
        min=0,
    )
    split: str | None = option("The split of a data set to detect objects in.", default=None)
    streaming: bool = option("Read data sets while they are downloaded.", "--streaming", default=False)
    annotations: Path | None = option(
        "A COCO file that names the images. predictions.json gets its image and category ids, and can be scored "
        "against it. Without it, images are numbered from 1 unless their data set has ids, and the category ids are "
        "the ids that the training data gave them.",
        default=None,
    )
    overwrite: bool = option("Start anew where the output folder holds another run.", "--overwrite", default=False)
