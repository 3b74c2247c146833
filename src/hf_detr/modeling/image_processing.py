"""Images and COCO annotations → the tensors a model takes; its predictions → detections in pixels.

Shapes: B images, C channels, H and W the padded batch, h and w one image, T objects, Q queries, K classes.
Sizes are always (height, width). The pictures are those a viewer shows: an EXIF orientation is applied before
anything is measured, so `orig_size` and the annotations refer to the displayed image.
"""

import math
import operator
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_transforms import get_size_with_aspect_ratio, group_images_by_shape, reorder_images
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
    load_image,
)
from transformers.processing_utils import ImagesKwargs, Unpack

from .boxes import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh

# Carion et al. 2020: the shortest side is 800 pixels unless the longest would exceed 1333.
_DEFAULT_LONGEST_EDGE = 1333
_SIZE_FORMS = ({"shortest_edge", "longest_edge"}, {"shortest_edge"}, {"longest_edge"}, {"height", "width"})
_CHANNEL_COUNTS = (1, 2, 3, 4)  # grey, grey and alpha, RGB, RGB and alpha

# Keys that transformers writes into a preprocessor file beside the settings themselves.
_BOOKKEEPING_KEYS = {"image_processor_type", "feature_extractor_type", "processor_class", "auto_map"}
# Processors of published checkpoints whose files are read as if they were ours, and the classifier they imply.
_PUBLISHED_PROCESSORS = {"Detr": "softmax", "ConditionalDetr": "sigmoid", "DeformableDetr": "sigmoid"}


class HfDetrImageProcessorKwargs(ImagesKwargs, total=False):
    r"""
    max_size (`int`, *optional*):
        The longest side allowed when `size` is an integer or has a shortest edge. Folded into `size`.
    size_divisor (`int`, *optional*):
        Pad height and width up to a multiple of this number.
    classification (`str`, *optional*, defaults to `"softmax"`):
        `"softmax"` for logits with a trailing no-object class, `"sigmoid"` for one independent logit per class.
    return_segmentation_masks (`bool`, *optional*, defaults to `False`):
        Turn each object's `segmentation` into a mask.
    """

    max_size: int | None
    size_divisor: int | None
    classification: Literal["softmax", "sigmoid"] | None
    return_segmentation_masks: bool | None


