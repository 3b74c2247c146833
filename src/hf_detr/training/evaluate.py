"""One evaluation of a model folder on a data set, as `hf-detr eval` runs it."""

import tempfile
from typing import Any

from hf_detr.data import load_detection_data, undecoded
from hf_detr.files import write_json
from hf_detr.prediction import load_detector
from hf_detr.ranks import one_rank_first, process_group, rank

from .arguments import HfDetrTrainingArguments
from .options import EvaluationOptions
from .trainer import HfDetrTrainer


def run_evaluation(options: EvaluationOptions) -> dict[str, Any]:
    """Evaluate a model on a split; return the result of `CocoMetrics`, which is also written where `output` says.

    Raises:
        ValueError: the data, the split or the model cannot be used.
    """
    with process_group(), tempfile.TemporaryDirectory() as scratch:
        with one_rank_first():
            splits = load_detection_data(options.data, options.seed, options)
            if options.split not in splits:
                raise ValueError(f"{options.data} has no split '{options.split}'; it has {', '.join(splits)}")
            detector, image_processor = load_detector(options.model)
        args = HfDetrTrainingArguments(scratch, per_device_eval_batch_size=options.batch_size)
        trainer = HfDetrTrainer(detector, args, processing_class=image_processor)
        result = trainer.evaluate_by_class(undecoded(splits[options.split]))
        if options.output is not None and rank() == 0:
            write_json(options.output, result)
        return result
