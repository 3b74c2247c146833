"""A small detector in a folder, and pictures of several sizes."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from hf_detr.data import category_names, make_synthetic_dataset
from hf_detr.modeling.configuration import HfDetrConfig
from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.processing.image_processing import HfDetrImageProcessor

SIZES = ((96, 80), (60, 90), (96, 80), (128, 64))


@pytest.fixture(autouse=True)
def one_thread():
    """As many as the ranks of `torchrun` use: sums are rounded in the same order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    rows = make_synthetic_dataset(23, (128, 96), max_objects=4)
    return [row["image"].resize(SIZES[index % len(SIZES)]) for index, row in enumerate(rows)]


@pytest.fixture(scope="session")
def picture_folder(pictures: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 pictures, some of them in a folder inside."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for index, picture in enumerate(pictures):
        picture.save(folder / ("more" if index >= 15 else "") / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that finds something wherever it looks."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    names = category_names(make_synthetic_dataset(1, 64))
    small = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    config = HfDetrConfig(
        backbone="test_resnet", **small, encoder_attention_heads=4, decoder_attention_heads=4, num_queries=10,
        id2label=dict(enumerate(names)),
    )  # fmt: skip
    HfDetrForObjectDetection(config).save_pretrained(folder)
    HfDetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    return folder