class _DetectionProcessing:
    """Everything the two backends share; a backend only adds how images are resized."""

    valid_kwargs = HfDetrImageProcessorKwargs
    model_input_names = ["pixel_values", "pixel_mask"]  # noqa: RUF012
    size = {"shortest_edge": 800, "longest_edge": _DEFAULT_LONGEST_EDGE}  # noqa: RUF012
    default_to_square = False
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_convert_rgb = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_pad = True
    classification = "softmax"
    return_segmentation_masks = False

    def __init__(self, **kwargs: Unpack[HfDetrImageProcessorKwargs]) -> None:
        known = self.valid_kwargs.__annotations__
        unknown = [key for key in kwargs if key not in known and key not in _BOOKKEEPING_KEYS and key[0] != "_"]
        if unknown:
            raise ValueError(f"{type(self).__name__} has no setting {unknown}; it has {sorted(known)}.")
        super().__init__(**{key: value for key, value in kwargs.items() if key in known})

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs):
        """A processor from a saved dictionary: its own, or that of a published DETR-family checkpoint."""
        return super().from_dict(_translate_published(image_processor_dict, cls.valid_kwargs), **kwargs)

    def preprocess(
        self,
        images: ImageInput,
        annotations: Mapping | Sequence[Mapping] | None = None,
        **kwargs: Unpack[HfDetrImageProcessorKwargs],
    ) -> BatchFeature:
        """Prepare images, and optionally their annotations, for a model.

        Args:
            images: one image, a (nested) list of them, or a 4-dimensional batch. An image is a PIL image of any mode,
                a path or URL, a NumPy array (HWC, CHW or HW) or a tensor (CHW, HWC or HW) with 1 to 4 channels.
                Transparency is composited on white, grey is repeated, 16-bit integers are divided by 257. Floats lie
                in 0..1 or, if any value exceeds 1, in 0..255; with `do_rescale=False` they are taken as they stand.
            annotations: one per image, each `{"image_id": int, "annotations": [object, ...]}` in the COCO detection
                format: an object has `bbox` (left, top, width, height in pixels of the displayed image),
                `category_id` (0..K-1), `area`, and optionally `id`, `iscrowd` and `segmentation` (polygons or RLE).
            kwargs: any setting of the processor, for this call only, and `return_tensors`.

        Returns:
            `pixel_values` (B, 3, H, W) float32, padded at the right and bottom; `pixel_mask` (B, H, W) int64, 1 where
            a pixel is real (absent with `do_pad=False`); with annotations, `labels`: per image `class_labels` (T,)
            int64, `boxes` (T, 4) float32 (centre x, centre y, width, height relative to the unpadded image),
            `area` (T,) float32 in pixels after resizing, `iscrowd` (T,) int64, `annotation_ids` (T,) int64, -1 for an
            object without `id`, `image_id` (1,), `size` (2,) after
            resizing and before padding, `orig_size` (2,), and on request `masks` (T, H, W) bool.
            Crowds and boxes without width or height get no label; boxes are clipped to the image.

        Raises:
            ValueError: an image or annotation that cannot be read as described; the message names it.
        """
        return super().preprocess(images, annotations, **kwargs)

    def process_image(
        self,
        image: Any,
        do_convert_rgb: bool | None = True,
        do_rescale: bool | None = True,
        input_data_format: str | ChannelDimension | None = None,
        device: str | torch.device | None = None,
        name: str = "image",
        **kwargs,
    ) -> Tensor:
        """One image → (C, h, w) uint8, or float32 if it came as floats; on the 0..255 scale unless left unscaled."""
        if isinstance(image, str | os.PathLike):
            image = _open(image, name)
        prefer_channels_last = not isinstance(image, Tensor)
        if isinstance(image, PIL.Image.Image):
            image = _decode(image, do_convert_rgb, name)
            input_data_format = ChannelDimension.LAST
        if isinstance(image, np.ndarray):
            image = _tensor_from_array(image, name)
        if not isinstance(image, Tensor):
            raise ValueError(f"{name}: expected a PIL image, NumPy array or tensor, got {type(image).__name__}.")
        image = _channels_first(image, input_data_format, prefer_channels_last, name)
        image = _eight_bit_scale(image.to(device), do_rescale, name)
        return _to_rgb(image, name) if do_convert_rgb else image

    def post_process_object_detection(
        self,
        outputs: Any,
        threshold: float = 0.5,
        target_sizes: Tensor | Sequence[Sequence[int]] | None = None,
        top_k: int | None = None,
    ) -> list[dict[str, Tensor]]:
        """Turn the predictions of a model into detections, best first.

        Softmax models give the best real class of each query; sigmoid models give the best query and class pairs, so
        one query may appear with several classes (Zhu et al. 2021).

        Args:
            outputs: with `logits` (B, Q, K + 1 if softmax else K) and `pred_boxes` (B, Q, 4), normalised centre x,
                centre y, width, height.
            threshold: only scores above it are kept.
            target_sizes: (height, width) of each image, a (B, 2) tensor or a list; without it boxes stay relative.
            top_k: the largest number of detections per image before the threshold: by default all queries for
                softmax, 100 for sigmoid.

        Returns:
            Per image `scores` (N,) float32, `labels` (N,) int64 and `boxes` (N, 4) float32, left, top, right, bottom,
            clipped to the image.

        Raises:
            ValueError: shapes or counts that do not fit together.
        """
        logits, boxes = outputs.logits.float(), outputs.pred_boxes.float()
        if logits.ndim != 3 or boxes.shape != (*logits.shape[:2], 4):
            raise ValueError(
                f"logits of shape (B, Q, classes) and pred_boxes of shape (B, Q, 4) are expected, "
                f"got {tuple(logits.shape)} and {tuple(boxes.shape)}."
            )
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}.")
        best = _best_of_softmax if self.classification == "softmax" else _best_of_sigmoid
        scores, labels, queries = best(logits, top_k)
        boxes = boxes.gather(1, queries[..., None].expand(-1, -1, 4))
        boxes = box_cxcywh_to_xyxy(boxes).clamp(0, 1) * _box_scale(target_sizes, boxes)
        return [
            {"scores": s[keep], "labels": c[keep], "boxes": b[keep]}
            for s, c, b, keep in zip(scores, labels, boxes, scores > threshold, strict=True)
        ]

    def _standardize_kwargs(
        self,
        size: Any = None,
        max_size: int | None = None,
        size_divisor: int | None = None,
        classification: str | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        if isinstance(size, int) and not kwargs.get("default_to_square"):
            size = {"shortest_edge": size, "longest_edge": _DEFAULT_LONGEST_EDGE if max_size is None else max_size}
        elif max_size is not None:
            if not isinstance(size, dict | SizeDict) or "shortest_edge" not in size:
                raise ValueError(f"max_size={max_size} needs a size with a shortest edge, got size={size}.")
            size = {"shortest_edge": size["shortest_edge"], "longest_edge": max_size}
        settings = super()._standardize_kwargs(size=size, **kwargs)
        if settings["size"] is not None:
            _check_size(settings["size"])
        if size_divisor is not None and size_divisor < 1:
            raise ValueError(f"size_divisor must be at least 1, got {size_divisor}.")
        if classification not in ("softmax", "sigmoid"):
            raise ValueError(f"classification must be 'softmax' or 'sigmoid', got {classification!r}.")
        if settings.get("do_center_crop"):
            raise ValueError("do_center_crop=True is not supported: it would cut objects off the annotations.")
        # max_size now lives in size, and must not stay behind as a second source
        return settings | {"max_size": None, "size_divisor": size_divisor, "classification": classification}

    def _preprocess_image_like_inputs(self, images: ImageInput, annotations: Any, **kwargs) -> BatchFeature:
        named_images = list(_flatten(images))
        if not named_images:
            raise ValueError("images: expected at least one image, got an empty list.")
        tensors = [self.process_image(image, name=name, **kwargs) for name, image in named_images]
        channels = [len(tensor) for tensor in tensors]
        if len(set(channels)) > 1:  # only possible with do_convert_rgb=False
            raise ValueError(f"images: expected equally many channels in each, got {channels}.")
        return self._preprocess(tensors, annotations, **kwargs)

    def _preprocess(
        self,
        images: list[Tensor],
        annotations: Any,
        *,
        do_resize: bool,
        size: SizeDict,
        resample: PILImageResampling | int,
        do_pad: bool,
        pad_size: SizeDict | None,
        size_divisor: int | None,
        disable_grouping: bool | None,
        return_segmentation_masks: bool | None,
        return_tensors: str | None,
        **kwargs,
    ) -> BatchFeature:
        original_sizes = [tuple(image.shape[-2:]) for image in images]
        sizes = [_resized_size(original, size) for original in original_sizes] if do_resize else original_sizes
        canvases = _canvas_sizes(sizes, size if do_resize else None, pad_size, size_divisor) if do_pad else sizes
        if return_tensors is not None and len(set(canvases)) > 1:
            raise ValueError(
                f"Images of sizes {sorted(set(canvases))} do not make one tensor: leave do_pad=True, use one fixed "
                "size, or return_tensors=None for a list."
            )
        labels = None
        if annotations is not None:
            geometry = list(zip(original_sizes, sizes, canvases, strict=True))
            labels = _read_annotations(annotations, geometry, bool(return_segmentation_masks), images[0].device)
        if do_resize:
            images = self._resize_images(images, size, resample, disable_grouping)

        data: dict[str, Any] = {"pixel_values": _normalise(images, canvases, as_batch=do_pad, **kwargs)}
        if do_pad:
            data["pixel_mask"] = _pixel_mask(sizes, canvases[0], images[0].device)
        batch = BatchFeature(data, tensor_type=return_tensors)
        if labels is not None:
            batch["labels"] = [BatchFeature(label, tensor_type=return_tensors) for label in labels]
        return batch


class HfDetrImageProcessor(_DetectionProcessing, TorchvisionBackend):
    """Image processor of every model of the family; resizes with torchvision, on `device` if one is given.

    Args:
        size: how images are resized.
            `{"shortest_edge": s, "longest_edge": l}` (the default, 800 and 1333; an integer `size` with `max_size`
            means the same): the shortest side becomes s unless the longest would exceed l.
            `{"height": h, "width": w}`: exactly this size, whatever the aspect ratio.
            `{"longest_edge": n}`: letterbox, the longest side becomes n and the image is padded to n × n.
            Fixed and letterboxed sizes are what `pipeline(..., batch_size=n)` needs for images of mixed sizes.
        pad_size: `{"height", "width"}` to pad to, instead of the largest image of the batch.
        size_divisor: pad up to a multiple of this number.
        classification: how `post_process_object_detection` reads logits: "softmax" (a trailing no-object class) or
            "sigmoid".
        return_segmentation_masks: give masks with the labels (needs pycocotools).
        do_convert_rgb, do_resize, do_rescale, do_normalize, do_pad: the steps; all on.
        resample, rescale_factor, image_mean, image_std: their constants; bilinear, 1/255 and those of ImageNet.

    Raises:
        ValueError: for an unknown setting or a value that means nothing.
    """

    def _resize_images(
        self, images: list[Tensor], size: SizeDict, resample: PILImageResampling | int, disable_grouping: bool | None
    ) -> list[Tensor]:
        groups, positions = group_images_by_shape(images, disable_grouping=disable_grouping)
        for key, stacked in groups.items():
            height, width = _resized_size(tuple(stacked.shape[-2:]), size)
            groups[key] = self.resize(stacked, SizeDict(height=height, width=width), resample=resample)
        return reorder_images(groups, positions)


class HfDetrImageProcessorPil(_DetectionProcessing, PilBackend):
    """`HfDetrImageProcessor` that resizes with Pillow, on the CPU; same settings, same results to 1/255."""

    def _resize_images(
        self, images: list[Tensor], size: SizeDict, resample: PILImageResampling | int, disable_grouping: bool | None
    ) -> list[Tensor]:
        return [_resize_with_pillow(image, _resized_size(tuple(image.shape[-2:]), size), resample) for image in images]


# --- settings


def _translate_published(settings: Mapping[str, Any], valid_kwargs: type) -> dict[str, Any]:
    """Read the file of a published checkpoint: keep what we know, and name the classifier its class implies."""
    written_by = str(settings.get("image_processor_type") or settings.get("feature_extractor_type"))
    for suffix in ("Fast", "ImageProcessor", "FeatureExtractor"):
        written_by = written_by.removesuffix(suffix)
    if written_by not in _PUBLISHED_PROCESSORS:
        return dict(settings)
    translated = {key: value for key, value in settings.items() if key in valid_kwargs.__annotations__}
    translated.setdefault("do_pad", settings.get("pad_and_return_pixel_mask"))
    translated.setdefault("classification", _PUBLISHED_PROCESSORS[written_by])
    return translated


def _check_size(size: SizeDict) -> None:
    given = dict(size)
    if set(given) not in _SIZE_FORMS:
        allowed = ", ".join(str(sorted(form)) for form in _SIZE_FORMS)
        raise ValueError(f"size must have one of the key sets {allowed}; got {given}.")
    if any(not isinstance(side, int) or side < 1 for side in given.values()):
        raise ValueError(f"size must be made of positive integers, got {given}.")


# --- reading images


def _flatten(images: Any, name: str = "images") -> Iterator[tuple[str, Any]]:
    """(name, image) for every image of an image, a batch, or a nested list; the name tells its position."""
    is_batch = isinstance(images, np.ndarray | Tensor) and images.ndim == 4
    if isinstance(images, list | tuple) or is_batch:
        for index, item in enumerate(images):
            yield from _flatten(item, f"{name}[{index}]")
    else:
        yield name, images


def _open(source: str | os.PathLike, name: str) -> PIL.Image.Image:
    try:
        return PIL.Image.open(source) if os.path.isfile(source) else load_image(os.fspath(source))
    except OSError as error:
        raise ValueError(f"{name}: cannot open an image at {os.fspath(source)!r}: {error}") from error


def _decode(picture: PIL.Image.Image, convert_rgb: bool | None, name: str) -> np.ndarray:
    """The displayed picture as an array: HW for one channel, else HWC."""
    try:
        picture.load()
        rotated = picture.getexif().get(PIL.ExifTags.Base.Orientation, 1) != 1
    except Exception as error:  # each of Pillow's decoders has its own exceptions
        file = getattr(picture, "filename", "") or "a file object"
        raise ValueError(f"{name}: the image in {file} cannot be decoded: {error}") from error
    if rotated:
        picture = PIL.ImageOps.exif_transpose(picture)
    if picture.mode == "I":  # 32-bit integers, which is how older files and libraries hold 16-bit images
        array = np.array(picture)
        if array.size and not 0 <= array.min() <= array.max() <= 65535:
            raise ValueError(f"{name}: 32-bit values {array.min()}..{array.max()} are not those of a 16-bit image.")
        return array.astype(np.uint16)
    if picture.mode == "F" or picture.mode.startswith("I;16") or not convert_rgb:
        return np.array(picture)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = PIL.Image.alpha_composite(PIL.Image.new("RGBA", layer.size, "white"), layer)
    return np.array(picture.convert("RGB"))


def _tensor_from_array(array: np.ndarray, name: str) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected an array of numbers, got dtype {array.dtype}.")
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    # torch takes neither negative strides nor foreign byte orders, and warns of read-only memory
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _channels_first(image: Tensor, layout: str | ChannelDimension | None, prefer_last: bool, name: str) -> Tensor:
    if image.ndim == 2:
        image, layout = image[None], ChannelDimension.FIRST
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"{name}: expected a non-empty image of 2 or 3 dimensions, got shape {tuple(image.shape)}.")
    if layout is None:
        first, last = (image.shape[axis] in _CHANNEL_COUNTS for axis in (0, 2))
        if not first and not last:
            raise ValueError(
                f"{name}: neither end of shape {tuple(image.shape)} can be a channel axis of 1 to 4 channels; "
                "input_data_format='channels_first' or 'channels_last' says which one is."
            )
        layout = ChannelDimension.LAST if last and (prefer_last or not first) else ChannelDimension.FIRST
    return image.permute(2, 0, 1) if ChannelDimension(layout) == ChannelDimension.LAST else image


