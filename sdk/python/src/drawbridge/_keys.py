"""Auth's public keys: fetched when the first one is requested, and again when they are stale."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt

logger = logging.getLogger(__name__)

ALGORITHM = "EdDSA"
"""The algorithm that signs transaction tokens."""

KEYS_MAX = 64
"""The maximum number of keys of a set that are used."""
FRESH_SECONDS = 300.0
"""How long keys are fresh if auth does not specify it."""
FRESH_MIN_SECONDS, FRESH_MAX_SECONDS = 30.0, 3600.0
"""The bounds of what auth may specify."""
STALE_MAX_SECONDS = 3600.0
"""How long stale keys are used while auth does not answer."""
REFETCH_SECONDS = 5.0
"""The shortest time between two fetches, so that unknown key ids cannot cause more."""
FETCH_AHEAD_SECONDS = 0.05
"""The first delay between attempts to fetch keys ahead."""
RETRY_SECONDS = 1.0
"""The shortest time after a failed fetch."""

Fetch = Callable[[], Awaitable[tuple[Any, str | None]]]
"""Fetches a key set: its JSON and the `Cache-Control` header. Raises `OSError` or `ValueError`."""


class KeysUnavailable(Exception):
    """The key set could not be fetched, and no usable key is cached."""


class KeySet:
    """The keys of auth by their ids."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fresh_until: float | None = None
        self._attempted_at: float | None = None
        self._failure: str | None = None
        # Fetches are single flight.
        self._lock = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """The key with this id; `None` if auth has none.

        Raises `KeysUnavailable` if the key set cannot be fetched and the key is not cached.
        """
        cached = self._keys.get(key_id)
        now = self._clock()
        if cached is not None and self._fresh_until is not None:
            if now < self._fresh_until:
                return cached
            if now < self._fresh_until + STALE_MAX_SECONDS:
                self._refresh_in_background()
                return cached
        await self._refresh()
        if self._failure is not None:
            raise KeysUnavailable(self._failure)
        return self._keys.get(key_id)

    @property
    def is_usable(self) -> bool:
        """Whether there are keys, and they are not too old to be used."""
        return (
            self._fresh_until is not None
            and self._clock() < self._fresh_until + STALE_MAX_SECONDS
        )

    async def fetch_ahead(self) -> None:
        """Fetches the keys before the first one is requested, until that succeeds. An unknown key
        id then causes a fetch as soon as if there had been none.
        """
        delay = FETCH_AHEAD_SECONDS
        while True:
            await self._refresh()
            if self.is_usable:
                self._attempted_at = None
                return
            await asyncio.sleep(delay)
            delay = min(2 * delay, RETRY_SECONDS)

    def _refresh_in_background(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Fetches the keys, unless another task has just done so."""
        requested_at = self._clock()
        async with self._lock:
            pause = REFETCH_SECONDS if self._failure is None else RETRY_SECONDS
            if self._attempted_at is not None and (
                self._attempted_at >= requested_at or self._clock() < self._attempted_at + pause
            ):
                return
            self._attempted_at = self._clock()
            try:
                found, cache_control = await self._fetch()
                self._keys = usable_keys(found)
            except (OSError, ValueError) as error:
                before, self._failure = self._failure, str(error) or type(error).__name__
                if self._failure != before:
                    logger.warning("auth's keys could not be fetched: %s", self._failure)
                return
            self._failure = None
            self._fresh_until = self._clock() + fresh_seconds(cache_control)


def fresh_seconds(cache_control: str | None) -> float:
    """How long keys are fresh by this `Cache-Control` header, within the bounds."""
    found = re.search(r"\bmax-age=(\d{1,9})", cache_control or "")
    seconds = float(found[1]) if found else FRESH_SECONDS
    return min(max(seconds, FRESH_MIN_SECONDS), FRESH_MAX_SECONDS)


def usable_keys(found: Any) -> dict[str, jwt.PyJWK]:
    """The Ed25519 keys for signatures of a published key set (RFC 7517 section 5)."""
    keys = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(keys, list):
        raise ValueError("the key set has no keys")
    usable = {}
    for key in keys[:KEYS_MAX]:
        if not isinstance(key, dict) or not isinstance(key.get("kid"), str):
            continue
        if (key.get("kty"), key.get("crv")) != ("OKP", "Ed25519"):
            continue
        if key.get("use", "sig") != "sig" or key.get("alg", ALGORITHM) != ALGORITHM:
            continue
        if "verify" not in key.get("key_ops", ["verify"]):
            continue
        try:
            usable[key["kid"]] = jwt.PyJWK(key, ALGORITHM)
        except jwt.PyJWTError:
            continue
    return usable
