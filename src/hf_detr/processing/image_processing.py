"""The image processor: it makes the tensors that a model takes, and turns its predictions into detections in pixels.

Shapes: B images, C channels, H and W the padded batch, h and w one image, T objects, Q queries, K classes.
Sizes are always (height, width). Pictures are taken as a viewer shows them: an EXIF orientation is applied before
anything is measured, so `orig_size` and the annotations refer to the displayed image.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from transformers import BaseImageProcessor, BatchFeature
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_transforms import group_images_by_shape, reorder_images
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs, Unpack

from .annotations import Geometry, ImageObjects, make_labels, read_annotations
from .image_reading import named_images, read_image
from .model_settings import classification_of, pixel_statistics
from .pixels import normalise, on_canvas, pixel_mask, resize_with_pillow
from .post_processing import Classification, detect_objects
from .sizes import LONGEST_EDGE, canvas_sizes, published_size, resized_size, size_of

_SIZE_FORMS = (
    {"shortest_edge", "longest_edge"},
    {"shortest_edge"},
    {"longest_edge"},
    {"height", "width"},
    {"max_height", "max_width"},
)

# Keys that transformers writes into a preprocessor file beside the settings themselves.
_BOOKKEEPING_KEYS = {"image_processor_type", "feature_extractor_type", "processor_class", "auto_map"}
# The processors of published checkpoints whose files are read as if they were ours, and the classifier they imply.
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
    classification: Classification | None
    return_segmentation_masks: bool | None


class DetectionProcessing(BaseImageProcessor):
    """Everything the two backends share; a backend only adds how images are resized."""

    valid_kwargs = HfDetrImageProcessorKwargs
    model_input_names = ["pixel_values", "pixel_mask"]  # noqa: RUF012
    size = published_size()
    default_to_square = False
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    do_convert_rgb = True
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_pad = True
    classification: Classification = "softmax"
    pad_size: SizeDict | None
    size_divisor: int | None
    return_segmentation_masks = False
    allocation: ClassVar[Callable[[], AbstractContextManager[None]]] = nullcontext
    """The context in which images become tensors. The package puts one here that keeps freed memory for the next
    image."""

    def __init__(self, **kwargs: Unpack[HfDetrImageProcessorKwargs]) -> None:
        known = self.valid_kwargs.__annotations__
        unknown = [key for key in kwargs if key not in known and key not in _BOOKKEEPING_KEYS and key[0] != "_"]
        if unknown:
            raise ValueError(f"{type(self).__name__} has no setting {unknown}; it has {sorted(known)}.")
        settings: dict[str, Any] = {key: value for key, value in kwargs.items() if key in known}
        super().__init__(**settings)

    @classmethod
    def for_config(cls, config: Any, size: int | Mapping[str, int] | None = None, **settings: Any) -> Self:
        """Return the image processor of a new model.

        The classifier and the number of channels come from the configuration. Mean and standard deviation are the
        values with which the weights of its backbone were pretrained, see `pixel_statistics`.

        A model that has been trained already has an image processor of its own: `from_pretrained` reads its mean and
        standard deviation from the file that was saved with it, ours or another library's, and looks at no backbone.

        Args:
            config: a `HfDetrConfig`, or any object with its fields `classification`, `backbone`, `backbone_kwargs`
                and `num_channels`.
            size: see the class. An integer is the shortest edge in pixels; the longest is then at most 1333/800 times
                as long, which is the published ratio. By default they are 800 and 1333.
            settings: further settings of the class, in place of what the configuration says.

        Raises:
            ValueError: an unknown setting, a meaningless value, or pretrained weights that timm does not know.
        """
        mean, std = pixel_statistics(config)
        derived: dict[str, Any] = {
            "classification": classification_of(config),
            "do_convert_rgb": getattr(config, "num_channels", 3) == 3,
            "image_mean": mean,
            "image_std": std,
        }
        if size is not None:
            derived["size"] = published_size(size) if isinstance(size, int) else dict(size)
        return cls(**(derived | settings))

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Self:
        """Return a processor for a saved dictionary, its own or one of a published DETR-family checkpoint."""
        return super().from_dict(_translate_published(image_processor_dict, cls.valid_kwargs), **kwargs)

    def preprocess(
        self,
        images: ImageInput,
        annotations: Mapping | Sequence[Mapping | ImageObjects] | None = None,
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
                Annotations that are tensors already are given as `ImageObjects`, which are taken as they are.
            kwargs: any setting of the processor, for this call only, and `return_tensors`.

        Returns:
            `pixel_values` (B, 3, H, W) float32, padded at the right and bottom; `pixel_mask` (B, H, W) int64, 1 where
            a pixel is real (absent with `do_pad=False`); with annotations, `labels`: per image `class_labels` (T,)
            int64, `boxes` (T, 4) float32 (centre x, centre y, width, height relative to the unpadded image),
            `area` (T,) float32 in pixels after resizing, `iscrowd` (T,) int64, `annotation_ids` (T,) int64, -1 for an
            object without `id`, `image_id` (1,), `size` (2,) after resizing and before padding, `orig_size` (2,),
            `num_objects` () int64, which is T, and on request `masks` (T, H, W) bool.
            Crowds and boxes without width or height get no label; boxes are clipped to the image.

        Raises:
            ValueError: an image or annotation that cannot be read as described; the message names it.
        """
        with type(self).allocation():
            return super().preprocess(images, annotations, **kwargs)

    def pad(
        self,
        images: Sequence[Tensor | np.ndarray],
        pad_size: Mapping[str, int] | SizeDict | None = None,
        return_pixel_mask: bool = True,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Join images that have been prepared one by one, as a collate function does.

        Args:
            images: (C, h, w) each, as `pixel_values[0]` of a call for one image; tensors or arrays of one dtype.
            pad_size: `{"height", "width"}` to pad to; by default the size to which the processor pads a batch.
            return_pixel_mask: whether `pixel_mask` is returned too.
            return_tensors: "pt" or "np"; by default tensors.

        Returns:
            `pixel_values` (B, C, H, W) of the dtype given, padded with zeros at the right and bottom, and `pixel_mask`
            (B, H, W) int64, 1 where a pixel is real.

        Raises:
            ValueError: there are no images, or they are not (C, h, w) of equally many channels, or larger than the
                size to pad to.
        """
        tensors = [torch.as_tensor(image) for image in images]
        shapes = [tuple(image.shape) for image in tensors]
        if not shapes or any(len(shape) != 3 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"images: expected (C, h, w) each, with equally many channels, got shapes {shapes}.")
        sizes = [size_of(image) for image in tensors]
        wanted = SizeDict(**dict(pad_size)) if pad_size is not None else self.pad_size
        canvases = canvas_sizes(
            sizes, SizeDict(**dict(self.size)) if self.do_resize else None, wanted, self.size_divisor
        )
        data: dict[str, Any] = {"pixel_values": on_canvas(tensors, canvases[0])}
        if return_pixel_mask:
            data["pixel_mask"] = pixel_mask(sizes, canvases[0], tensors[0].device)
        return BatchFeature(data, tensor_type=return_tensors)

    def process_image(
        self,
        image: Any,
        do_convert_rgb: bool | None = True,
        do_rescale: bool | None = True,
        input_data_format: str | ChannelDimension | None = None,
        device: str | torch.device | None = None,
        name: str = "image",
        **kwargs: Any,
    ) -> Tensor:
        """Return one image (C, h, w), uint8, or float32 if it came as floats, on the 0..255 scale unless unscaled."""
        return read_image(image, name, do_convert_rgb, do_rescale, input_data_format, device)

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
        return detect_objects(
            outputs.logits,
            outputs.pred_boxes,
            self.classification,
            threshold=threshold,
            target_sizes=target_sizes,
            top_k=top_k,
        )

    def _standardize_kwargs(
        self,
        size: Any = None,
        *args: Any,
        max_size: int | None = None,
        size_divisor: int | None = None,
        classification: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        if isinstance(size, int) and not kwargs.get("default_to_square"):
            size = {"shortest_edge": size, "longest_edge": LONGEST_EDGE if max_size is None else max_size}
        elif max_size is not None:
            if not isinstance(size, dict | SizeDict) or "shortest_edge" not in size:
                raise ValueError(f"max_size={max_size} needs a size with a shortest edge, got size={size}.")
            size = {"shortest_edge": size["shortest_edge"], "longest_edge": max_size}
        settings = super()._standardize_kwargs(size, *args, **kwargs)
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

    # The annotations are not optional here: `preprocess` always passes them on.
    def _preprocess_image_like_inputs(  # type: ignore[override]
        self, images: ImageInput, annotations: Any, **kwargs: Any
    ) -> BatchFeature:
        named = list(named_images(images))
        if not named:
            raise ValueError("images: expected at least one image, got an empty list.")
        tensors = [self.process_image(image, name=name, **kwargs) for name, image in named]
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
        do_pad: bool,
        return_tensors: str | None,
        **settings: Any,
    ) -> BatchFeature:
        original_sizes = [size_of(image) for image in images]
        sizes = [resized_size(original, size) for original in original_sizes] if do_resize else original_sizes
        canvases = sizes
        if do_pad:
            given = size if do_resize else None
            canvases = canvas_sizes(sizes, given, settings["pad_size"], settings["size_divisor"])
        if return_tensors is not None and len(set(canvases)) > 1:
            raise ValueError(
                f"Images of sizes {sorted(set(canvases))} do not make one tensor: leave do_pad=True, use one fixed "
                "size, or return_tensors=None for a list."
            )
        labels = None
        if annotations is not None:
            geometry = [Geometry(*of_image) for of_image in zip(original_sizes, sizes, canvases, strict=True)]
            objects = read_annotations(annotations, len(images))
            labels = make_labels(objects, geometry, bool(settings["return_segmentation_masks"]), images[0].device)
        if do_resize:
            images = self._resize_images(images, size, settings["resample"], settings["disable_grouping"])

        data: dict[str, Any] = {"pixel_values": normalise(images, canvases, as_batch=do_pad, **settings)}
        if do_pad:
            data["pixel_mask"] = pixel_mask(sizes, canvases[0], images[0].device)
        batch = BatchFeature(data, tensor_type=return_tensors)
        if labels is not None:
            batch["labels"] = [BatchFeature(label, tensor_type=return_tensors) for label in labels]
        return batch

    def _resize_images(
        self, images: list[Tensor], size: SizeDict, resample: PILImageResampling | int, disable_grouping: bool | None
    ) -> list[Tensor]:
        """Resize pictures (C, h, w), uint8 or float32."""
        raise NotImplementedError


# The steps that `DetectionProcessing` replaces have other signatures in transformers' backends: hence "misc".
class HfDetrImageProcessor(DetectionProcessing, TorchvisionBackend):  # type: ignore[misc]
    """Image processor of every model of the family; resizes with torchvision, on `device` if one is given.

    Args:
        size: how images are resized.
            `{"shortest_edge": s, "longest_edge": l}` (the default, 800 and 1333; an integer `size` with `max_size`
            means the same): the shortest side becomes s unless the longest would exceed l.
            `{"height": h, "width": w}`: exactly this size, whatever the aspect ratio.
            `{"longest_edge": n}`: letterbox, the longest side becomes n and the image is padded to n × n.
            `{"max_height": h, "max_width": w}`: the largest size of the same aspect ratio that fits into h × w.
            Fixed and letterboxed sizes are what `pipeline(..., batch_size=n)` needs for images of mixed sizes.
        pad_size: `{"height", "width"}` to pad to, instead of the largest image of the batch.
        size_divisor: pad up to a multiple of this number.
        classification: how `post_process_object_detection` reads logits: "softmax" (a trailing no-object class) or
            "sigmoid".
        return_segmentation_masks: give masks with the labels (needs pycocotools).
        do_convert_rgb, do_resize, do_rescale, do_normalize, do_pad: whether each step is done; all are by default.
        resample, rescale_factor, image_mean, image_std: the constants of the steps; by default bilinear, 1/255, and
            the mean and standard deviation of ImageNet.

    Raises:
        ValueError: for an unknown setting or a value that means nothing.
    """

    def _resize_images(
        self, images: list[Tensor], size: SizeDict, resample: PILImageResampling | int, disable_grouping: bool | None
    ) -> list[Tensor]:
        groups, positions = group_images_by_shape(images, disable_grouping=disable_grouping)
        for key, stacked in groups.items():
            height, width = resized_size(size_of(stacked), size)
            groups[key] = self.resize(stacked, SizeDict(height=height, width=width), resample=resample)
        return list(reorder_images(groups, positions))


class HfDetrImageProcessorPil(DetectionProcessing, PilBackend):  # type: ignore[misc]
    """`HfDetrImageProcessor` that resizes with Pillow, on the CPU. Settings are the same, and results to 1/255."""

    def _resize_images(
        self, images: list[Tensor], size: SizeDict, resample: PILImageResampling | int, disable_grouping: bool | None
    ) -> list[Tensor]:
        return [resize_with_pillow(image, resized_size(size_of(image), size), resample) for image in images]


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