def _eight_bit_scale(image: Tensor, do_rescale: bool | None, name: str) -> Tensor:
    """Any number type → uint8 or float32 in 0..255; floats that will not be rescaled keep their values."""
    if image.dtype == torch.uint8:
        return image
    if image.dtype == torch.bool:
        return image.to(torch.uint8) * 255
    if image.dtype == torch.uint16:
        return (image.to(torch.float32) / 257).round().to(torch.uint8)
    floating = image.is_floating_point()
    image = image.to(torch.float32 if floating else torch.int64)
    low, high = (bound.item() for bound in image.aminmax())
    if floating and not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}: values must be finite, got NaN or infinity.")
    if floating and not do_rescale:
        return image
    if low < 0 or high > 255:
        remedy = "do_rescale=False takes floats as they are" if floating else "a 16-bit image has dtype uint16"
        raise ValueError(f"{name}: expected values in 0..255, got {low}..{high} ({remedy}).")
    if not floating:
        return image.to(torch.uint8)
    return image * 255 if high <= 1 else image


def _to_rgb(image: Tensor, name: str) -> Tensor:
    channels = image.shape[0]
    if channels not in _CHANNEL_COUNTS:
        raise ValueError(f"{name}: expected 1 to 4 channels, got {channels} of size {tuple(image.shape[1:])}.")
    if channels in (2, 4):
        white = 255.0 if image.dtype == torch.uint8 or image.max() > 1 else 1.0
        colour, opacity = image[:-1].float(), image[-1:].float() / white
        blended = colour * opacity + white * (1 - opacity)
        image = blended.round().to(torch.uint8) if image.dtype == torch.uint8 else blended
    return image.expand(3, -1, -1)


