"""MNN on the CPU, in its high precision: its own default may halve it."""

from __future__ import annotations

from edgeprune.measure.environment import Package, PythonEnvironment
from edgeprune_targets.conversion import Converted

ENVIRONMENT = PythonEnvironment("mnn", (Package("MNN", tested="3.6.1", least="3.4.0"),))


class Mnn(Converted):
    """Runs its own file, of any input shape."""

    precisions = ("fp32",)  # of int8 it makes a model that answers wrongly
    environment = ENVIRONMENT
    # It computes exponentials and the error function by short series.
    tolerance = 2e-2
    package = "MNN"
