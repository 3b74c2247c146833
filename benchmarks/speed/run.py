"""The program of maintainers for speed: it measures parts of the package, and how time and memory grow.

python benchmarks/speed/run.py matching --threads 2
python benchmarks/speed/run.py all --quick
python benchmarks/speed/run.py report bench-results/speed_matching_cpu.json --page docs/benchmarks.md
"""

from hf_detr.benchmarking import Program, Suite
from hf_detr.benchmarking.commands import bench_app

SUITES = {
    "matching": Suite("suite_matching", "Matching and losses alone, forward and backward, by objects in an image."),
    "deformable_sampling": Suite("suite_deformable_sampling", "The forms of multi-scale deformable sampling."),
    "preprocessing": Suite("suite_preprocessing", "From decoded images to a batch of pixels."),
    "evaluation": Suite("suite_evaluation", "COCO metrics by our metric, on faster-coco-eval, and by pycocotools."),
    "import_time": Suite("suite_import_time", "What `import hf_detr` adds to `import torch, transformers`."),
    "growth": Suite("suite_growth", "Time and memory against image area, queries, objects in an image, and batch."),
}
MAINTAINERS = Program("python benchmarks/speed/run.py", (__file__,), SUITES)

if __name__ == "__main__":
    bench_app(MAINTAINERS)()