# --- geometry and pixels


def _resized_size(image_size: tuple[int, int], size: SizeDict) -> tuple[int, int]:
    if size.height is not None:
        return size.height, size.width
    if size.shortest_edge is not None:
        height, width = get_size_with_aspect_ratio(image_size, size.shortest_edge, size.longest_edge)
    else:
        height, width = (round(side * size.longest_edge / max(image_size)) for side in image_size)
    return max(height, 1), max(width, 1)  # extreme aspect ratios would round to an empty image


def _canvas_sizes(
    sizes: list[tuple[int, int]], size: SizeDict | None, pad_size: SizeDict | None, size_divisor: int | None
) -> list[tuple[int, int]]:
    """The one padded size of a batch, repeated for each image."""
    largest = tuple(max(side) for side in zip(*sizes, strict=True))
    if pad_size is not None:
        canvas = (pad_size.height, pad_size.width)
    elif size is not None and set(dict(size)) == {"longest_edge"}:
        canvas = (size.longest_edge, size.longest_edge)
    else:
        canvas = largest
    if canvas[0] < largest[0] or canvas[1] < largest[1]:
        raise ValueError(f"pad_size (height, width) {canvas} is smaller than the largest resized image, {largest}.")
    divisor = size_divisor or 1
    height, width = (math.ceil(side / divisor) * divisor for side in canvas)
    return [(height, width)] * len(sizes)


