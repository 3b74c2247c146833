"""Measures how stable the matching is: the share of objects whose query changed since the last epoch or layer.

While queries compete for objects, an object goes to another query in each epoch, and each query has to learn other
objects. The share falls as the queries settle (Li et al., DN-DETR, 2022, call it "instability"). Queries that are
selected from the image have only a rank, no identity that lasts from epoch to epoch. They are settled when the
decoder's layers give an object to the same query (Liu et al., Stable-DINO, 2023, measure this).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_detr.modeling.targets import Matches

MATCHED_QUERIES = "matched_queries.safetensors"
"""The file in a checkpoint with the matches of the last and of the present epoch."""


class MatchingStability(TrainerCallback):
    """Collects the matches of the last two decoder layers and logs at the end of each epoch what changed.

    `matching_changed` is the share of objects to which the last layer gives another query than in the epoch before.
    `matching_changed_by_layer` is the share of objects to which the last layer gives another query than the layer
    before it in the same step, over the epoch.

    Objects are told apart by the `annotation_ids` of their labels, wherever augmentation moves them. An object that
    augmentation drops in one of the two epochs does not count.

    Args:
        log: the function that is called with the numbers to log.
    """

    def __init__(self, log: Callable[[dict[str, float]], None]):
        self.log = log
        # `previous` holds (annotation id, query) of the objects of the epoch before. `parts` holds (annotation id,
        # query, query in the layer before, matched) of this epoch. They stay on the device until the epoch ends:
        # reading them makes the processor wait for the device, now once an epoch and not in every step.
        self.previous = torch.empty(2, 0, dtype=torch.int64)
        self.parts: list[Tensor] = []
        self.is_resumed = False

    def observe(self, labels: Sequence[dict[str, Tensor]], matches: Matches) -> None:
        """Take the matches of a batch; labels without `annotation_ids` are passed over."""
        if not all("annotation_ids" in label for label in labels):
            return
        ids = torch.cat([label["annotation_ids"] for label in labels])
        counts = [len(label["annotation_ids"]) for label in labels]

        def of_objects(padded: Tensor) -> Tensor:
            return torch.cat([row[:count] for row, count in zip(padded, counts, strict=True)])

        last_two = [of_objects(matches.query_index[layer]) for layer in (-1, max(-2, -len(matches.query_index)))]
        self.parts.append(torch.stack([ids, *last_two, of_objects(matches.matched[-1]).to(ids)]))

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the epoch of a checkpoint that was written by its last step: `Trainer` saves before an epoch's end."""
        if self.is_resumed and state.epoch == int(state.epoch):
            self.on_epoch_end(args, state, control)
        self.is_resumed = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the shares of objects that changed their query."""
        ids, queries, before = self._gathered()
        self.parts = []
        previous, self.previous = self.previous, torch.stack([ids, queries])
        changed = share_changed(previous, self.previous)
        shares = {} if changed is None else {"matching_changed": changed}
        if len(ids):
            shares["matching_changed_by_layer"] = (queries != before).double().mean().item()
        if shares:
            self.log(shares)

    def _gathered(self) -> Tensor:
        """(3, N) annotation id and queries of the objects that all processes have seen in this epoch."""
        parts = torch.cat([part.cpu() for part in self.parts], 1) if self.parts else self.previous.new_empty(4, 0)
        *columns, matched = torch.cat(gather_object([parts]), 1)
        known = matched.bool() & (columns[0] != -1)
        return torch.stack([column[known] for column in columns])

    def save(self, folder: str | Path, should_write: bool) -> None:
        """Write the state to a checkpoint; all processes take part, those with `should_write` write."""
        current = self._gathered()
        if should_write:
            save_file({"previous": self.previous, "current": current}, Path(folder) / MATCHED_QUERIES)

    def resume(self, folder: str | Path, is_first_process: bool) -> None:
        """Take over the state of a checkpoint, if it has one. One process gets the matches of the present epoch."""
        file = Path(folder) / MATCHED_QUERIES
        if not file.is_file():
            return
        state = load_file(file)
        self.previous = state["previous"]
        self.is_resumed = True
        if is_first_process:
            current = state["current"]
            self.parts = [torch.cat([current, torch.ones_like(current[:1])])]


def share_changed(previous: Tensor, current: Tensor) -> float | None:
    """Return the share of the objects in both epochs, each (2, N) of (annotation id, query), with another query.

    None if no object is in both.
    """
    before = dict(zip(*previous.tolist(), strict=True))
    after = dict(zip(*current.tolist(), strict=True))
    both = before.keys() & after.keys()
    return sum(before[number] != after[number] for number in both) / len(both) if both else None
