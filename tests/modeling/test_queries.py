"""Which tokens become queries."""

import pytest
import torch

from hf_detr import HfDetrConfig
from hf_detr.modeling.boxes import inverse_sigmoid
from hf_detr.modeling.query_selection import SelectedQueries

# One object three times, and two others; the best first, and their order among the tokens.
BOXES = torch.tensor(
    [
        [0.30, 0.30, 0.20, 0.20],
        [0.31, 0.30, 0.20, 0.20],
        [0.70, 0.70, 0.20, 0.20],
        [0.30, 0.31, 0.20, 0.20],
        [0.35, 0.35, 0.20, 0.20],
    ]
)
TOKENS = torch.tensor([4, 0, 3, 1, 2])


@pytest.mark.parametrize(
    ("distinct_iou", "wanted", "expected"),
    [
        (1, 3, [0, 1, 2]),
        (0.7, 3, [0, 2, 4]),
        (0.7, 5, [0, 2, 4, 1, 3]),  # too few others: the repetitions come last
        (0.3, 3, [0, 2, 1]),
        (0.7, 9, [0, 2, 4, 1, 3]),  # fewer tokens than queries
    ],
)
def test_repeated_boxes_give_way(distinct_iou: float, wanted: int, expected: list[int]):
    queries = SelectedQueries(HfDetrConfig.from_preset("tiny", num_labels=2, distinct_iou=distinct_iou))
    anchors, scores = torch.empty(5, 4), torch.empty(5)
    anchors[TOKENS], scores[TOKENS] = inverse_sigmoid(BOXES, 1e-5), torch.linspace(3, -3, 5)
    # a new box head moves nothing
    selected = queries.select(scores[None], torch.zeros(1, 5, 128), anchors[None], wanted)
    assert selected.tolist() == [TOKENS[expected].tolist()]
