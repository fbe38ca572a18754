"""Jobs of Kubernetes: a RayJob of KubeRay, for which a cluster is made and taken away again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from td_ray import yaml_files
from td_ray.errors import InputError
from td_ray.launch.files import cluster_file
from td_ray.launch.jobs import EXPERIMENT, Job
from td_ray.launch.programs import answer
from td_ray.launch.targets import Order, Standing, tail
from td_ray.spec import Cluster, Experiment
from td_ray.storage import is_url

WHERE = "--on kubernetes needs kubectl, and a context that names the cluster"
MOST_BYTES = 2**20
"""Of an experiment: more, a ConfigMap does not hold."""

LABEL = "td-ray/job"
ENDED = ("Complete", "Failed", "ValidationFailed")
GPU = "nvidia.com/gpu"
CANCELLED = 143
"""The code of a job that was deleted or stopped before it ended."""

_CODE = re.compile(r"Job entrypoint command failed with exit code (-?\d+)")

Document = dict[str, Any]


class Kubernetes:
    """The cluster and namespace of kubectl's context."""

    def at_work(self, name: str) -> str | None:
        """The RayJob of that name that has not ended."""
        left = (job for job, state in _known(name).items() if state not in ENDED)
        return next(left, None)

    def script(self, order: Order) -> str:
        """The manifests of ``clusters/kubernetes/job.yaml``, made out for this job."""
        _require_seen(order.experiment, _volumes(_template()))
        return "---\n".join(yaml_files.write(each) for each in _filled(order))

    def submit(self, order: Order) -> str:
        """Hand the manifests to the cluster, under a name that no other machine has taken."""
        job, taken = order.job, _known(order.job.name)
        while _name(job) in taken:
            job = replace(job, attempt=job.attempt + 1)
        manifests = self.script(replace(order, job=job))
        (order.job.folder / "job.yaml").write_text(manifests, encoding="utf-8")
        try:
            answer(["kubectl", "create", "-f", "-"], WHERE, manifests)
        except InputError as error:
            if "AlreadyExists" not in str(error):  # what is there then is another's
                with suppress(InputError):
                    answer(
                        ["kubectl", "delete", "configmap", _name(job), "--ignore-not-found"], WHERE
                    )
            raise
        return _name(job)

    def places(self, job: Job) -> list[str]:
        """What to ask the cluster."""
        return [f"state: kubectl get rayjob {job.id}", f"log: kubectl logs --follow job/{job.id}"]

    def standing(self, job: Job) -> Standing:
        """What its RayJob says; one that is no more was deleted."""
        try:
            found = json.loads(answer(["kubectl", "get", "rayjob", job.id, "-o", "json"], WHERE))
        except InputError as error:
            if "NotFound" in str(error):
                return Standing("ended", CANCELLED, "deleted")
            raise
        state = _status(found)
        if state not in ENDED:
            return Standing("running" if state == "Running" else "waiting", None, state)
        status = found.get("status", {})
        if status.get("jobStatus") == "SUCCEEDED":
            return Standing("ended", 0, state)
        message = str(status.get("message") or state)
        code = CANCELLED if status.get("jobStatus") == "STOPPED" else 1
        if said := _CODE.match(message):
            code = int(said[1]) if int(said[1]) >= 0 else 128 - int(said[1])
        return Standing("ended", code, message)

    def output(self, job: Job) -> Iterator[str]:
        """The submitter's log, which repeats the driver's; copied into the job's folder."""
        log = job.folder / "log"

        def has_ended() -> bool:
            ended = False
            with suppress(InputError):  # a cluster that does not answer may be back soon
                ended = self.standing(job).state == "ended"
            with suppress(InputError):  # there is no pod yet, or no longer
                log.write_text(answer(["kubectl", "logs", f"job/{job.id}"], WHERE))
            return ended

        return tail(log, has_ended)

    def cancel(self, job: Job) -> None:
        """Delete the RayJob, and with it its cluster; the pods are told to end."""
        answer(["kubectl", "delete", "rayjob,configmap", job.id, "--wait=false"], WHERE)


