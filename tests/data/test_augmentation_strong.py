"""Objects are painted in flat colours; after augmentation the pixels tell where the boxes have to be."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from painted import COLOURS, painted_row, painted_rows, pixels_of, tight_box
from PIL import Image
from torch.utils.data import DataLoader

from hf_detr.data import (
    AUGMENTATIONS,
    AugmentationOptions,
    DetectionCollator,
    StrongAugmentation,
    build_augmentation,
    make_synthetic_dataset,
    undecoded,
)
from hf_detr.data.augmentation.several_images import copy_paste, cover, mixup, mosaic
from hf_detr.data.collate import load_example
from hf_detr.processing.image_processing import HfDetrImageProcessor
from hf_detr.training.seeding import SeededCollator

EDGES = (64, 110)
PROCESSOR = HfDetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 110}, do_normalize=False)
SINGLE = {
    "published": AugmentationOptions(),
    "large_scale_jitter": AugmentationOptions(large_scale_jitter=1, jitter_scale=(0.4, 2.0)),
    "iou_crop": AugmentationOptions(iou_crop=1),
    "turned": AugmentationOptions(vertical_flip=0.5, quarter_turn=0.8),
}
ALL = replace(AUGMENTATIONS["strong"], photometric=0, mixup=0, copy_paste=0.6, vertical_flip=0.5, quarter_turn=0.5)


def check_boxes(image, target, tolerance=2.0):
    """Every box ends, on all four sides, where the colour of its object does; all tensors have its length."""
    height, width = image.shape[1:]
    assert target["boxes"].canvas_size == (height, width)
    assert {len(value) for value in target.values()} == {len(target["boxes"])}
    for index, (left, top, right, bottom) in enumerate(target["boxes"].tolist()):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        if min(right - left, bottom - top) < 6:
            continue
        rows = slice(max(0, round(top) - 3), round(bottom) + 3)
        columns = slice(max(0, round(left) - 3), round(right) + 3)
        shown = np.zeros((height, width), dtype=bool)
        shown[rows, columns] = pixels_of(image, target["labels"][index].item())[rows, columns]
        assert np.abs(np.subtract(tight_box(shown), [left, top, right, bottom])).max() <= tolerance
        if "masks" in target:
            mask = target["masks"][index].numpy()
            assert np.abs(np.subtract(tight_box(mask), [left, top, right, bottom])).max() <= 3


def check_nothing_is_unmarked(image, target, sliver=3):
    """Every pixel with a colour is in, or next to, a box of that label; slivers at the border may have lost theirs."""
    for label in range(len(COLOURS)):
        left_over = pixels_of(image, label)
        for box, its_label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
            if its_label == label:
                left, top, right, bottom = (round(value) for value in box)
                left_over[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = False
        if left_over.any():
            left, top, right, bottom = tight_box(left_over)
            assert min(right - left, bottom - top) <= sliver


seeds = st.integers(0, 2**31)


@pytest.mark.parametrize("name", SINGLE)
@settings(max_examples=60)
@given(row=painted_rows((0, 1, 2, 3)), seed=seeds, masks=st.booleans())
def test_boxes_end_where_their_objects_do(name, row, seed, masks):
    torch.manual_seed(seed)
    augmentation = StrongAugmentation(*EDGES, SINGLE[name])
    image, target = augmentation(*load_example(row, masks=masks))
    assert image.dtype == torch.uint8
    assert max(image.shape[1:]) <= EDGES[1]
    assert ("masks" in target) == masks
    check_boxes(image, target)
    if name != "iou_crop":  # which lets go of objects whose centre is outside
        check_nothing_is_unmarked(image, target)
    boxes = target["boxes"].as_subclass(torch.Tensor)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert target["area"].tolist() == pytest.approx(areas.tolist(), rel=1e-4)


@settings(max_examples=60)
@given(
    rows=st.tuples(painted_rows((0,)), painted_rows((1, 2)), painted_rows((3, 4)), painted_rows((5,))),
    seed=seeds,
    masks=st.booleans(),
    size=st.tuples(st.integers(40, 120), st.integers(40, 120)),
)
def test_a_mosaic_shows_parts_of_four_images(rows, seed, masks, size):
    torch.manual_seed(seed)
    image, target = mosaic([load_example(row, masks=masks) for row in rows], size)
    assert image.shape == (3, *size)
    assert ("masks" in target) == masks
    check_boxes(image, target)
    check_nothing_is_unmarked(image, target)


@settings(max_examples=60)
@given(rows=st.tuples(painted_rows((0,)), painted_rows((1, 2))), seed=seeds)
def test_mixup_shows_the_objects_of_both(rows, seed):
    torch.manual_seed(seed)
    first = load_example(rows[0])
    second = cover(*load_example(rows[1]), first[0].shape[1:])
    image, target = mixup(first, second)
    assert target["labels"].tolist() == [0, *second[1]["labels"].tolist()]
    for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True):
        if min(box[2] - box[0], box[3] - box[1]) >= 6:
            shown = image[label].numpy() >= image[label].max().item() / 2
            assert 0.38 * 255 <= image[label].max() <= 0.62 * 255
            assert np.abs(np.subtract(tight_box(shown), box)).max() <= 2


@settings(max_examples=100)
@given(rows=st.tuples(painted_rows((0, 1)), painted_rows((2, 3, 4, 5))), seed=seeds)
def test_pasted_objects_hide_what_is_behind_them(rows, seed):
    torch.manual_seed(seed)
    first = load_example(rows[0], masks=True)
    first[1]["area"] = torch.ones(len(first[1]["area"]))  # the share of the box, here all of it
    second = cover(*load_example(rows[1], masks=True), first[0].shape[1:])
    second[1]["area"] = torch.ones(len(second[1]["area"]))
    image, target = copy_paste(first, second)
    for index, label in enumerate(target["labels"].tolist()):
        mask = target["masks"][index].numpy()
        assert mask.any()
        left, top, right, bottom = target["boxes"][index].tolist()
        assert np.abs(np.subtract(tight_box(mask), [left, top, right, bottom])).max() <= 3
        if label in (0, 1):  # not resized: exact
            assert np.array_equal(mask, pixels_of(image, label))
            assert tight_box(mask) == [left, top, right, bottom]
            assert target["area"][index].item() * (right - left) * (bottom - top) == pytest.approx(mask.sum())
    assert {0, 1} - set(target["labels"].tolist()) == {label for label in (0, 1) if not pixels_of(image, label).any()}


def test_images_with_and_without_masks_can_be_combined():
    row = painted_row(1, (60, 60), [(5, 5, 20, 20)], [0])
    strong = replace(AUGMENTATIONS["strong"], copy_paste=1, mixup=0.5)
    augmentation = StrongAugmentation(*EDGES, strong, [row, row | {"instance_mask": None}])
    for seed in range(12):
        torch.manual_seed(seed)
        for masks in (False, True):
            _, target = augmentation(*load_example(row, masks=masks))
            assert {len(value) for value in target.values()} == {len(target["boxes"])}


def test_crowds_are_not_pasted():
    rows = [
        painted_row(1, (60, 60), [(5, 5, 20, 20)], [0]),
        painted_row(2, (60, 60), [(30, 5, 50, 20), (30, 30, 50, 50)], [1, 2], crowd=(1,)),
    ]
    examples = [load_example(row, masks=True) for row in rows]
    pasted = set()
    for seed in range(20):
        torch.manual_seed(seed)
        image, target = copy_paste(*examples)
        pasted |= set(target["labels"].tolist())
        assert target["iscrowd"].sum() == 0
        assert not pixels_of(image, 1).any()
    assert pasted == {0, 2}


def inside(mask: torch.Tensor) -> np.ndarray:
    """The mask without its outermost pixels, whose colours are blended with those around."""
    outside = ~mask.as_subclass(torch.Tensor).bool()
    return ~torch.nn.functional.max_pool2d(outside[None].float(), 3, stride=1, padding=1)[0].bool().numpy()


@settings(max_examples=80)
@given(
    rows=st.tuples(painted_rows((0, 1)), painted_rows((2, 3)), painted_rows((4,)), painted_rows((5, 0, 1))),
    seed=seeds,
)
def test_all_together_keep_boxes_and_masks_right(rows, seed):
    torch.manual_seed(seed)
    image, target = StrongAugmentation(*EDGES, ALL, list(rows))(*load_example(rows[0], masks=True))
    assert max(image.shape[1:]) <= EDGES[1]
    for box, mask, label in zip(target["boxes"].tolist(), target["masks"], target["labels"].tolist(), strict=True):
        if min(box[2] - box[0], box[3] - box[1]) < 6:
            continue
        assert np.abs(np.subtract(tight_box(mask.numpy()), box)).max() <= 3
        shown = pixels_of(image, label)[inside(mask)]
        assert shown.size == 0 or shown.mean() > 0.6  # resized twice, more than the outermost pixels may be blended


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", [*SINGLE, "strong"])
def test_pictures_without_objects(name, masks):
    empty = painted_row(1, (50, 70), [], [])
    options = SINGLE.get(name) or replace(AUGMENTATIONS["strong"], copy_paste=1.0, mixup=0.5)
    for seed in range(8):
        torch.manual_seed(seed)
        image, target = StrongAugmentation(*EDGES, options, [empty])(
            *load_example(empty, masks=masks or name == "strong")
        )
        assert target["boxes"].shape == (0, 4)
        assert target["boxes"].canvas_size == tuple(image.shape[1:])
        assert target["labels"].shape == target["area"].shape == (0,)


@pytest.mark.parametrize("size", [(1, 1), (2, 90), (90, 3), (7, 7)])
def test_tiny_and_thin_pictures_do_no_harm(size):
    row = painted_row(1, size, [(0, 0, size[1], size[0])], [0])
    options = replace(AUGMENTATIONS["strong"], copy_paste=0.5, mixup=0.5)
    augmentation = StrongAugmentation(*EDGES, options, [row])
    for seed in range(30):
        torch.manual_seed(seed)
        image, target = augmentation(*load_example(row, masks=True))
        assert min(image.shape[1:]) >= 1
        assert target["boxes"].canvas_size == tuple(image.shape[1:])


def test_colours_change_but_channels_stay_in_order():
    row = painted_row(1, (60, 60), [(0, 0, 60, 60)], [0])
    augmentation = StrongAugmentation(*EDGES, AugmentationOptions(photometric=1))
    levels = set()
    for seed in range(20):
        torch.manual_seed(seed)
        image, _ = augmentation(*load_example(row))
        levels.add(tuple(image.flatten(1).float().mean(1).round().tolist()))
        assert image[0].float().mean() > max(image[1].float().mean(), image[2].float().mean())
    assert len(levels) > 5


def test_an_image_is_scaled_against_its_canvas():
    row = painted_row(1, (64, 64), [(0, 0, 64, 64)], [0])
    augmentation = StrongAugmentation(*EDGES, AugmentationOptions(large_scale_jitter=1))
    shares = []
    for seed in range(200):
        torch.manual_seed(seed)
        image, target = augmentation(*load_example(row))
        left, _, right, _ = target["boxes"][0].tolist()
        shares.append((right - left) / image.shape[2])
        assert image.shape[1] == image.shape[2] in {round(0.6 * 64 + 0.04 * 64 * step) for step in range(11)}
    assert min(shares) < 0.2
    assert 0.4 < np.mean(np.array(shares) > 0.99) < 0.65  # scales are uniform between 0.1 and 2


@pytest.fixture(scope="module")
def scenes():
    return undecoded(make_synthetic_dataset(12, (96, 80), seed=2))


def test_batches_do_not_depend_on_the_workers(scenes):
    def batches(workers):
        collator = SeededCollator(
            DetectionCollator(PROCESSOR, StrongAugmentation(*EDGES, AUGMENTATIONS["strong"], scenes)), seed=3
        )
        return list(DataLoader(scenes, batch_size=3, num_workers=workers, collate_fn=collator))

    for batch, again in zip(batches(0), batches(2), strict=True):
        assert torch.equal(batch["pixel_values"], again["pixel_values"])
        for labels, others in zip(batch["labels"], again["labels"], strict=True):
            assert all(torch.equal(labels[name], others[name]) for name in labels)


def test_masks_reach_the_batch_only_when_asked_for():
    boxes = [(10, 10, 40, 30), (50, 20, 70, 60), (5, 50, 25, 75)]
    rows = [painted_row(image_id, (80, 96), boxes, [0, 1, 2], crowd=(1,)) for image_id in range(4)]
    strong = StrongAugmentation(*EDGES, AUGMENTATIONS["strong"], rows)
    assert "masks" not in DetectionCollator(PROCESSOR, strong)(rows)["labels"][0]
    for augmentation in (None, strong):
        torch.manual_seed(0)
        batch = DetectionCollator(PROCESSOR, augmentation, masks=True)(rows)
        for labels in batch["labels"]:
            assert labels["masks"].shape == (len(labels["boxes"]), *batch["pixel_values"].shape[2:])
            assert 1 not in labels["class_labels"]
            for mask, box in zip(labels["masks"], labels["boxes"], strict=True):
                x, y, width, height = (box * labels["size"].flip(0).repeat(2)).tolist()
                if min(width, height) >= 6:
                    corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
                    assert np.abs(np.subtract(tight_box(mask.numpy()), corners)).max() <= 3


def test_masks_cannot_be_asked_for_where_there_are_none(scenes):
    rows = [scenes[0] | {"instance_mask": None}]
    with pytest.raises(ValueError, match=f"image id {rows[0]['image_id']}, field 'instance_mask'"):
        DetectionCollator(PROCESSOR, masks=True)(rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": 1.2}, "mixup must be a probability"),
        ({"mosaic": 0.7, "iou_crop": 0.5}, "the sum must not exceed 1"),
        ({"jitter_scale": (0.0, 1.0)}, "jitter_scale must be"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AugmentationOptions(**options)


@pytest.mark.parametrize("pool", [None, [], iter([1])])
def test_combining_needs_a_pool(pool):
    with pytest.raises(ValueError, match="need a pool"):
        StrongAugmentation(*EDGES, AugmentationOptions(mosaic=0.1), pool)


@pytest.mark.parametrize("name", ["mosaic", "mixup", "copy_paste"])
def test_there_are_never_more_objects_than_the_model_has_queries(name):
    boxes = [(4, 4, 30, 30), (40, 4, 60, 30), (4, 40, 30, 60), (40, 40, 60, 60)]
    row = painted_row(1, (64, 64), boxes, [0, 1, 2, 3], crowd=(3,))
    counts = {}
    for most in (3, 5, 100):
        augmentation = StrongAugmentation(*EDGES, AugmentationOptions(**{name: 1}), [row], most)
        counts[most] = []
        for seed in range(30):
            torch.manual_seed(seed)
            _, target = augmentation(*load_example(row, masks=True))
            counts[most].append(int((target["iscrowd"] == 0).sum()))
    assert max(counts[3]) == 3
    assert max(counts[5]) <= 5
    assert max(counts[100]) >= 5


def test_large_photographs_are_decoded_smaller(tmp_path):
    """The box is where the object is, and the result what the whole picture gives."""
    row = painted_row(1, (480, 640), [(100, 80, 400, 380)], [0])
    row["image"].save(tmp_path / "image.jpg", quality=95)
    row |= {"image": {"path": str(tmp_path / "image.jpg"), "bytes": None}, "instance_mask": None}
    sizes = set()
    for least_edge in (None, 481, 240, 100, 60):
        image, target = load_example(row, least_edge=least_edge)
        sizes.add(tuple(image.shape[1:]))
        assert least_edge is None or min(image.shape[1:]) >= min(least_edge, 480)
        assert target["boxes"].canvas_size == tuple(image.shape[1:])
        assert np.abs(np.subtract(tight_box(pixels_of(image, 0)), target["boxes"][0].tolist())).max() <= 1
        assert target["area"].item() == pytest.approx(300 * 300 * (image.shape[1] / 480) ** 2)
    assert sizes == {(480, 640), (240, 320), (120, 160), (60, 80)}
    batches = []
    reduced = StrongAugmentation(*EDGES, AugmentationOptions())
    for augmentation in (reduced, reduced.__call__):  # the method has no `least_edge`
        torch.manual_seed(1)
        batches.append(DetectionCollator(PROCESSOR, augmentation)([row]))
    assert torch.allclose(batches[0]["labels"][0]["boxes"], batches[1]["labels"][0]["boxes"], atol=0.02)
    assert (batches[0]["pixel_values"] - batches[1]["pixel_values"]).abs().mean() < 0.03


def test_turned_photographs_are_turned_when_decoded_smaller(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: to be shown a quarter clockwise
    row = painted_row(1, (640, 480), [(100, 80, 400, 380)], [0])
    row["image"].transpose(Image.Transpose.ROTATE_90).save(tmp_path / "image.jpg", quality=95, exif=exif)
    row |= {"image": {"path": str(tmp_path / "image.jpg"), "bytes": None}}
    image, target = load_example(row, least_edge=100)
    assert image.shape == (3, 160, 120)
    assert np.abs(np.subtract(tight_box(pixels_of(image, 0)), target["boxes"][0].tolist())).max() <= 1


def test_names():
    assert build_augmentation("none", *EDGES) is None
    with pytest.raises(ValueError, match="one of none, flip, light, published, strong; got 'wild'"):
        build_augmentation("wild", *EDGES)
