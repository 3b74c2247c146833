"""Measures what the options beyond the published models are worth when training from scratch.

    python benchmarks/training/ablation.py --steps 300 --jobs 2
    python benchmarks/training/ablation.py --data path/to/bccd --steps 988 --image-size 256 --variant baseline --seed 0

Every run is `hf-detr train` for the same number of steps, in a process of its own with one thread. Finished runs are
in the results file and are not repeated. A variant is an option or several joined by `+`: `matchability+distinct`.
"""

import contextlib
import json
import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parents[1] / "results" / "ablation.json"
PAGE = ROOT / "docs" / "ablation.md"
MEASURES = ("AP", "AP50")

BASELINE = "baseline"
BASELINE_FIELDS = {
    "classification": "focal",
    "query_content": "learned",
    "distinct_iou": 1,
}
BASELINE_AUGMENTATION = "flip"
# The differences of each option from the baseline: fields of `HfDetrConfig`, or `augmentation` of `hf-detr train`.
OPTIONS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "varifocal": {"classification": "varifocal"},
    "matchability": {"classification": "matchability"},
    "dense_one_to_one": {"augmentation": "strong"},
    "token_content": {"query_content": "token"},
    "distinct": {"distinct_iou": 0.7},
}
DEFAULT_VARIANTS = (
    "matchability+token_content+distinct",
    "matchability+token_content",
    "matchability",
    BASELINE,
    "token_content",
    "varifocal",
    "dense_one_to_one",
)
REMOVED = {
    "stable_matching": "position-supervised class loss and position-modulated matching cost (Stable-DINO, Liu et al. "
    "2023)",
    "one_to_many": "100 more queries in training, six of them matched to each object (H-DETR, Jia et al. 2023)",
    "dense_supervision": "a prediction of every token in training, six of them matched to each object (after Co-DETR, "
    "Zong et al. 2023)",
}
"""The options that were measured and are no longer in the package."""
LAST_COMMIT = "862291d"
"""The commit in which the code of the removed options last stood as it was measured."""
BUDGET = ("preset", "data", "steps", "batch_size", "image_size")
"""The settings that all runs of a table share."""

Record = dict[str, Any]


def differences(variant: str) -> dict[str, Any]:
    """Return the fields that a variant changes.

    Raises:
        ValueError: an option is unknown, or two set the same thing differently.
    """
    changes: dict[str, Any] = {}
    for name in variant.split("+"):
        if name not in OPTIONS:
            raise ValueError(f"'{variant}': there is no option '{name}'; there are {', '.join(OPTIONS)}")
        for field, value in OPTIONS[name].items():
            if changes.setdefault(field, value) != value:
                raise ValueError(f"'{variant}': {field} is set to {changes[field]!r} and to {value!r}")
    return changes


def settings_of(variant: str, seed: int, budget: dict[str, Any]) -> Record:
    """Return all settings that decide the outcome of a run."""
    return {"variant": variant, "differences": differences(variant), "seed": seed, **budget}


def train(settings: Record, source: str) -> Record:
    """Train and evaluate one variant in a process of its own; return its settings and measures.

    Args:
        settings: the settings, see `settings_of`.
        source: the data.
    """
    import torch

    from hf_detr.training.options import RunOptions
    from hf_detr.training.run import run_training

    torch.set_num_threads(1)
    fields = {**BASELINE_FIELDS, **settings["differences"]}
    augmentation = fields.pop("augmentation", BASELINE_AUGMENTATION)
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        result = run_training(
            RunOptions(
                data=source,
                output=Path(folder) / "model",
                preset=settings["preset"],
                steps=settings["steps"],
                batch_size=settings["batch_size"],
                image_size=settings["image_size"],
                seed=settings["seed"],
                augmentation=augmentation,
                config_overrides=fields,
            )
        )
    return {**settings, "result": {name: result[name] for name in MEASURES}}


