"""Training arguments with the defaults of the DETR family."""

from dataclasses import dataclass, field

import torch
from transformers import SchedulerType, TrainingArguments


@dataclass
class HfDetrTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` whose defaults are right for DETR models.

    Weight decay, gradient clipping and the base learning rate are those of the DETR paper (Carion et al., 2020); the
    step schedule of its 300-epoch runs is replaced by warm-up and cosine decay, which need no tuning to the length.
    """

    backbone_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the backbone. Without it, the backbone's entry in the model configuration's "
            "learning_rate_multipliers times learning_rate; a backbone that starts at random gets learning_rate."
        },
    )
    plain_epochs_share: float = field(
        default=0.15,
        metadata={
            "help": "The share of the epochs, the last ones, that the trainer's plain_data_collator runs in: strong "
            "augmentation is switched off before the end."
        },
    )
    max_skipped_steps: int = field(
        default=10,
        metadata={"help": "Training stops with an error after this many steps in a row without a finite loss."},
    )
    ema: bool = field(
        default=True,
        metadata={
            "help": "Evaluate and save a moving average of the weights. Not with FSDP or DeepSpeed, which cut the "
            "weights into pieces."
        },
    )
    ema_share: float = field(
        default=0.02,
        metadata={
            # 0.9999 over the 0.5M steps that real-time detectors of the family are published with is 2% of them.
            "help": "The share of the run's optimizer steps that the moving average looks back over."
        },
    )
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    max_grad_norm: float = 0.1
    lr_scheduler_type: SchedulerType | str = "cosine"
    warmup_steps: float = 0.05
    # Only copies to an accelerator gain from it; elsewhere torch warns.
    dataloader_pin_memory: bool = field(default_factory=torch.cuda.is_available)
    # The image and objects columns are no arguments of the model, but the collator needs them.
    remove_unused_columns: bool | None = False
