"""Measures images per second from JPEG to batch: our augmentation against torchvision's transforms tuned by hand.

    python benchmarks/speed/data_loading.py --data my-images --workers 0 --workers 2 --repeats 5

The peer decodes with torchvision.io, runs the published recipe as one v2.Compose on uint8 and normalises into the
padded batch. `strong` does more work than the peer: it decodes 2 to 3 images for one. Measurements are interleaved.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from datasets import Dataset
from torch.utils.data import DataLoader
from torchvision import io, tv_tensors
from torchvision.transforms import v2
from tqdm import tqdm

from hf_detr.benchmarking.report import table, write_section
from hf_detr.data import DetectionCollator, build_augmentation, load_detection_data, undecoded
from hf_detr.data.augmentation.published import BEFORE_CROP_FRACTIONS, CROP_FRACTIONS, RESIZE_FRACTIONS
from hf_detr.machine import describe
from hf_detr.processing.image_processing import HfDetrImageProcessor
from hf_detr.processing.sizes import published_size
from hf_detr.terminal import clear_errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
WORKERS = [0, 2, 8]
PEER = "torchvision"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class RandomSizeCrop(v2.Transform):
    """The published crop as a transform of torchvision, which draws each side between two bounds."""

    def __init__(self, minimum: int, maximum: int):
        super().__init__()
        self.minimum, self.maximum = minimum, maximum

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the rectangle."""
        sides = v2.query_size(flat_inputs)
        height, width = (self._draw(min(self.minimum, side), min(self.maximum, side)) for side in sides)
        top, left = self._draw(0, sides[0] - height), self._draw(0, sides[1] - width)
        return {"top": top, "left": left, "height": height, "width": width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crop an image or boxes."""
        return self._call_kernel(v2.functional.crop, inpt, **params)

    @staticmethod
    def _draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, ()))


class TorchvisionPipeline:
    """The collator that a careful user writes with torchvision alone. It makes images, mask and targets of JPEGs."""

    def __init__(self, shortest_edge: int, longest_edge: int):
        def scaled(fractions: Sequence[float]) -> list[int]:
            return [round(fraction * shortest_edge) for fraction in fractions]

        resize = v2.RandomShortestSize(scaled(RESIZE_FRACTIONS), max_size=longest_edge)
        crop = v2.Compose(
            [
                v2.RandomShortestSize(scaled(BEFORE_CROP_FRACTIONS)),
                RandomSizeCrop(*scaled(CROP_FRACTIONS)),
                resize,
            ]
        )
        self.transform = v2.Compose(
            [v2.RandomHorizontalFlip(), v2.RandomChoice([resize, crop]), v2.SanitizeBoundingBoxes()]
        )
        self.scale = (1 / (255 * torch.tensor(STD)))[:, None, None]
        self.offset = (-torch.tensor(MEAN) / torch.tensor(STD))[:, None, None]

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        examples = [self.transform(*self.load(row)) for row in rows]
        height, width = (max(image.shape[axis] for image, _ in examples) for axis in (1, 2))
        pixels = torch.zeros(len(rows), 3, height, width)
        mask = torch.zeros(len(rows), height, width, dtype=torch.int64)
        for index, (image, target) in enumerate(examples):
            _, height, width = image.shape
            pixels[index, :, :height, :width].copy_(image).mul_(self.scale).add_(self.offset)
            mask[index, :height, :width] = 1
            boxes = target["boxes"].as_subclass(torch.Tensor) / torch.tensor([width, height, width, height])
            target["boxes"] = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)
        return {"pixel_values": pixels, "pixel_mask": mask, "labels": [target for _, target in examples]}

    @staticmethod
    def load(row: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        content, path = row["image"]["bytes"], row["image"]["path"]
        encoded = io.read_file(path) if content is None else torch.frombuffer(bytearray(content), dtype=torch.uint8)
        image = io.decode_image(encoded, io.ImageReadMode.RGB)
        boxes = torch.tensor(row["objects"]["bbox"], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=image.shape[1:]),
            "labels": torch.tensor(row["objects"]["category"]),
        }
        return image, target


def images_per_second(collate: Callable, dataset: Dataset, batch_size: int, workers: int, batches: int) -> float:
    """Return the speed over so many batches a worker, which begin after the prefetched batches are used up."""
    prefetched = 1 + 2 * workers
    measured = batches * max(1, workers)
    indices = [index % len(dataset) for index in range((prefetched + measured) * batch_size)]
    loader = iter(DataLoader(dataset.select(indices), batch_size, num_workers=workers, collate_fn=collate))
    for _ in range(prefetched):
        next(loader)
    start = time.perf_counter()
    count = sum(len(batch["pixel_values"]) for batch in loader)
    return count / (time.perf_counter() - start)


def main(
    data: Annotated[str, typer.Option(help="A folder of detection data whose images are JPEGs.")],
    image_size: Annotated[int, typer.Option(help="The shortest edge, in pixels.", min=64)] = 256,
    batch_size: Annotated[int, typer.Option(min=1)] = 16,
    workers: Annotated[
        list[int] | None,
        typer.Option(help="The number of loader processes. It may be repeated; by default 0, 2 and 8.", min=0),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Measure each pipeline this often, in turns.", min=1)] = 3,
    batches: Annotated[int, typer.Option(help="The batches of each worker in a measurement.", min=1)] = 6,
    write: Annotated[bool, typer.Option("--write", help="Write the table into docs/benchmarks.md.")] = False,
) -> None:
    """Measure, and print a table."""
    torch.set_num_threads(1)
    numbers = workers or WORKERS
    edges = tuple(published_size(image_size).values())
    with clear_errors():
        dataset = undecoded(load_detection_data(data)["train"])
    processor = HfDetrImageProcessor(size=published_size(image_size))
    pipelines: dict[str, Callable] = {PEER: TorchvisionPipeline(*edges)}
    for name in ("published", "strong"):
        pipelines[name] = DetectionCollator(processor, build_augmentation(name, *edges, dataset))
    rows = [
        [
            str(number),
            *measure(pipelines, repeats, dataset=dataset, batch_size=batch_size, workers=number, batches=batches),
        ]
        for number in tqdm(numbers, "numbers of workers")
    ]
    header = ["workers", "torchvision by hand", "ours, `published`", "ours, `strong`"]
    about = describe("cpu")
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    words = [f"--data path/to/{Path(data).name} --image-size {image_size} --batch-size {batch_size}"]
    words += [f"--workers {number}" for number in numbers] + [f"--repeats {repeats} --batches {batches} --write"]
    text = (
        f"Images a second, from {len(dataset)} JPEGs to batches of {batch_size}, shortest edge {image_size} pixels; "
        f"medians of {repeats} interleaved measurements, and the ratio to the pipeline by hand. {about['processor']}, "
        f"{about['cores']} cores. {versions}.\n\n{table(header, rows)}\n\n"
        f"```bash\npython benchmarks/speed/data_loading.py {' '.join(words)}\n```"
    )
    print(text)
    if write:
        write_section("data loading", text, PAGE)


def measure(pipelines: Mapping[str, Callable], repeats: int, **conditions: Any) -> list[str]:
    """Return the images per second of each pipeline and its ratio to the peer's, measured in turns."""
    speeds: dict[str, list[float]] = {name: [] for name in pipelines}
    for _ in range(repeats):
        for name, collate in pipelines.items():
            speeds[name].append(images_per_second(collate, **conditions))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    return [f"{value:.0f} ({value / medians[PEER]:.2f})" for value in medians.values()]


if __name__ == "__main__":
    typer.run(main)
