"""The files that count as pictures can all be read."""

import pytest
from PIL import Image

from hf_detr.data import decode_image
from hf_detr.data.image_headers import read_header
from hf_detr.data.images import IMAGE_SUFFIXES, is_image


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jfif", "JPEG"),
        ("a.JPE", "JPEG"),
        ("a.GIF", "GIF"),
        ("a.jp2", "JPEG2000"),
        ("a.avif", "AVIF"),
        ("a.tga", "TGA"),
        ("a.PpM", "PPM"),
        ("a.Tiff", "TIFF"),
        ("a.webp", "WEBP"),
        ("a.mpo", "MPO"),
    ],
)
def test_a_format_that_pillow_opens_is_a_picture_whatever_the_case_of_its_suffix(tmp_path, name, kind):
    path = tmp_path / name
    extra = {"save_all": True, "append_images": [Image.new("RGB", (6, 4))]} if kind == "MPO" else {}
    Image.new("RGB", (6, 4), (200, 10, 10)).save(path, kind, **extra)
    assert is_image(path)
    assert is_image(str(path))
    assert read_header(path).size == (6, 4)
    assert decode_image({"path": str(path), "bytes": None}).size == (6, 4)


@pytest.mark.parametrize("name", ["a.pdf", "a.txt", "a.mp4", "a.mpg", "a.eps", "a.h5", "jpg", ".jpg"])
def test_a_file_that_holds_no_picture_is_none(name):
    assert not is_image(name)


def test_suffixes_are_written_small():
    assert {suffix.lower() for suffix in IMAGE_SUFFIXES} == IMAGE_SUFFIXES
