"""The options of `hf-detr doctor`."""

from dataclasses import dataclass
from pathlib import Path

from hf_detr.command_line import option
from hf_detr.data.options import ReadOptions
from hf_detr.training.options import DATA_HELP, SEED_HELP


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(ReadOptions):
    """The options of the doctor."""

    data: str = option(DATA_HELP)
    output: Path = option("The folder for the report and its pictures.", default=Path("doctor-report"))
    seed: int = option(SEED_HELP, default=0, min=0)
