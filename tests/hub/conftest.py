"""Fixtures of the tests against a Hub on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import WRITER, HubServer
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import _http
from safetensors.torch import save_file

from hf_detr import HfDetrConfig, HfDetrImageProcessor
from hf_detr.hub.evidence import CardEvidence
from hf_detr.hub.model_card import build_model_card
from hf_detr.hub.papers import DINO


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """An empty Hub. Its clients in this process repeat failed requests without waiting."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    with HubServer() as server:
        yield server


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    """A client of someone who may write to "someone/…"."""
    return HfApi(endpoint=hub.url, token=WRITER)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished model folder, with weights that are none: nothing here builds the model."""
    folder = tmp_path / "model"
    HfDetrConfig.from_preset("tiny", id2label={0: "red", 1: "white"}).save_pretrained(folder)
    HfDetrImageProcessor(size={"height": 96, "width": 128}, classification="sigmoid").save_pretrained(folder)
    save_file({"weight": torch.arange(6.0)}, folder / "model.safetensors")
    (folder / "pictures").mkdir()
    (folder / "pictures" / "1.jpg").write_bytes(b"a picture")
    (folder / "pictures" / "step-000001").mkdir()
    (folder / "pictures" / "step-000001" / "1.jpg").write_bytes(b"an earlier picture")
    (folder / "results.csv").write_text("step,loss\n1,0.5\n")
    evidence = CardEvidence(model_id=str(folder), paper=DINO, preset="tiny", samples={"pictures/1.jpg": "One"})
    build_model_card(evidence).save(folder / "README.md")
    return folder
