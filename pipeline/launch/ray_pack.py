"""Packing of images on a Ray cluster: a task for each shard, which any node may take."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from pipeline.data.packing import Advance, Broken, Shard, pack_unless_packed
from pipeline.launch import cluster, placement
from pipeline.utils.errors import UserError, one_line


def pack_over_cluster(shards: Sequence[Shard], advance: Advance) -> list[Broken]:
    """Pack shards on the cluster of RAY_ADDRESS, as many at once as it has cores.

    Each task first looks whether its shard is packed already. An interruption ends the tasks; what is packed stays.

    Args:
        shards: what to pack.
        advance: is given the number of files of each packed shard.

    Raises:
        UserError: if a node does not see the tree or the folder of the shards, or a shard could not be written.
    """
    # Relative paths would be searched for in the workers' own copy of the project.
    found = [replace(shard, tree=shard.tree.absolute(), folder=shard.folder.absolute()) for shard in shards]
    with cluster.connected(Path.cwd()):
        _check_seen(found[0])
        return _pack_all(found, advance)


def _check_seen(shard: Shard) -> None:
    """Refuse a tree or a folder that some node does not see: a class folder of the one, a new file in the other."""
    class_folder = Path(shard.files[0].name).parent.as_posix()
    _refuse(shard.tree, placement.nodes_that_do_not_see(shard.tree, class_folder))
    _refuse(shard.folder.parent, placement.nodes_without_access(shard.folder))


def _refuse(place: Path, without: Sequence[str]) -> None:
    if without:
        raise UserError(
            f"{place}: not seen from {', '.join(without)}; a Ray cluster packs from and into folders that all its nodes"
            " share (without RAY_ADDRESS this machine packs alone)"
        )


def _pack_all(shards: Sequence[Shard], advance: Advance) -> list[Broken]:
    """Pack the shards; return the broken files of all, in the order of the shards."""
    import ray
    from ray.exceptions import RayError

    task = ray.remote(num_cpus=1)(_pack)
    running = {task.remote(shard): shard for shard in shards}
    broken: dict[str, list[Broken]] = {}
    waiting = list(running)
    while waiting:
        (done,), waiting = ray.wait(waiting)
        shard = running[done]
        try:
            broken[shard.name] = ray.get(done)
        except RayError as error:
            cause = getattr(error, "cause", error)  # what a task raised, or why it was lost
            if not isinstance(cause, OSError | RayError):
                raise
            raise UserError(f"{shard.folder}: {shard.name} could not be packed ({one_line(cause)})") from None
        advance(len(shard.files))
    return [entry for shard in shards for entry in broken[shard.name]]


def _pack(shard: Shard) -> list[Broken]:
    """Pack one shard in a task: one thread decodes files while others are written."""
    with ThreadPoolExecutor(1) as pool:
        return pack_unless_packed(shard, pool, lambda _: None)
