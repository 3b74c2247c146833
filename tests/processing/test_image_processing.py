"""The image processor against transformers' own, against real image files, and against bad input."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    DeformableDetrImageProcessor,
    DetrConfig,
    DetrForObjectDetection,
    DetrImageProcessor,
    ResNetConfig,
    pipeline,
)
from transformers.image_utils import IMAGENET_DEFAULT_STD

from hf_detr.acceleration.heap import freed_memory_is_kept
from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.processing.image_processing import HfDetrImageProcessor, HfDetrImageProcessorPil
from hf_detr.processing.post_processing import detect_objects

BACKENDS = [HfDetrImageProcessor, HfDetrImageProcessorPil]
SMALL = {"shortest_edge": 48, "longest_edge": 80}
BYTES = {"do_resize": False, "do_rescale": False, "do_normalize": False, "do_pad": False}
STD = torch.tensor(IMAGENET_DEFAULT_STD)[:, None, None]


@pytest.fixture(params=BACKENDS, ids=["torchvision", "pil"])
def backend(request):
    return request.param


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def photo(height, width, seed=0):
    return PIL.Image.fromarray(noise(height, width, seed=seed))


def coco(*objects, image_id=7):
    return {"image_id": image_id, "annotations": list(objects)}


def thing(bbox=(4, 6, 10, 12), **changes):
    return {"bbox": list(bbox), "category_id": 2, "area": 60.0, "iscrowd": 0} | changes


def pixels(backend, image, **kwargs):
    """What the processor sees, (h, w, 3) uint8, with every later step switched off."""
    values = backend(**BYTES)(image, **kwargs)["pixel_values"][0]
    assert values.dtype == torch.uint8
    return values.permute(1, 2, 0).numpy()


# --- equality with transformers


@pytest.mark.parametrize(
    ("size", "image_sizes"),
    [
        ({"shortest_edge": 800, "longest_edge": 1333}, [(120, 160)]),
        (SMALL, [(480, 640), (333, 200), (30, 300), (48, 70), (9, 9)]),
        ({"height": 40, "width": 56}, [(100, 30), (40, 56)]),
        ({"max_height": 40, "max_width": 56}, [(100, 30), (40, 57), (20, 28)]),
    ],
)
def test_pixels_masks_and_labels_equal_those_of_transformers(backend, size, image_sizes):
    images = [photo(*image_size, seed=index) for index, image_size in enumerate(image_sizes)]
    annotations = [coco(thing(), thing((0, 0, 500, 5), area=40.5), image_id=i) for i in range(len(images))]
    ours = backend(size=size)(images, annotations, return_tensors="pt")
    theirs = DetrImageProcessor(size=size)(images, annotations, return_tensors="pt")

    difference = (ours["pixel_values"] - theirs["pixel_values"]).abs() * STD
    assert difference.max() <= (1e-6 if backend is HfDetrImageProcessor else 1 / 255 + 1e-6)
    assert torch.equal(ours["pixel_mask"], theirs["pixel_mask"])
    assert ours["pixel_mask"].dtype == torch.int64
    for label, expected in zip(ours["labels"], theirs["labels"], strict=True):
        # transformers gives boxes relative to the padded image; DETR trains on boxes relative to the real one
        ratio = expected["size"] / label["size"]
        torch.testing.assert_close(label["boxes"], expected["boxes"] * ratio.flip(0).repeat(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(label["area"], expected["area"])
        for key in ("class_labels", "image_id", "iscrowd", "orig_size"):
            assert torch.equal(label[key], expected[key])
            assert label[key].dtype == torch.int64
        assert label["num_objects"] == len(expected["boxes"])


@settings(max_examples=150)
@given(
    height=st.integers(4, 90),
    width=st.integers(4, 90),
    shortest=st.integers(8, 60),
    longest=st.integers(30, 90),
)
def test_resized_size_is_the_one_of_transformers(height, width, shortest, longest):
    size = {"shortest_edge": shortest, "longest_edge": longest}
    image = np.zeros((height, width, 3), dtype=np.uint8)
    theirs = DetrImageProcessor(size=size)(image, return_tensors="pt", input_data_format="channels_last")
    for backend in BACKENDS:
        ours = backend(size=size)(image, return_tensors="pt")
        assert ours["pixel_values"].shape == theirs["pixel_values"].shape


# --- sizes and padding


@pytest.mark.parametrize(
    ("settings_", "expected"),
    [
        ({}, {"shortest_edge": 800, "longest_edge": 1333}),
        ({"size": 640}, {"shortest_edge": 640, "longest_edge": 1333}),
        ({"size": 640, "max_size": 900}, {"shortest_edge": 640, "longest_edge": 900}),
        ({"max_size": 900}, {"shortest_edge": 800, "longest_edge": 900}),
        ({"size": {"shortest_edge": 640}}, {"shortest_edge": 640}),
        ({"size": {"longest_edge": 640}}, {"longest_edge": 640}),
        ({"size": {"height": 3, "width": 4}}, {"height": 3, "width": 4}),
        ({"size": (3, 4)}, {"height": 3, "width": 4}),
    ],
)
def test_every_way_to_give_a_size(backend, settings_, expected):
    assert dict(backend(**settings_).size) == expected
    assert "max_size" not in backend(**settings_).to_dict()


def test_max_size_for_one_call(backend):
    batch = backend(size=SMALL)(photo(20, 60), max_size=60, return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 20, 60)


@pytest.mark.parametrize(
    "settings_",
    [
        {"size": {"max_height": 3}},
        {"size": {"shortest_edge": 0, "longest_edge": 5}},
        {"size": {"shortest_edge": -800}},
        {"size": {"height": 3.5, "width": 4}},
        {"size": {"height": 3, "width": 4}, "max_size": 9},
        {"size_divisor": 0},
        {"classification": "focal"},
        {"do_center_crop": True},
        {"do_resise": False},
    ],
)
def test_settings_that_mean_nothing_are_rejected(backend, settings_):
    with pytest.raises(ValueError, match=next(iter(settings_))):
        backend(**settings_)


@pytest.mark.parametrize(
    ("image_size", "resized"), [((50, 100), (32, 64)), ((100, 33), (64, 21)), ((1, 500), (1, 64))]
)
def test_letterbox_keeps_the_aspect_ratio_and_pads_to_a_square(backend, image_size, resized):
    processor = backend(size={"longest_edge": 64})
    batch = processor(photo(*image_size), coco(image_id=1), return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 64, 64)
    assert batch["labels"][0]["size"].tolist() == list(resized)
    assert batch["pixel_mask"][0, : resized[0], : resized[1]].all()
    assert batch["pixel_mask"].sum() == resized[0] * resized[1]
    assert not batch["pixel_values"][0, :, resized[0] :].any()
    assert not batch["pixel_values"][0, :, :, resized[1] :].any()
    unpadded = processor(photo(*image_size), do_pad=False, return_tensors="pt")
    assert unpadded["pixel_values"].shape == (1, 3, *resized)
    assert "pixel_mask" not in unpadded


def test_extreme_aspect_ratio_keeps_a_row(backend):
    batch = backend(size={"shortest_edge": 8, "longest_edge": 32})(photo(1, 500), return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 1, 32)


def test_size_divisor_pads_up(backend):
    batch = backend(size=SMALL, size_divisor=32)([photo(48, 70), photo(60, 48)], return_tensors="pt")
    assert batch["pixel_values"].shape == (2, 3, 64, 96)
    assert batch["pixel_mask"].sum(dim=(1, 2)).tolist() == [48 * 70, 60 * 48]


def test_pad_size(backend):
    processor = backend(size=SMALL, pad_size={"height": 80, "width": 90})
    assert processor(photo(48, 70), return_tensors="pt")["pixel_values"].shape == (1, 3, 80, 90)
    with pytest.raises(ValueError, match=r"pad_size .* \(48, 70\)"):
        processor(photo(48, 70), pad_size={"height": 80, "width": 60})


def test_images_of_different_sizes_without_padding(backend):
    processor = backend(do_resize=False, do_pad=False)
    images = [photo(5, 6), photo(7, 6)]
    assert [tuple(value.shape) for value in processor(images)["pixel_values"]] == [(3, 5, 6), (3, 7, 6)]
    with pytest.raises(ValueError, match="do_pad=True"):
        processor(images, return_tensors="pt")


def test_rescaling_and_normalisation_are_independent(backend):
    image = noise(6, 7)
    plain = torch.from_numpy(image).permute(2, 0, 1).float()
    mean, std = torch.tensor([1.0, 2.0, 3.0])[:, None, None], torch.tensor([2.0, 4.0, 8.0])[:, None, None]
    processor = backend(do_resize=False, image_mean=[1.0, 2.0, 3.0], image_std=[2.0, 4.0, 8.0])
    for rescale, normalise, expected in [
        (True, False, plain / 255),
        (False, True, (plain - mean) / std),
        (True, True, (plain / 255 - mean) / std),
    ]:
        values = processor(image, do_rescale=rescale, do_normalize=normalise, return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(values, expected)
    halves = processor(image, image_mean=0.5, image_std=0.5, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(halves, plain / 127.5 - 1)
    with pytest.raises(ValueError, match="image_std"):
        processor(image, image_std=[1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match="image_mean"):
        processor(image, image_mean=[1.0, 0.0])


def test_grouping_changes_nothing():
    images = [photo(50, 70, seed=1), photo(33, 40, seed=2), photo(50, 70, seed=3)]
    processor = HfDetrImageProcessor(size=SMALL)
    apart = processor(images, disable_grouping=True, return_tensors="pt")
    together = processor(images, disable_grouping=False, return_tensors="pt")
    assert torch.equal(apart["pixel_values"], together["pixel_values"])
    assert torch.equal(apart["pixel_mask"], together["pixel_mask"])


def test_numpy_output(backend):
    batch = backend(size=SMALL)(photo(50, 70), coco(thing()), return_tensors="np")
    assert isinstance(batch["pixel_values"], np.ndarray)
    assert isinstance(batch["labels"][0]["boxes"], np.ndarray)


def test_pad_joins_what_was_prepared_one_by_one(backend):
    """As collate functions of notebooks call it, whether for tensors or arrays."""
    processor = backend(size=SMALL)
    pictures = [photo(480, 640, seed=1), photo(300, 100, seed=2), photo(64, 64, seed=3)]
    together = processor(pictures, return_tensors="pt")
    alone = [processor(picture, return_tensors="pt")["pixel_values"].squeeze() for picture in pictures]
    joined = processor.pad(alone, return_tensors="pt")
    assert list(joined) == ["pixel_values", "pixel_mask"]
    assert torch.equal(joined["pixel_values"], together["pixel_values"])
    assert torch.equal(joined["pixel_mask"], together["pixel_mask"])
    assert joined["pixel_mask"].dtype == torch.int64
    arrays = processor.pad([image.numpy() for image in alone], return_tensors="np", return_pixel_mask=False)
    assert list(arrays) == ["pixel_values"]
    assert np.array_equal(arrays["pixel_values"], together["pixel_values"].numpy())


def test_pad_uses_the_canvas_of_the_processor(backend):
    images = [torch.ones(3, 20, 30), torch.ones(3, 24, 10)]
    assert backend(size=SMALL, size_divisor=32).pad(images)["pixel_values"].shape == (2, 3, 32, 32)
    assert backend(size=SMALL, pad_size={"height": 40, "width": 50}).pad(images)["pixel_mask"].shape == (2, 40, 50)
    assert backend(size={"longest_edge": 60}).pad(images)["pixel_values"].shape == (2, 3, 60, 60)
    asked = backend(size=SMALL).pad(images, pad_size={"height": 25, "width": 33})
    assert asked["pixel_mask"].sum((1, 2)).tolist() == [600, 240]
    assert asked["pixel_values"].shape == (2, 3, 25, 33)


@pytest.mark.parametrize(
    ("images", "pad_size", "message"),
    [
        ([], None, r"expected \(C, h, w\) each.*got shapes \[\]"),
        ([torch.ones(1, 3, 4, 5)], None, r"got shapes \[\(1, 3, 4, 5\)\]"),
        ([torch.ones(3, 4, 5), torch.ones(1, 4, 5)], None, "equally many channels"),
        ([torch.ones(3, 4, 5)], {"height": 4, "width": 4}, r"\(4, 4\) is smaller than .*\(4, 5\)"),
    ],
)
def test_what_cannot_be_padded(backend, images, pad_size, message):
    with pytest.raises(ValueError, match=message):
        backend(size=SMALL).pad(images, pad_size)


# --- what can be read


def test_files_of_every_kind_look_as_in_a_viewer(backend, tmp_path):
    rgb = noise(5, 4)
    grey = noise(5, 4, channels=0)
    palette = PIL.Image.new("P", (4, 5), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 0)
    expected_palette = np.full((5, 4, 3), (40, 50, 60), dtype=np.uint8)
    expected_palette[0, 0] = 255  # the transparent colour shows the white page
    opacity = np.array([[0, 255, 0, 255]] * 5, dtype=np.uint8)
    shown = np.where(opacity[..., None] == 255, rgb, 255)
    shown_grey = np.where(opacity == 255, grey, 255)
    deep = grey.astype(np.uint16) * 257
    cyan = PIL.Image.new("CMYK", (4, 5), (255, 0, 0, 0))
    three = [1, 1, 3]
    cases = {
        "rgb.png": (PIL.Image.fromarray(rgb), rgb),
        "grey.png": (PIL.Image.fromarray(grey), np.tile(grey[..., None], three)),
        "bilevel.png": (PIL.Image.fromarray(opacity > 0), np.tile(opacity[..., None], three)),
        "grey_alpha.png": (PIL.Image.fromarray(np.dstack([grey, opacity])), np.tile(shown_grey[..., None], three)),
        "rgb_alpha.png": (PIL.Image.fromarray(np.dstack([rgb, opacity])), shown),
        "palette.png": (palette, expected_palette),
        "deep.png": (PIL.Image.fromarray(deep), np.tile(grey[..., None], three)),
        "deep.tif": (PIL.Image.fromarray(deep.astype(np.int32)), np.tile(grey[..., None], three)),
        "float.tif": (PIL.Image.fromarray(grey.astype(np.float32)), np.tile(grey[..., None], three)),
        "cyan.tif": (cyan, np.full((5, 4, 3), (0, 255, 255), dtype=np.uint8)),
    }
    for name, (picture, expected) in cases.items():
        path = tmp_path / name
        picture.save(path, **({"transparency": 0} if name == "palette.png" else {}))
        options = {"do_rescale": True, "rescale_factor": 1.0} if name == "float.tif" else {}
        with PIL.Image.open(path) as opened:
            values = backend(**BYTES)([opened, str(path)], **options)["pixel_values"]
        for value in values:
            np.testing.assert_array_equal(value.permute(1, 2, 0).numpy(), expected, err_msg=name)


def test_half_transparent_pixels_blend_with_white(backend):
    layered = np.full((2, 2, 4), (200, 100, 0, 128), dtype=np.uint8)
    expected = np.round(layered[..., :3] * (128 / 255) + 255 * (127 / 255))
    for image in (PIL.Image.fromarray(layered), layered, torch.from_numpy(layered).permute(2, 0, 1)):
        assert np.abs(pixels(backend, image).astype(float) - expected).max() <= 1


def test_sixteen_bits_are_scaled_not_clipped(backend):
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for image in (deep, deep.astype(">u2"), torch.from_numpy(deep), PIL.Image.fromarray(deep)):
        assert pixels(backend, image)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_exif_rotation_is_applied_and_annotations_refer_to_the_displayed_image(backend, tmp_path):
    upright = PIL.Image.fromarray(noise(20, 30))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the viewer rotates by 90 degrees clockwise
    stored = upright.transpose(PIL.Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "turned.png", exif=exif)
    with PIL.Image.open(tmp_path / "turned.png") as opened:
        assert opened.size == (20, 30)
        np.testing.assert_array_equal(pixels(backend, opened), np.asarray(upright))
        batch = backend(**BYTES)(opened, coco(thing((28, 0, 2, 20))))
    label = batch["labels"][0]
    assert label["orig_size"].tolist() == [20, 30]
    torch.testing.assert_close(label["boxes"], torch.tensor([[29 / 30, 0.5, 2 / 30, 1.0]]))


def test_arrays_and_tensors_of_every_layout_and_type(backend):
    rgb = noise(6, 5)
    first = rgb.transpose(2, 0, 1)
    read_only = rgb.copy()
    read_only.flags.writeable = False
    same = [
        rgb,
        first,
        read_only,
        rgb[::-1][::-1],
        rgb.astype(np.int64),
        torch.from_numpy(rgb),
        torch.from_numpy(first.copy()),
    ]
    for image in same:
        np.testing.assert_array_equal(pixels(backend, image), rgb)
    grey = rgb[..., 0]
    for image in (grey, grey[..., None], grey[None], torch.from_numpy(grey.copy()), grey > -1):
        expected = grey if image.dtype != bool else np.full_like(grey, 255)
        np.testing.assert_array_equal(pixels(backend, image), np.tile(expected[..., None], 3))
    grey_alpha = np.dstack([grey, np.zeros_like(grey)])
    assert (pixels(backend, grey_alpha) == 255).all()


def test_floats_mean_the_same_as_bytes_whether_in_unit_range_or_not(backend):
    image = noise(40, 50)
    processor = backend(size=SMALL)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    for floats in (image / 255.0, image.astype(np.float16), torch.from_numpy(image / 255.0), image.astype(np.float32)):
        values = processor(floats, return_tensors="pt")["pixel_values"]
        assert ((values - expected).abs() * STD).max() <= 1.01 / 255  # bytes are rounded after resizing
    kept = backend(do_resize=False, do_rescale=False, do_normalize=False)(image - 300.0, return_tensors="pt")
    torch.testing.assert_close(kept["pixel_values"][0], torch.from_numpy(image - 300.0).float().permute(2, 0, 1))


def test_single_images_nested_lists_and_batches(backend):
    processor = backend(size=SMALL)
    images = [photo(48, 60, seed=seed) for seed in range(3)]
    expected = processor(images, return_tensors="pt")["pixel_values"]
    stacked = np.stack([np.asarray(image) for image in images])
    for nested in ([images], [[image] for image in images], tuple(images), stacked, torch.from_numpy(stacked)):
        assert torch.equal(processor(nested, return_tensors="pt")["pixel_values"], expected)
    assert torch.equal(processor(images[1], return_tensors="pt")["pixel_values"], expected[1:2])


def test_inputs_are_left_alone(backend):
    array, tensor = noise(40, 50).astype(np.float32), torch.rand(3, 40, 50)
    copies = array.copy(), tensor.clone()
    backend(do_resize=False)([array, tensor])
    np.testing.assert_array_equal(array, copies[0])
    assert torch.equal(tensor, copies[1])


def test_channels_can_be_kept(backend):
    processor = backend(size=SMALL, do_convert_rgb=False, image_mean=[0.0] * 4, image_std=[1.0] * 4)
    assert processor(noise(48, 60, channels=4), return_tensors="pt")["pixel_values"].shape == (1, 4, 48, 60)
    with pytest.raises(ValueError, match=r"equally many channels in each, got \[4, 3\]"):
        processor([noise(48, 60, channels=4), noise(48, 60)])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, r"images\[1\]: expected a PIL image.*got NoneType"),
        ({"image": 1}, r"images\[1\]: .*got dict"),
        ([photo(4, 4), 3], r"images\[1\]\[1\]: .*got int"),
        ("no/such/file.png", r"images\[1\]: cannot open.*no/such/file.png|no/such/file.png"),
        (np.zeros((0, 5, 3), dtype=np.uint8), r"images\[1\]: .*non-empty.*\(0, 5, 3\)"),
        (np.zeros(7, dtype=np.uint8), r"images\[1\]: .*2 or 3 dimensions.*\(7,\)"),
        (np.zeros((9, 8, 7), dtype=np.uint8), r"images\[1\]: .*\(9, 8, 7\).*channels"),
        (np.array([["a", "b"]]), r"images\[1\]: .*dtype <U1"),
        (np.full((4, 4, 3), np.nan), r"images\[1\]: .*finite"),
        (np.full((4, 4, 3), -0.5), r"images\[1\]: .*0\.\.255, got -0.5"),
        (np.full((4, 4, 3), 256), r"images\[1\]: .*0\.\.255, got 256.*uint16"),
        (PIL.Image.new("I", (4, 4), 70000), r"images\[1\]: .*70000"),
    ],
)
def test_bad_images_are_named_by_their_position(backend, bad, message):
    with pytest.raises(ValueError, match=message):
        backend(size=SMALL)([photo(4, 4), bad])


def test_no_images(backend):
    with pytest.raises(ValueError, match="at least one image"):
        backend()([])


def test_broken_files_are_named(backend, tmp_path):
    photo(60, 60).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.png").write_text("not an image")
    with PIL.Image.open(tmp_path / "cut.png") as cut, pytest.raises(ValueError, match=r"images\[1\].*cut\.png"):
        backend()([photo(4, 4), cut])
    with pytest.raises(ValueError, match=r"images: .*text\.png"):
        backend()(str(tmp_path / "text.png"))


# --- annotations


def test_labels(backend):
    objects = [thing((10, 20, 30, 40), area=600.0), thing((-5, 90, 20, 20)), thing(category_id=0, iscrowd=1)]
    batch = backend(size={"height": 50, "width": 100})(photo(100, 50), coco(*objects), return_tensors="pt")
    label = batch["labels"][0]
    expected = torch.tensor([[0.5, 0.4, 0.6, 0.4], [0.15, 0.95, 0.3, 0.1]])
    torch.testing.assert_close(label["boxes"], expected)
    assert label["class_labels"].tolist() == [2, 2]
    assert label["area"].tolist() == [600.0, 60.0]  # half as high, twice as wide
    assert label["iscrowd"].tolist() == [0, 0]
    assert label["image_id"].tolist() == [7]
    assert label["size"].tolist() == [50, 100]
    assert label["orig_size"].tolist() == [100, 50]
    types = {"boxes": torch.float32, "area": torch.float32}
    assert all(value.dtype == types.get(key, torch.int64) for key, value in label.items())


def test_images_without_objects(backend):
    label = backend(size=SMALL)(photo(48, 60), [coco()], return_tensors="pt")["labels"][0]
    assert label["boxes"].shape == (0, 4)
    assert label["class_labels"].shape == (0,)
    assert label["class_labels"].dtype == torch.int64


@settings(max_examples=60)
@given(st.data())
def test_boxes_come_back_clipped(data):
    height, width = data.draw(st.integers(2, 60)), data.draw(st.integers(2, 60))
    left, top = data.draw(st.floats(-20, width - 0.5)), data.draw(st.floats(-20, height - 0.5))
    box_width, box_height = data.draw(st.floats(0.25 - min(left, 0), 99)), data.draw(st.floats(0.25 - min(top, 0), 99))
    batch = HfDetrImageProcessor(size=SMALL)(
        photo(height, width), coco(thing((left, top, box_width, box_height))), return_tensors="pt"
    )
    label = batch["labels"][0]
    logits = torch.tensor([[[0.0, 0.0, 9.0, 0.0]]])
    outputs = SimpleNamespace(logits=logits, pred_boxes=label["boxes"][None])
    [found] = HfDetrImageProcessor().post_process_object_detection(outputs, 0.5, label["orig_size"][None])
    expected = [max(left, 0.0), max(top, 0.0), min(left + box_width, width), min(top + box_height, height)]
    torch.testing.assert_close(found["boxes"], torch.tensor([expected]), atol=1e-4, rtol=0)
    assert found["labels"].tolist() == [2]


def test_degenerate_boxes_are_dropped_with_one_warning(backend):
    annotations = [
        coco(thing((1, 1, 0, 5)), thing((1, 1, 5, -2)), thing(), image_id=3),
        coco(thing((1, 1, 0, 0)), image_id=4),
    ]
    with pytest.warns(UserWarning, match=r"3 box\(es\) .* \[3, 4\]") as caught:
        batch = backend(size=SMALL)([photo(48, 60)] * 2, annotations, return_tensors="pt")
    assert len(caught) == 1
    assert [len(label["boxes"]) for label in batch["labels"]] == [1, 0]


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ("coco", "annotations: .*got str"),
        ([coco()] * 2, r"one per image, got 2 for 1 image"),
        ([3], r"annotations\[0\]: .*got int"),
        ({"annotations": []}, r"annotations\[0\].*'image_id' is missing"),
        ({"image_id": 7}, r"image_id 7.*'annotations' is missing"),
        ({"image_id": "a.jpg", "annotations": []}, r"annotations\[0\]: image_id must be an integer, got 'a.jpg'"),
        ({"image_id": 7, "annotations": {"bbox": [[0, 0, 1, 1]]}}, r"image_id 7.*list of objects, got dict"),
        (coco(thing(), 5), r"image_id 7.*object 1: .*got int"),
        (coco({"category_id": 1, "area": 1.0}), r"image_id 7.*object 0: .*'bbox' is missing"),
        (coco({"bbox": [0, 0, 1, 1], "area": 1.0}), r"'category_id' is missing"),
        (coco({"bbox": [0, 0, 1, 1], "category_id": 1}), r"'area' is missing"),
        (coco(thing((0, 0, 1))), r"image_id 7.*bbox must be 4 finite numbers, got \[0, 0, 1\]"),
        (coco(thing((0, 0, float("nan"), 1))), r"bbox must be 4 finite numbers"),
        (coco(thing((0, 0, float("inf"), 1))), r"bbox must be 4 finite numbers"),
        (coco(thing(("0", "0", "1", "1"))), r"bbox must be 4 finite numbers"),
        (coco(thing(((0, 0), 1, 1, 1))), r"bbox must be 4 finite numbers"),
        (coco(thing(), thing((61, 5, 3, 3))), r"image_id 7.*object 1: bbox .*wholly outside.*height 48 and width 60"),
        (coco(thing((-9, 5, 9, 3))), r"wholly outside"),
        (coco(thing(category_id=1.5)), r"image_id 7.*category_id must be an integer, got 1.5"),
        (coco(thing(category_id="cat")), r"category_id must be an integer, got 'cat'"),
        (coco(thing(category_id=True)), r"category_id must be an integer, got True"),
        (coco(thing(category_id=-1)), r"category_id must not be negative"),
        (coco(thing(area=float("nan"))), r"area must be a finite number"),
        (coco(thing(area=None)), r"area must be a finite number"),
        (coco(thing(area=-1.0)), r"area must not be negative"),
        (coco(thing(iscrowd=2)), r"iscrowd must be 0 or 1"),
    ],
)
def test_bad_annotations_name_the_image_and_the_field(backend, annotations, message):
    with pytest.raises(ValueError, match=message):
        backend(size=SMALL)(photo(48, 60), annotations)


def test_masks_from_polygons_equal_those_of_transformers(backend):
    polygons = [[[5, 5, 40, 8, 30, 35]], [[0, 0, 20, 0, 20, 20, 0, 20], [30, 30, 50, 30, 50, 45]]]
    objects = [thing(segmentation=segmentation) for segmentation in polygons]
    images, annotations = [photo(48, 60), photo(90, 48)], [coco(*objects), coco(objects[0])]
    ours = backend(size=SMALL)(images, annotations, return_segmentation_masks=True, return_tensors="pt")
    theirs = DetrImageProcessor(size=SMALL)(images, annotations, return_segmentation_masks=True, return_tensors="pt")
    for label, expected in zip(ours["labels"], theirs["labels"], strict=True):
        assert label["masks"].dtype == torch.bool
        assert label["masks"].shape[1:] == ours["pixel_mask"].shape[1:]
        assert torch.equal(label["masks"], expected["masks"])


def test_masks_from_run_lengths(backend):
    mask = np.zeros((48, 60), dtype=np.uint8)
    mask[5:20, 8:30] = 1
    compressed = coco_mask.encode(np.asfortranarray(mask))
    text = {"size": [48, 60], "counts": compressed["counts"].decode()}
    uncompressed = {"size": [48, 60], "counts": [8 * 48 + 5, *([15, 33] * 22)[:-1], 28 + 30 * 48]}
    objects = [thing(segmentation=segmentation) for segmentation in (compressed, text, uncompressed)]
    processor = backend(do_resize=False, return_segmentation_masks=True)
    crowd = thing(segmentation=text, iscrowd=1)
    label = processor(photo(48, 60), coco(*objects, crowd), return_tensors="pt")["labels"][0]
    assert label["masks"].shape == (3, 48, 60)
    for found in label["masks"]:
        np.testing.assert_array_equal(found.numpy(), mask.astype(bool))
    empty = processor(photo(48, 60), coco(), return_tensors="pt")["labels"][0]
    assert empty["masks"].shape == (0, 48, 60)


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [1, 2, 3, 4, 5, 6],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("nan")]],
        {"counts": "abc"},
        {"size": [60, 48], "counts": [2880]},
        {"size": [48, 60], "counts": [2881]},
        {"size": [48, 60], "counts": "not run lengths"},
    ],
)
def test_bad_segmentations_name_the_image_and_the_field(backend, segmentation):
    with pytest.raises(ValueError, match=r"image_id 7\), object 0: segmentation"):
        backend(return_segmentation_masks=True)(photo(48, 60), coco(thing(segmentation=segmentation)))


# --- predictions


def test_predictions_are_read_by_the_classifier_of_the_processor(backend):
    # one query, sure of class 1 and fairly sure of class 2; for softmax, class 2 is "no object"
    logits, boxes = torch.tensor([[[-9.0, 4.0, 3.0]]]), torch.tensor([[[0.5, 0.5, 0.5, 0.5]]])
    outputs = SimpleNamespace(logits=logits, pred_boxes=boxes)
    arguments = {"threshold": 0.6, "target_sizes": [(10, 20)], "top_k": 5}
    for classification, labels in (("softmax", [1]), ("sigmoid", [1, 2])):
        [found] = backend(classification=classification).post_process_object_detection(outputs, **arguments)
        assert found["labels"].tolist() == labels
        [expected] = detect_objects(logits, boxes, classification, **arguments)
        assert all(torch.equal(found[key], expected[key]) for key in ("scores", "labels", "boxes"))


# --- with transformers


@pytest.fixture(scope="module")
def tiny_detr():
    torch.manual_seed(0)
    backbone = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], out_features=["stage4"])
    config = DetrConfig(
        use_timm_backbone=False,
        backbone=None,
        use_pretrained_backbone=False,
        backbone_config=backbone,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=6,
        num_labels=3,
    )
    return DetrForObjectDetection(config).eval()


def test_object_detection_pipeline(backend, tiny_detr):
    image = photo(50, 70)
    ours = pipeline("object-detection", model=tiny_detr, image_processor=backend(size=SMALL), device="cpu")
    theirs = pipeline(
        "object-detection", model=tiny_detr, image_processor=DetrImageProcessor(size=SMALL), device="cpu"
    )
    found = ours(image, threshold=0.0)
    expected = sorted(theirs(image, threshold=0.0), key=lambda detection: -detection["score"])
    assert len(found) == 6
    for detection, reference in zip(found, expected, strict=True):
        assert detection["score"] == pytest.approx(reference["score"], abs=1e-3)
        assert all(0 <= detection["box"][side] <= limit for side, limit in (("xmin", 70), ("ymax", 50)))


def test_pipeline_batches_images_of_mixed_sizes_when_letterboxed(backend, tiny_detr):
    detector = pipeline(
        "object-detection", model=tiny_detr, image_processor=backend(size={"longest_edge": 64}), device="cpu"
    )
    images = [photo(50, 70), photo(64, 30), photo(33, 90)]
    together = list(detector(images, threshold=0.0, batch_size=3))
    for detections, image in zip(together, images, strict=True):
        alone = detector(image, threshold=0.0)
        assert [d["score"] for d in detections] == pytest.approx([d["score"] for d in alone], abs=1e-4)


def test_save_and_load(backend, tmp_path):
    processor = backend(size=480, max_size=640, size_divisor=32, classification="sigmoid", do_normalize=False)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "HfDetrImageProcessor"
    assert saved["classification"] == "sigmoid"
    assert saved["size"] == {"shortest_edge": 480, "longest_edge": 640}
    assert not [key for key, value in saved.items() if value is None or key.startswith("_")]
    loaded = backend.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    image = photo(50, 60)
    expected = processor(image, return_tensors="pt")["pixel_values"]
    assert torch.equal(loaded(image, return_tensors="pt")["pixel_values"], expected)
    assert backend.from_pretrained(tmp_path, classification="softmax").classification == "softmax"


def test_published_preprocessor_files_are_read(backend):
    detr = {
        "feature_extractor_type": "DetrFeatureExtractor",
        "format": "coco_detection",
        "size": 800,
        "max_size": 1333,
    }
    processor = backend.from_dict(detr)
    assert dict(processor.size) == {"shortest_edge": 800, "longest_edge": 1333}
    assert processor.classification == "softmax"
    assert not {"format", "feature_extractor_type", "max_size"} & processor.to_dict().keys()
    deformable = DeformableDetrImageProcessor(size={"shortest_edge": 600, "longest_edge": 900}).to_dict()
    processor = backend.from_dict(deformable)
    assert processor.classification == "sigmoid"
    assert dict(processor.size) == {"shortest_edge": 600, "longest_edge": 900}
    assert backend.from_dict(deformable, classification="softmax").classification == "softmax"


def test_auto_image_processor(tmp_path):
    AutoConfig.register("hf_detr", HfDetrConfig, exist_ok=True)
    AutoImageProcessor.register(
        HfDetrConfig,
        image_processor_classes={"torchvision": HfDetrImageProcessor, "pil": HfDetrImageProcessorPil},
        exist_ok=True,
    )
    HfDetrImageProcessor(size_divisor=32).save_pretrained(tmp_path)
    default = AutoImageProcessor.from_pretrained(tmp_path)
    pil = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert type(default) is HfDetrImageProcessor
    assert type(pil) is HfDetrImageProcessorPil
    assert pil.to_dict() == default.to_dict()


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_the_package_memory_of_images_is_kept(backend, monkeypatch):
    assert backend.allocation is freed_memory_is_kept
    entered = []

    @contextmanager
    def context():
        entered.append(True)
        yield

    monkeypatch.setattr(backend, "allocation", staticmethod(context))
    backend(size=SMALL)(np.zeros((9, 9, 3), np.uint8), return_tensors="pt")
    assert entered == [True]


def test_the_code_travels_with_the_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(HfDetrImageProcessor, "_auto_class", "AutoImageProcessor")
    HfDetrImageProcessor().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["auto_map"]["AutoImageProcessor"] == "image_processing.HfDetrImageProcessor"
    assert {"image_processing.py", "pixels.py"} <= {path.name for path in tmp_path.iterdir()}