def _known(name: str) -> dict[str, str]:
    """The RayJobs of all attempts that the cluster knows, and the state of each."""
    selector = f"--selector={LABEL}={name}"
    found = json.loads(answer(["kubectl", "get", "rayjobs", selector, "-o", "json"], WHERE))
    return {str(item["metadata"]["name"]): _status(item) for item in found["items"]}


def _name(job: Job) -> str:
    return f"{job.name}-{job.attempt}"


def _template() -> list[Document]:
    text = cluster_file("kubernetes/job.yaml").read_text(encoding="utf-8")
    # through JSON, so that what the file says once and uses often is written out
    return [json.loads(json.dumps(each)) for each in yaml.safe_load_all(text)]


def _filled(order: Order) -> list[Document]:
    content = order.experiment.to_yaml()
    if len(content.encode()) > MOST_BYTES:
        raise InputError(
            f"the experiment has {len(content.encode()):,} bytes and a ConfigMap holds "
            f"{MOST_BYTES:,}: name models by globs, and pairs by rules or a file"
        )
    files, job = _template()
    labels = {"app.kubernetes.io/name": "td-ray", LABEL: order.job.name}
    for each in (files, job):
        each["metadata"] |= {"name": _name(order.job), "labels": labels}
    files["data"] = {EXPERIMENT: content}
    spec = job["spec"]
    spec["entrypoint"] = shlex.join([*shlex.split(spec["entrypoint"]), *order.options])
    _fill_cluster(spec["rayClusterSpec"], order.experiment.cluster, _name(order.job))
    if order.experiment.cluster.time is not None:
        spec["activeDeadlineSeconds"] = order.experiment.cluster.time
    return [files, job]


def _fill_cluster(spec: Document, cluster: Cluster, files: str) -> None:
    head, (workers,) = spec["headGroupSpec"], spec["workerGroupSpecs"]
    for pod in (head["template"]["spec"], workers["template"]["spec"]):
        for volume in pod["volumes"]:
            if "configMap" in volume:
                volume["configMap"]["name"] = files
    workers["maxReplicas"] = cluster.nodes
    pod = workers["template"]["spec"]
    (container,) = pod["containers"]
    for share in container["resources"].values():
        share |= {} if cluster.cpus is None else {"cpu": str(cluster.cpus)}
        share |= {} if cluster.memory is None else {"memory": str(int(cluster.memory))}
        del share[GPU]
        share |= {GPU: str(cluster.gpus)} if cluster.gpus else {}
    pod["nodeSelector"] = _selector(cluster)


def _selector(cluster: Cluster) -> Mapping[str, str]:
    """Labels of nodes: ``gpu_type`` and ``options``, each ``label=value``."""
    wanted = [*([cluster.gpu_type] if cluster.gpu_type else []), *cluster.options]
    pairs = [each.partition("=") for each in wanted]
    for label, equals, _ in pairs:
        if not equals:
            raise InputError(
                f"cluster: on Kubernetes '{label}' chooses no node; name a label and its value, "
                "such as nvidia.com/gpu.product=NVIDIA-L4"
            )
    return {label: value for label, _, value in pairs}


def _volumes(template: list[Document]) -> list[str]:
    """Where pods see volumes that all of them share."""
    pod = template[1]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    shared = {each["name"] for each in pod["volumes"] if "persistentVolumeClaim" in each}
    (container,) = pod["containers"]
    return [each["mountPath"] for each in container["volumeMounts"] if each["name"] in shared]


def _require_seen(experiment: Experiment, volumes: list[str]) -> None:
    """Refuse paths that pods do not see.

    Raises:
        InputError: which, and where they would be seen.
    """
    places = {"folder": str(experiment.folder)}
    if not is_url(experiment.output):
        places["output"] = str(experiment.folder / experiment.output)
    for key, place in places.items():
        if not any(Path(place).is_relative_to(volume) for volume in volumes):
            raise InputError(
                f"{key} is {place}, which pods do not see; they have the shared volume at "
                f"{', '.join(volumes)}: put the experiment's files there, and add --set "
                f"folder={volumes[0]}/..."
            )


def _status(item: Document) -> str:
    return str(item.get("status", {}).get("jobDeploymentStatus", "New"))
