"""Where outputs and shared caches are: a folder of this machine, or of an object store."""

from td_ray.storage.addresses import beside, is_url
from td_ray.storage.folder import Folder, Stamp, open_folder
from td_ray.storage.hold import held

__all__ = ["Folder", "Stamp", "beside", "held", "is_url", "open_folder"]
