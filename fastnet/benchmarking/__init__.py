"""Timing of workloads, backends side by side: what ``fastnet bench`` shows. Times in seconds unless a name says ms."""

from fastnet.benchmarking.machine import describe_machine, n_default_threads, n_usable_cpus
from fastnet.benchmarking.measuring import (
    BackendTrial,
    Measurement,
    Trial,
    as_json,
    measure,
    time_alternately,
    time_first_call,
)

__all__ = [
    "BackendTrial",
    "Measurement",
    "Trial",
    "as_json",
    "describe_machine",
    "measure",
    "n_default_threads",
    "n_usable_cpus",
    "time_alternately",
    "time_first_call",
]
