"""Hand a run to another machine: a detached process, a Ray cluster, Slurm or Kubernetes.

A job is one attempt to run an experiment at one target. All attempts that write to the same output
share a name, by which a target tells whether one is at work already; what was submitted, where and
when is kept in a folder of its own below ``jobs_folder()``.
"""

from td_ray.launch.jobs import Job, all_jobs, job_name, jobs_folder, last_job
from td_ray.launch.submitting import Submission, cancel, dry_run, submit
from td_ray.launch.targets import Target, find_target

__all__ = [
    "Job",
    "Submission",
    "Target",
    "all_jobs",
    "cancel",
    "dry_run",
    "find_target",
    "job_name",
    "jobs_folder",
    "last_job",
    "submit",
]
