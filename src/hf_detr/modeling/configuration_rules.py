"""Fields of a configuration that do not exist, and choices that mean nothing, alone or together."""

import difflib
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

# What PreTrainedConfig itself accepts beyond its declared fields. Every Trainer writes `use_cache`.
_INHERITED_KEYWORDS = (
    "_commit_hash _experts_implementation_internal _attn_implementation_internal attn_implementation auto_map "
    "experts_implementation model_type name_or_path num_labels output_attentions torch_dtype transformers_version "
    "use_cache use_return_dict"
)

# Each row: what the numbers of the fields must be, in words and as a test, and the fields. No number may be infinite.
_RANGES: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("1 or more", lambda n: n >= 1, "d_model num_channels num_queries encoder_n_points decoder_n_points"),
    ("1 or more", lambda n: n >= 1, "decoder_layers encoder_attention_heads decoder_attention_heads"),
    ("1 or more", lambda n: n >= 1, "encoder_ffn_dim decoder_ffn_dim"),
    ("from 1 to 8", lambda n: 1 <= n <= 8, "num_feature_levels"),
    ("0 or more", lambda n: n >= 0, "encoder_layers num_denoising box_noise_scale class_cost bbox_cost giou_cost"),
    ("0 or more", lambda n: n >= 0, "class_loss_coefficient bbox_loss_coefficient giou_loss_coefficient"),
    ("0 or more", lambda n: n >= 0, "eos_coefficient"),
    ("-1 or more", lambda n: n >= -1, "frozen_stages"),
    ("above 0", lambda n: n > 0, "position_temperature"),
    ("a finite number", lambda n: True, "position_offset"),
    ("above 0 and below 0.5", lambda n: 0 < n < 0.5, "inverse_sigmoid_eps"),
    ("above 0 and at most 1", lambda n: 0 < n <= 1, "distinct_iou"),
    ("from 0 to 1", lambda n: 0 <= n <= 1, "focal_alpha label_noise_ratio"),
    ("at least 0 and below 1", lambda n: 0 <= n < 1, "dropout attention_dropout activation_dropout"),
)

# Each row tells when choices mean nothing, and what the error says.
_RULES: tuple[tuple[Callable[[Any], object], str], ...] = (
    # Numbers are too small or do not fit together.
    (lambda c: c.num_labels < 1, "there is no class; id2label names each, or num_labels counts them."),
    (
        lambda c: c.d_model % c.encoder_attention_heads or c.d_model % c.decoder_attention_heads,
        "d_model={c.d_model} must be a multiple of encoder_attention_heads={c.encoder_attention_heads} and of "
        "decoder_attention_heads={c.decoder_attention_heads}.",
    ),
    (lambda c: c.d_model % 4, "d_model={c.d_model}: a multiple of 4 is needed by the position embeddings."),
    (
        lambda c: c.encoder == "deformable" and c.d_model % 32,
        "d_model={c.d_model}: a multiple of 32 is needed by the group norms before encoder='deformable'.",
    ),
    (
        lambda c: c.encoder == "dense" and c.num_feature_levels != 1,
        "num_feature_levels={c.num_feature_levels}: encoder='dense' takes 1 level.",
    ),
    (
        lambda c: len(set((c.category_ids or {}).values())) < len(c.category_ids or {}),
        "category_ids={c.category_ids}: each class needs an id of its own.",
    ),
    (
        lambda c: (
            not all(isinstance(n, int | float) and 0 <= n < math.inf for n in c.learning_rate_multipliers.values())
        ),
        "learning_rate_multipliers={c.learning_rate_multipliers}: each factor must be a number of 0 or more.",
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
        lambda c: c.distinct_iou < 1 and c.query_reference != "selected",
        "distinct_iou={c.distinct_iou}, query_reference='{c.query_reference}': below 1 is allowed only with "
        "query_reference='selected'.",
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
    """Raise ValueError for numbers of an `HfDetrConfig` out of their range and choices that contradict one another."""
    for allowed, is_allowed, fields in _RANGES:
        for field in fields.split():
            number = getattr(config, field)
            if not (math.isfinite(number) and is_allowed(number)):
                raise ValueError(f"HfDetrConfig: {field}={number!r}: allowed is {allowed}.")
    _check_activation(config.activation_function)
    for is_broken, message in _RULES:
        if is_broken(config):
            raise ValueError(f"HfDetrConfig: {message.format(c=config)}")


def _check_activation(name: str) -> None:
    """Raise ValueError for a function that transformers does not have; the nearest names are suggested."""
    from transformers.activations import ACT2FN  # imported late, because it loads torch

    if name not in ACT2FN:
        nearest = difflib.get_close_matches(name, ACT2FN, n=3)
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known are {', '.join(ACT2FN)}."
        raise ValueError(f"HfDetrConfig: activation_function={name!r} is not known; {hint}")


def reject_unknown(keywords: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise ValueError for keywords that are no field; the nearest names are suggested."""
    for key in keywords:
        if key in _INHERITED_KEYWORDS.split() or key in known:
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
        if sorted(numbers) == list(range(len(id2label))):
            return
    except (TypeError, ValueError):
        numbers = dict(enumerate(id2label))
    names = [numbers[number] for number in sorted(numbers)]
    written = ", ".join(f"{label}: {name!r}" for label, name in enumerate(names[:5]))
    more = ", …" if len(names) > 5 else ""
    raise ValueError(
        f"HfDetrConfig: the keys of id2label are {', '.join(map(repr, list(id2label)[:5]))}{more}, but labels are the "
        f"numbers from 0 to {len(id2label) - 1}. Write id2label={{{written}{more}}} and number the class labels of "
        "the data in this way."
    )
