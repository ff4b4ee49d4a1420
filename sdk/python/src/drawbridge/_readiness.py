"""Whether a service can do its work, condition by condition."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

logger = logging.getLogger(__name__)

CHECK_SECONDS = 0.5
"""How often a dependency is checked."""
CHECK_TIMEOUT_SECONDS = 1.0
"""A check that takes longer has failed."""
FIRST_CHECK_SECONDS = 0.02
"""The first checks of a dependency follow one another faster, so that a service starts quickly."""
FAILURES_MAX = 4
"""After this many failed checks in a row a dependency is down."""
SUCCESSES_MIN = 2
"""After this many successful checks in a row a dependency that was down is up again."""

SERVING = "serving"
"""The condition that the service has started and does not stop."""
REQUIRED, DEGRADING = "required", "degrading"
"""Without a required condition a service is not ready; without another it is, and has a note."""


@dataclass(frozen=True)
class Dependency:
    """What the handlers of a service need, such as a database. Its name is in `/readyz`.

    `check` returns why the dependency cannot be used, or `None`. It is called twice a second, so it
    is cheap, and has failed after a second. The admin port shows the reason, so it names no secret.
    An exception is logged, and its text is not shown.

    While a required dependency is down, the service is not ready and gets no calls. While another
    one is, `/readyz` has a note.
    """

    name: str
    check: Callable[[], Awaitable[str | None]]
    required: bool = True


@dataclass(frozen=True)
class _Condition:
    effect: str
    reason: str | None
    since: int


class Readiness:
    """The conditions under which the service can do its work.

    It belongs to one event loop; other threads may read it.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._conditions: dict[str, _Condition] = {}
        self._changed = asyncio.Event()
        self._ready = Gauge(
            "drawbridge_ready", "1 while the service is ready, 0 while it is not.", registry=registry
        )
        self._up = Gauge(
            "drawbridge_dependency_up",
            "1 while a condition of readiness is met, 0 while it is not.",
            ["dependency", "effect"],
            registry=registry,
        )
        self.set(SERVING, REQUIRED, "starting")

    def set(self, name: str, effect: str, reason: str | None) -> None:
        """Sets whether a condition is met, and if not, why."""
        before = self._conditions.get(name)
        condition = _Condition(effect, reason, int(time.time()))
        if before is not None and (before.reason is None) == (reason is None):
            condition = replace(condition, since=before.since)
        elif before is not None and name != SERVING:
            logger.warning("the condition %s is %s", name, "met" if reason is None else "not met")
        # Other threads see the conditions before or after, and nothing in between.
        self._conditions = {**self._conditions, name: condition}
        self._up.labels(name, effect).set(1 if reason is None else 0)
        self._ready.set(1 if self.reason is None else 0)
        self._changed.set()

    def note(self, name: str, problem: str | None) -> None:
        """Sets or clears a problem that does not make the service unready."""
        self.set(name, DEGRADING, problem)

    @property
    def reason(self) -> str | None:
        """Why the service is not ready. `None`: it is."""
        down = [
            condition.reason if name == SERVING else f"{name}: {condition.reason}"
            for name, condition in sorted(self._conditions.items())
            if condition.effect == REQUIRED and condition.reason is not None
        ]
        return "; ".join(down) or None

    def report(self, verbose: bool = False) -> dict[str, object]:
        """The response of `/readyz`."""
        reason = self.reason
        body: dict[str, object] = {"ready": reason is None}
        if reason is not None:
            body["reason"] = reason
        conditions = sorted(self._conditions.items())
        notes = {
            name: condition.reason
            for name, condition in conditions
            if condition.effect == DEGRADING and condition.reason is not None
        }
        if notes:
            body["notes"] = notes
        if verbose:
            body["conditions"] = [_status(name, condition) for name, condition in conditions]
        return body

    async def changed(self) -> bool:
        """Waits for a change of a condition; returns whether the service is ready."""
        await self._changed.wait()
        self._changed.clear()
        return self.reason is None

    def expect(self, dependency: Dependency) -> None:
        """Adds a condition that `monitor` keeps current. A required one is not met until it is
        checked.
        """
        if dependency.name in self._conditions:
            raise ValueError(f"the name of the dependency {dependency.name!r} is taken")
        effect, reason = DEGRADING, None
        if dependency.required:
            effect, reason = REQUIRED, "not checked yet"
        self.set(dependency.name, effect, reason)

    async def monitor(self, dependency: Dependency) -> None:
        """Checks a dependency until the task is cancelled. It does not flap: it is down after two
        seconds, or six if checks do not answer, and up again after one. At the start the first
        success counts.
        """
        effect = REQUIRED if dependency.required else DEGRADING
        damper, delay = Damper(), FIRST_CHECK_SECONDS
        while True:
            settled, reason = damper.record(await _check(dependency))
            if settled:
                self.set(dependency.name, effect, reason)
            await asyncio.sleep(delay)
            delay = CHECK_SECONDS if damper.has_succeeded else min(2 * delay, CHECK_SECONDS)


def _status(name: str, condition: _Condition) -> dict[str, Any]:
    status: dict[str, Any] = {"name": name, "effect": condition.effect}
    status["is_up"] = condition.reason is None
    if condition.reason is not None:
        status["reason"] = condition.reason
    status["since"] = condition.since
    return status


async def _check(dependency: Dependency) -> str | None:
    try:
        return await asyncio.wait_for(dependency.check(), CHECK_TIMEOUT_SECONDS)
    except asyncio.TimeoutError:
        return "does not answer in time"
    except Exception:
        logger.debug("the check of %s failed", dependency.name, exc_info=True)
        return "its check failed"


class Damper:
    """Turns the results of checks into a state that does not flap."""

    def __init__(self) -> None:
        self._is_up: bool | None = None
        self._contradictions = 0

    @property
    def has_succeeded(self) -> bool:
        """Whether a check has succeeded since the start."""
        return self._is_up is not None

    def record(self, reason: str | None) -> tuple[bool, str | None]:
        """Takes the result of a check. Returns whether the state is settled, and the reason."""
        is_up = reason is None
        if self._is_up is None:
            # It may still be starting.
            self._contradictions += 1
            if is_up:
                self._is_up, self._contradictions = True, 0
            return is_up or self._contradictions >= 2 * FAILURES_MAX, reason
        if self._is_up == is_up:
            self._contradictions = 0
            return not is_up, reason
        self._contradictions += 1
        if self._contradictions < (FAILURES_MAX if self._is_up else SUCCESSES_MIN):
            return False, None
        self._is_up, self._contradictions = is_up, 0
        return True, reason


class Monitors:
    """The tasks that keep the readiness of a service current."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, task: Any) -> None:
        """Runs a coroutine until `close`."""
        self._tasks.append(asyncio.create_task(task))

    async def close(self) -> None:
        """Ends the tasks."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
