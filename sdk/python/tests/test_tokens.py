"""Every RPC refuses a call without a transaction token for it."""

import asyncio
import time

import drawbridge.testing
import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from drawbridge._tokens import TXN_TOKEN, message_digest
from greeter import Greeter
from greeter_pb2 import CountRequest, FailRequest, GreetRequest
import jwt

RPCS = {
    "greeter.v1.GreeterService/Greet": GreetRequest(name="Ada"),
    "greeter.v1.GreeterService/Count": CountRequest(to=2),
    "greeter.v1.GreeterService/Fail": FailRequest(how="tool"),
}


async def status(service, rpc, request, metadata):
    """The status of a call and its message."""
    channel = service.unauthenticated_channel()
    call = channel.unary_stream(f"/{rpc}", request_serializer=lambda message: message)
    encoded = request if isinstance(request, bytes) else request.SerializeToString()
    try:
        async for _ in call(encoded, metadata=metadata):
            pass
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def refused_tokens(service, rpc):
    """Invalid tokens, each with its fault."""
    auth, now = service.auth, int(time.time())
    good = auth.claims("greeter", rpc)
    context = good["tctx"]
    other = drawbridge.testing.TestAuth()
    other.close()
    ec_key = ec.generate_private_key(ec.SECP256R1())
    signed = auth.sign(good)
    header = {"typ": "txntoken+jwt", "kid": "test"}
    return {
        "has expired": auth.sign({**good, "iat": now - 100, "exp": now - 60}),
        "never expires": auth.sign({name: good[name] for name in good if name != "exp"}),
        "is for another service": auth.sign({**good, "aud": "another"}),
        "is for several services": auth.sign({**good, "aud": ["greeter", "another"]}),
        "has no audience": auth.sign({**good, "aud": ""}),
        "is for another RPC": auth.sign({**good, "tctx": {**context, "rpc": f"{rpc}Other"}}),
        "is for all RPCs": auth.sign({**good, "tctx": {**context, "rpc": "*"}}),
        "is for no RPC": auth.sign({**good, "tctx": {**context, "rpc": ""}}),
        "has no context": auth.sign({**good, "tctx": None}),
        "has no subject": auth.sign({name: good[name] for name in good if name != "sub"}),
        "is another issuer's": auth.sign({**good, "iss": "https://evil.example"}),
        "is an access token": auth.sign(good, typ="at+jwt"),
        "is of no type": auth.sign(good, typ="JWT"),
        "is signed by an unknown key": auth.sign(good, kid="unknown"),
        "names no key": auth.sign(good, kid=""),
        "has an untrusted signer": other.sign(good),
        "is signed by another algorithm": jwt.encode(good, ec_key, "ES256", headers=header),
        "is signed by a shared secret": jwt.encode(good, "x" * 32, "HS256", headers=header),
        "is not signed": f"{signed.rpartition('.')[0]}.",
        "has no algorithm": jwt.encode(good, None, "none", headers=header),
        "is for another message": auth.sign(
            {**good, "tctx": {**context, "message_sha256": message_digest(b"other")}}
        ),
        "is empty": "",
        "is nonsense": "nonsense",
    }


async def test_every_rpc_refuses_a_missing_or_invalid_token_and_accepts_a_valid_one():
    async with drawbridge.testing.serving(Greeter()) as service:
        for rpc, request in RPCS.items():
            unauthenticated = grpc.StatusCode.UNAUTHENTICATED
            assert (await status(service, rpc, request, ()))[0] == unauthenticated, rpc
            for why, token in refused_tokens(service, rpc).items():
                code, _ = await status(service, rpc, request, [(TXN_TOKEN, token)])
                assert code == unauthenticated, f"{rpc} with a token that {why}"
            good = service.auth.sign(service.auth.claims("greeter", rpc))
            code, _ = await status(service, rpc, request, [(TXN_TOKEN, good)])
            assert code != unauthenticated, rpc


async def test_a_repeated_credential_is_refused():
    rpc = "greeter.v1.GreeterService/Greet"
    async with drawbridge.testing.serving(Greeter()) as service:
        good = service.auth.sign(service.auth.claims("greeter", rpc))
        for twice in (
            [(TXN_TOKEN, good), (TXN_TOKEN, good)],
            [(TXN_TOKEN, good), ("authorization", "a"), ("authorization", "b")],
        ):
            code, message = await status(service, rpc, RPCS[rpc], twice)
            assert code == grpc.StatusCode.UNAUTHENTICATED, message
            assert "more than one value" in message


async def test_a_token_for_a_message_opens_the_rpc_for_that_message_alone():
    rpc = "greeter.v1.GreeterService/Greet"
    async with drawbridge.testing.serving(Greeter()) as service:
        claims = service.auth.claims("greeter", rpc)
        encoded = GreetRequest(name="Ada").SerializeToString()
        claims["tctx"]["message_sha256"] = message_digest(encoded)
        metadata = [(TXN_TOKEN, service.auth.sign(claims))]
        assert (await status(service, rpc, encoded, metadata))[0] == grpc.StatusCode.OK
        code, message = await status(service, rpc, GreetRequest(name="Eve"), metadata)
        assert code == grpc.StatusCode.UNAUTHENTICATED
        assert message == "the transaction token is for another message"
        # The same message by other bytes: a field whose value is repeated.
        repeated = GreetRequest(name="Eve").SerializeToString() + encoded
        code, _ = await status(service, rpc, repeated, metadata)
        assert code == grpc.StatusCode.UNAUTHENTICATED


async def test_an_unknown_key_is_fetched_once_and_then_not_for_some_seconds():
    rpc = "greeter.v1.GreeterService/Greet"
    async with drawbridge.testing.serving(Greeter()) as service:
        while service.running.not_ready:
            await asyncio.sleep(0.01)
        before = service.auth.fetches
        unknown = service.auth.sign(service.auth.claims("greeter", rpc), kid="unknown")
        for _ in range(5):
            await status(service, rpc, RPCS[rpc], [(TXN_TOKEN, unknown)])
        assert service.auth.fetches == before + 1


async def test_without_auths_keys_a_call_is_unavailable():
    rpc = "greeter.v1.GreeterService/Greet"
    unreachable = "http://127.0.0.1:1/jwks"
    async with drawbridge.testing.serving(Greeter(), auth_jwks_url=unreachable) as service:
        good = service.auth.sign(service.auth.claims("greeter", rpc))
        code, message = await status(service, rpc, RPCS[rpc], [(TXN_TOKEN, good)])
        assert (code, message) == (
            grpc.StatusCode.UNAVAILABLE,
            "transaction tokens cannot be verified now; retry",
        )


@pytest.mark.parametrize("rpc", ["greeter.v1.GreeterService/Nothing", "other.v1.Other/Nothing"])
async def test_an_unknown_rpc_is_unimplemented(rpc):
    async with drawbridge.testing.serving(Greeter()) as service:
        code, _ = await status(service, rpc, RPCS["greeter.v1.GreeterService/Greet"], ())
        assert code == grpc.StatusCode.UNIMPLEMENTED
