"""``python -m td_ray.cli``."""

from td_ray.cli import main

main()
