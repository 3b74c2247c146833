"""A validation split is made of training data that come without one."""

from pathlib import Path

import numpy as np
import pytest
from coco_files import annotation, coco_content, image_entry, write_coco
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hf_detr.data import load_detection_data
from hf_detr.data.look_alikes import Fingerprint, groups_of_look_alikes
from hf_detr.data.schema import SourceImage, SourceObject, SourceSplit
from hf_detr.data.splits import divided, split_off_validation


def make_rows(count):
    """Every tenth image shows a rare class beside the common one, every seventh nothing."""
    for index in range(count):
        categories = [] if index % 7 == 0 else ["common"] + ["rare"] * (index % 10 == 1)
        objects = [SourceObject(i, (1, 1, 4, 4), category) for i, category in enumerate(categories)]
        yield SourceImage("none.png", index, 8, 8, objects)


def test_the_split_spreads_rare_classes_and_follows_the_seed():
    split = SourceSplit(list(make_rows(100)), {"common": "common", "rare": "rare"}, "file")
    train, validation, _ = split_off_validation(split, 0)
    rare = [
        sum(any(item.category == "rare" for item in r.objects) for r in half.records) for half in (train, validation)
    ]
    assert (len(train.records), len(validation.records)) == (80, 20)
    assert rare in ([7, 1], [6, 2])
    again, other = (split_off_validation(split, seed)[1].records for seed in (0, 1))
    assert list(again) == list(validation.records)
    assert list(other) != list(validation.records)


def view(scene: int) -> Fingerprint:
    """Return what the pictures of a scene are compared by: like each other, and unlike those of other scenes."""
    thumbnail = np.random.default_rng(scene).integers(0, 256, (8, 9), dtype=np.uint8)
    return Fingerprint(str(scene).encode(), thumbnail)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=8, max_size=40),
    labels=st.lists(st.integers(0, 3), min_size=240, max_size=240),
    seed=st.integers(0, 5),
)
def test_look_alikes_are_never_divided_and_the_share_is_near_a_fifth(sizes, labels, seed):
    scenes = np.random.default_rng(len(sizes)).permutation(np.repeat(np.arange(len(sizes)), sizes)).tolist()
    fingerprints = [view(scene) for scene in scenes]
    present = [{labels[index]} for index in range(len(scenes))]
    halves = divided(present, fingerprints, seed)
    assert sorted([*halves.train, *halves.validation]) == list(range(len(scenes)))
    assert not {scenes[index] for index in halves.train} & {scenes[index] for index in halves.validation}
    assert halves.kept_together == sum(size > 1 for size in sizes)
    assert halves.taken_apart == 0
    # one scene more or less than a fifth, and one for each class that the other part would lack
    assert abs(len(halves.validation) - len(scenes) / 5) <= 6 * 5
    assert halves == divided(present, fingerprints, seed)


def test_without_look_alikes_every_fifth_image_goes():
    halves = divided([{0}] * 100, [view(index) for index in range(100)], seed=3)
    assert (len(halves.train), len(halves.validation), halves.kept_together) == (80, 20, 0)


def test_classes_of_two_scenes_are_in_both_parts_and_of_one_in_training():
    scenes = [0] * 6 + [1] * 4 + [2] * 3 + list(range(10, 70))
    present = [{1} if scene in (0, 1) else {2} if scene == 2 else {0} for scene in scenes]
    for seed in range(5):
        halves = divided(present, [view(scene) for scene in scenes], seed)
        train, validation = (
            {next(iter(present[index])) for index in half} for half in (halves.train, halves.validation)
        )
        assert train == {0, 1, 2}
        assert validation == {0, 1}
        assert 11 <= len(halves.validation) <= 19


def test_a_long_film_is_for_training_and_one_that_is_nearly_all_there_is_is_divided():
    half = [0] * 50 + list(range(1, 51))
    halves = divided([{0}] * 100, [view(scene) for scene in half], seed=0)
    assert {index for index in halves.validation if half[index] == 0} == set()
    assert 10 <= len(halves.validation) <= 25
    whole = [0] * 98 + [1, 2]
    fingerprints = [Fingerprint(str(index // 2).encode(), view(scene).thumbnail) for index, scene in enumerate(whole)]
    halves = divided([{0}] * 100, fingerprints, seed=0)
    assert halves.taken_apart == 98
    assert 15 <= len(halves.validation) <= 25
    assert {index // 2 for index in halves.train} & {index // 2 for index in halves.validation} <= {49}


def test_an_image_that_cannot_be_read_is_like_no_other():
    assert groups_of_look_alikes([None, view(1), None, view(1)]) == [[1, 3]]


def photograph(scene: int, take: int) -> Image.Image:
    coarse = np.random.default_rng(scene).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((40, 30), Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(picture, dtype=np.int64) + 2 * take).clip(0, 255).astype(np.uint8))


def test_pictures_of_a_scene_stay_together_and_the_warning_says_so(tmp_path: Path):
    count, takes = 40, 4
    content = coco_content(
        images=[image_entry(number) for number in range(count)],
        annotations=[annotation(number, image_id=number) for number in range(count)],
    )
    _, images = write_coco(tmp_path / "labels.json", tmp_path / "images", content)
    for number in range(count):
        photograph(number % (count // takes), number // (count // takes)).save(images / f"{number}.png")
    with pytest.warns(UserWarning, match="10 groups of images that look alike stay together"):
        splits = load_detection_data(tmp_path)
    train, validation = ({number % 10 for number in splits[name]["image_id"]} for name in ("train", "validation"))
    assert len(validation) == 2
    assert not train & validation
