"""Unix-domain sockets."""

import socket
import stat

import drawbridge.testing
import pytest
from drawbridge import Settings
from greeter import Greeter
from greeter_pb2 import GreetRequest
from greeter_pb2_grpc import GreeterServiceStub


@pytest.fixture
def folder(tmp_path):
    # The path of a socket is short.
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.mark.parametrize("scheme", ["unix:", "unix://"])
async def test_a_service_on_a_unix_socket_serves_and_removes_its_file(folder, scheme):
    path = folder / "a b.sock"
    async with drawbridge.testing.serving(Greeter(), listen=f"{scheme}{folder}/a%20b.sock") as first:
        assert first.running.address == f"unix:{folder}/a%20b.sock"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        stub = GreeterServiceStub(first.channel(subject="alice"))
        assert (await stub.Greet(GreetRequest(name="Ada"))).caller == "alice"
        with pytest.raises(OSError, match="is in use"):
            async with drawbridge.testing.serving(Greeter(), listen=first.running.address):
                pass
        # The second service left it alone.
        assert (await stub.Greet(GreetRequest(name="Ada"))).caller == "alice"
    assert not path.exists()


async def test_a_stale_socket_is_replaced_and_another_file_is_not(folder):
    path = folder / "test.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with drawbridge.testing.serving(Greeter(), listen=f"unix:{path}") as service:
        stub = GreeterServiceStub(service.channel(subject="alice"))
        assert (await stub.Greet(GreetRequest(name="Ada"))).caller == "alice"
    path.write_text("mine")
    with pytest.raises(OSError, match="not a socket"):
        async with drawbridge.testing.serving(Greeter(), listen=f"unix:{path}"):
            pass
    assert path.read_text() == "mine"


async def test_a_folder_in_which_others_could_replace_the_socket_is_refused(folder):
    folder.chmod(0o777)
    with pytest.raises(OSError, match="others can write"):
        async with drawbridge.testing.serving(Greeter(), listen=f"unix:{folder}/test.sock"):
            pass


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("unix:relative.sock", "expected unix:/absolute/path"),
        ("unix:@abstract", "expected unix:/absolute/path"),
        ("unix://host/test.sock", "expected unix:/absolute/path"),
        ("unix:/test.sock?mode=0666", "expected unix:/absolute/path"),
        ("unix:/" + "a" * 107, "at most 107 bytes"),
    ],
)
def test_an_address_without_a_path_is_refused(listen, expected):
    with pytest.raises(ValueError, match=expected):
        Settings(listen=listen).check()


def test_a_certificate_is_refused_beside_a_unix_socket(folder):
    files = ("mtls_certificate_file", "mtls_key_file", "mtls_trust_bundle_file")
    paths = {name: folder / name for name in files}
    settings = Settings(listen="unix:/x.sock", mtls_allow=("spiffe://a/b",), **paths)
    with pytest.raises(ValueError, match="cannot be enforced"):
        settings.check()
