"""A connection to Ray: the cluster that runs are trained on, what it has, and which of its nodes see the run store."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.remote import CACHE, RemoteFolder, ensure_local, has_data
from pipeline.runs.execution import Resources
from pipeline.training import huge_pages
from pipeline.utils.cores import available_cores
from pipeline.utils.errors import UserError, one_line
from pipeline.utils.files import write_atomic
from pipeline.utils.object_store import ObjectStore
from pipeline.utils.signals import Interrupted, interruptible

GPU_SHARE = 0.25  # of a GPU, for a run whose profile says `auto`
# Named after the systems where this is the default: Ray then listens on the loopback interface alone.
SEVERAL_MACHINES = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
CONNECT_SECONDS = 10.0  # within which the head of a cluster must accept a connection

# Whether Ray Train passes preemption notices on to runs; not needed on a cluster of our own.
WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
# Ray's settings, for the driver and every process that it starts. By default a controller takes up to 5 s to notice
# the end of a run; looking five times a second took 3 % of a core.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",  # for one run in a process; ours control many
    WATCHER: "0",
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "1800",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "31536000",  # runs wait for their turn
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run` each worker would resolve an environment of its own
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    **huge_pages.ENVIRONMENT,
}

# Ray's sockets lie below its temporary folder, and the path of a socket has at most 107 bytes.
LONGEST_TMPDIR = 38
SHORT_TMPDIRS = ("/tmp", "/var/tmp", "/dev/shm")
VITAL = {"raylet": "raylet", "gcs_server": "GCS"}  # by the names of their processes
WATCH_SECONDS = 0.5  # between two looks at the processes of a cluster of our own

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


def _leave(reason: str) -> None:
    """End this process at once, and what it has started: Ray would wait for ever for a part that has died."""
    import psutil

    print(f"error: {reason}; what was finished is kept", file=sys.stderr, flush=True)
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)


@contextmanager
def connected(root: Path, lost: Callable[[str], None] = _leave) -> Iterator[None]:
    """Connect this process to Ray: to the cluster of RAY_ADDRESS, or to one that is started on this machine.

    Args:
        root: the project folder.
        lost: is called by a thread, once, with a reason, when the raylet or the GCS of the started cluster has died.

    Raises:
        UserError: if the cluster of RAY_ADDRESS does not answer.
    """
    address = os.environ.get("RAY_ADDRESS") or None
    if not address:
        os.environ.setdefault(SEVERAL_MACHINES, "0")
        _shorten_temporary_folder()
    for name, value in {**ENVIRONMENT, WATCHER: "1" if address else "0"}.items():
        os.environ.setdefault(name, value)
    import ray

    passed_on = [*ENVIRONMENT, *({CACHE} & os.environ.keys())]
    runtime_env: dict[str, Any] = {"env_vars": {name: os.environ[name] for name in passed_on}}
    if address:
        _check_answers(address)
        runtime_env["working_dir"] = str(root)
        runtime_env["excludes"] = ["/data/", "/runs/", "/results/", "/published/", "/reports/", "/.dvc/", "mlflow.db*"]
    else:
        search = [str(root), os.environ.get("PYTHONPATH", "")]
        runtime_env["env_vars"]["PYTHONPATH"] = os.pathsep.join(filter(None, search))
        runtime_env["py_executable"] = shlex.quote(sys.executable)  # Ray puts it into a command of bash as it is
    try:
        ended = _start(address, runtime_env, lost)
    except ValueError as error:
        raise UserError(f"RAY_ADDRESS = {address!r}: {one_line(error)}") from None
    except ConnectionError as error:
        raise UserError(
            f"RAY_ADDRESS = {address!r}: {one_line(error)}; if it asks for a token, RAY_AUTH_MODE=token and the same"
            " token in ~/.ray/auth_token or RAY_AUTH_TOKEN are needed here, too"
        ) from None
    try:
        yield
    finally:
        ended.set()
        ray.shutdown()


def _shorten_temporary_folder() -> None:
    """Have Ray use a temporary folder whose path is short enough for its sockets.

    Raises:
        UserError: if there is none.
    """
    current = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR", "")
    if len(os.fsencode(current)) > LONGEST_TMPDIR:
        usable = [folder for folder in SHORT_TMPDIRS if os.access(folder, os.W_OK | os.X_OK)]
        if not usable:
            raise UserError(
                f"TMPDIR = {current!r}: too long for the sockets of Ray, which allow {LONGEST_TMPDIR} characters;"
                " RAY_TMPDIR names another folder"
            )
        os.environ["RAY_TMPDIR"] = usable[0]


def _watch(lost: Callable[[str], None], ended: threading.Event) -> None:
    """Look after the processes without which a cluster of our own is of no use, from their start on."""
    import psutil

    here, found = psutil.Process(), dict[str, psutil.Process]()
    while not ended.wait(WATCH_SECONDS):
        if len(found) < len(VITAL):
            found |= {child.name(): child for child in here.children() if child.name() in VITAL}
        for name, process in found.items():
            try:
                status = process.wait(0)
            except psutil.TimeoutExpired:
                continue
            if not ended.wait(WATCH_SECONDS):
                lost(f"the {VITAL[name]} of Ray {'died' if status is None else how_it_ended(status)}")
            return


def how_it_ended(status: int) -> str:
    """Describe an exit status as `subprocess` has it, e.g. ``was killed by SIGKILL``."""
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens: Ray would try for many minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "://" in address:
        return  # `auto`, or a scheme of Ray's own
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(f"RAY_ADDRESS = {address!r}: no Ray cluster answers there ({one_line(error)})") from None


def _start(address: str | None, runtime_env: dict[str, Any], lost: Callable[[str], None]) -> threading.Event:
    """Call `ray.init`, again where a busy machine did not start Ray's processes within the 30 s that Ray allows.

    Returns:
        An event to be set before Ray is shut down, for the thread that looks after a cluster of our own.
    """
    import ray

    for attempt in (1, 2, 3):
        ended = threading.Event()
        if not address:
            threading.Thread(target=_watch, args=(lost, ended), name="ray-watch", daemon=True).start()
        try:
            with _own_signals():
                ray.init(
                    address=address or "local",  # never another cluster that happens to run on this machine
                    include_dashboard=None if address else False,
                    num_cpus=None if address else available_cores(),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env=runtime_env,
                )
            if not address:
                _stop_log_monitor()
            return ended
        except BaseException as error:
            ended.set()
            if "timed out during startup" not in str(error) or attempt == 3:
                raise
            ray.shutdown()
    raise AssertionError("the last attempt raises")


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep Ray from handling SIGTERM, and raise what comes while it starts afterwards.

    Ray's own handler raises within its C++ code, which aborts the process.
    """
    from ray._private import utils

    theirs = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None
    try:
        with interruptible() as interrupted:
            yield
    finally:
        utils.set_sigterm_handler = theirs
    if interrupted.is_set():
        raise Interrupted(interrupted.number)


def _stop_log_monitor() -> None:
    """Stop the process that reads all logs ten times a second (3 % of a core) for a driver that shows none of them."""
    from ray._private import worker

    worker._global_node.kill_log_monitor(check_alive=False)


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


def quiet() -> None:
    """Keep Ray Train's own messages off the terminal: `launch` prints its own."""
    for name in ("ray", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    assert "ray" in sys.modules
