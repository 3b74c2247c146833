"""Box formats, overlaps and the logit of box coordinates.

Inside the project a box is (centre x, centre y, width, height), normalised by the size of the image.
Every function broadcasts over leading dimensions and keeps dtype and device.
"""

import torch
from torch import Tensor


def box_cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre x, centre y, width, height → left, top, right, bottom."""
    centre, size = boxes.split(2, dim=-1)
    return torch.cat([centre - 0.5 * size, centre + 0.5 * size], dim=-1)


def box_xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """(..., 4) left, top, right, bottom → centre x, centre y, width, height."""
    top_left, bottom_right = boxes.split(2, dim=-1)
    return torch.cat([(top_left + bottom_right) * 0.5, bottom_right - top_left], dim=-1)


def box_area(boxes_xyxy: Tensor) -> Tensor:
    """Areas (...) of boxes (..., 4) given as left, top, right, bottom."""
    left, top, right, bottom = boxes_xyxy.unbind(-1)
    return (right - left) * (bottom - top)


def box_iou(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Element-wise intersection over union of two broadcastable sets of xyxy boxes.

    Each coordinate is computed on its own, which is several times faster where the coordinates of all boxes lie side
    by side (`planar`).

    Returns:
        (iou, union area), each of the broadcast shape without the last dimension. Two empty boxes have IoU 0.
    """
    left1, top1, right1, bottom1 = boxes1_xyxy.unbind(-1)
    left2, top2, right2, bottom2 = boxes2_xyxy.unbind(-1)
    width = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(min=0)
    height = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp(min=0)
    intersection = width * height
    union = box_area(boxes1_xyxy) + box_area(boxes2_xyxy) - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny), union


def generalised_box_iou(boxes1_xyxy: Tensor, boxes2_xyxy: Tensor) -> Tensor:
    """Element-wise generalised IoU (Rezatofighi et al. 2019) of two broadcastable sets of xyxy boxes, in [-1, 1]."""
    iou, union = box_iou(boxes1_xyxy, boxes2_xyxy)
    left1, top1, right1, bottom1 = boxes1_xyxy.unbind(-1)
    left2, top2, right2, bottom2 = boxes2_xyxy.unbind(-1)
    width = (torch.maximum(right1, right2) - torch.minimum(left1, left2)).clamp(min=0)
    height = (torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2)).clamp(min=0)
    hull_area = width * height
    return iou - (hull_area - union) / hull_area.clamp(min=torch.finfo(union.dtype).tiny)


def planar(boxes: Tensor) -> Tensor:
    """The same (..., 4) boxes, laid out in memory one coordinate after the other."""
    last = boxes.ndim - 1  # counted from the front, because torch.onnx.export(dynamo=False) writes -1 as it stands
    return boxes.movedim(last, 0).contiguous().movedim(0, last)


def inverse_sigmoid(probabilities: Tensor, eps: float) -> Tensor:
    """Logit of values in [0, 1], with both the value and its complement kept above `eps`."""
    probabilities = probabilities.clamp(0, 1)
    return torch.log(probabilities.clamp(min=eps) / (1 - probabilities).clamp(min=eps))
