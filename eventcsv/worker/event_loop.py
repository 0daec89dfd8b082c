"""The event loop of a worker: one for its whole life, for functions that are coroutines. Loaded when one is met."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager, ExitStack


class EventLoop:
    """Runs what is awaitable; what an initializer has opened on it is there for every PO.

    Tasks that a function leaves behind go on whenever the loop runs, as those of a browser have to, and are cancelled
    at the end.
    """

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def result_of(self, returned: Any) -> Any:  # noqa: ANN401  # whatever the caller's code returns
        """Return what a function has returned, or, when that is awaitable, what comes of it."""
        if not inspect.isawaitable(returned):
            return returned
        if self._runner is None:
            import asyncio  # noqa: PLC0415  # 30 ms that plain functions do not pay

            self._runner = asyncio.Runner()
        return self._runner.run(_awaited(returned))

    def calling(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a plain function of the same result."""
        return lambda *arguments: self.result_of(function(*arguments))

    def enter(self, context: AbstractAsyncContextManager[object], at_end: ExitStack) -> None:
        """Enter an asynchronous context manager, and leave it at the end."""
        self.result_of(context.__aenter__())
        at_end.callback(lambda: self.result_of(context.__aexit__(None, None, None)))

    def close(self) -> None:
        """Cancel what is left, and end the loop."""
        if self._runner is not None:
            self._runner.close()


async def _awaited(awaitable: Awaitable[object]) -> object:
    return await awaitable
