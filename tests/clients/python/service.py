"""A tool service in Python: an ordinary gRPC service whose contract declares its tools.

    service.py PROTO_FOLDER JWKS_URL      serves on a free port, which it prints
    service.py PROTO_FOLDER JWKS_URL CERTIFICATE KEY TRUST_BUNDLE ALLOWED_SPIFFE_ID      the same with mTLS

It is independent of MCP: the protos are compiled unchanged, and the edge reads the contract by reflection.
"""

import base64
import hashlib
import pathlib
import sys
import tempfile
from concurrent import futures

import grpc
import jwt
from grpc_reflection.v1alpha import reflection
from grpc_tools import protoc

HERE = pathlib.Path(__file__).parent


def compiled(protos):
    """Compiles the contract and imports it."""
    out = tempfile.mkdtemp()
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    files = ["greeter.proto", "drawbridge/mcp/v1/options.proto", "drawbridge/mcp/v1/content.proto"]
    arguments = [f"-I{HERE}", f"-I{protos}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}"]
    if protoc.main(["protoc", *arguments, *files]) != 0:
        sys.exit("the contract does not compile")
    sys.path.insert(0, out)
    import greeter_pb2
    import greeter_pb2_grpc

    return greeter_pb2, greeter_pb2_grpc


def caller(context, keys, rpc):
    """The caller's claims. Rejects a transaction token that is not for this service and this RPC."""
    token = dict(context.invocation_metadata()).get("txn-token", "")
    try:
        key = keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key, ["EdDSA"], audience="greeter", issuer="drawbridge-auth")
    except jwt.PyJWTError:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the transaction token is not valid here")
    if claims["tctx"]["rpc"] != f"greeter.v1.GreeterService/{rpc}":
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the transaction token is for another RPC")
    # Absent if no arguments could change the decision.
    if claims["tctx"].get("message_sha256") not in (None, context.message_sha256):
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the transaction token is for another message")
    return claims


class Digests(grpc.ServerInterceptor):
    """Adds the digest of the received message bytes to each call's context."""

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        if not handler or handler.request_streaming:
            return handler

        def deserialize(data):
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            return digest, handler.request_deserializer(data)

        def digested(behavior):
            def call(received, context):
                context.message_sha256, request = received
                return behavior(request, context)

            return call

        kind = "unary_stream" if handler.response_streaming else "unary_unary"
        return handler._replace(
            request_deserializer=deserialize, **{kind: digested(getattr(handler, kind))}
        )


class AllowedPeer(grpc.ServerInterceptor):
    """Accepts one service among those with trusted certificates, for reflection too."""

    def __init__(self, allowed):
        self.allowed = allowed.encode()

    def intercept_service(self, continuation, details):
        handler = continuation(details)

        def checked(behavior):
            def call(request, context):
                names = context.auth_context().get("x509_subject_alternative_name", [])
                if [name for name in names if b"://" in name] != [self.allowed]:
                    context.abort(grpc.StatusCode.PERMISSION_DENIED, "this service may not call")
                return behavior(request, context)

            return call

        # An RPC's behavior is in the attribute of its kind.
        kinds = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
        return handler and handler._replace(
            **{kind: checked(getattr(handler, kind)) for kind in kinds if getattr(handler, kind)}
        )


def serve(add_services, mtls):
    """Serves on a free port, which it prints: with mTLS, or in plaintext on loopback."""
    if mtls:
        certificate, key, trust_bundle = (pathlib.Path(path).read_bytes() for path in mtls[:3])
        server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[Digests(), AllowedPeer(mtls[3])])
        credentials = grpc.ssl_server_credentials([(key, certificate)], trust_bundle, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        server = grpc.server(futures.ThreadPoolExecutor(4), interceptors=[Digests()])
        port = server.add_insecure_port("127.0.0.1:0")
    add_services(server)
    print(port, flush=True)
    server.start()
    server.wait_for_termination()


def main():
    pb, rpc = compiled(sys.argv[1])
    keys = jwt.PyJWKClient(sys.argv[2])

    class Greeter(rpc.GreeterServiceServicer):
        def Greet(self, request, context):
            claims = caller(context, keys, "Greet")
            if not request.name:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name: must not be empty")
            return pb.GreetResponse(greeting=f"Hello, {request.name}!", caller=claims["sub"])

        def Count(self, request, context):
            caller(context, keys, "Count")
            for step in range(request.to):
                yield pb.CountEvent(progress={"progress": step + 1, "total": request.to})
            yield pb.CountEvent(result=pb.CountResponse(counted=request.to))

    def add_services(server):
        rpc.add_GreeterServiceServicer_to_server(Greeter(), server)
        reflection.enable_server_reflection(["greeter.v1.GreeterService"], server)

    serve(add_services, sys.argv[3:])


main()
