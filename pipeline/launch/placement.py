"""What the nodes of a cluster have room for, and which of them see the run store and the data; needs Ray."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.remote import RemoteFolder, ensure_local, has_data
from pipeline.runs.execution import Resources
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import write_atomic
from pipeline.utils.object_store import ObjectStore

GPU_SHARE = 0.25  # of a GPU, for a run whose profile says `auto`


Node = Mapping[str, float]  # all resources of a node, by Ray's names


@dataclass(frozen=True)
class Share:
    """The resources of one worker of a run."""

    threads: int
    gpus: float

    @property
    def bundle(self) -> dict[str, float]:
        """The resources as Ray names them."""
        return {"CPU": self.threads, **({"GPU": self.gpus} if self.gpus else {})}

    def describe(self, workers: int) -> str:
        """Describe the resources of all workers of a run, e.g. ``1 worker with 1 thread``."""
        return f"{workers} worker{'s'[: workers > 1]} with {self}"

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.threads} thread{'s'[: self.threads > 1]}{gpus}"


def _alive() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _nodes() -> list[Node]:
    return [node["Resources"] for node in _alive()]


def share(resources: Resources) -> Share:
    """Return the resources of each worker on this cluster; needs a connection to Ray.

    Raises:
        UserError: if the cluster can never satisfy it.
    """
    return share_of(_nodes(), resources)


def share_of(nodes: Sequence[Node], resources: Resources) -> Share:
    """Return the resources of each worker on these nodes. A worker needs one node; a run may use several.

    Raises:
        UserError: if they can never hold it.
    """
    most = max(node.get("GPU", 0.0) for node in nodes)
    gpus = resources.gpus
    if gpus == "auto":
        gpus = min(GPU_SHARE if resources.workers == 1 else 1.0, most)
    wanted = Share(resources.threads, float(gpus))
    if wanted.gpus > most:
        raise UserError(f"resources.gpus = {wanted.gpus:g}: must be at most {most:g}, no node of the cluster has more")
    cores = max(node.get("CPU", 0.0) for node in nodes if node.get("GPU", 0.0) >= wanted.gpus)
    if wanted.threads > cores:
        those = f"node with {wanted.gpus:g} GPU" if wanted.gpus else "node of the cluster"
        raise UserError(f"resources.threads = {wanted.threads}: must be at most {cores:g}, no {those} has more cores")
    fit = sum(_capacity(node, wanted) for node in nodes)
    if resources.workers > fit:
        raise UserError(
            f"resources.workers = {resources.workers}: must be at most {fit}, the nodes of the cluster hold no more"
            f" with {wanted} each"
        )
    return wanted


def _capacity(node: Node, worker_resources: Share) -> int:
    """Return how many workers fit on a node. Ray takes less than a whole GPU from a single one."""
    cores, gpus = node.get("CPU", 0.0), node.get("GPU", 0.0)
    fit = int(cores / worker_resources.threads)
    if worker_resources.gpus == 0:
        return fit
    return min(
        fit,
        int(gpus) * int(1 / worker_resources.gpus + 1e-9)
        if worker_resources.gpus < 1
        else int(gpus / worker_resources.gpus),
    )


def parallel(resources: Resources, worker_resources: Share) -> int:
    """Return how many runs the cluster can train at once; needs a connection to Ray."""
    return parallel_on(_nodes(), resources, worker_resources)


def parallel_on(nodes: Sequence[Node], resources: Resources, worker_resources: Share) -> int:
    """Return how many runs these nodes can train at once."""
    fit = sum(_capacity(node, worker_resources) for node in nodes) // resources.workers
    return max(1, min(fit, resources.max_parallel or fit))


def check_shared(store: Path, url: str | None = None) -> None:
    """Refuse a store that other nodes of the cluster do not see: a folder, or what is behind a URL."""
    without = _nodes_without_store(store, url)
    if without:
        raise UserError(
            f"store = {url or str(store)!r}: not seen from {', '.join(without)}; with several nodes it must be a shared"
            " folder or the URL of an object store"
        )


def check_search_shared(folder: Path, store: str) -> None:
    """Refuse a search whose folder other nodes of the cluster do not see.

    Args:
        store: the run store as the settings have it; that of a search is a folder in any case.
    """
    without = _nodes_without_store(folder)
    if without:
        raise UserError(
            f"store = {store!r}: a search keeps its trials in {folder}, not seen from {', '.join(without)}; with"
            " several nodes that must be in a shared folder, so `store` must be one, or the project lie in one"
        )


def _nodes_without_store(store: Path, url: str | None = None) -> list[str]:
    """Return the addresses of the nodes that do not see a store."""
    if url is None and len(_alive()) == 1:
        return []
    return nodes_without_access(store if url is None else ObjectStore(url))


def nodes_without_access(place: Path | ObjectStore) -> list[str]:
    """Return the addresses of the nodes that do not see what is written into a folder, or an object store."""
    name, question = f".seen-{secrets.token_hex(8)}.tmp", "Is this place seen from every node?\n"
    if isinstance(place, Path):
        write_atomic(place / name, question)
    else:
        with place.required("; it must be writable"):
            place.write(name, question.encode())
    try:
        return nodes_that_do_not_see(place, name)
    finally:
        (place / name).unlink() if isinstance(place, Path) else place.delete(name)


def nodes_that_do_not_see(place: Path | ObjectStore, name: str) -> list[str]:
    """Return the addresses of the nodes that do not see a file, or a folder, of that name in a place."""
    return _nodes_that_deny(_alive(), _sees, place, name)


def nodes_without(folder: Path, checksum: str, worker_resources: Share) -> list[str]:
    """Return the addresses of the nodes with room for a worker that lack data of a checksum in a folder.

    A single node is not checked: a run on it reports what is missing.
    """
    nodes = _alive()
    if len(nodes) == 1:
        return []
    return _nodes_that_deny(
        [node for node in nodes if _capacity(node["Resources"], worker_resources)], has_data, folder, checksum
    )


def download(nodes: Sequence[str], folder: Path, remote: RemoteFolder) -> None:
    """Have the nodes of these addresses download the images that they lack in a folder, all at the same time.

    Raises:
        UserError: if one of them cannot.
    """
    import ray
    from ray.exceptions import RayError

    chosen = [node for node in _alive() if node["NodeManagerAddress"] in nodes]
    try:
        ray.get(_run_on_nodes(chosen, ensure_local, folder, remote.dataset, remote.checksum, remote.url))
    except RayError as error:
        cause = getattr(error, "cause", error)  # what a task raised, or why it was lost
        raise cause if isinstance(cause, UserError) else remote.store.error(one_line(cause)) from None


def _nodes_that_deny(nodes: Sequence[Mapping[str, Any]], question: Callable[..., bool], *arguments: Any) -> list[str]:
    """Return the addresses of the nodes on which a function returns False."""
    import ray

    answers = ray.get(_run_on_nodes(nodes, question, *arguments))
    return [node["NodeManagerAddress"] for node, yes in zip(nodes, answers, strict=True) if not yes]


def _run_on_nodes(nodes: Sequence[Mapping[str, Any]], function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Call a function on each of these nodes; return Ray's references to the results."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0)(function)
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    return [task.options(scheduling_strategy=node).remote(*arguments) for node in there]


def run_task() -> None:
    """Run a task that does nothing, to see whether workers start.

    Raises:
        UserError: if none does within a minute.
    """
    import ray

    from pipeline.launch.worker_start import wait_for_start

    with ThreadPoolExecutor(1) as pool:
        task = ray.remote(num_cpus=1)(_nothing).remote()
        try:
            wait_for_start(pool.submit(ray.get, task), "a task")
        finally:
            ray.cancel(task, force=True)


def _nothing() -> None:
    pass


def _sees(store: Path | ObjectStore, name: str) -> bool:
    """Return whether this node sees a file of a store."""
    try:
        return (store / name).exists() if isinstance(store, Path) else store.exists(name)
    except OSError:
        return False
