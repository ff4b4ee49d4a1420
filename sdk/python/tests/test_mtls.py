"""Services know one another by the SPIFFE ids of their certificates, which follow their files."""

import asyncio
import contextlib
import socket
import ssl
import threading
from datetime import datetime, timedelta, timezone

import drawbridge.testing
import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from drawbridge._fetch import key_fetcher
from drawbridge._mtls import Identity, MtlsError, parse_spiffe_id
from greeter import Greeter
from greeter_pb2 import GreetRequest
from grpc_health.v1 import health_pb2, health_pb2_grpc


class Authority:
    """A certificate authority of a test."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        usage = dict.fromkeys(
            [
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "crl_sign",
                "encipher_only",
                "decipher_only",
            ],
            False,
        )
        self.certificate = self._signed(
            self.name,
            self.key,
            x509.BasicConstraints(True, 0),
            x509.KeyUsage(key_cert_sign=True, **usage),
        )

    def _signed(self, name, key, *extensions, lasts=timedelta(hours=1)):
        now = datetime.now(timezone.utc)
        builder = (
            x509.CertificateBuilder(self.name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=2))
            .not_valid_after(now + lasts)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, SHA256())

    def issue(self, folder, service, *, uris=None, lasts=timedelta(hours=1)):
        """Writes a service's files, and returns the settings that name them."""
        key = ec.generate_private_key(ec.SECP256R1())
        uris = [f"spiffe://test.example/{service}"] if uris is None else uris
        names = [x509.UniformResourceIdentifier(uri) for uri in uris] + [x509.DNSName("localhost")]
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, service)])
        extensions = (x509.BasicConstraints(False, None), x509.SubjectAlternativeName(names))
        certificate = self._signed(name, key, *extensions, lasts=lasts)
        folder.mkdir(exist_ok=True)
        files = {
            "mtls_certificate_file": folder / "tls.crt",
            "mtls_key_file": folder / "tls.key",
            "mtls_trust_bundle_file": folder / "ca.crt",
        }
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files["mtls_certificate_file"].write_bytes(certificate.public_bytes(Encoding.PEM))
        files["mtls_key_file"].write_bytes(key.private_bytes(*form))
        files["mtls_trust_bundle_file"].write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return files


def identity(files):
    return Identity(*files.values())


@contextlib.asynccontextmanager
async def connected(service, files):
    """A channel that presents a certificate."""
    certificate, key, trust_bundle = (file.read_bytes() for file in files.values())
    credentials = grpc.ssl_channel_credentials(trust_bundle, key, certificate)
    address = f"localhost:{service.running.address.rpartition(':')[2]}"
    # Each channel has a connection of its own.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        yield channel


async def health(channel):
    """The status of a health check."""
    try:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.fixture
def authority():
    return Authority()


def mtls(authority, folder, *allow):
    return {**authority.issue(folder / "greeter", "greeter"), "mtls_allow": allow}


EDGE = "spiffe://test.example/edge"


async def test_only_allowed_services_may_call_even_for_health(authority, tmp_path):
    async with drawbridge.testing.serving(Greeter(), **mtls(authority, tmp_path, EDGE)) as service:
        async with connected(service, authority.issue(tmp_path / "edge", "edge")) as channel:
            assert await health(channel) == grpc.StatusCode.OK
            call = channel.unary_unary("/greeter.v1.GreeterService/Greet")
            rpc = "greeter.v1.GreeterService/Greet"
            token = service.auth.sign(service.auth.claims("greeter", rpc))
            request = GreetRequest(name="Ada").SerializeToString()
            answer = await call(request, metadata=[("txn-token", token)])
            assert b"Hello, Ada!" in answer
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(b"")
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        for name, uris in {
            "other": None,
            "two": [EDGE, "spiffe://test.example/other"],
            "none": [],
        }.items():
            files = authority.issue(tmp_path / name, name, uris=uris)
            async with connected(service, files) as channel:
                assert await health(channel) == grpc.StatusCode.PERMISSION_DENIED, name
        foreign = Authority().issue(tmp_path / "foreign", "edge")
        foreign["mtls_trust_bundle_file"] = tmp_path / "greeter" / "ca.crt"
        async with connected(service, foreign) as channel:
            assert await health(channel) == grpc.StatusCode.UNAVAILABLE
        address = service.running.address
        async with grpc.aio.insecure_channel(address) as channel:
            assert await health(channel) == grpc.StatusCode.UNAVAILABLE


async def test_new_connections_use_a_renewed_certificate_and_authority(authority, tmp_path):
    async with drawbridge.testing.serving(Greeter(), **mtls(authority, tmp_path, EDGE)) as service:
        renewed = Authority()
        client = renewed.issue(tmp_path / "edge", "edge")
        async with connected(service, client) as channel:
            assert await health(channel) == grpc.StatusCode.UNAVAILABLE
        renewed.issue(tmp_path / "greeter", "greeter")
        while True:
            async with connected(service, client) as channel:
                if await health(channel) == grpc.StatusCode.OK:
                    break
            await asyncio.sleep(0.1)


