"""Sizes in annotations are held against the headers of all files when data are read; photographs may be turned."""

import json
from pathlib import Path

import numpy as np
import pytest
from coco_files import annotation, coco_content, image_entry, write_coco
from PIL import Image, ImageOps

from hf_detr.data import DataError, load_detection_data, read_coco, undecoded
from hf_detr.data.collate import load_example

ORIENTATION = 274


def two_splits(folder: Path, count: int = 6) -> None:
    for name in ("train", "val"):
        images = [image_entry(i) for i in range(1, count + 1)]
        objects = [annotation(i, image_id=i) for i in range(1, count + 1)]
        write_coco(folder / f"{name}.json", folder / name, coco_content(images=images, annotations=objects))


def test_a_size_that_is_not_that_of_the_file_is_found_in_every_split(tmp_path):
    two_splits(tmp_path)
    for path in (tmp_path / "train" / "2.png", *(tmp_path / "val" / f"{i}.png" for i in range(1, 5))):
        Image.new("RGB", (20, 15)).save(path)
    with pytest.raises(DataError) as caught:
        load_detection_data(tmp_path)
    message = str(caught.value)
    assert message.startswith("5 images cannot be used: ")
    assert "2.png, image id 2, field 'width, height': the annotations say 40x30 pixels, but the image is" in message
    assert str(tmp_path / "val" / "2.png") in message
    assert "and 2 more" in message


def test_files_that_are_missing_or_no_pictures_are_found_before_they_are_used(tmp_path):
    two_splits(tmp_path)
    (tmp_path / "val" / "3.png").write_bytes(b"no picture")
    (tmp_path / "val" / "5.png").unlink()
    with pytest.raises(DataError, match=r"3\.png, image id 3: .* header cannot be read.*5\.png.* does not exist"):
        load_detection_data(tmp_path)


def stored_lying(picture: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """Return a picture as a camera stores it, so that it looks as it was given when it is displayed."""
    undo = {5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Pillow: TRANSPOSE, ROTATE_90, TRANSVERSE, ROTATE_270
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return picture.transpose(Image.Transpose(undo)), exif


def red_box(array: np.ndarray) -> list[int]:
    rows, columns = np.nonzero((array[..., 0] > 150) & (array[..., 1] < 100))
    left, top = int(columns.min()), int(rows.min())
    return [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top]


def portrait(box: tuple[int, int, int, int]) -> Image.Image:
    """A picture 30 wide and 40 high with a red box."""
    picture = Image.new("RGB", (30, 40), (20, 120, 120))
    picture.paste((230, 20, 20), (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    return picture


def write_turned(folder: Path, photographs: list, drawn_on_stored: bool) -> tuple[Path, Path]:
    """Write portraits (orientation, red box) as a phone does, with annotations that have the size as stored."""
    (folder / "images").mkdir(parents=True)
    images, objects = [], []
    for number, (orientation, box) in enumerate(photographs, start=1):
        stored, exif = stored_lying(portrait(box), orientation)
        stored.save(folder / "images" / f"{number}.png", exif=exif)
        images.append(image_entry(number, width=stored.width, height=stored.height))
        bbox = red_box(np.asarray(stored)) if drawn_on_stored else list(box)
        objects.append(annotation(number, image_id=number, bbox=bbox))
    json_path = folder / "instances.json"
    json_path.write_text(json.dumps(coco_content(images=images, annotations=objects)))
    return json_path, folder / "images"


CORNER_BOX = (3, 4, 9, 33)  # fits the portrait alone: it is 37 high, and the stored picture 30
SMALL_BOX = (3, 4, 9, 8)  # fits the portrait and the stored picture


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("drawn_on_stored", [False, True])
def test_boxes_of_turned_photographs_are_where_they_were_drawn(tmp_path, orientation, drawn_on_stored):
    photographs = [(orientation, CORNER_BOX), (orientation, SMALL_BOX)]
    files = write_turned(tmp_path, photographs, drawn_on_stored)
    kinds = (
        "0 are taken as drawn on the upright picture, the boxes of 2 were turned" if drawn_on_stored else "of 2 are"
    )
    with pytest.warns(UserWarning, match=f"2 images are turned by their EXIF orientation.*{kinds}"):
        dataset = read_coco(*files)
    for row, (_, box) in zip(undecoded(dataset), photographs, strict=True):
        assert (row["width"], row["height"]) == (30, 40)
        assert row["objects"]["bbox"] == [list(box)]
        pixels, target = load_example(row)
        assert red_box(pixels.permute(1, 2, 0).numpy()) == list(box)
        assert target["boxes"].tolist() == [[box[0], box[1], box[0] + box[2], box[1] + box[3]]]


def test_boxes_that_fit_both_ways_are_those_of_the_displayed_picture(tmp_path):
    files = write_turned(tmp_path, [(6, SMALL_BOX)], drawn_on_stored=False)
    with pytest.warns(UserWarning, match="boxes of 1 are taken as drawn on the upright picture"):
        assert read_coco(*files)[0]["objects"]["bbox"] == [list(SMALL_BOX)]


def test_boxes_that_fit_neither_way_are_refused(tmp_path):
    files = write_turned(tmp_path, [(6, SMALL_BOX)], drawn_on_stored=False)
    content = json.loads(files[0].read_text())
    content["annotations"][0]["bbox"] = [1, 1, 45, 8]
    files[0].write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"image id 1, annotation id 1, field 'bbox': .* inside the image of 30x40"):
        read_coco(*files)


def test_a_turned_photograph_with_the_displayed_size_is_nothing_to_speak_of(tmp_path, recwarn):
    files = write_turned(tmp_path, [(6, CORNER_BOX)], drawn_on_stored=False)
    content = json.loads(files[0].read_text())
    content["images"][0].update(width=30, height=40)
    files[0].write_text(json.dumps(content))
    assert read_coco(*files)[0]["objects"]["bbox"] == [list(CORNER_BOX)]
    assert not recwarn.list
    picture = ImageOps.exif_transpose(Image.open(files[1] / "1.png"))
    assert red_box(np.asarray(picture)) == list(CORNER_BOX)
