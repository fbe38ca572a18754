"""What must be on the machine before a run: weights and data, and where they come from.

A run never downloads: a hundred workers would all do so, and on many clusters their nodes have
no way out. So work is cut in two. On a node with a connection, often the login node::

    td-ray prefetch zoo.yaml             # downloads once: models and data sets
    td-ray prefetch zoo.yaml --check     # says what is missing or damaged; needs no connection

It writes to where the libraries look, which the nodes must share: ``$TORCH_HOME`` (weights of
torchvision and timm), ``$HF_HOME`` (the Hugging Face hub) and the ``root`` of a data set of
torchvision. After that ``td-ray plan`` and ``td-ray run`` only read. Planning looks for all of it,
so that what is missing costs seconds; every message names the thing, its address, and the path
where it can be placed by hand on a machine that never has a connection.

A source says what it needs by its method ``needed``: a ``NeededFile``, a ``NeededSnapshot`` of the
hub, or a kind of its own.
"""

from td_ray.needs.files import NeededFile
from td_ray.needs.hub import NeededSnapshot
from td_ray.needs.needed import Needed

__all__ = ["Needed", "NeededFile", "NeededSnapshot"]
