"""How much faster than `grid_sample` the other forms of deformable attention sampling are, in one process.

    python benchmarks/deformable_sampling.py --threads 2 --json deformable.json

The sizes are those of an 800 x 1066 image: 17,821 tokens on four levels, 8 heads of width 32, 4 points. Every round
runs all forms one after the other, so that a noisy machine slows them alike; what counts is the median of each form.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from hf_detr.modeling.deformable import deformable_attention

SHAPES = [(100, 134), (50, 67), (25, 34), (13, 17)]
TOKENS = sum(height * width for height, width in SHAPES)
HEADS, WIDTH, POINTS = 8, 32, 4


def encoder_references() -> Tensor:
    """(1, TOKENS, 2): the centre of every pixel of every level, as x and y in 0..1."""
    centres = [
        torch.cartesian_prod((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width).flip(-1)
        for height, width in SHAPES
    ]
    return torch.cat(centres).unsqueeze(0)


def arguments(references: Tensor, device: str) -> list[Tensor]:
    """Value, locations within a few pixels of the references on each level, and softmax weights."""
    generator = torch.Generator().manual_seed(0)
    queries, levels = references.shape[1], len(SHAPES)
    sizes = torch.tensor([[width, height] for height, width in SHAPES]).view(levels, 1, 2)
    offsets = 2 * torch.randn(1, queries, HEADS, levels, POINTS, 2, generator=generator) / sizes
    weights = torch.randn(1, queries, HEADS, levels * POINTS, generator=generator).softmax(-1)
    return [
        torch.randn(1, TOKENS, HEADS, WIDTH, generator=generator).to(device),
        (references[:, :, None, None, None] + offsets).to(device),
        weights.unflatten(-1, (levels, POINTS)).to(device),
    ]


def seconds(form: str, tensors: list[Tensor], backward: bool) -> float:
    value, locations, weights = (tensor.detach().requires_grad_(backward) for tensor in tensors)
    if value.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    output = deformable_attention(value, SHAPES, locations, weights, form=form)
    if backward:
        output.backward(torch.ones_like(output))
    if value.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(forms: list[str], tensors: list[Tensor], backward: bool, repeats: int) -> dict[str, dict[str, float]]:
    for form in forms:
        seconds(form, tensors, backward)  # compiles, and fills the allocator
    rounds = [{form: seconds(form, tensors, backward) for form in forms} for _ in range(repeats)]
    medians = {form: statistics.median(times[form] for times in rounds) for form in forms}
    return {
        form: {"milliseconds": round(1e3 * median, 3), "times_faster": round(medians["grid_sample"] / median, 2)}
        for form, median in medians.items()
    }


def main(
    repeats: int = 15,
    threads: int = 2,
    device: str = "cpu",
    others: Annotated[list[str] | None, typer.Option("--form", help="Forms to compare with grid_sample.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results here.")] = None,
) -> None:
    """Compare the forms on the encoder's queries and on 300 decoder queries."""
    torch.set_num_threads(threads)
    forms = ["grid_sample", *(others or ["compiled"])]
    decoder_references = torch.rand(1, 300, 2, generator=torch.Generator().manual_seed(1))
    results = {}
    for part, references in (("encoder", encoder_references()), ("decoder", decoder_references)):
        tensors = arguments(references, device)
        for work, backward in (("forward", False), ("forward+backward", True)):
            results[f"{part} {work}"] = measure(forms, tensors, backward, repeats)
            for form, result in results[f"{part} {work}"].items():
                typer.echo(
                    f"{part:8}{work:17}{form:12}{result['milliseconds']:10.1f} ms {result['times_faster']:6.2f}x"
                )
    if json_file:
        report = {"torch": torch.__version__, "device": device, "threads": threads, "repeats": repeats}
        json_file.write_text(json.dumps({**report, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
