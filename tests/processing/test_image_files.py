"""Files of every format, pictures of every mode, and files that cannot be opened: all through the one way to do it."""

import io

import numpy as np
import PIL.Image
import pytest

from hf_detr.processing.image_files import LargePictureWarning, PictureError, displayed_picture, open_picture

RED = (200, 10, 10)
FORMATS = ("AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM")
FORMATS += ("QOI", "SGI", "TGA", "TIFF", "WEBP")


def written(kind: str, picture: PIL.Image.Image, **options) -> io.BytesIO:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return file


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format(kind):
    options = {"save_all": True, "append_images": [PIL.Image.new("RGB", (32, 32))]} if kind in ("GIF", "MPO") else {}
    picture = displayed_picture(open_picture(written(kind, PIL.Image.new("RGB", (32, 32), RED), **options)))
    assert (picture.mode, picture.size) == ("RGB", (32, 32))
    assert np.abs(np.asarray(picture, dtype=int) - RED).max() <= 6  # the first of several, and some lose a little


def test_first_picture_of_an_animation_with_transparency_over_white():
    frames = [PIL.Image.new("RGBA", (4, 4), (0, 0, 0, 0)), PIL.Image.new("RGBA", (4, 4), (*RED, 255))]
    file = written("GIF", frames[0], save_all=True, append_images=frames[1:])
    assert displayed_picture(open_picture(file)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBX"])
def test_every_mode(mode):
    source = PIL.Image.new("RGB", (4, 4), (255, 255, 255)).convert("L" if mode in ("LA", "PA") else "RGB")
    picture = displayed_picture(source.convert(mode))
    assert (picture.mode, picture.getpixel((1, 1))) == ("RGB", (255, 255, 255))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_sixteen_bits_become_the_nearest_of_eight(dtype):
    values = np.array([[0, 128, 129, 257, 65407, 65535]], dtype=dtype)
    for kind in ("TIFF", None):
        picture = PIL.Image.fromarray(values)
        shown = displayed_picture(picture if kind is None else open_picture(written(kind, picture)), convert_rgb=False)
        assert np.asarray(shown).tolist() == [[0, 0, 1, 1, 255, 255]]


def test_floats_stay_and_deeper_integers_are_refused():
    assert displayed_picture(PIL.Image.new("F", (2, 2), 0.5)).mode == "F"
    with pytest.raises(PictureError, match=r"expected 8 or 16 bits a pixel, got the pixel format 'I' .*70000"):
        displayed_picture(PIL.Image.new("I", (2, 2), 70_000))


def test_heif_without_its_package_says_what_to_install(monkeypatch, tmp_path):
    path = tmp_path / "a.heic"
    path.write_bytes(written("HEIF", PIL.Image.new("RGB", (32, 32), RED)).getvalue())
    assert open_picture(path).size == (32, 32)
    monkeypatch.setattr(PIL.Image, "ID", [name for name in PIL.Image.ID if not name.startswith("HEI")])
    for source in (path, str(path), io.BytesIO(path.read_bytes())):
        with pytest.raises(PictureError, match="pip install pillow-heif"):
            open_picture(source)


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "the file is empty"), (b"no picture" * 9, "no picture format")]
)
def test_files_that_are_no_pictures(content, message, tmp_path):
    (tmp_path / "a.png").write_bytes(content)
    for source in (tmp_path / "a.png", io.BytesIO(content)):
        with pytest.raises(PictureError, match=message) as caught:
            open_picture(source)
        assert "BytesIO" not in str(caught.value)
    with pytest.raises(PictureError, match="does not exist"):
        open_picture(tmp_path / "b.png")


def test_a_cut_file_cannot_be_decoded():
    content = written("PNG", PIL.Image.effect_noise((60, 60), 50)).getvalue()
    with open_picture(io.BytesIO(content[: len(content) // 2])) as picture, pytest.raises(PictureError, match="trunc"):
        displayed_picture(picture)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "JPEG2000", "PPM", "HEIF", "AVIF"])
def test_what_pillow_refuses_for_its_size_is_said_with_the_size(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    path = tmp_path / "a"
    path.write_bytes(written(kind, PIL.Image.new("RGB", (60, 50))).getvalue())
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    for source in (path, io.BytesIO(path.read_bytes())):
        size = "3,000" if kind == "WEBP" else "60x50"  # of WebP, Pillow tells only the number
        message = f"its {size} pixels are more than the 2,000 that Pillow opens, .*; make the picture smaller, cut it"
        with pytest.raises(PictureError, match=message):
            open_picture(source)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_pillow_warns_of_is_opened_and_named(monkeypatch, tmp_path):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    PIL.Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    with pytest.warns(LargePictureWarning, match=r"large\.png: 40x40 pixels take 0 MB"):
        assert open_picture(tmp_path / "large.png").size == (40, 40)
    with pytest.warns(LargePictureWarning, match="row 7: 40x40"):
        open_picture(io.BytesIO((tmp_path / "large.png").read_bytes()), "row 7")