def _resize_with_pillow(image: Tensor, size: tuple[int, int], resample: int) -> Tensor:
    if tuple(image.shape[-2:]) == size:
        return image
    pixels = image.permute(1, 2, 0).cpu().numpy()
    if image.dtype == torch.uint8 and image.shape[0] == 3:
        layers = [np.ascontiguousarray(pixels)]
    else:  # Pillow has floats and odd channel counts only as single channels
        layers = [np.ascontiguousarray(pixels[..., channel]) for channel in range(image.shape[0])]
    resized = [np.array(PIL.Image.fromarray(layer).resize(size[::-1], resample)) for layer in layers]
    return torch.from_numpy(np.dstack(resized)).permute(2, 0, 1)


def _normalise(
    images: list[Tensor],
    canvases: list[tuple[int, int]],
    *,
    as_batch: bool,
    do_rescale: bool | None,
    rescale_factor: float,
    do_normalize: bool | None,
    image_mean: float | Sequence[float],
    image_std: float | Sequence[float],
    **kwargs,
) -> Tensor | list[Tensor]:
    """Each image in the top left of a zero canvas, rescaled and normalised in place as `pixels * scale + offset`."""
    channels, device = images[0].shape[0], images[0].device
    changes = do_rescale or do_normalize
    keeps_bytes = not changes and all(image.dtype == torch.uint8 for image in images)
    empty = {"dtype": torch.uint8 if keeps_bytes else torch.float32, "device": device}
    if as_batch:
        batch = torch.zeros((len(images), channels, *canvases[0]), **empty)
    else:
        batch = [torch.zeros((channels, *canvas), **empty) for canvas in canvases]
    mean, std = (image_mean, image_std) if do_normalize else (0.0, 1.0)
    scale, offset = _scale_and_offset(channels, rescale_factor if do_rescale else 1.0, mean, std)
    for image, canvas in zip(images, batch, strict=True):
        real = canvas[:, : image.shape[1], : image.shape[2]].copy_(image)
        if changes:
            real.mul_(scale.to(device)).add_(offset.to(device))
    return batch


