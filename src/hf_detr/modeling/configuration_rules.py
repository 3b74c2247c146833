"""Fields of a configuration that do not exist, and choices that mean nothing, alone or together."""

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any

# What PreTrainedConfig itself accepts beyond its declared fields.
_INHERITED_KEYWORDS = {
    "_commit_hash",
    "_experts_implementation_internal",
    "_attn_implementation_internal",
    "attn_implementation",
    "auto_map",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "torch_dtype",
    "transformers_version",
    "use_cache",  # written by every Trainer
    "use_return_dict",
}

# Each row tells when choices mean nothing, and what the error says.
_RULES: tuple[tuple[Callable[[Any], object], str], ...] = (
    # Numbers are too small or do not fit together.
    (lambda c: c.num_labels < 1, "there is no class; id2label names each, or num_labels counts them."),
    (lambda c: c.num_queries < 1, "num_queries={c.num_queries}: at least 1 is needed."),
    (lambda c: c.decoder_layers < 1, "decoder_layers={c.decoder_layers}: at least 1 is needed."),
    (
        lambda c: c.d_model % c.encoder_attention_heads or c.d_model % c.decoder_attention_heads,
        "d_model={c.d_model} must be a multiple of encoder_attention_heads={c.encoder_attention_heads} and of "
        "decoder_attention_heads={c.decoder_attention_heads}.",
    ),
    (lambda c: c.d_model % 4, "d_model={c.d_model}: a multiple of 4 is needed by the position embeddings."),
    (
        lambda c: c.encoder == "dense" and c.num_feature_levels != 1,
        "num_feature_levels={c.num_feature_levels}: encoder='dense' takes 1 level.",
    ),
    (
        lambda c: len(set((c.category_ids or {}).values())) < len(c.category_ids or {}),
        "category_ids={c.category_ids}: each class needs an id of its own.",
    ),
    # Parts do not work with one another.
    (
        lambda c: (c.encoder == "deformable") != (c.cross_attention == "deformable"),
        "encoder='{c.encoder}' and cross_attention='{c.cross_attention}': both are 'deformable' or neither is.",
    ),
    (
        lambda c: c.cross_attention != "dense" and c.query_reference == "none",
        "query_reference='none': cross_attention='{c.cross_attention}' needs 'point', 'box' or 'selected'.",
    ),
    (
        lambda c: c.box_refinement != "none" and c.query_reference == "none",
        "box_refinement='{c.box_refinement}' refines references; query_reference is 'none'.",
    ),
    (
        lambda c: c.query_position == "sine" and c.query_reference not in ("box", "selected"),
        "query_position='sine' embeds a reference box; query_reference is '{c.query_reference}', allowed are "
        "'box' and 'selected'.",
    ),
    (
        lambda c: c.query_reference == "selected" and c.encoder != "deformable",
        "query_reference='selected' takes proposals from encoder='deformable'.",
    ),
    (
        lambda c: not 0 < c.distinct_iou <= 1 or (c.distinct_iou < 1 and c.query_reference != "selected"),
        "distinct_iou={c.distinct_iou}, query_reference='{c.query_reference}': above 0 and at most 1 is allowed, "
        "and below 1 the boxes of query_reference='selected'.",
    ),
    (
        lambda c: c.query_content in ("memory", "token") and c.query_reference != "selected",
        "query_content='{c.query_content}' is made from selected proposals; query_reference is "
        "'{c.query_reference}', allowed is 'selected'.",
    ),
    # Training adds something to parts that cannot have it.
    (
        lambda c: c.denoising != "none" and c.query_position != "sine",
        "denoising='{c.denoising}' adds queries by their boxes: query_position='sine' is needed.",
    ),
    (
        lambda c: c.denoising != "none" and c.classification == "softmax",
        "denoising='{c.denoising}' needs a sigmoid per class; classification is 'softmax', allowed are 'focal', "
        "'varifocal' and 'matchability'.",
    ),
    (
        lambda c: c.query_content == "token" and c.denoising == "dn",
        "query_content='token' leaves no feature free to mark denoising='dn' queries; allowed are 'none' and "
        "'contrastive'.",
    ),
)


def reject_impossible(config: Any) -> None:
    """Raise ValueError for choices of an `HfDetrConfig` that contradict one another, naming the fields."""
    for is_broken, message in _RULES:
        if is_broken(config):
            raise ValueError(f"HfDetrConfig: {message.format(c=config)}")


def reject_unknown(keywords: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ValueError for keywords that are no field; the nearest names are suggested."""
    for key in keywords:
        if key in _INHERITED_KEYWORDS or key in known:
            continue
        nearest = difflib.get_close_matches(key, known, n=3)
        hint = f" Did you mean {' or '.join(nearest)}?" if nearest else ""
        raise ValueError(f"HfDetrConfig has no field '{key}' (given {key}={keywords[key]!r}).{hint}")


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