async def test_an_invalid_certificate_changes_nothing_and_is_reported(authority, tmp_path):
    files = authority.issue(tmp_path / "greeter", "greeter")
    followed = identity(files)
    before = followed.current
    for name, change in {
        "no PEM": lambda: files["mtls_certificate_file"].write_text("nonsense"),
        "another's key": lambda: files["mtls_key_file"].write_bytes(
            authority.issue(tmp_path / "x", "x")["mtls_key_file"].read_bytes()
        ),
        "another service's": lambda: authority.issue(tmp_path / "greeter", "other"),
        "expired": lambda: authority.issue(
            tmp_path / "greeter", "greeter", lasts=timedelta(hours=-1)
        ),
        "two names": lambda: authority.issue(
            tmp_path / "greeter", "greeter", uris=["spiffe://a/b", "spiffe://a/c"]
        ),
        "missing": lambda: files["mtls_key_file"].unlink(),
    }.items():
        authority.issue(tmp_path / "greeter", "greeter")
        change()
        reported = asyncio.Event()
        following = asyncio.create_task(followed.follow(lambda problem: problem and reported.set()))
        await reported.wait()
        following.cancel()
        assert followed.problem, name
        assert followed.current is before, name


def test_a_certificate_that_cannot_be_used_is_an_error_at_the_start(authority, tmp_path):
    files = authority.issue(tmp_path / "a", "greeter", lasts=timedelta(hours=-1))
    with pytest.raises(MtlsError, match="is not valid now"):
        identity(files)
    files = authority.issue(tmp_path / "a", "greeter")
    files["mtls_trust_bundle_file"].write_text("")
    with pytest.raises(MtlsError, match="contains no authority"):
        identity(files)


def test_spiffe_ids_are_parsed_by_their_rules():
    for good in (EDGE, "spiffe://a-1_b/ns/Mesh/sa/tool_1.x", "spiffe://10.0.0.1/a"):
        assert parse_spiffe_id(good) == good
    for bad in (
        "",
        "spiffe://a",
        "spiffe://a/",
        "spiffe:///a",
        "spiffe://A/b",
        "spiffe://a/b/../c",
        "spiffe://a/b?c",
        "https://a/b",
        "spiffe://a/" + "b" * 2048,
    ):
        with pytest.raises(MtlsError):
            parse_spiffe_id(bad)


def serve_http2(files, body):
    """Serves one document over HTTP/2 alone, as auth's gRPC port does; returns the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["mtls_certificate_file"], files["mtls_key_file"])
    context.load_verify_locations(files["mtls_trust_bundle_file"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    listener = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except ssl.SSLError:
                continue
            with contextlib.suppress(OSError), connection:
                answer_http2(connection, body)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


def answer_http2(connection, body):
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    while True:
        connection.sendall(server.data_to_send())
        received = connection.recv(65536)
        if not received:
            return
        for event in server.receive_data(received):
            if isinstance(event, h2.events.RequestReceived):
                headers = [(":status", "200"), ("cache-control", "max-age=60")]
                server.send_headers(event.stream_id, headers)
                server.send_data(event.stream_id, body, end_stream=True)


async def test_keys_are_fetched_by_mtls_from_auth_and_no_other_service(authority, tmp_path):
    own = identity(authority.issue(tmp_path / "greeter", "greeter"))
    port = serve_http2(authority.issue(tmp_path / "auth", "auth"), b'{"keys": []}')
    url = f"https://127.0.0.1:{port}/jwks"

    def fetcher(auth_id, identity=own):
        return key_fetcher(url, identity, auth_id, allow_plaintext=False)

    assert await fetcher("spiffe://test.example/auth")() == ({"keys": []}, "max-age=60")
    with pytest.raises(OSError, match="the peer is spiffe://test.example/auth, not"):
        await fetcher("spiffe://test.example/other")()
    foreign = identity(Authority().issue(tmp_path / "foreign", "greeter"))
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        await fetcher("spiffe://test.example/auth", foreign)()


def test_keys_in_plaintext_come_from_loopback_alone():
    for url in ("http://127.0.0.1:1/jwks", "http://localhost/jwks", "http://[::1]:1/jwks"):
        key_fetcher(url, None, None, allow_plaintext=False)
    for url in ("http://auth:1/jwks", "http://10.0.0.1/jwks", "auth:7111", "file:///jwks"):
        with pytest.raises(ValueError, match=r"plaintext beyond loopback|expected a URL"):
            key_fetcher(url, None, None, allow_plaintext=False)
    key_fetcher("http://auth:1/jwks", None, None, allow_plaintext=True)