def _scale_and_offset(
    channels: int, rescale_factor: float, mean: float | Sequence[float], std: float | Sequence[float]
) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(value, dtype=torch.float64).reshape(-1, 1, 1) for value in (mean, std))
    if any(len(value) not in (1, channels) for value in (mean, std)) or (std == 0).any():
        raise ValueError(
            f"image_mean and image_std must each have 1 or {channels} values and no zero in image_std, "
            f"got {mean.flatten().tolist()} and {std.flatten().tolist()}."
        )
    return (rescale_factor / std).float(), (-mean / std).float()


def _pixel_mask(sizes: list[tuple[int, int]], canvas: tuple[int, int], device: torch.device) -> Tensor:
    mask = torch.zeros((len(sizes), *canvas), dtype=torch.int64, device=device)
    for image_mask, (height, width) in zip(mask, sizes, strict=True):
        image_mask[:height, :width] = 1
    return mask


# --- annotations


def _read_annotations(
    annotations: Any, geometry: list[tuple[tuple[int, int], ...]], with_masks: bool, device: torch.device
) -> list[dict[str, Tensor]]:
    """Labels of each image; `geometry` holds its original, resized and padded size."""
    if isinstance(annotations, Mapping):
        annotations = [annotations]
    if not isinstance(annotations, list | tuple):
        raise ValueError(f"annotations: expected a dictionary or a list of them, got {type(annotations).__name__}.")
    if len(annotations) != len(geometry):
        raise ValueError(f"annotations: expected one per image, got {len(annotations)} for {len(geometry)} image(s).")
    labels, dropped = [], {}
    for index, (annotation, sizes) in enumerate(zip(annotations, geometry, strict=True)):
        image_id, objects = _read_objects(annotation, f"annotations[{index}]")
        label, num_degenerate = _make_label(image_id, objects, sizes, with_masks)
        labels.append({key: value.to(device) for key, value in label.items()})
        if num_degenerate:
            dropped[image_id] = num_degenerate
    if dropped:
        warnings.warn(
            f"{sum(dropped.values())} box(es) without width or height were dropped, in image_id {list(dropped)[:10]}"
            f"{' and others' if len(dropped) > 10 else ''}.",
            stacklevel=2,
        )
    return labels


