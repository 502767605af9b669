"""Tasks: labelled rows from files or data sets, checked, split and sampled into one value."""

from edgeprune.task.load import load_auxiliary, load_task, load_text
from edgeprune.task.task import Rows, Task, leaked

__all__ = ["Rows", "Task", "leaked", "load_auxiliary", "load_task", "load_text"]
