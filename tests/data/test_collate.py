import io

import numpy as np
import pytest
import torch
from coco_files import annotation, coco_content, image_entry, write_coco
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from hf_detr.data import (
    DataError,
    DetectionCollator,
    DetrAugmentation,
    decode_image,
    make_synthetic_dataset,
    read_coco,
    undecoded,
)
from hf_detr.processing.image_processing import HfDetrImageProcessor

PROCESSOR = HfDetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 100}, do_normalize=False)


@pytest.fixture(scope="module")
def scenes():
    return undecoded(make_synthetic_dataset(12, (96, 80), seed=2))


def painted_row(left, top, right, bottom, width=90, height=60):
    """A white rectangle on black, annotated as such."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[top:bottom, left:right] = 255
    objects = {
        "id": [1],
        "bbox": [[left, top, right - left, bottom - top]],
        "category": [2],
        "area": [9.0],
        "iscrowd": [0],
    }
    return {"image": Image.fromarray(pixels), "image_id": 7, "width": width, "height": height, "objects": objects}


@pytest.mark.parametrize("augmentation", [None, DetrAugmentation(64, 100)])
def test_the_labels_mark_what_the_pixels_show(augmentation):
    torch.manual_seed(4)
    collator = DetectionCollator(PROCESSOR, augmentation)
    for _ in range(20):
        batch = collator([painted_row(20, 10, 60, 50)])
        (labels,) = batch["labels"]
        bright = batch["pixel_values"][0, 0] >= 0.5
        if len(labels["boxes"]) == 0:
            continue
        rows, columns = torch.nonzero(bright.any(1)), torch.nonzero(bright.any(0))
        height, width = labels["size"].tolist()
        x, y, box_width, box_height = (labels["boxes"][0] * torch.tensor([width, height, width, height])).tolist()
        assert labels["class_labels"].tolist() == [2]
        assert x - box_width / 2 == pytest.approx(columns.min().item(), abs=1.5)
        assert x + box_width / 2 == pytest.approx(columns.max().item() + 1, abs=1.5)
        assert y - box_height / 2 == pytest.approx(rows.min().item(), abs=1.5)
        assert y + box_height / 2 == pytest.approx(rows.max().item() + 1, abs=1.5)


def test_without_augmentation_images_are_only_resized(scenes):
    batch = DetectionCollator(PROCESSOR)([scenes[0], scenes[1]])
    assert batch.keys() == {"pixel_values", "pixel_mask", "labels"}
    assert batch["pixel_values"].shape == (2, 3, 64, 76)
    for labels, row in zip(batch["labels"], scenes.select(range(2)), strict=True):
        assert labels["image_id"].tolist() == [row["image_id"]]
        assert labels["orig_size"].tolist() == [80, 96]
        boxes = torch.tensor(row["objects"]["bbox"]) / torch.tensor([96, 80, 96, 80])
        centred = torch.cat([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:]], dim=1)
        assert torch.allclose(labels["boxes"], centred, atol=1e-6)


def test_augmented_images_are_padded_to_a_batch_and_masked(scenes):
    torch.manual_seed(0)
    batch = DetectionCollator(PROCESSOR, DetrAugmentation(64, 100))([scenes[index] for index in range(6)])
    sizes = [labels["size"].tolist() for labels in batch["labels"]]
    assert len({tuple(size) for size in sizes}) > 1
    for mask, (height, width) in zip(batch["pixel_mask"], sizes, strict=True):
        assert mask.sum() == mask[:height, :width].sum() == height * width


@pytest.mark.parametrize("size", [{"height": 40, "width": 72}, {"longest_edge": 72}])
def test_augmented_images_get_the_fixed_size_of_the_processor(scenes, size):
    torch.manual_seed(3)
    collator = DetectionCollator(HfDetrImageProcessor(size=size), DetrAugmentation(40, 72))
    first, again = (collator([scenes[0], scenes[1]]) for _ in range(2))
    assert first["pixel_values"].shape == (2, 3, size.get("height", 72), 72)
    assert not torch.equal(first["pixel_values"], again["pixel_values"])  # augmented


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(0, 5))
def test_labels_equal_bit_for_bit_those_of_coco_annotations(seed, count):
    """The collator hands tensors to the image processor: the same as if it had written their COCO annotation."""
    torch.manual_seed(seed)
    row = painted_row(20, 10, 60, 50)
    columns = torch.rand(count, 5).numpy().astype(float)
    left, top = columns[:, 0] * 70, columns[:, 1] * 40
    row["objects"] = {
        "id": list(range(1, count + 1)),
        "bbox": np.stack([left, top, 4 + columns[:, 2] * 15, 4 + columns[:, 3] * 15], axis=1).tolist(),
        "category": torch.randint(0, 9, (count,)).tolist(),
        "area": (columns[:, 4] * 99).tolist(),
        "iscrowd": torch.randint(0, 2, (count,)).tolist(),
    }
    augmented = []

    def augmentation(image, target):
        augmented.append(DetrAugmentation(64, 100)(image, target))
        return augmented[-1]

    batch = DetectionCollator(PROCESSOR, augmentation)([row, row])
    annotations = []
    for _, target in augmented:
        boxes = target["boxes"].as_subclass(torch.Tensor)
        boxes = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist()
        fields = [target[name].tolist() for name in ("labels", "area", "iscrowd", "ids")]
        names = ("bbox", "category_id", "area", "iscrowd", "id")
        objects = [dict(zip(names, values, strict=True)) for values in zip(boxes, *fields, strict=True)]
        annotations.append({"image_id": 7, "annotations": objects})
    expected = PROCESSOR([image for image, _ in augmented], annotations, do_resize=False, return_tensors="pt")
    assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    for label, wanted in zip(batch["labels"], expected["labels"], strict=True):
        assert label.keys() == wanted.keys()
        assert all(torch.equal(label[name], wanted[name]) for name in wanted)


def test_images_without_objects():
    row = painted_row(1, 1, 2, 2) | {"objects": {"id": [], "bbox": [], "category": [], "area": [], "iscrowd": []}}
    for augmentation in (None, DetrAugmentation(64, 100)):
        (labels,) = DetectionCollator(PROCESSOR, augmentation)([row])["labels"]
        assert labels["boxes"].shape == (0, 4)
        assert labels["class_labels"].shape == (0,)


def test_workers_are_reproducible_and_differ_from_each_other(scenes):
    def batches(seed):
        loader = DataLoader(
            scenes.select([0] * 8),  # the same picture, so that only the augmentation differs
            batch_size=2,
            num_workers=2,
            collate_fn=DetectionCollator(PROCESSOR, DetrAugmentation(64, 100)),
            generator=torch.Generator().manual_seed(seed),
        )
        return [batch["pixel_values"] for batch in loader]

    first, again, other = batches(1), batches(1), batches(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[1])  # made by different workers


def truncated_dataset(tmp_path):
    images = [image_entry(i, file_name=f"{i}.jpg", width=400, height=300) for i in (1, 2)]
    objects = [annotation(i, image_id=i) for i in (1, 2)]
    files = write_coco(tmp_path / "instances.json", tmp_path, coco_content(images=images, annotations=objects))
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "2.jpg")
    content = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(content[: len(content) // 2])
    return read_coco(*files)  # the header is whole


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named_when_it_is_decoded(tmp_path, workers):
    dataset = undecoded(truncated_dataset(tmp_path))
    batches = iter(DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=DetectionCollator(PROCESSOR)))
    assert next(batches)["labels"][0]["image_id"].tolist() == [1]
    with pytest.raises(DataError, match=r"2\.jpg, image id 2: the image cannot be decoded \(.*truncated"):
        next(batches)


def test_an_image_of_another_size_than_its_annotations_say_is_named(tmp_path):
    files = write_coco(tmp_path / "instances.json", tmp_path, coco_content())
    [row] = undecoded(read_coco(*files))
    Image.new("RGB", (30, 40)).save(tmp_path / "1.png")  # after the data were read and checked
    with pytest.raises(DataError, match=r"1\.png, image id 1, .*say 40x30 pixels, but .* displayed at 30x40"):
        DetectionCollator(PROCESSOR)([row])


def test_undecoded_keeps_everything_but_the_decoding(scenes):
    decoded = make_synthetic_dataset(12, (96, 80), seed=2)
    assert scenes[3]["objects"] == decoded[3]["objects"]
    assert decode_image(scenes[3]["image"]).tobytes() == decoded[3]["image"].tobytes()


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return {"bytes": buffer.getvalue(), "path": None}


def test_images_are_turned_as_displayed():
    picture = Image.new("RGB", (30, 20), "black")
    picture.paste("white", (0, 0, 10, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: to be shown a quarter clockwise
    stored = encoded(picture, format="PNG", exif=exif)
    displayed = np.asarray(decode_image(stored))
    assert displayed.shape == (30, 20, 3)
    assert displayed[:10].min() == 255
    assert displayed[10:].max() == 0
    assert np.array_equal(np.asarray(decode_image(Image.open(io.BytesIO(stored["bytes"])))), displayed)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA", "YCbCr"])
def test_every_common_pixel_format_becomes_rgb(mode):
    picture = decode_image(Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode))
    assert picture.mode == "RGB"
    assert picture.getpixel((4, 4)) == (255, 255, 255)


def test_transparency_is_laid_over_white():
    picture = decode_image(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), format="PNG"))
    assert picture.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_are_scaled_rather_than_saturated(mode):
    picture = Image.fromarray(np.array([[0, 25700, 65535]], dtype=np.uint16)).convert(mode)
    assert np.asarray(decode_image(picture)).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]


def test_sixteen_bit_files_are_scaled():
    picture = Image.fromarray(np.full((2, 2), 25700, dtype=np.uint16))
    assert decode_image(encoded(picture, format="PNG")).getpixel((0, 0)) == (100, 100, 100)


@pytest.mark.parametrize("picture", [Image.new("F", (4, 4), 0.5), Image.new("I", (4, 4), 70_000)])
def test_other_deep_pixels_are_refused(picture):
    with pytest.raises(DataError, match=r"image id 5: .*expected 8 or 16 bits a pixel"):
        decode_image(picture, image_id=5)


def test_broken_bytes_are_refused():
    with pytest.raises(DataError, match="embedded image, image id 5: the image cannot be decoded"):
        decode_image({"bytes": b"no picture", "path": None}, image_id=5)
