"""Prediction runs in one process: what they write, and that neither chunks, batches, workers nor sources matter."""

import json
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
import torch
from datasets import Dataset
from PIL import Image
from rich.console import Console

from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.prediction import PredictionOptions, PredictionSummary, detect, run_prediction
from hf_detr.prediction import run as prediction_run
from hf_detr.prediction.chunks import Chunk, ChunkReader, FinishedChunk, divide
from hf_detr.prediction.sources import DatasetStream, open_sources
from hf_detr.processing.image_processing import HfDetrImageProcessor

THRESHOLD = 0.1


def predict(model: Path, output: Path, *sources: Path | str, **options) -> PredictionSummary:
    given = {"threshold": THRESHOLD, "formats": ("coco",), "chunk_size": 4, "workers": 0, **options}
    names = tuple(str(source) for source in sources)
    return run_prediction(
        PredictionOptions(sources=names, model=str(model), output=output, **given), Console(quiet=True)
    )


def results(output: Path, without_names: bool = False) -> list[dict]:
    rows = json.loads((output / "predictions.json").read_text())
    return [{name: row[name] for name in row if name != "file_name"} for row in rows] if without_names else rows


def encoded(picture: Image.Image, folder: Path) -> bytes:
    picture.save(folder / "one.png")
    return (folder / "one.png").read_bytes()


