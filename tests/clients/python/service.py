"""A tool service in Python: an ordinary gRPC service whose contract says which RPCs are tools.

    service.py PROTO_FOLDER JWKS_URL      serves on a free port, which it prints

It knows nothing of MCP. The protos are compiled as they are, and reflection tells the edge the rest.
"""

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
    """Whose call this is: the transaction token is for this service and this RPC, or the call is refused."""
    token = dict(context.invocation_metadata()).get("txn-token", "")
    try:
        key = keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key, ["EdDSA"], audience="greeter", issuer="drawbridge-auth")
    except jwt.PyJWTError:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the transaction token is not valid here")
    if claims["tctx"]["rpc"] != f"greeter.v1.GreeterService/{rpc}":
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the transaction token is for another RPC")
    return claims


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

    server = grpc.server(futures.ThreadPoolExecutor(4))
    rpc.add_GreeterServiceServicer_to_server(Greeter(), server)
    reflection.enable_server_reflection(["greeter.v1.GreeterService"], server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


main()
