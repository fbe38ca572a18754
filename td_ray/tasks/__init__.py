"""Data sets, their splits and halves, and the tasks derived from them.

A data source is a frozen pydantic class that derives from ``DataSource``, is registered under
its name, and reads a ``DataSet``: sample ids, named columns, a split, and (for models that run
here) inputs. A task takes one column as its target.
"""

from td_ray.tasks.dataset import DataSet, DataSource
from td_ray.tasks.families import resolve_tasks
from td_ray.tasks.splits import halves, validation_part
from td_ray.tasks.targets import Task

__all__ = [
    "DataSet",
    "DataSource",
    "Task",
    "halves",
    "resolve_tasks",
    "validation_part",
]
