"""Timing of workloads, backends and peers side by side: what ``fastnet bench`` shows.

Times are in seconds unless a name says ms.
"""

from fastnet.benchmarking.machine import describe_machine, n_default_threads, n_usable_cpus
from fastnet.benchmarking.measuring import Comparison, Measurement, as_json, compare
from fastnet.benchmarking.roofline import MachineSpeed, Roofline, StepCost, count_step
from fastnet.benchmarking.speed import measure_speeds
from fastnet.benchmarking.trials import BackendTrial, OpenTrial, Trial, time_alternately, time_first_call

__all__ = [
    "BackendTrial",
    "Comparison",
    "MachineSpeed",
    "Measurement",
    "OpenTrial",
    "Roofline",
    "StepCost",
    "Trial",
    "as_json",
    "compare",
    "count_step",
    "describe_machine",
    "measure_speeds",
    "n_default_threads",
    "n_usable_cpus",
    "time_alternately",
    "time_first_call",
]
