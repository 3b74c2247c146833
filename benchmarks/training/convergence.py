"""Measures how fast the members of the family learn: AP, and AP of small objects, against the time of training.

    python benchmarks/training/convergence.py time                  # the only part that needs a quiet machine
    python benchmarks/training/convergence.py run --budget 15 --jobs 2
    python benchmarks/training/convergence.py report

Presets are reduced to equal size (ResNet-18, width 128, three layers, 100 queries) and trained on the built-in set
from random weights, with one recipe. timed_training.py says how time is counted. Every run is a process of its own and
leaves one JSON file; a run whose file is there is not repeated.
"""

import math
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from commands import ResultsOption, benchmark_app
from reports import DOCS, PAGE, conditions, group_by, plot_curves, spread, table, write_section
from runs import RESULTS, Record, read_records
from timed_training import Train
from transformers import TrainerCallback, set_seed

from hf_detr import HfDetrConfig, HfDetrForObjectDetection, HfDetrImageProcessor
from hf_detr.data import DetectionCollator, DetrAugmentation, category_names, load_detection_data, undecoded
from hf_detr.terminal import clear_errors
from hf_detr.training import HfDetrTrainer, HfDetrTrainingArguments

BENCHMARK = "convergence"
PRESETS = {
    "detr": "detr-resnet-50",
    "dab": "dab-detr-resnet-50",
    "dn": "dn-detr-resnet-50",
    "deformable": "deformable-detr-resnet-50",
    "dino": "dino-resnet-50-4scale",
}
TITLES = {"detr": "DETR", "dab": "DAB-DETR", "dn": "DN-DETR", "deformable": "Deformable DETR", "dino": "DINO"}
EQUAL_SIZE = {
    "backbone": "resnet18",
    "freeze_batch_norm": False,
    "frozen_stages": -1,
    "d_model": 128,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_ffn_dim": 512,
    "decoder_ffn_dim": 512,
    "num_queries": 100,
}
DINO_DENOISING = 40
"""The denoising queries of DINO, as many as the preset `tiny` has for 100 queries."""
BATCH_SIZE = 4
LEARNING_RATE = 2e-4
"""The learning rate of all presets, between the 1e-4 of most papers, for pretrained backbones, and the 1e-3 of
`tiny`."""
EVALUATIONS = 12


def reduced(model: str, names: list[str]) -> HfDetrForObjectDetection:
    """Build a preset at the common size, with random weights."""
    changes = dict(EQUAL_SIZE, id2label=dict(enumerate(names)))
    if model == "dino":
        changes["num_denoising"] = DINO_DENOISING
    return HfDetrForObjectDetection(HfDetrConfig.from_preset(PRESETS[model], **changes))


def training_arguments(folder: str, epochs: float, num_images: int, seed: int) -> HfDetrTrainingArguments:
    """Return the recipe, which is the same for all presets and evaluates about twelve times."""
    steps_per_epoch = -(-num_images // BATCH_SIZE)
    return HfDetrTrainingArguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        seed=seed,
        logging_steps=min(20, steps_per_epoch),
        eval_strategy="steps",
        eval_steps=steps_per_epoch * math.ceil(epochs / EVALUATIONS),
        save_strategy="no",
        report_to="none",
    )


def train_preset(
    model_name: str, source: str, size: int, seed: int, epochs: float, callbacks: Sequence[TrainerCallback]
) -> dict[str, Any]:
    """Train a preset at the common size; return the result of `CocoMetrics` for the model at the end."""
    data = load_detection_data(source, seed=seed)
    set_seed(seed)
    model = reduced(model_name, category_names(data["train"]))
    image_processor = HfDetrImageProcessor.for_config(model.config, size={"shortest_edge": size, "longest_edge": size})
    with tempfile.TemporaryDirectory() as folder:
        trainer = HfDetrTrainer(
            model,
            training_arguments(folder, epochs, len(data["train"]), seed),
            DetectionCollator(image_processor, DetrAugmentation(size, size)),
            undecoded(data["train"]),
            undecoded(data["validation"]),
            image_processor,
            callbacks=list(callbacks),
        )
        trainer.train()
        return trainer.evaluate_by_class()


def make_train(model: str, source: str, image_size: int, seed: int) -> Train:
    """Return the training of a model of this benchmark."""
    return partial(train_preset, model, source, image_size, seed)


app = benchmark_app(__doc__, BENCHMARK, PRESETS, make_train, data="synthetic", image_size=256, budget=15.0)


@app.command()
def report(
    results: ResultsOption = RESULTS,
    page: Annotated[Path, typer.Option(help="The page whose section is rewritten.")] = PAGE,
    figures: Annotated[Path, typer.Option(help="The folder of the figure.")] = DOCS,
) -> None:
    """Write the table and the figure from the JSON files, to docs/benchmarks.md."""
    with clear_errors():
        by_model = group_by(read_records(results, BENCHMARK), "model", PRESETS)
        figure = figures / "convergence.png"
        write_section(BENCHMARK, section(by_model, figure.name), page)
        labels = {TITLES[model]: runs for model, runs in by_model.items()}
        plot_curves(labels, {"AP": "AP", "AP_small": "AP of small objects"}, figure)
        typer.echo(f"{sum(map(len, by_model.values()))} runs, in {page} and {figure}")


def section(by_model: dict[str, list[Record]], figure: str) -> str:
    """Return the report."""
    records = [record for runs in by_model.values() for record in runs]
    settings = records[0]["settings"]
    header = ["model", "parameters (M)", "AP", "AP50", "AP small", "epochs", "images/s", "runs"]
    rows = [
        [
            TITLES[model],
            f"{runs[0]['parameters'] / 1e6:.1f}",
            *(spread([run["metrics"][name] for run in runs]) for name in ("AP", "AP50", "AP_small")),
            spread([run["epochs"] for run in runs], digits=0),
            spread([run["images_per_second"] for run in runs], digits=1),
            str(len(runs)),
        ]
        for model, runs in by_model.items()
    ]
    seeds = sorted({record["settings"]["seed"] for record in records})
    given = (
        f"--data {settings['data'].replace('-', ':')} --threads {settings['threads']} "
        f"--image-size {settings['image_size']}"
    )
    budget = f"--budget {settings['budget_seconds'] / 60:g}{''.join(f' --seed {seed}' for seed in seeds)}"
    script = "python benchmarks/training/convergence.py"
    commands = f"{script} time {given}\n{script} run {given} {budget}\n{script} report"
    recipe = (
        f"ResNet-18, width {EQUAL_SIZE['d_model']}, {EQUAL_SIZE['encoder_layers']} + {EQUAL_SIZE['decoder_layers']} "
        f"layers, {EQUAL_SIZE['num_queries']} queries; batch {BATCH_SIZE}, learning rate {LEARNING_RATE:g} with "
        "warm-up and cosine decay. The model at the end of the training counts."
    )
    return "\n\n".join(
        [
            f"{conditions(records)} {recipe}",
            table(header, rows),
            f"![AP and AP of small objects over the minutes of training]({figure})",
            f"```bash\n{commands}\n```",
        ]
    )


if __name__ == "__main__":
    app()
