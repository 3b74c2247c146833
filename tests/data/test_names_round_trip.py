"""Class names from the files of a data set to what a pipeline of the trained model answers."""

import layout_writers as write
import pytest
import torch
from transformers import pipeline

from hf_detr.modeling.detection import HfDetrForObjectDetection
from hf_detr.training.options import RunOptions
from hf_detr.training.run import run_training


@pytest.mark.parametrize(
    "write_layout", [write.coco_gappy_ids_one_image_folder, write.yolo_yaml], ids=lambda function: function.__name__
)
def test_names_survive_training_saving_and_the_pipeline(tmp_path, write_layout):
    write_layout(tmp_path / "data")
    run_training(RunOptions(data=str(tmp_path / "data"), output=tmp_path / "model", epochs=1, image_size=32))
    model = HfDetrForObjectDetection.from_pretrained(tmp_path / "model")
    assert model.config.id2label == dict(enumerate(write.NAMES))
    with torch.no_grad():  # a model that has learnt nothing yet is made to see only the last class
        for name, parameter in model.named_parameters():
            if parameter.shape == (len(write.NAMES),) and "class" in name:
                parameter.copy_(torch.tensor([-9.0, -9.0, 9.0]))
    model.save_pretrained(tmp_path / "model")
    detector = pipeline("object-detection", model=str(tmp_path / "model"))
    found = detector(str(write.picture(tmp_path, "x")), threshold=0.5)
    assert {detection["label"] for detection in found} == {write.NAMES[-1]}
