"""What Ray Train says of a failure: a mistake of the user's is told from what may help to try again."""

from __future__ import annotations

import pickle

import pytest

from pipeline.launch.ray_train import _mistake
from pipeline.utils.errors import UserError


@pytest.mark.parametrize("failure", [UserError("a shard is damaged"), RuntimeError("Connection closed by peer")])
def test_a_mistake_is_found_among_the_failures_of_the_workers(failure: Exception) -> None:
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
    from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

    lost = UserExceptionWithTraceback(RuntimeError("Connection closed by peer"), "Traceback ...")
    failures = {0: lost, 1: UserExceptionWithTraceback(failure, "Traceback ...")}
    error = pickle.loads(pickle.dumps(WorkerGroupError("two workers failed", failures)))  # as it comes to the driver
    found = _mistake(error)
    assert (str(found) if found else None) == (str(failure) if isinstance(failure, UserError) else None)
    assert _mistake(ControllerError(RuntimeError("no room"))) is None
