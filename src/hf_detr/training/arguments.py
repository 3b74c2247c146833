"""Training arguments with the defaults of the DETR family."""

import math
from dataclasses import dataclass, field

import torch
from transformers import SchedulerType, TrainingArguments

from hf_detr.ranks import world_size


@dataclass
class HfDetrTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` whose defaults are right for DETR models.

    Weight decay, gradient clipping and the base learning rate have the values of the DETR paper (Carion et al., 2020).
    The paper trains 300 epochs with a step schedule; here warm-up and cosine decay take its place, because they need
    no tuning to the length of a run. Three arguments are shares of the run's optimizer steps, so that they fit a run
    of any length: the warm-up (`warmup_steps` below 1, within `warmup_bounds`), the part at the full learning rate
    (`flat_share`) and the memory of the moving average (`ema_share`).
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
    shuffle_buffer: int = field(
        default=1000,
        metadata={"help": "Rows of a stream that are shuffled at a time; they are held in memory, images undecoded."},
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
    flat_share: float = field(
        default=0.0,
        metadata={
            "help": "The share of the optimizer steps, after the warm-up, at the full learning rate: the cosine decay "
            "takes the rest. 0 is the plain cosine."
        },
    )
    warmup_bounds: tuple[int, int] = field(
        default=(20, 2000),
        metadata={
            # Adam's second moments, which look back over 1000 steps, settle in about 2000 of them.
            "help": "The fewest and the most optimizer steps of a warm-up that is given as a share of the run. A run "
            "of few steps spends no more than a tenth of them on it."
        },
    )
    decay_biases_and_norms: bool = field(
        default=True,
        metadata={"help": "Let weight decay act on biases and norms too, as published DETR models do."},
    )
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    max_grad_norm: float = 0.1
    lr_scheduler_type: SchedulerType | str = "cosine"
    warmup_steps: float = 0.05
    # The patience of early stopping goes on where a run was interrupted.
    restore_callback_states_from_checkpoint: bool = True
    # Without it, ranks on a machine that has no accelerator would each train alone: `Trainer` looks for GPUs only.
    use_cpu: bool = field(default_factory=lambda: world_size() > 1 and not torch.accelerator.is_available())
    # Only copies to an accelerator gain from it; elsewhere torch warns.
    dataloader_pin_memory: bool = field(default_factory=torch.cuda.is_available)
    # The image and objects columns are no arguments of the model, but the collator needs them.
    remove_unused_columns: bool = False

    def __post_init__(self) -> None:
        """Check the arguments that `transformers` does not know.

        Raises:
            ValueError: a share is out of its range, the bounds are in the wrong order, or `flat_share` is given for a
                schedule other than the cosine.
        """
        super().__post_init__()
        if not 0 < self.ema_share <= 1:
            raise ValueError(f"ema_share must be above 0 and at most 1, got {self.ema_share}")
        if not 0 <= self.flat_share < 1:
            raise ValueError(f"flat_share must be at least 0 and below 1, got {self.flat_share}")
        if self.flat_share and self.lr_scheduler_type != SchedulerType.COSINE:
            raise ValueError(
                f"flat_share is for the cosine schedule, not for {SchedulerType(self.lr_scheduler_type).value}"
            )
        fewest, most = self.warmup_bounds
        if not 0 <= fewest <= most:
            raise ValueError(
                f"warmup_bounds must be two numbers of steps, the smaller one first, got {(fewest, most)}"
            )

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """Return the number of optimizer steps of the warm-up in a run of `num_training_steps`."""
        if self.warmup_steps == 0 or self.warmup_steps >= 1:
            return int(self.warmup_steps)
        fewest, most = self.warmup_bounds
        share = math.ceil(self.warmup_steps * num_training_steps)
        fewest = min(fewest, num_training_steps // 10)
        return min(max(share, fewest), most)
