"""Ends a run that is broken off: what is printed next starts a line, and the error says how to go on."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hf_detr.data.schema import DataError

from .callbacks import LossProgress
from .model_folder import last_complete_checkpoint
from .options import RunOptions
from .trainer import HfDetrTrainer


@contextmanager
def way_on(options: RunOptions, trainer: HfDetrTrainer) -> Iterator[None]:
    """Whatever ends the block early, close the progress bars, remove empty folders, and note how to go on."""
    try:
        yield
    except BaseException as error:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, LossProgress):
                callback.close()
        if isinstance(error, DataError):
            error.add_note("`hf-detr doctor` with the same --data lists all damaged pictures")
        if isinstance(error, KeyboardInterrupt) and last_complete_checkpoint(options.checkpoints) is not None:
            error.add_note("go on with the run by adding --resume to its command")
        if trainer.is_world_process_zero():
            remove_empty_folders(options)
        raise


def remove_empty_folders(options: RunOptions) -> None:
    """Remove the folders of a run in which nothing was written."""
    for folder in (options.checkpoints, options.output):
        with suppress(OSError):  # it holds something, or does not exist
            folder.rmdir()
