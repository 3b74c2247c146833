import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from hf_detr.data import DetrAugmentation, build_augmentation
from hf_detr.data.augmentation.published import RandomResize, RandomSizeCrop, without_lost_objects


def picture_of(box, height, width):
    """Paint a white rectangle on black; return the picture with its target."""
    left, top, right, bottom = box
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, top:bottom, left:right] = 255
    target = {
        "boxes": tv_tensors.BoundingBoxes(
            [list(box)], format="XYXY", canvas_size=(height, width), dtype=torch.float32
        ),
        "labels": torch.tensor([3]),
        "area": torch.tensor([0.5 * (right - left) * (bottom - top)]),
    }
    return image, target


def tight_box(bright):
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


scenes = st.tuples(st.integers(40, 120), st.integers(40, 120)).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.integers(0, size[1] - 12),
        st.integers(0, size[0] - 12),
        st.integers(12, size[1]),
        st.integers(12, size[0]),
    )
)


@settings(max_examples=150)
@given(scenes, st.integers(0, 2**31), st.sampled_from([64, 96, 200]))
def test_the_box_still_is_the_painted_rectangle(scene, seed, shortest_edge):
    (height, width), left, top, box_width, box_height = scene
    box = (left, top, min(left + box_width, width), min(top + box_height, height))
    image, target = picture_of(box, height, width)
    torch.manual_seed(seed)
    image, target = DetrAugmentation(shortest_edge, 2 * shortest_edge)(image, target)

    height, width = image.shape[1:]
    assert max(height, width) <= 2 * shortest_edge
    assert target["boxes"].canvas_size == (height, width)
    bright = image[0].numpy() >= 128
    count = len(target["boxes"])
    assert len(target["labels"]) == len(target["area"]) == count
    if count == 0:
        assert bright.any(0).sum() <= 2 or bright.any(1).sum() <= 2  # at most a sliver is left in the picture
        return
    left, top, right, bottom = target["boxes"][0].tolist()
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert target["area"].item() == pytest.approx(0.5 * (right - left) * (bottom - top), rel=1e-4)
    if min(right - left, bottom - top) > 3:
        assert np.abs(np.subtract(tight_box(bright), [left, top, right, bottom])).max() <= 1.5


def test_a_box_up_to_the_border_survives_rounding():
    """91 * float32(104 / 91) is a little more than 104."""
    image, target = picture_of((0, 0, 12, 91), 91, 40)
    image, target = RandomResize([46], 128)(image, target)
    assert image.shape[1:] == (104, 46)
    assert target["boxes"][0, 3] > 104
    assert without_lost_objects(target)["boxes"].tolist() == [pytest.approx([0, 0, 13.8, 104])]


@settings(max_examples=60)
@given(st.lists(st.tuples(*[st.floats(-20, 60, width=32)] * 4), max_size=6), st.booleans())
def test_objects_are_lost_as_with_the_transforms_of_torchvision(corners, masked):
    boxes = tv_tensors.BoundingBoxes(torch.tensor(corners).reshape(-1, 4), format="XYXY", canvas_size=(40, 30))
    target = {"boxes": boxes, "labels": torch.arange(len(boxes))}
    if masked:
        target["masks"] = tv_tensors.Mask(torch.rand(len(boxes), 40, 30) > 0.5)
    expected = v2.Compose([v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes()])(target)
    found = without_lost_objects(target)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert type(value) is type(expected[name])
        assert torch.equal(value, expected[name])


@pytest.mark.parametrize("size", [(2, 3000), (3000, 2), (1, 1)])
@pytest.mark.parametrize("name", ["flip", "light", "published"])
def test_the_narrowest_pictures_keep_a_pixel(size, name):
    image, target = picture_of((0, 0, size[1], size[0]), *size)
    target["iscrowd"] = torch.tensor([0])
    for seed in range(8):
        torch.manual_seed(seed)
        result, found = build_augmentation(name, 64, 128)(image, target)
        assert min(result.shape[1:]) >= 1
        assert found["boxes"].canvas_size == tuple(result.shape[1:])


