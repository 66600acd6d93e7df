"""One topic filter and what becomes of its messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self

from patchbay.bus.message import Message
from patchbay.errors import Unavailable
from patchbay.settings import BrokerSettings


class Subscription:
    """A filter with its handler: `direct` is called at once, `queued` in order by a task.

    ``asked``: the broker is asked for it; else another one's filter brings it.
    """

    def __init__(
        self, pattern: str, deliver: Callable[[Message], None], *, asked: bool = True
    ) -> None:
        self.pattern = pattern
        self.deliver = deliver
        self.asked = asked
        self.adding: asyncio.Future[None] | None = None
        """The SUBSCRIBE under way, when this was added while connected."""
        self._worker: asyncio.Task[None] | None = None

    @classmethod
    def direct(cls, pattern: str, callback: Callable[[Message], None]) -> Self:
        """The callback gets each message as it comes, and acknowledges it when it will."""
        return cls(pattern, callback)

    @classmethod
    def queued(
        cls,
        pattern: str,
        handler: Callable[[Message], Awaitable[None]],
        set_aside: Callable[[Message, Exception], Awaitable[None]],
        comes_again: Callable[[Message], bool],
        settings: BrokerSettings,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        *,
        asked: bool = True,
    ) -> Self:
        """The handler gets one message at a time; each is acknowledged after it returns.

        While it raises Unavailable it is called again. After any other exception the message is
        set aside, and acknowledged when ``set_aside`` returns, which raises Unavailable until then.
        What waits is bounded by the Receive Maximum that we gave the broker.
        """
        queue: deque[Message] = deque()
        something = asyncio.Event()
        subscription = cls(pattern, queue.append, asked=asked)

        async def work() -> None:
            while True:
                while not queue:
                    something.clear()
                    await something.wait()
                message = queue.popleft()
                failure: Exception | None = None
                pause = settings.backoff_initial_s
                while not comes_again(message):
                    try:
                        if failure is None:
                            await handler(message)
                        else:
                            await set_aside(message, failure)
                        break
                    except Unavailable:
                        await asyncio.sleep(pause)
                        pause = min(pause * 2, settings.backoff_max_s)
                    except Exception as error:  # the outermost loop of this task
                        if failure is not None:
                            break  # it cannot even be set aside: the next one must not wait for it
                        failure = error
                message.ack()

        def deliver(message: Message) -> None:
            if subscription._worker is None:
                subscription._worker = spawn(work(), f"handler of {pattern}")
            if queue and queue[-1].connection is not message.connection:
                # The first of a new connection: the broker delivers again what came on the last.
                waiting = [one for one in queue if not comes_again(one)]
                queue.clear()
                queue.extend(waiting)
            queue.append(message)
            something.set()

        subscription.deliver = deliver
        return subscription

    async def stop(self) -> None:
        """End the worker. A message that it has in hand stays unacknowledged and comes again."""
        for task in (self._worker, self.adding):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Unavailable):
                    await task
        self._worker = None