def load(path: Path) -> list[Record]:
    """Return the finished runs."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def missing(wanted: Sequence[Record], finished: Sequence[Record]) -> list[Record]:
    """Return the settings that no finished run has."""
    done = [{name: value for name, value in record.items() if name != "result"} for record in finished]
    return [settings for settings in wanted if settings not in done]


def run_all(todo: Sequence[Record], source: str, path: Path, jobs: int) -> None:
    """Run the settings to do, `jobs` at a time. Each result is written as soon as it is there."""
    from hf_detr.files import write_json

    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the processes
    processes = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=processes, max_tasks_per_child=1) as executor:
        for done in as_completed([executor.submit(train, settings, source) for settings in todo]):
            record = done.result()
            write_json(path, [*load(path), record])
            print(f"{record['variant']}, seed {record['seed']}: AP {100 * record['result']['AP']:.1f}", flush=True)


def spread(values: Sequence[float]) -> str:
    """Return the mean of shares, in percent, ± their standard deviation."""
    percent = [100 * value for value in values]
    return f"{mean(percent):.1f} ± {stdev(percent):.1f}" if len(percent) > 1 else f"{percent[0]:.1f}"


def table(records: Sequence[Record]) -> str:
    """Return a line for each variant, in the order of their mean AP."""
    runs: dict[str, dict[int, Record]] = {}
    for record in records:
        runs.setdefault(record["variant"], {})[record["seed"]] = record["result"]
    changed = {record["variant"]: record["differences"] for record in records}
    baseline = runs.get(BASELINE, {})
    lines = [
        "| variant | differences | seeds | AP | AP50 | AP above the baseline |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for variant, results in sorted(runs.items(), key=lambda item: -mean(run["AP"] for run in item[1].values())):
        changes = ", ".join(f"`{name}={value!r}`" for name, value in changed[variant].items())
        shared = [results[seed]["AP"] - baseline[seed]["AP"] for seed in results if seed in baseline]
        above = spread(shared) if shared and variant != BASELINE else ""
        measures = " | ".join(spread([run[name] for run in results.values()]) for name in MEASURES)
        lines.append(f"| {variant} | {changes} | {len(results)} | {measures} | {above} |")
    return "\n".join(lines)


def page(records: Sequence[Record]) -> str:
    """Return the report: a table for each budget."""
    budgets = {tuple(record[name] for name in BUDGET): None for record in records}
    measured = dict.fromkeys(record["variant"] for record in records if record["variant"] in REMOVED)
    gone = [f"- `{name}`: {REMOVED[name]}." for name in measured]
    removed = f"""
These options are no longer in the package, because none of them gained more AP than seeds differ by. Their rows stay
in the tables; their code last stood in commit {LAST_COMMIT}.

{chr(10).join(gone)}
"""
    sections = [
        section([record for record in records if tuple(record[name] for name in BUDGET) == budget])
        for budget in budgets
    ]
    return f"""# Options beyond the published models

What each option of the losses, the matching, the queries and the augmentation changes when a preset is trained from
scratch with `hf-detr train`. AP is in percent on the validation images; ± is the standard deviation over the seeds,
which draw the data, the initial weights and the order. The last column compares runs of the same seed. The baseline is
{", ".join(f"`{name}={value!r}`" for name, value in BASELINE_FIELDS.items())} and the augmentation
`{BASELINE_AUGMENTATION}`.
{removed if gone else ""}
{(chr(10) * 2).join(sections)}
"""


def section(records: Sequence[Record]) -> str:
    """Return the report on runs of one budget."""
    budget = {name: records[0][name] for name in BUDGET}
    source = budget["data"] if budget["data"].startswith("synthetic") else f"path/to/{budget['data']}"
    options = {**budget, "data": source}
    lists = {name: dict.fromkeys(record[name] for record in records) for name in ("variant", "seed")}
    lists["variant"] = {name: None for name in lists["variant"] if name not in REMOVED}
    words = [f"--{name.replace('_', '-')} {value}" for name, value in options.items()]
    words += [f"--{name} {value}" for name, values in lists.items() for value in values]
    return f"""## {budget["data"]}

The preset `{budget["preset"]}` on images of {budget["image_size"]} pixels, {budget["steps"]} steps with batches of
{budget["batch_size"]}.

{table(records)}

```bash
python benchmarks/training/ablation.py {" ".join(words)}
```"""


def main(
    steps: Annotated[int, typer.Option(help="Optimizer steps of each run.", min=1)] = 300,
    variant: Annotated[list[str] | None, typer.Option(help="A variant. It may be repeated; by default all.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="A seed. It may be repeated; by default 0, 1 and 2.")] = None,
    data: Annotated[str, typer.Option(help="'synthetic:N' for N built-in images, or a folder.")] = "synthetic:500",
    image_size: Annotated[int, typer.Option(help="The shortest edge in pixels.", min=32)] = 128,
    batch_size: Annotated[int, typer.Option(min=1)] = 4,
    preset: Annotated[str, typer.Option(help="The preset to train.")] = "tiny",
    jobs: Annotated[int, typer.Option(help="The number of runs at the same time.", min=1)] = 1,
    results: Annotated[Path, typer.Option(help="The file of finished runs.")] = RESULTS,
    output: Annotated[Path, typer.Option(help="The report to write.")] = PAGE,
) -> None:
    """Train the variants that are not trained yet and write the tables of all."""
    name = data if data.startswith("synthetic") else Path(data).resolve().name
    budget = {"preset": preset, "data": name, "steps": steps, "image_size": image_size, "batch_size": batch_size}
    try:
        wanted = [
            settings_of(name, number, budget) for number in seed or (0, 1, 2) for name in variant or DEFAULT_VARIANTS
        ]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--variant") from error
    run_all(missing(wanted, load(results)), data, results, jobs)
    finished = load(results)
    output.write_text(page(finished), "utf-8")
    print(table([record for record in finished if budget.items() <= record.items()]))


if __name__ == "__main__":
    typer.run(main)