@pytest.fixture(scope="module")
def expected(model_folder: Path, picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The results of a plain run on the picture folder."""
    output = tmp_path_factory.mktemp("expected")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert predict(model_folder, output, picture_folder).images == 23
    torch.set_num_threads(threads)
    return (output / "predictions.json").read_bytes()


def test_a_batch_gives_what_each_picture_gives_alone(model_folder: Path, pictures: list[Image.Image]):
    model = HfDetrForObjectDetection.from_pretrained(model_folder).eval()
    processor = HfDetrImageProcessor.from_pretrained(model_folder)
    together = detect(model, processor, pictures, THRESHOLD)
    assert sum(len(found["scores"]) for found in together) > len(pictures)
    for picture, found in zip(pictures, together, strict=True):
        [alone] = detect(model, processor, [picture], THRESHOLD)
        for name in ("scores", "labels", "boxes"):
            torch.testing.assert_close(found[name], alone[name], atol=1e-4, rtol=1e-4)


def test_results_are_those_of_each_picture_alone(
    expected: bytes, model_folder: Path, picture_folder: Path, pictures: list[Image.Image]
):
    model = HfDetrForObjectDetection.from_pretrained(model_folder).eval()
    processor = HfDetrImageProcessor.from_pretrained(model_folder)
    rows = json.loads(expected)
    assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
    for image_id, picture in enumerate(pictures, start=1):
        [alone] = detect(model, processor, [picture], THRESHOLD)
        found = [row for row in rows if row["image_id"] == image_id]
        assert [row["category_id"] for row in found] == alone["labels"].tolist()
        assert [row["category_name"] for row in found] == [model.config.id2label[row["category_id"]] for row in found]
        boxes = torch.tensor([row["bbox"] for row in found])
        boxes[:, 2:] += boxes[:, :2]
        torch.testing.assert_close(boxes, alone["boxes"], atol=0.02, rtol=0)
        assert {Path(row["file_name"]).name for row in found} == {f"{image_id - 1:02d}.png"}


@pytest.mark.parametrize("options", [{"chunk_size": 7}, {"workers": 2}, {"formats": ("parquet", "coco")}])
def test_how_the_work_is_cut_does_not_matter(
    options: dict, expected: bytes, model_folder: Path, picture_folder: Path, tmp_path: Path
):
    predict(model_folder, tmp_path, picture_folder, **options)
    found = json.loads((tmp_path / "predictions.json").read_bytes())
    if "chunk_size" not in options:  # other chunks are other batches, whose sums may round otherwise
        assert (tmp_path / "predictions.json").read_bytes() == expected
    for row, reference in zip(found, json.loads(expected), strict=True):
        assert row["image_id"] == reference["image_id"]
        assert row["bbox"] == pytest.approx(reference["bbox"], abs=0.02)
    assert (tmp_path / "parts").exists() == ("parquet" in options.get("formats", ()))


def test_parquet_parts_hold_everything(expected: bytes, model_folder: Path, picture_folder: Path, tmp_path: Path):
    summary = predict(model_folder, tmp_path, picture_folder, formats=("parquet",))
    assert not (tmp_path / "predictions.json").exists()
    rows = Dataset.from_parquet([str(path) for path in sorted((tmp_path / "parts").iterdir())], keep_in_memory=True)
    assert rows["image_id"][:] == list(range(1, 24))
    assert sum(len(scores) for scores in rows["scores"]) == summary.detections == len(json.loads(expected))
    first, reference = rows[0], json.loads(expected)[0]
    with Image.open(first["file_name"]) as picture:
        assert (first["width"], first["height"]) == picture.size
    assert first["boxes"][0][:2] == pytest.approx(reference["bbox"][:2], abs=0.01)
    assert first["scores"][0] == pytest.approx(reference["score"], abs=1e-4)
    assert (first["labels"][0], first["label_names"][0]) == (reference["category_id"], reference["category_name"])
    assert first["error"] is None


def write_shard(kind: str, pictures: list[Image.Image], folder: Path, tmp_path: Path) -> Path:
    """Write the pictures as a parquet shard with row groups of five, or as a saved data set."""
    content = [encoded(picture, tmp_path) for picture in pictures]
    if kind == "saved":
        images = [{"bytes": item, "path": None} for item in content]
        Dataset.from_dict({"image": images}).cast_column("image", datasets.Image()).save_to_disk(folder)
        return folder
    folder.mkdir()
    columns = {
        "bytes": {"image": content},
        "structs": {"image": [{"bytes": item, "path": None} for item in content]},
        "paths": {"file_name": [f"images/{index}.png" for index in range(len(content))]},
    }[kind]
    if kind == "paths":
        (folder / "images").mkdir()
        for index, item in enumerate(content):
            (folder / "images" / f"{index}.png").write_bytes(item)
    shard = folder / "shard.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), shard, row_group_size=5)
    return shard


@pytest.mark.parametrize("kind", ["bytes", "structs", "paths", "saved"])
def test_every_source_gives_the_same(
    kind: str, expected: bytes, model_folder: Path, pictures: list[Image.Image], tmp_path: Path
):
    source = write_shard(kind, pictures, tmp_path / "source", tmp_path)
    predict(model_folder, tmp_path / "output", source)
    reference = [{name: row[name] for name in row if name != "file_name"} for row in json.loads(expected)]
    assert results(tmp_path / "output", without_names=True) == reference


def test_a_folder_read_as_a_stream(expected: bytes, model_folder: Path, pictures: list[Image.Image], tmp_path: Path):
    source = write_shard("structs", pictures, tmp_path / "source", tmp_path).parent
    for workers in (0, 2):
        output = tmp_path / f"output-{workers}"
        predict(model_folder, output, source, streaming=True, workers=workers)
        assert results(output, without_names=True) == [
            {name: row[name] for name in row if name != "file_name"} for row in json.loads(expected)
        ]


def test_image_ids_of_the_data_are_kept(model_folder: Path, pictures: list[Image.Image], tmp_path: Path):
    rows = {"image": [{"bytes": encoded(p, tmp_path), "path": None} for p in pictures[:3]], "image_id": [70, 5, 2**40]}
    pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "shard.parquet")
    predict(model_folder, tmp_path / "output", tmp_path / "shard.parquet")
    assert list(dict.fromkeys(row["image_id"] for row in results(tmp_path / "output"))) == [70, 5, 2**40]


@pytest.mark.parametrize(("shards", "ranks", "workers"), [(1, 1, 2), (1, 2, 1), (3, 2, 1), (2, 3, 1), (5, 2, 2)])
def test_open_streams_are_read_once_by_any_number_of_ranks(
    shards: int, ranks: int, workers: int, pictures: list[Image.Image], tmp_path: Path, model_folder: Path
):
    """Each chunk belongs to one lane, and a second run reads only what the first has not finished."""
    images = [{"bytes": encoded(picture, tmp_path), "path": None} for picture in pictures]
    data = Dataset.from_dict({"image": images}).to_iterable_dataset(num_shards=shards)
    streams = [DatasetStream(data.shard(shards, index), f"s{index}", "image", False) for index in range(shards)]
    processor = HfDetrImageProcessor.from_pretrained(model_folder)

    def finished(done: frozenset[Chunk], ranks: int, workers: int) -> list[FinishedChunk]:
        found = []
        for rank in range(ranks):
            reader = ChunkReader(streams, divide(streams, 2, done, rank, ranks), processor, 2, 2, False)
            loader = torch.utils.data.DataLoader(
                reader, batch_size=None, num_workers=workers, collate_fn=lambda message: message
            )
            found += [message for message in loader if isinstance(message, FinishedChunk)]
        return found

    first = finished(frozenset(), ranks, workers)
    ids = [row.image_id for message in first for row in message.rows]
    assert len(ids) == len(set(ids)) == len(pictures)
    assert not [row.error for message in first for row in message.rows if row.error]
    again = finished(frozenset(message.chunk for message in first[::2]), 1, 0)
    assert {message.chunk for message in again} == {message.chunk for message in first[1::2]}
    by_chunk = {message.chunk: message.rows for message in first}
    assert all(message.rows == by_chunk[message.chunk] for message in again)


def test_unreadable_images_are_recorded(
    model_folder: Path, pictures: list[Image.Image], tmp_path: Path, capsys: pytest.CaptureFixture
):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, picture in enumerate(pictures[:6]):
        picture.save(folder / f"{index}.png")
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "3.png").write_bytes(b"")
    summary = predict(model_folder, tmp_path / "output", folder, formats=("coco", "parquet", "pictures"))
    assert (summary.images, summary.failed) == (6, 2)
    errors = json.loads((tmp_path / "output" / "failed.json").read_text())
    assert [(row["image_id"], Path(row["file_name"]).name) for row in errors] == [(2, "1.png"), (4, "3.png")]
    reported = capsys.readouterr().err
    assert all(str(folder / name) in reported for name in ("1.png", "3.png"))
    assert {row["image_id"] for row in results(tmp_path / "output")} == {1, 3, 5, 6}
    assert len(list((tmp_path / "output").glob("*.jpg"))) == 4


def test_a_finished_run_is_not_repeated(
    model_folder: Path, picture_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    summary = predict(model_folder, tmp_path, picture_folder)
    with monkeypatch.context() as patch:
        patch.setattr(prediction_run, "_detect_share", lambda *_: pytest.fail("it was repeated"))
        assert predict(model_folder, tmp_path, picture_folder) == summary
    (tmp_path / "predictions.json").write_text("spoiled")
    assert predict(model_folder, tmp_path, picture_folder, overwrite=True) == summary
    assert len(results(tmp_path)) == summary.detections


def test_another_run_in_the_folder_is_refused(model_folder: Path, picture_folder: Path, tmp_path: Path):
    output, copy = tmp_path / "output", tmp_path / "pictures"
    copy.mkdir()
    for file in picture_folder.glob("0[0-4].png"):
        (copy / file.name).write_bytes(file.read_bytes())
    predict(model_folder, output, copy)
    for options, text in (
        ({"threshold": 0.3}, "threshold was 0.1 and is 0.3"),
        ({"chunk_size": 5}, "chunk_size was 4 and is 5"),
        ({"formats": ("parquet",)}, "formats was"),
    ):
        with pytest.raises(ValueError, match=f"{text}.*--overwrite"):
            predict(model_folder, output, copy, **options)
    (copy / "new.png").write_bytes((copy / "01.png").read_bytes())
    with pytest.raises(ValueError, match="pictures was"):
        predict(model_folder, output, copy)
    (output / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json: expected the manifest of a prediction run"):
        predict(model_folder, output, copy)


def test_sources_that_cannot_be_used_are_named(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"not parquet")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"]}), tmp_path / "text.parquet")
    datasets.DatasetDict(a=Dataset.from_dict({"image": [1]}), b=Dataset.from_dict({"image": [1]})).save_to_disk(
        tmp_path / "splits"
    )
    for name, text in {
        "missing.jpg": "no such file or folder",
        "empty": "no image in this folder",
        "broken.parquet": "expected a parquet file",
        "text.parquet": "expected a column of pictures, .*found the columns .*text",
        "splits": "several splits; choose one with --split; it has a, b",
    }.items():
        with pytest.raises(ValueError, match=text) as caught:
            open_sources([str(tmp_path / name)])
        assert name in str(caught.value)
    with pytest.raises(ValueError, match="no split 'c'; it has a, b"):
        open_sources([str(tmp_path / "splits")], split="c")


def test_formats_that_do_not_exist_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="expected some of pictures, coco, parquet, got json"):
        predict(tmp_path, tmp_path, tmp_path, formats=("json",))


def test_files_of_a_folder_that_are_no_pictures_are_counted_and_named_once(tmp_path):
    for name in ("a.JFIF", "inner/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name, "JPEG" if "JFIF" in name else None)
    for name in ("notes.txt", "film.mp4", "inner/labels.json", "Thumbs.db", ".hidden/c.png", "inner/._b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match="left out 2 files that are no pictures: film.mp4, notes.txt") as caught:
        [stream] = open_sources([str(tmp_path)])
    assert len(caught) == 1
    assert [Path(file).name for file in stream.files] == ["a.JFIF", "b.png"]
