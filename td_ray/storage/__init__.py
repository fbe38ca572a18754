"""Where outputs and shared caches are: a folder of this machine, or of an object store."""

from td_ray.storage.addresses import beside, is_url
from td_ray.storage.folder import Folder, Stamp, open_folder
from td_ray.storage.hold import LOCK, held, held_now

__all__ = ["LOCK", "Folder", "Stamp", "beside", "held", "held_now", "is_url", "open_folder"]
