"""Choices of a configuration that mean nothing, alone or together, and what is said about them.

The functions take an `HfDetrConfig`, which calls them when it is made.
"""

from collections.abc import Mapping
from typing import Any


def reject_impossible(config: Any) -> None:
    """Raise ValueError for choices that contradict one another, naming the fields."""
    for broken, message in (*_rules_of_sizes(config), *_rules_of_parts(config), *_rules_of_training(config)):
        if broken:
            raise ValueError(f"HfDetrConfig: {message}")


def _rules_of_sizes(config: Any) -> tuple[tuple[object, str], ...]:
    """Numbers that are too small or do not fit together, each with what to say when it is so."""
    return (
        (config.num_labels < 1, "there is no class; id2label names each, or num_labels counts them."),
        (config.num_queries < 1, f"num_queries={config.num_queries}: at least 1 is needed."),
        (config.decoder_layers < 1, f"decoder_layers={config.decoder_layers}: at least 1 is needed."),
        (
            config.d_model % config.encoder_attention_heads or config.d_model % config.decoder_attention_heads,
            f"d_model={config.d_model} must be a multiple of encoder_attention_heads="
            f"{config.encoder_attention_heads} and of decoder_attention_heads={config.decoder_attention_heads}.",
        ),
        (config.d_model % 4, f"d_model={config.d_model}: a multiple of 4 is needed by the position embeddings."),
        (
            config.encoder == "dense" and config.num_feature_levels != 1,
            f"num_feature_levels={config.num_feature_levels}: encoder='dense' takes 1 level.",
        ),
        (
            len(set((config.category_ids or {}).values())) < len(config.category_ids or {}),
            f"category_ids={config.category_ids}: each class needs an id of its own.",
        ),
    )


def _rules_of_parts(config: Any) -> tuple[tuple[object, str], ...]:
    """Parts that do not work with one another, each with what to say when it is so."""
    return (
        (
            (config.encoder == "deformable") != (config.cross_attention == "deformable"),
            f"encoder='{config.encoder}' and cross_attention='{config.cross_attention}': both are 'deformable' or "
            "neither is.",
        ),
        (
            config.cross_attention != "dense" and config.query_reference == "none",
            f"query_reference='none': cross_attention='{config.cross_attention}' needs 'point', 'box' or 'selected'.",
        ),
        (
            config.box_refinement != "none" and config.query_reference == "none",
            f"box_refinement='{config.box_refinement}' refines references; query_reference is 'none'.",
        ),
        (
            config.query_position == "sine" and config.query_reference not in ("box", "selected"),
            f"query_position='sine' embeds a reference box; query_reference is '{config.query_reference}', allowed "
            "are 'box' and 'selected'.",
        ),
        (
            config.query_reference == "selected" and config.encoder != "deformable",
            "query_reference='selected' takes proposals from encoder='deformable'.",
        ),
        (
            not 0 < config.distinct_iou <= 1 or (config.distinct_iou < 1 and config.query_reference != "selected"),
            f"distinct_iou={config.distinct_iou}, query_reference='{config.query_reference}': above 0 and at most 1 "
            "is allowed, and below 1 the boxes of query_reference='selected'.",
        ),
        (
            config.query_content in ("memory", "token") and config.query_reference != "selected",
            f"query_content='{config.query_content}' is that of selected proposals; query_reference is "
            f"'{config.query_reference}', allowed is 'selected'.",
        ),
    )


def _rules_of_training(config: Any) -> tuple[tuple[object, str], ...]:
    """What training adds to parts that cannot have it, each with what to say when it is so."""
    return (
        (
            config.denoising != "none" and config.query_position != "sine",
            f"denoising='{config.denoising}' adds queries by their boxes: query_position='sine' is needed.",
        ),
        (
            config.denoising != "none" and config.classification == "softmax",
            f"denoising='{config.denoising}' needs a sigmoid per class; classification is 'softmax', allowed are "
            "'focal', 'varifocal' and 'matchability'.",
        ),
        (
            config.query_content == "token" and config.denoising == "dn",
            "query_content='token' leaves no feature free to mark denoising='dn' queries; allowed are 'none' and "
            "'contrastive'.",
        ),
    )


def check_labels(id2label: Any) -> None:
    """Raise ValueError when `id2label` is no dict or its keys are not the numbers from 0 on; JSON has them as text."""
    if not isinstance(id2label, Mapping):
        raise ValueError(
            f"HfDetrConfig: id2label={id2label!r} is of type {type(id2label).__name__}; a dict from each label to the "
            "name of its class was expected, such as {0: 'cat', 1: 'dog'}."
        )
    try:
        numbers = {int(key): name for key, name in id2label.items()}
    except (TypeError, ValueError):
        numbers = dict(enumerate(id2label))
        unfit = True
    else:
        unfit = sorted(numbers) != list(range(len(id2label)))
    if not unfit:
        return
    names = [numbers[number] for number in sorted(numbers)]
    written = ", ".join(f"{label}: {name!r}" for label, name in enumerate(names[:5]))
    more = ", …" if len(names) > 5 else ""
    raise ValueError(
        f"HfDetrConfig: the keys of id2label are {', '.join(map(repr, list(id2label)[:5]))}{more}, but labels are the "
        f"numbers from 0 to {len(id2label) - 1}. Write id2label={{{written}{more}}} and number the class labels of "
        "the data in this way."
    )
