"""Ray: an executor for scans."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

from dicomtorch.errors import import_library

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class RayExecutor(Executor):
    """Calls functions as Ray tasks, for `scan(folder, executor=RayExecutor())`.

    `ray.init` says where; without it the first call starts Ray on this machine. A task whose worker dies is run again
    by Ray. Shutting the executor down leaves Ray as it is.

    Args:
        **options: Of the tasks, as `ray.remote` takes them: `num_cpus`, `memory`, `resources`, `max_retries`, ...

    Raises:
        MissingDependencyError: Ray is not installed.
    """

    def __init__(self, **options: Any) -> None:
        self._ray = import_library("ray", "ray")
        self._options = options
        self._last: tuple[Any, Any] = (None, None)

    @property
    def num_workers(self) -> int:
        """Tasks that run at a time, 1 as long as Ray has not been started."""
        if not self._ray.is_initialized():
            return 1
        processors = self._ray.cluster_resources().get("CPU", 1.0)
        return max(1, int(processors / (self._options.get("num_cpus") or 1)))

    def submit(
        self,
        fn: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Result]:
        """Has a function called by a worker of Ray.

        Args:
            fn: The function; where workers run, its module is installed.
            *args: Its arguments.
            **kwargs: The same.
        """
        future: Future[Result] = self._task(fn).remote(*args, **kwargs).future()
        return future

    def _task(self, function: Any) -> Any:
        """A function as Ray has it: the same one for the same function, which Ray then sends once to each worker."""
        known, task = self._last
        if known is not function:
            task = self._ray.remote(function)
            if self._options:
                task = task.options(**self._options)
            self._last = (function, task)
        return task
