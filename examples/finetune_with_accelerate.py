"""Fine-tune a detector with a training loop of your own and accelerate.

python examples/finetune_with_accelerate.py --data path/to/coco/folder --output blood-cells
torchrun --nproc_per_node 8 examples/finetune_with_accelerate.py …
python examples/finetune_with_accelerate.py … --resume      # after an interruption
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup, set_seed

from hf_detr.data import DetectionCollator, DetrAugmentation, category_names, load_detection_data, undecoded
from hf_detr.evaluation import CocoMetrics, format_table
from hf_detr.evaluation.detection_evaluator import reference_objects
from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.processing.image_processing import HfDetrImageProcessor
from hf_detr.training import parameter_groups


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic", help="a folder of detection data, or 'synthetic'")
    parser.add_argument("--output", type=Path, default=Path("accelerate-output"))
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--image-size", type=int, default=256, help="shortest edge in pixels")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=4, help="images per device")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the last finished epoch in OUTPUT")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    # With a seedable sampler an epoch has one order, whatever the process and whenever it starts.
    accelerator = Accelerator(dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=0))
    set_seed(options.seed)

    data = load_detection_data(options.data, seed=options.seed)
    names = category_names(data["train"])
    config = HfDetrConfig.from_preset(options.preset, id2label=dict(enumerate(names)))
    model = HfDetrForObjectDetection(config)
    image_processor = HfDetrImageProcessor.for_config(config, size=options.image_size)

    train_loader = DataLoader(
        undecoded(data["train"]),
        batch_size=options.batch_size,
        shuffle=True,
        collate_fn=DetectionCollator(image_processor, DetrAugmentation(**dict(image_processor.size))),
    )
    validation_loader = DataLoader(
        undecoded(data["validation"]), batch_size=options.batch_size, collate_fn=DetectionCollator(image_processor)
    )
    groups = parameter_groups(model, options.learning_rate, 1e-4, config.learning_rate_multipliers)
    optimizer = torch.optim.AdamW(groups, fused=True)
    model, optimizer, train_loader, validation_loader = accelerator.prepare(
        model, optimizer, train_loader, validation_loader
    )
    # The schedule counts the steps of this process. It is not prepared by accelerate, which would step it once for
    # each process.
    steps = options.epochs * len(train_loader)
    scheduler = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=steps // 20, num_training_steps=steps)
    accelerator.register_for_checkpointing(scheduler)

    first_epoch = 0
    if options.resume:
        accelerator.load_state(str(options.output / "state"))
        first_epoch = json.loads((options.output / "epoch.json").read_text()) + 1
    for epoch in range(first_epoch, options.epochs):
        train_loader.set_epoch(epoch)
        train_epoch(accelerator, model, optimizer, scheduler, train_loader, f"epoch {epoch + 1}/{options.epochs}")
        metrics = evaluate(accelerator, model, image_processor, validation_loader, names)
        accelerator.print(f"epoch {epoch + 1}: AP {metrics['AP']:.3f}, AP50 {metrics['AP50']:.3f}")
        accelerator.save_state(str(options.output / "state"))
        if accelerator.is_main_process:
            (options.output / "epoch.json").write_text(json.dumps(epoch))

    accelerator.print(format_table(evaluate(accelerator, model, image_processor, validation_loader, names)))
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(options.output)
        image_processor.save_pretrained(options.output)
    accelerator.end_training()


def train_epoch(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    loader: DataLoader,
    title: str,
) -> None:
    """Take one step a batch. The model divides its losses by the boxes of all processes."""
    model.train()
    bar = tqdm(loader, desc=title, disable=not accelerator.is_local_main_process)
    for batch in bar:
        loss = model(**batch).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        bar.set_postfix(loss=f"{loss.item():.3f}")


@torch.no_grad()
def evaluate(
    accelerator: Accelerator,
    model: torch.nn.Module,
    image_processor: HfDetrImageProcessor,
    loader: DataLoader,
    names: list[str],
) -> dict:
    """Return the COCO metrics over all processes. Each process scores all images."""
    model.eval()
    predictions = []
    for batch in loader:
        outputs = model(pixel_values=batch["pixel_values"], pixel_mask=batch["pixel_mask"])
        sizes = torch.stack([label["orig_size"] for label in batch["labels"]])
        found = image_processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        ids = [label["image_id"].item() for label in batch["labels"]]
        # Images have different numbers of boxes, so objects are gathered and not tensors. Copies of images that fill
        # up the last batch are dropped.
        predictions += accelerator.gather_for_metrics(list(rows(ids, found)), use_gather_object=True)
    metrics = CocoMetrics(class_names=names, keep_in_memory=True)
    return metrics.compute(predictions=predictions, references=list(reference_objects(loader.dataset)))


def rows(image_ids: list[int], detections: list[dict[str, torch.Tensor]]) -> Iterator[dict]:
    """Yield one row of predictions per image, as `CocoMetrics` takes them."""
    for image_id, detection in zip(image_ids, detections, strict=True):
        yield {"image_id": image_id, **{name: value.cpu().numpy() for name, value in detection.items()}}


if __name__ == "__main__":
    main()
