"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["describe_machine", "n_default_threads", "n_threads_asked_for", "n_usable_cpus"]

# Distributions whose versions a figure depends on; those that are not installed are left out.
_DISTRIBUTIONS = (
    "fastnet", "numpy", "numba", "llvmlite", "scipy", "scikit-learn",
    "cupy-cuda12x", "cupy-cuda13x", "cupy", "torch", "jax", "jaxlib",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """System, processor, CPUs that this process may use, and versions; nothing that tells whose machine it is."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor_name(),
        "n_cpus": n_usable_cpus(),
        "python": platform.python_version(),
        "versions": {name: found for name in _DISTRIBUTIONS if (found := _installed_version(name))},
    }


def n_usable_cpus() -> int:
    """CPUs that this process may run on, which is what libraries take for their number of threads."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def n_default_threads() -> int:
    """CPU threads of a backend that is not told how many: ``FASTNET_NUM_THREADS``, or one for each usable CPU."""
    return n_threads_asked_for() or n_usable_cpus()


def n_threads_asked_for() -> int | None:
    """``FASTNET_NUM_THREADS``; None where it is not set."""
    text = os.environ.get("FASTNET_NUM_THREADS")
    return int(text) if text else None


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")


def _installed_version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
