"""The trainings that speed is measured on: data, start, optimizer and length, the same for whoever takes part."""

from fastnet.workloads.catalogue import WORKLOADS, find_workload, load
from fastnet.workloads.workload import SMOKE_SCALE, LoadedWorkload, Workload

__all__ = ["SMOKE_SCALE", "WORKLOADS", "LoadedWorkload", "Workload", "find_workload", "load"]
