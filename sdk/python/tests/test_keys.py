"""Auth's keys are cached, refreshed in the background, and fetched once for an unknown id."""

import asyncio

import pytest
from drawbridge._keys import KeySet, KeysUnavailable, fresh_seconds, usable_keys
from drawbridge.testing import TestAuth

PUBLISHED = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


class Auth:
    """A key set and a clock under a test's control."""

    def __init__(self):
        self.ids, self.fetches, self.now, self.fails = ["a"], 0, 0.0, False
        self.keys = KeySet(self.fetch, lambda: self.now)

    async def fetch(self):
        self.fetches += 1
        await asyncio.sleep(0)
        if self.fails:
            raise OSError("unreachable")
        return {"keys": [{**PUBLISHED, "kid": id} for id in self.ids]}, "max-age=60"


async def test_keys_are_fetched_once_for_concurrent_calls():
    auth = Auth()
    found = await asyncio.gather(*(auth.keys.key("a") for _ in range(10)))
    assert all(found)
    assert auth.fetches == 1


async def test_an_unknown_id_is_fetched_at_most_once_in_five_seconds():
    auth = Auth()
    assert await auth.keys.key("b") is None
    assert await auth.keys.key("b") is None
    assert auth.fetches == 1
    auth.ids, auth.now = ["a", "b"], 6.0
    assert await auth.keys.key("b") is not None
    assert auth.fetches == 2


async def test_stale_keys_are_used_for_an_hour_while_auth_does_not_answer():
    auth = Auth()
    await auth.keys.key("a")
    auth.fails, auth.now = True, 61.0
    assert await auth.keys.key("a") is not None
    auth.now = 60.0 + 3601.0
    with pytest.raises(KeysUnavailable, match="unreachable"):
        await auth.keys.key("a")


async def test_a_withdrawn_key_is_dropped_at_the_next_refresh():
    auth = Auth()
    await auth.keys.key("a")
    auth.ids, auth.now = ["b"], 61.0
    await auth.keys.key("a")
    await auth.keys._refreshing
    assert await auth.keys.key("a") is None


def test_only_ed25519_keys_for_signatures_are_used():
    good = TestAuth()
    good.close()
    [key] = good.key_set()["keys"]
    for more in (
        {"use": "enc"},
        {"alg": "ES256"},
        {"key_ops": ["encrypt"]},
        {"kty": "EC"},
        {"crv": "X25519"},
        {"kid": 1},
        {"x": "short"},
    ):
        assert usable_keys({"keys": [{**key, **more}]}) == {}, more
    assert list(usable_keys({"keys": [None, {"kty": "oct"}, key]})) == ["test"]
    for broken in ([], {}, {"keys": {}}):
        with pytest.raises(ValueError, match="no keys"):
            usable_keys(broken)


def test_freshness_has_bounds():
    cases = {None: 300, "no-cache": 300, "max-age=1": 30, "public, max-age=99": 99}
    for header, seconds in cases.items():
        assert fresh_seconds(header) == seconds
    assert fresh_seconds("max-age=999999") == 3600
