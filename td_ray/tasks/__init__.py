"""Data sets, their splits and halves, and the tasks derived from them.

A data source is a frozen pydantic class that derives from ``DataSource``, is registered under
its name, and reads ``Samples``: ids, named columns, and (for models that run here) inputs. The
base class draws subset and split; a task takes one column as its target. A source of your own
is a module, named by an entry point of the group ``td_ray.data_sources``::

    from functools import partial

    import numpy as np

    from td_ray.registry import DATA_SOURCES
    from td_ray.tasks.dataset import DataSource, Samples


    def draw(n, seed):
        return np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)


    @DATA_SOURCES.register("noise")
    class Noise(DataSource):
        samples: int = 100
        seed: int = 0

        def read(self, folder, cache):
            ids = np.arange(self.samples).astype(str)
            label = np.arange(self.samples) % 2
            return Samples(ids, {"label": label}, partial(draw, self.samples, self.seed))

        def inputs_identity(self, folder, digest):
            return [self.samples, self.seed]

``td_ray.testing.data_sources.check_data_source`` says whether it keeps to the contract.
"""

from td_ray.tasks.dataset import FEATURE_EXAMPLES, DataSet, DataSource, used_sources
from td_ray.tasks.families import expand, resolve_tasks
from td_ray.tasks.splits import halves, validation_part
from td_ray.tasks.targets import Task

__all__ = [
    "FEATURE_EXAMPLES",
    "DataSet",
    "DataSource",
    "Task",
    "expand",
    "halves",
    "resolve_tasks",
    "used_sources",
    "validation_part",
]