def _read_objects(annotation: Any, name: str) -> tuple[int, list[dict[str, Any]]]:
    """Check one COCO detection annotation; its image id and its objects other than crowds, with their positions."""
    if not isinstance(annotation, Mapping):
        raise ValueError(f"{name}: expected a dictionary, got {type(annotation).__name__}.")
    for field in ("image_id", "annotations"):
        if field not in annotation:
            raise ValueError(f"{name} (image_id {annotation.get('image_id')}): the field {field!r} is missing.")
    image_id = _integer(annotation["image_id"], f"{name}: image_id")
    where = f"{name} (image_id {image_id})"
    items = annotation["annotations"]
    if not isinstance(items, list | tuple):
        raise ValueError(f"{where}: 'annotations' must be a list of objects, got {type(items).__name__}.")
    checked = [_read_object(item, f"{where}, object {index}") for index, item in enumerate(items)]
    return image_id, [item for item in checked if not item["iscrowd"]]


def _read_object(item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise ValueError(f"{where}: expected a dictionary, got {type(item).__name__}.")
    for field in ("bbox", "category_id", "area"):
        if field not in item:
            raise ValueError(f"{where}: the field {field!r} is missing.")
    category = _integer(item["category_id"], f"{where}: category_id")
    if category < 0:
        raise ValueError(f"{where}: category_id must not be negative, got {category}.")
    area = _numbers(item["area"], (), f"{where}: area")
    if area < 0:
        raise ValueError(f"{where}: area must not be negative, got {area}.")
    if item.get("iscrowd", 0) not in (0, 1):
        raise ValueError(f"{where}: iscrowd must be 0 or 1, got {item['iscrowd']!r}.")
    return {
        "bbox": _numbers(item["bbox"], (4,), f"{where}: bbox"),
        "category_id": category,
        "area": float(area),
        "iscrowd": bool(item.get("iscrowd", 0)),
        "id": _integer(item.get("id", -1), f"{where}: id"),
        "segmentation": item.get("segmentation"),
        "where": where,
    }


def _integer(value: Any, where: str) -> int:
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise ValueError(f"{where} must be an integer, got {value!r}.")


def _numbers(value: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    expected = f"{shape[0]} finite numbers" if shape else "a finite number"
    try:
        array = np.asarray(value)
        if array.shape == shape and array.dtype.kind in "iuf" and np.isfinite(array).all():
            return array.astype(np.float64)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{where} must be {expected}, got {value!r}.")


def _make_label(
    image_id: int, objects: list[dict[str, Any]], sizes: tuple[tuple[int, int], ...], with_masks: bool
) -> tuple[dict[str, Tensor], int]:
    """The label of one image, and how many objects were dropped for having no width or height."""
    (height, width), resized, canvas = sizes
    kept = [item for item in objects if (item["bbox"][2:] > 0).all()]
    boxes = torch.tensor(np.array([item["bbox"] for item in kept]).reshape(-1, 4))
    boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
    borders = torch.tensor([width, height, width, height], dtype=boxes.dtype)
    boxes = torch.minimum(boxes.clamp(min=0), borders)
    for item, box in zip(kept, boxes.tolist(), strict=True):
        if box[0] >= box[2] or box[1] >= box[3]:
            raise ValueError(
                f"{item['where']}: bbox {item['bbox'].tolist()} (left, top, width, height) lies wholly outside the "
                f"image of height {height} and width {width} (as displayed, after any EXIF rotation)."
            )
    area = torch.tensor([item["area"] for item in kept], dtype=torch.float64)
    label = {
        "size": torch.tensor(resized),
        "image_id": torch.tensor([image_id]),
        "class_labels": torch.tensor([item["category_id"] for item in kept], dtype=torch.int64),
        "boxes": box_xyxy_to_cxcywh(boxes / borders).float(),
        "area": (area * (resized[0] * resized[1]) / (height * width)).float(),
        "iscrowd": torch.zeros(len(kept), dtype=torch.int64),
        "annotation_ids": torch.tensor([item["id"] for item in kept], dtype=torch.int64),
        "orig_size": torch.tensor((height, width)),
    }
    if with_masks:
        masks = [torch.from_numpy(_rasterise(item, height, width)) for item in kept]
        label["masks"] = _place_masks(masks, resized, canvas)
    return label, len(objects) - len(kept)


def _rasterise(item: dict[str, Any], height: int, width: int) -> np.ndarray:
    """(h, w) uint8 from COCO polygons or run lengths."""
    try:
        from pycocotools import mask as coco_mask
    except ImportError as error:
        raise ImportError("return_segmentation_masks=True needs pycocotools: pip install pycocotools") from error
    segmentation, where = item["segmentation"], f"{item['where']}: segmentation"
    if isinstance(segmentation, Mapping):
        if list(segmentation.get("size", [])) != [height, width] or "counts" not in segmentation:
            raise ValueError(f"{where} must be run lengths of size {[height, width]}, got {segmentation!r}.")
        is_compressed = isinstance(segmentation["counts"], str | bytes)
        try:
            return coco_mask.decode(
                segmentation if is_compressed else coco_mask.frPyObjects(segmentation, height, width)
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where} does not hold valid run lengths: {error}") from error
    if not isinstance(segmentation, list | tuple) or not segmentation:
        raise ValueError(f"{where} must be a list of polygons or run lengths, got {segmentation!r}.")
    for polygon in segmentation:
        if not isinstance(polygon, Sequence | np.ndarray) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"{where}: a polygon is a list of x, y for at least three points, got {polygon!r}.")
    polygons = [_numbers(polygon, (len(polygon),), where).tolist() for polygon in segmentation]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def _place_masks(masks: list[Tensor], resized: tuple[int, int], canvas: tuple[int, int]) -> Tensor:
    if not masks:
        return torch.zeros((0, *canvas), dtype=torch.bool)
    stacked = F.interpolate(torch.stack(masks)[None], size=resized, mode="nearest-exact")[0]
    return F.pad(stacked, (0, canvas[1] - resized[1], 0, canvas[0] - resized[0])).bool()


# --- predictions


def _best_of_softmax(logits: Tensor, top_k: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, classes and queries, each (B, N), of the best real class of the best queries."""
    scores, labels = logits.softmax(-1)[..., :-1].max(-1)
    scores, queries = scores.topk(min(top_k or logits.shape[1], logits.shape[1]))
    return scores, labels.gather(1, queries), queries


def _best_of_sigmoid(logits: Tensor, top_k: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, classes and queries, each (B, N), of the best pairs of query and class."""
    pairs = logits.sigmoid().flatten(1)
    scores, indices = pairs.topk(min(top_k or 100, pairs.shape[1]))
    return scores, indices % logits.shape[2], indices // logits.shape[2]


def _box_scale(target_sizes: Tensor | Sequence[Sequence[int]] | None, boxes: Tensor) -> Tensor:
    """(B, 1, 4) factors from relative to absolute left, top, right, bottom."""
    batch_size = len(boxes)
    if target_sizes is None:
        return boxes.new_ones(batch_size, 1, 4)
    try:
        if not isinstance(target_sizes, Tensor):
            target_sizes = torch.tensor([[float(side) for side in size] for size in target_sizes])
        sizes = target_sizes.to(boxes)
    except (TypeError, ValueError) as error:
        raise ValueError(f"target_sizes must be (height, width) per image, got {target_sizes!r}.") from error
    if sizes.shape != (batch_size, 2):
        raise ValueError(
            f"target_sizes must be (height, width) for each of {batch_size} image(s), got shape {tuple(sizes.shape)}."
        )
    return sizes.flip(1).repeat(1, 2)[:, None]
