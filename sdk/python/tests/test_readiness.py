"""When a service is ready, and what `/readyz` and the health of gRPC say of it."""

import asyncio
import json
import urllib.error
import urllib.request

import drawbridge
import drawbridge.testing
import pytest
from drawbridge._readiness import Damper
from greeter import Greeter
from grpc_health.v1 import health_pb2, health_pb2_grpc

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVING = health_pb2.HealthCheckResponse.SERVING


def get(address, path):
    """The status and the body of a document on the admin port."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}") as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def readyz(service, query=""):
    """The status and the body of `/readyz`."""
    address = service.running.admin_address
    status, body = await asyncio.to_thread(get, address, f"/readyz{query}")
    return status, json.loads(body)


async def reason(service, expected):
    """Waits until the service is not ready for this reason; `None`: ready."""

    async def waiting():
        while service.running.not_ready != expected:
            await asyncio.sleep(0.01)

    await asyncio.wait_for(waiting(), 15)


async def health(service):
    """What the health service of gRPC says."""
    stub = health_pb2_grpc.HealthStub(service.unauthenticated_channel())
    return (await stub.Check(health_pb2.HealthCheckRequest())).status


class Database:
    """A dependency whose state a test sets."""

    def __init__(self):
        self.problem = None

    async def check(self):
        if isinstance(self.problem, Exception):
            raise self.problem
        return self.problem


async def test_a_service_is_not_ready_until_it_has_auths_keys():
    without = "auth_keys: have not been fetched, or are too old"
    unreachable = "http://127.0.0.1:1/jwks"
    async with drawbridge.testing.serving(Greeter(), auth_jwks_url=unreachable) as service:
        await reason(service, without)
        assert await readyz(service) == (503, {"ready": False, "reason": without})
        assert await health(service) == NOT_SERVING
    async with drawbridge.testing.serving(Greeter()) as service:
        await reason(service, None)
        assert await readyz(service) == (200, {"ready": True})
        assert await health(service) == SERVING
        assert service.auth.fetches == 1, "before any call"


async def test_a_required_dependency_takes_the_service_out_and_its_return_brings_it_back():
    database = Database()
    dependency = drawbridge.Dependency("database", database.check)
    async with drawbridge.testing.serving(Greeter(), dependencies=[dependency]) as service:
        await reason(service, None)
        database.problem = "does not answer"
        await reason(service, "database: does not answer")
        assert (await readyz(service))[0] == 503
        assert await health(service) == NOT_SERVING
        # The text of an exception may hold a secret.
        database.problem = OSError("postgres://user:password@db")
        await reason(service, "database: its check failed")
        database.problem = None
        await reason(service, None)
        assert await health(service) == SERVING


async def test_another_dependency_makes_a_note_and_conditions_are_listed_and_measured():
    mail = Database()
    mail.problem = "refuses logins"
    dependency = drawbridge.Dependency("mail", mail.check, required=False)
    async with drawbridge.testing.serving(Greeter(), dependencies=[dependency]) as service:
        await reason(service, None)
        expected = {"ready": True, "notes": {"mail": "refuses logins"}}
        while (await readyz(service))[1] != expected:
            await asyncio.sleep(0.05)
        status, body = await readyz(service, "?verbose")
        conditions = {condition.pop("name"): condition for condition in body["conditions"]}
        assert (status, sorted(conditions)) == (200, ["auth_keys", "mail", "serving"])
        assert conditions["mail"].pop("since") > 1_700_000_000
        mail_status = {"effect": "degrading", "is_up": False, "reason": "refuses logins"}
        assert conditions["mail"] == mail_status
        address = service.running.admin_address
        _, metrics = await asyncio.to_thread(get, address, "/metrics")
        assert 'drawbridge_dependency_up{dependency="mail",effect="degrading"} 0.0' in metrics
        assert 'drawbridge_dependency_up{dependency="auth_keys",effect="required"} 1.0' in metrics
        assert "drawbridge_ready 1.0" in metrics


async def test_a_service_that_drains_is_not_ready_while_it_still_serves():
    async with drawbridge.testing.serving(Greeter()) as service:
        await reason(service, None)
        draining = asyncio.create_task(service.running.drain(30, 1))
        await reason(service, "stopping")
        assert await readyz(service) == (503, {"ready": False, "reason": "stopping"})
        assert await health(service) == NOT_SERVING
        draining.cancel()


async def test_two_dependencies_of_one_name_do_not_start():
    dependency = drawbridge.Dependency("auth_keys", Database().check)
    with pytest.raises(ValueError, match="the name of the dependency 'auth_keys' is taken"):
        async with drawbridge.testing.serving(Greeter(), dependencies=[dependency]):
            pass


def test_a_dependency_is_down_after_four_failures_and_up_after_two_successes():
    damper = Damper()
    results = [None, *3 * ["down"], None, *4 * ["down"], "worse", None, "down", None, None]
    states = [damper.record(result) for result in results]
    settled = [(at, reason) for at, (is_settled, reason) in enumerate(states) if is_settled]
    assert settled == [(0, None), (8, "down"), (9, "worse"), (11, "down"), (13, None)]
    starting = Damper()
    assert [starting.record("down")[0] for _ in range(8)] == [*7 * [False], True]
    assert starting.record(None) == (True, None), "the first success counts"
