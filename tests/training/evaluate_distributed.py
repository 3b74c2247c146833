"""Train and evaluate on however many processes `torchrun` starts; a test compares what comes out.

Usage: torchrun … evaluate_distributed.py OUTPUT.json
"""

import json
import math
import os
import sys
import tempfile

import torch

from hf_detr.data import DetectionCollator, category_names, make_synthetic_dataset
from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.processing.image_processing import HfDetrImageProcessor
from hf_detr.training import HfDetrTrainer, HfDetrTrainingArguments

POISONED_IMAGE = 6


class Poison(DetectionCollator):
    """Makes the pixels of one image NaN."""

    def __call__(self, rows):
        batch = super().__call__(rows)
        if any(row["image_id"] == POISONED_IMAGE for row in rows):
            batch["pixel_values"].fill_(float("nan"))
        return batch


class Answering(HfDetrForObjectDetection):
    """In evaluation, finds the objects of the labels, moved by a noise that is the image's own."""

    def forward(self, pixel_values, pixel_mask=None, labels=None, num_boxes=None, num_images=None):
        outputs = super().forward(pixel_values, pixel_mask, labels, num_boxes, num_images)
        if not self.training:
            for image, label in enumerate(labels):
                count = len(label["boxes"])
                noise = torch.rand(count, 5, generator=torch.Generator().manual_seed(label["image_id"].item()))
                outputs.pred_boxes[image, :count] = label["boxes"] * (0.75 + noise[:, :4] / 2)
                outputs.logits[image, range(count), label["class_labels"]] += 20 * noise[:, 4]
        return outputs


def run() -> dict:
    """Train and evaluate; return what must not depend on the number of processes."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    train = make_synthetic_dataset(8, 64, max_objects=4)
    validation = make_synthetic_dataset(7, 64, max_objects=4, first_image_id=2**24 + 1)
    torch.manual_seed(0)
    model = Answering(
        HfDetrConfig(
            backbone="test_resnet", d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32,
            decoder_ffn_dim=32, num_queries=10, dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
            id2label=dict(enumerate(category_names(train))),
        )
    )  # fmt: skip
    image_processor = HfDetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})
    with tempfile.TemporaryDirectory() as folder:
        args = HfDetrTrainingArguments(
            folder, use_cpu=True, disable_tqdm=True, save_strategy="no", max_steps=8, logging_steps=1,
            per_device_train_batch_size=2 // processes, per_device_eval_batch_size=2,
            train_sampling_strategy="sequential", learning_rate=1e-3, ema_share=0.5,
        )  # fmt: skip
        trainer = HfDetrTrainer(model, args, Poison(image_processor), train, validation, image_processor)
        metrics = trainer.evaluate()
        trainer.train()
    history = [row for row in trainer.state.log_history if "loss" in row]
    return {
        "processes": trainer.args.world_size,
        "metrics": {name: value for name, value in metrics.items() if name.startswith("eval_A")},
        "losses": [[row["loss"], row.get("loss_ce"), row.get("loss_giou_0")] for row in history[:3]],
        "averaged_norms": [value.double().norm().item() for value in trainer.model.state_dict().values()],
        "matching_changed": [
            row["matching_changed"] for row in trainer.state.log_history if "matching_changed" in row
        ],
        "gradient_norm": history[0]["grad_norm"],
        "loss_is_nan": [math.isnan(row["loss"]) for row in history],
    }


if __name__ == "__main__":
    result = run()
    if os.environ["RANK"] == "0":
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump(result, file)
    torch.distributed.destroy_process_group()