def test_masks_follow_their_boxes():
    """Masks are resized, once or twice, to the nearest pixel: an edge may be off by a pixel before each resize."""
    compared = 0
    for seed in range(100):
        torch.manual_seed(seed)
        image, target = picture_of((20 + seed % 40, 30, 90 + seed % 20, 100), 130, 150)
        target["masks"] = tv_tensors.Mask(torch.cat([image[:1] > 0, image[:1] >= 0]))
        full = tv_tensors.BoundingBoxes([[0, 0, 150, 130]], format="XYXY", canvas_size=(130, 150))
        target["boxes"] = tv_tensors.wrap(torch.cat([target["boxes"], full]), like=target["boxes"])
        target |= {"labels": torch.tensor([3, 4]), "area": torch.ones(2)}
        image, target = DetrAugmentation(64, 128)(image, target)
        assert len(target["masks"]) == len(target["boxes"]) == len(target["labels"])
        assert target["masks"].shape[1:] == image.shape[1:]
        for box, mask, label in zip(target["boxes"], target["masks"], target["labels"], strict=True):
            if label == 4:
                assert mask.all()
            elif min(box[2] - box[0], box[3] - box[1]) > 5:
                compared += 1
                assert np.abs(np.subtract(tight_box(mask.numpy()), box.tolist())).max() <= 3
    assert compared > 80


def test_pil_images_stay_pil_images():
    image, target = picture_of((10, 10, 50, 40), 60, 80)
    torch.manual_seed(0)
    result, target = DetrAugmentation(48, 96)(Image.fromarray(image.permute(1, 2, 0).numpy()), target)
    assert isinstance(result, Image.Image)
    assert result.size[::-1] == tuple(target["boxes"].canvas_size)


def test_the_published_sizes():
    """At the published target, the shortest edge goes from 480 to 800 in steps of 32, the longest up to 1333."""
    image, target = picture_of((0, 0, 640, 480), 480, 640)
    augmentation = DetrAugmentation(800, 1333)
    sizes = set()
    for seed in range(60):
        torch.manual_seed(seed)
        result, _ = augmentation(image, target)
        sizes.add((min(result.shape[1:]), max(result.shape[1:])))
    steps = set(range(480, 801, 32))
    assert {shortest for shortest, _ in sizes} >= steps
    assert all(shortest in steps or longest in (1332, 1333) for shortest, longest in sizes)


def test_about_half_is_flipped_and_half_cropped():
    image, target = picture_of((0, 0, 40, 100), 100, 100)
    augmentation = DetrAugmentation(100, 200)
    flipped = whole = 0
    for seed in range(200):
        torch.manual_seed(seed)
        result, _ = augmentation(image, target)
        flipped += int(result[0, :, -1].float().mean() > result[0, :, 0].float().mean())
        share = (result[0] >= 128).float().mean().item()
        whole += int(abs(share - 0.4) < 0.02 and result.shape[1] == result.shape[2])
    assert 50 < flipped < 130  # some crops show no edge of the rectangle
    assert 80 < whole < 130


def test_the_same_seed_gives_the_same_result():
    image, target = picture_of((10, 10, 50, 40), 60, 80)

    def run(seed):
        torch.manual_seed(seed)
        return [DetrAugmentation(64, 128)(image, target)[1]["boxes"] for _ in range(4)]

    assert all(torch.equal(a, b) for a, b in zip(run(5), run(5), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(run(5), run(6), strict=True))


def test_a_picture_without_objects():
    target = {
        "boxes": tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=(60, 80)),
        "labels": torch.zeros(0, dtype=torch.int64),
        "area": torch.zeros(0),
    }
    for seed in range(6):
        torch.manual_seed(seed)
        image, result = DetrAugmentation(64, 128)(torch.zeros(3, 60, 80, dtype=torch.uint8), target)
        assert result["boxes"].shape == (0, 4)
        assert result["boxes"].canvas_size == tuple(image.shape[1:])


def test_the_given_target_is_not_changed():
    image, target = picture_of((10, 10, 50, 40), 60, 80)
    before = {name: value.clone() for name, value in target.items()}
    DetrAugmentation(64, 128)(image, target)
    assert all(torch.equal(target[name], before[name]) for name in before)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**31))
def test_crops_stay_between_their_bounds(height, width, seed):
    torch.manual_seed(seed)
    result, _ = RandomSizeCrop(20, 40)(torch.zeros(1, height, width), {})
    for side, original in zip(result.shape[1:], (height, width), strict=True):
        assert min(20, original) <= side <= min(40, original)


@pytest.mark.parametrize("sizes", [(0, 10), (-4, 10), (20, 10)])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match=f"shortest_edge={sizes[0]}"):
        DetrAugmentation(*sizes)
