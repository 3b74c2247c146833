"""The model folder of a run: it is checked and emptied before the run, and written and tidied up after it."""

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.trainer import TRAINER_STATE_NAME
from transformers.utils import CONFIG_NAME

from hf_detr.files import read_json, replace_file
from hf_detr.hub.evidence import CardEvidence
from hf_detr.hub.model_card import CARD_NAME, build_model_card

from .evidence import evidence_of, recipe_of
from .options import RunOptions
from .trainer import HfDetrTrainer


def prepare_output(options: RunOptions) -> None:
    """Make the output folder; with `overwrite`, remove what an earlier run has left there beside its model."""
    if options.overwrite:
        for folder in (options.checkpoints, options.unfinished, options.pictures):
            shutil.rmtree(folder, ignore_errors=True)
    options.output.mkdir(parents=True, exist_ok=True)


def check_output(options: RunOptions) -> str | None:
    """Check that the output folder may be written to; return the checkpoint to resume from, if any.

    Raises:
        ValueError: the folder holds a model or an unfinished run and the options do not say what to do with it, or
            there is nothing to resume.
    """
    folder = options.output
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; expected a folder for the model")
    has_model = (folder / "config.json").exists()
    checkpoint = last_complete_checkpoint(options.checkpoints)
    if options.resume:
        if checkpoint is None:
            raise ValueError(f"{folder} holds no unfinished run to resume")
        return checkpoint
    if not options.overwrite and (has_model or checkpoint):
        held = "a model" if has_model else "an unfinished run"
        remedy = "--overwrite to replace it" + ("" if checkpoint is None else ", or --resume to go on with it")
        raise ValueError(f"{folder} already holds {held}; add {remedy}")
    return None


def last_complete_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint in a folder that was written to its end, if any."""

    def is_complete(checkpoint: Path) -> bool:
        try:  # `Trainer` writes this file last
            read_json(checkpoint / TRAINER_STATE_NAME)
        except (OSError, ValueError):
            return False
        return True

    steps = {int(path.name.removeprefix("checkpoint-")): path for path in folder.glob("checkpoint-[0-9]*")}
    return next((str(steps[step]) for step in sorted(steps, reverse=True) if is_complete(steps[step])), None)


def save_model(options: RunOptions, trainer: HfDetrTrainer) -> None:
    """Write weights, configuration and image processor of a trained model. A folder with `config.json` has them all.

    The card of the model that is replaced is removed.
    """
    if trainer.is_world_process_zero():
        write_model(options.output, trainer)
        (options.output / CARD_NAME).unlink(missing_ok=True)


def save_unfinished_model(options: RunOptions, trainer: HfDetrTrainer, error: Exception) -> None:
    """Write the model of a run that an error ends, so that it is not lost. The error gets a note with its folder.

    The model is not written to the model folder itself, which may hold the finished model of an earlier run.
    """
    step = trainer.state.global_step
    if not step or not trainer.is_world_process_zero():
        return
    with trainer.averaged():
        write_model(options.unfinished, trainer)
    go_on = "start from it with --model"
    if last_complete_checkpoint(options.checkpoints) is not None:
        go_on = "go on with the run by adding --resume to its command, or start from this model with --model"
    error.add_note(f"The model as trained until step {step} is kept in {options.unfinished}: {go_on}")


def write_model(folder: Path, trainer: HfDetrTrainer) -> None:
    """Write weights, configuration and image processor to a folder, `config.json` last.

    Raises:
        OSError: the files cannot be written.
    """
    beside = folder / ".model.partial"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        trainer.model.save_pretrained(beside)
        if trainer.processing_class is not None:
            trainer.processing_class.save_pretrained(beside)
    except SafetensorError as error:
        raise OSError(f"{folder}: the weights cannot be written: {error}") from error
    for file in sorted(beside.iterdir(), key=lambda file: file.name == CONFIG_NAME):
        os.replace(file, folder / file.name)
    beside.rmdir()


def finish_model_folder(options: RunOptions, trainer: HfDetrTrainer, result: dict[str, Any]) -> None:
    """Write the model card and remove what only an unfinished run needs."""
    if not trainer.is_world_process_zero():
        return
    card = build_model_card(card_evidence(options, trainer, result))
    replace_file(options.output / CARD_NAME, card.save)
    for folder in (options.checkpoints, options.unfinished):
        shutil.rmtree(folder, ignore_errors=True)


def card_evidence(options: RunOptions, trainer: HfDetrTrainer, result: dict[str, Any]) -> CardEvidence:
    """Collect what the model card says about a finished run."""
    is_synthetic, is_folder = options.data.startswith("synthetic"), Path(options.data).exists()
    name, _, _ = options.data.partition(":")  # "synthetic:500", or a subset on the Hub
    return evidence_of(
        trainer,
        result,
        model_id=str(options.output),
        preset=options.preset_or_default if options.model is None else None,
        base_model=options.model,
        dataset_name=Path(options.data).resolve().name if is_folder and not is_synthetic else name,
        dataset_id=None if is_folder or is_synthetic else name,
        recipe=recipe_of(trainer) | {"augmentation": options.augmentation},
        command=options.command,
        samples={
            f"{options.pictures.name}/{path.name}": "ground truth and detections"
            for path in sorted(options.pictures.glob("*.jpg"))
        },
    )
