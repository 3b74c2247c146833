"""Fine-tune a detector with the Trainer.

    python examples/finetune_with_trainer.py --data path/to/coco/folder --output blood-cells
    torchrun --nproc_per_node 8 examples/finetune_with_trainer.py …

`hf-detr train` does the same with a recipe of its own; start from this file to change anything.
"""

import argparse

from transformers import set_seed

from hf_detr.data import DetectionCollator, DetrAugmentation, category_names, load_detection_data, undecoded
from hf_detr.evaluation import format_table
from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.processing.image_processing import HfDetrImageProcessor
from hf_detr.training import HfDetrTrainer, HfDetrTrainingArguments, PredictionPictures, ResultFiles


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic", help="a folder of detection data, or 'synthetic'")
    parser.add_argument("--output", default="trainer-output", help="the folder for checkpoints and the model")
    parser.add_argument("--model", help="a model folder or repository to start from, instead of --preset")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--image-size", type=int, default=256, help="shortest edge in pixels")
    parser.add_argument("--epochs", type=float, default=50)
    parser.add_argument("--batch-size", type=int, default=4, help="images per device")
    parser.add_argument("--accumulation", type=int, default=1, help="batches per optimizer step")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    set_seed(options.seed)

    # 1. Data: every layout becomes the same columns. `undecoded` leaves decoding to the workers of the data loader.
    data = load_detection_data(options.data, seed=options.seed)
    names = category_names(data["train"])

    # 2. Model and image processor. A model that knows other classes gets a new head for ours.
    classes = {"id2label": dict(enumerate(names)), "label2id": {name: label for label, name in enumerate(names)}}
    if options.model:
        model = HfDetrForObjectDetection.from_pretrained(options.model, ignore_mismatched_sizes=True, **classes)
        image_processor = HfDetrImageProcessor.from_pretrained(options.model)
    else:
        config = HfDetrConfig.from_preset(options.preset, **classes)
        model = HfDetrForObjectDetection(config)
        image_processor = HfDetrImageProcessor.for_config(config, size=options.image_size)

    # 3. Training. The defaults of these arguments come from the DETR papers.
    args = HfDetrTrainingArguments(
        output_dir=options.output,
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulation,
        learning_rate=options.learning_rate,
        seed=options.seed,
        logging_steps=20,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="AP",
    )
    augmentation = DetrAugmentation(**dict(image_processor.size))
    trainer = HfDetrTrainer(
        model,
        args,
        data_collator=DetectionCollator(image_processor, augmentation),
        train_dataset=undecoded(data["train"]),
        eval_dataset=undecoded(data["validation"]),
        processing_class=image_processor,
        callbacks=[
            ResultFiles(options.output),
            PredictionPictures(f"{options.output}/pictures", data["validation"]),
        ],
    )
    trainer.train()

    # 4. The best model, its metrics, and a folder that `pipeline("object-detection", model=…)` loads.
    result = trainer.evaluate_by_class()
    trainer.save_model(options.output)
    if trainer.is_world_process_zero():
        print(format_table(result))


if __name__ == "__main__":
    main()
