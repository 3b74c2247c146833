"""One training run, from a data folder to a model folder, as `hf-detr train` and `hf-detr demo` run it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets import Dataset, IterableDataset
from transformers import TrainerCallback, set_seed
from transformers.integrations import TensorBoardCallback

from hf_detr.data import (
    PLAIN_AUGMENTATION,
    DetectionCollator,
    augmentation_options,
    build_augmentation,
    category_ids,
    category_names,
    load_detection_data,
    load_streaming_data,
    undecoded,
)
from hf_detr.data.problems import NO_OBJECTS, NO_OBJECTS_ADVICE
from hf_detr.data.schema import locate
from hf_detr.loading import check_complete, check_model_files, check_shapes, clear_loading_errors
from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.processing.image_processing import HfDetrImageProcessor
from hf_detr.processing.sizes import published_size
from hf_detr.ranks import from_rank_0, one_rank_first, process_group

from .arguments import HfDetrTrainingArguments
from .broken_off import way_on
from .callbacks import EarlyStopping, PredictionPictures, ResultFiles
from .model_folder import check_output, finish_model_folder, prepare_output, save_model, save_unfinished_model
from .options import RunOptions, check_trackers
from .recipe import SMALL_PRESETS, check_positive, default_augmentation, default_image_size, training_arguments
from .settings import check_settings
from .trainer import HfDetrTrainer


def run_training(options: RunOptions, callbacks: Sequence[TrainerCallback] = ()) -> dict[str, Any]:
    """Train, evaluate and save a model; return the result of `CocoMetrics` on the validation split.

    The model folder also gets a model card, `results.csv`, `results.png` and pictures. Checkpoints are in
    `checkpoints/` until the model is saved.

    Whatever goes wrong later, the model trained so far stays: in `unfinished/` while the run trains, in the model
    folder itself when it has been trained to the end. The error has a note (`__notes__`) that says so.

    Raises:
        ValueError: an option, the data or the output folder cannot be used; nothing is changed then.
    """
    check_options(options)
    with process_group():
        return _train_on_all_ranks(options, callbacks)


def check_options(options: RunOptions) -> None:
    """Check what can be checked before the data are read, which may take long.

    Raises:
        ValueError: an option cannot be used, or contradicts another.
    """
    if options.augmentation is not None:
        augmentation_options(options.augmentation)
    check_trackers(options.trackers)
    check_positive(learning_rate=options.learning_rate)
    if options.model is None:
        check_settings(HfDetrConfig.from_preset(options.preset_or_default), options.config_overrides)
        return
    if options.preset is not None:
        raise ValueError("--model and --preset contradict each other: a run starts from a model or builds a new one")
    check_model_files(options.model)


def _train_on_all_ranks(options: RunOptions, callbacks: Sequence[TrainerCallback]) -> dict[str, Any]:
    """Do the work of `run_training` on each rank; only rank 0 looks at the output folder and writes to it."""
    checkpoint = from_rank_0(lambda: check_output(options))
    options, trainer = prepare_trainer(options)
    for callback in callbacks:
        trainer.add_callback(callback)
    with way_on(options, trainer):
        return _train_and_finish(options, trainer, checkpoint)


def _train_and_finish(options: RunOptions, trainer: HfDetrTrainer, checkpoint: str | None) -> dict[str, Any]:
    """Train, save the model, evaluate it and write its card; an error gets a note that says where the model is."""
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except Exception as error:
        save_unfinished_model(options, trainer, error)
        raise
    save_model(options, trainer)
    try:
        result = trainer.evaluate_by_class()
        finish_model_folder(options, trainer, result)
    except Exception as error:
        error.add_note(
            f"The trained model is kept in {options.output}, only its evaluation and card are missing: complete them "
            "by adding --resume to the command of the run"
        )
        raise
    return result


def prepare_trainer(options: RunOptions) -> tuple[RunOptions, HfDetrTrainer]:
    """Load the data, build the model and the trainer of a run; return the options with the augmentation chosen."""
    with one_rank_first():
        data = load_data(options)
        check_objects(options.data, data)
        args = training_arguments(
            options.preset_or_default,
            None if options.streaming else len(data["train"]),
            options.checkpoints,
            epochs=options.epochs,
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            seed=options.seed,
            ema=options.ema,
            report_to=options.trackers,
        )
        if options.augmentation is None:
            options = replace(
                options, augmentation=default_augmentation(options.preset_or_default, args, data["train"])
            )
        set_seed(options.seed)
        model, image_processor = build_model(options, data["train"])
    from_rank_0(lambda: prepare_output(options))
    return options, build_trainer(options, args, data, model, image_processor)


def load_data(options: RunOptions) -> dict[str, Dataset | IterableDataset]:
    """Return the splits; of streamed data, only the training split stays a stream.

    Raises:
        ValueError: the options do not fit together.
    """
    if not options.streaming:
        return load_detection_data(options.data, options.seed, options)
    if options.steps is None:
        raise ValueError("a stream has no length: add --steps, the number of optimizer steps")
    if options.augmentation == "strong":
        raise ValueError("--augmentation strong combines pictures of the whole set, which a stream does not have")
    splits = load_streaming_data(options.data, options.seed, options)
    validation = splits["validation"]
    # Evaluation needs all objects at once, so the rows go to the cache on disk.
    stored = Dataset.from_generator(_rows_of, gen_kwargs={"stream": validation}, features=validation.features)
    return {"train": splits["train"], "validation": stored}


def check_objects(source: str, data: Mapping[str, Dataset | IterableDataset]) -> None:
    """Check that the splits show objects. A stream is not checked, as its rows would have to be read for that.

    Raises:
        DataError: a split shows none.
    """
    problems = {
        "train": f"the training {NO_OBJECTS}: {NO_OBJECTS_ADVICE}",
        "validation": "the validation split has no object to measure on, so that no model could be called the best: "
        "move some images with objects to it",
    }
    for name, problem in problems.items():
        if isinstance(data[name], Dataset) and not any(
            0 in row["objects"]["iscrowd"] for row in data[name].select_columns(["objects"])
        ):
            raise locate(problem, source)


def _rows_of(stream: IterableDataset) -> Iterator[dict[str, Any]]:
    yield from stream


def build_model(
    options: RunOptions, data: Dataset | IterableDataset
) -> tuple[HfDetrForObjectDetection, HfDetrImageProcessor]:
    """Build the model that the options name, for the classes of the training data, and its image processor."""
    class_names = category_names(data)
    classes: dict[str, Any] = {
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: label for label, name in enumerate(class_names)},
        "category_ids": category_ids(data),
    }
    changes = dict(options.config_overrides)
    size: dict[str, int] | None = None
    if options.image_size is not None or options.model is None:
        size = published_size(options.image_size or default_image_size(options.preset_or_default))
    if options.model is not None:
        with clear_loading_errors(options.model):
            config = HfDetrConfig.from_pretrained(options.model)
        check_settings(config, changes)
        with clear_loading_errors(options.model):
            model, found = HfDetrForObjectDetection.from_pretrained(
                options.model, ignore_mismatched_sizes=True, output_loading_info=True, **changes, **classes
            )
            resizing: dict[str, Any] = {"size": size} if size else {}
            image_processor = HfDetrImageProcessor.from_pretrained(options.model, **resizing)
        check_shapes(options.model, found)
        if not changes:  # with other fields the model may lack weights that it needs
            check_complete(options.model, found)
        return model, image_processor

    pretrained = options.pretrained_backbone
    if pretrained is None:
        pretrained = options.preset_or_default not in SMALL_PRESETS
    check_settings(HfDetrConfig.from_preset(options.preset_or_default), changes)
    changes = {"use_pretrained_backbone": pretrained, **changes, **classes}
    config = HfDetrConfig.from_preset(options.preset_or_default, **changes)
    return HfDetrForObjectDetection(config), HfDetrImageProcessor.for_config(config, size)


def augmentation_edges(size: Mapping[str, int]) -> tuple[int, int]:
    """Return the shortest and longest edge at which images are augmented, for the `size` of an image processor.

    A processor of a fixed size resizes images to this size afterwards.
    """
    shortest = size.get("shortest_edge") or min(size.values())
    longest = size.get("longest_edge") or max(max(size.values()), published_size(shortest)["longest_edge"])
    return shortest, longest


def build_trainer(
    options: RunOptions,
    args: HfDetrTrainingArguments,
    data: Mapping[str, Dataset | IterableDataset],
    model: HfDetrForObjectDetection,
    image_processor: HfDetrImageProcessor,
) -> HfDetrTrainer:
    """Put together the trainer of a run, with augmentation, result files and pictures."""
    assert options.augmentation is not None  # `prepare_trainer` has chosen one
    train_data = undecoded(data["train"])
    edges = augmentation_edges(dict(image_processor.size))
    collators = [
        DetectionCollator(image_processor, build_augmentation(name, *edges, train_data, model.config.num_queries))
        for name in (options.augmentation, PLAIN_AUGMENTATION[options.augmentation])
    ]
    callbacks: list[TrainerCallback] = [
        ResultFiles(options.output),
        PredictionPictures(options.pictures, data["validation"]),
    ]
    if options.patience is not None:
        callbacks.append(EarlyStopping(options.patience))
    trainer = HfDetrTrainer(
        model,
        args,
        collators[0],
        train_data,
        undecoded(data["validation"]),
        image_processor,
        plain_data_collator=collators[1],
        callbacks=callbacks,
    )
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):  # by default it writes among the checkpoints, which are removed
            callback.logging_dir = str(options.output / "tensorboard")
    return trainer
