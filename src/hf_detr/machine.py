"""The machine that the package runs on: its processor, cores and accelerators, and the packages installed on it."""

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

MODEL_PACKAGES = ("hf-detr", "torch", "torchvision", "transformers", "timm")
"""The packages that decide what a model computes."""
MEASURED_PACKAGES = (
    *MODEL_PACKAGES, "numba", "triton", "faster-coco-eval", "pycocotools", "ultralytics", "rfdetr",
)  # fmt: skip
"""The packages whose speed is measured, here and in other detectors."""


SPIN_COUNT = 10_000
"""How often a thread of OpenMP asks whether its work has come before it goes to sleep.

GCC's runtime asks 300,000 times by default. When other programs need the cores, this costs time for which the other
threads of the same loop have to wait. Measured on two cores with a loop of convolutions and small products: on the
idle machine 10,000 is as fast as the default (10.0 and 10.3 rounds a second against 10.1 and 10.4), and 1,000 is a
little slower (9.7 and 10.0). Beside two busy programs 10,000 gives 3.8 rounds a second, and the default 0.36.
"""
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
"""The environment variables by which a user decides how threads of OpenMP wait."""


def let_threads_sleep() -> None:
    """Have the threads of OpenMP go to sleep soon when they wait, unless the environment says how they wait.

    It works in this process only before torch is loaded, and always in the processes that this one starts.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)


def cores() -> int:
    """Return the number of processor cores that this process may use, at least one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """Return what the processor calls itself."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def hardware_line() -> str:
    """Return the accelerators of this machine in one line, or its processor where it has no accelerator."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{cores()} CPU cores ({processor_name()}), no accelerator"


def package_versions(packages: Iterable[str] = MODEL_PACKAGES) -> dict[str, str]:
    """Return the versions of those packages that are installed, by the name of the package."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe(device: str) -> dict[str, Any]:
    """Return what a measured time depends on: the machine, the versions of the packages, and other work on the
    machine.

    Args:
        device: the device that was measured, "cpu" or "cuda".
    """
    import torch

    return {
        "processor": processor_name(),
        "cores": cores(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "platform": platform.platform(terse=True),
        "versions": {"python": platform.python_version(), **package_versions(MEASURED_PACKAGES)},
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "malloc": {name: value for name, value in os.environ.items() if name.startswith(("MALLOC_", "LD_PRELOAD"))},
        "waiting": {name: value for name, value in os.environ.items() if name in WAITING},
    }
