"""Pictures are found for names that another machine has written."""

import pytest

from hf_detr.data import DataError
from hf_detr.data.readers.folder import DataFolder


@pytest.fixture
def make(tmp_path):
    def make(*files):
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return DataFolder(tmp_path)

    return make


@pytest.mark.parametrize(
    "written",
    [
        "a/p.jpg",
        "a\\p.jpg",
        "./a/p.jpg",
        "/content/data/images/a/p.jpg",
        "/content/a/p.jpg",
        "C:\\Users\\me\\a\\p.jpg",
        "D:/p.jpg",
        "../images/a/p.jpg",
        "s3://bucket/key/a/p.jpg",
        "gs://bucket/p.jpg",
        "https://host.org/x/a/p.jpg?X-Amz-Signature=1#top",
        "file:///home/me/a/p.jpg",
        "/data/local-files/?d=a/p.jpg",
        "/data/local-files/?d=photos%5Ca%5Cp.jpg",
        "/data/upload/3/0a1b2c3d-p.jpg",
        "0a1b2c3d-p.jpg",
        "x/p.jpg",
        "a/P.JPG",
        "p",
    ],
)
def test_a_name_leads_to_its_picture(make, tmp_path, written):
    folder = make("images/a/p.jpg", "images/a/other.jpg")
    assert folder.find(written, [tmp_path / "images"]).samefile(tmp_path / "images/a/p.jpg")
    assert not folder.not_found


@pytest.mark.parametrize("name", ["a b.jpg", "a%20b.jpg", "50%.jpg", "x?d=y.jpg", "ä.jpg", "0a1b2c3d-p.jpg", ".jpg"])
def test_a_name_that_is_as_written_is_taken_first(make, tmp_path, name):
    assert make(name, "p.jpg", "y.jpg").find(name) == tmp_path / name


def test_composed_and_decomposed_letters_are_the_same(make, tmp_path):
    assert make("images/a\u0308.jpg").find("ä.jpg") == tmp_path / "images/a\u0308.jpg"


def test_quoted_names_and_names_with_percent_signs(make, tmp_path):
    folder = make("images/a b.jpg", "images/50%25.jpg")
    assert folder.find("/x/a%20b.jpg") == tmp_path / "images/a b.jpg"
    assert folder.find("/x/50%25.jpg") == tmp_path / "images/50%25.jpg"


def test_the_folder_of_the_split_comes_before_the_root(make, tmp_path):
    folder = make("train/x/p.jpg", "other/p.jpg")
    assert folder.find("p.jpg", [tmp_path / "train", tmp_path], "train") == tmp_path / "train/x/p.jpg"


def test_the_folders_that_agree_decide_between_pictures_of_one_name(make, tmp_path):
    folder = make("in/cam1/p.jpg", "in/cam2/p.jpg")
    assert folder.find("/server/cam2/p.jpg") == tmp_path / "in/cam2/p.jpg"


def test_several_pictures_of_one_name_are_none_and_named(make, tmp_path):
    folder = make("a/p.jpg", "b/p.jpg")
    path = folder.find("p.jpg")
    assert not path.exists()
    assert "several pictures have its name: a/p.jpg, b/p.jpg" in folder.not_found[path]


def test_a_picture_of_another_split_is_not_taken(make, tmp_path):
    folder = make("train/p.jpg", "val/q.jpg")
    assert not folder.find("p.jpg", [tmp_path / "val"], "validation").exists()
    assert folder.find("q.jpg", [tmp_path / "val"], "validation").exists()


def test_a_picture_that_another_name_leads_to_is_not_taken(make):
    folder = make("a/p.jpg", "a/q.jpg")
    first, second = folder.find_all(["a/p.jpg", "b/p.jpg"])
    assert first.exists()
    assert not second.exists()
    assert "a/p.jpg, belongs to 'a/p.jpg'" in folder.not_found[second]


def test_two_incomplete_names_of_one_picture_lead_to_none(make):
    found = make("a/p.jpg").find_all(["x/p.jpg", "y/p.jpg"])
    assert not any(path.exists() for path in found)


def test_a_picture_found_for_an_incomplete_name_is_not_given_to_its_own_name_later(make):
    folder = make("a/p.jpg")
    assert folder.find("x/p.jpg").exists()
    with pytest.raises(DataError, match=r"p\.jpg: both 'x/p\.jpg' and 'a/p\.jpg' lead to this picture"):
        folder.find("a/p.jpg")


def test_files_are_listed_once_without_hidden_ones_and_droppings(make, tmp_path):
    droppings = ["Thumbs.db", ".DS_Store", "__MACOSX/._p.jpg", ".git/x.jpg", "a/desktop.ini", "a/._p.jpg"]
    folder = make("a/p.jpg", "b.txt", *droppings)
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    assert folder.files == ["a/p.jpg", "b.txt"]
    make("late.jpg")
    assert folder.pictures == ["a/p.jpg"]


def test_pictures_in_linked_folders_are_found(make, tmp_path):
    folder = make("real/p.jpg", "data/x.json")
    (tmp_path / "data" / "images").symlink_to(tmp_path / "real")
    folder = DataFolder(tmp_path / "data")
    assert folder.find("/far/p.jpg").is_file()
