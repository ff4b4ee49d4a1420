"""The options of a service: arguments, and variables `DRAWBRIDGE_<SERVICE>_<OPTION>`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._fetch import is_loopback, parse_url
from ._mtls import parse_spiffe_id
from ._socket import is_socket, parse_socket

LISTEN = "127.0.0.1:7450"
ADMIN_LISTEN = "127.0.0.1:7451"
AUTH_JWKS_URL = "http://127.0.0.1:7111/.well-known/jwks.json"
AUTH_ISSUER = "drawbridge-auth"
REQUEST_BYTES_MAX = 4 * 1024 * 1024
CALLS_MAX = 1000


class SettingsError(ValueError):
    """The options contradict each other."""


@dataclass(frozen=True)
class Settings:
    """How a service serves."""

    listen: str = LISTEN
    """Where to serve gRPC: an address and a port, of which 0 selects a free one; or
    `unix:/absolute/path`.
    """
    admin_listen: str = ADMIN_LISTEN
    """Where to serve health, readiness and metrics."""
    auth_jwks_url: str = AUTH_JWKS_URL
    """The JWKS URL of auth's transaction tokens."""
    auth_issuer: str = AUTH_ISSUER
    """The `iss` of transaction tokens."""
    auth_spiffe_id: str | None = None
    """The SPIFFE id of auth. `None`: the service's own with `auth` as its last segment."""
    mtls_certificate_file: Path | None = None
    """A PEM file of this service's certificate, whose only URI is its SPIFFE id."""
    mtls_key_file: Path | None = None
    """A PEM file of the certificate's key."""
    mtls_trust_bundle_file: Path | None = None
    """A PEM file of the trusted authorities."""
    mtls_allow: tuple[str, ...] = ()
    """The SPIFFE ids of the services that may call this one; no other may."""
    allow_plaintext: bool = False
    """Serve and fetch keys in plaintext beyond loopback too."""
    request_bytes_max: int = REQUEST_BYTES_MAX
    """The largest request message, in bytes."""
    calls_max: int = CALLS_MAX
    """The maximum number of concurrent calls; further ones fail with RESOURCE_EXHAUSTED."""
    drain_delay_ms: int = 7_000
    """How long calls are accepted after the service has become not ready, in milliseconds."""
    drain_timeout_ms: int = 15_000
    """How long calls in flight may take to end after that, in milliseconds."""
    admin_allowed_hosts: frozenset[str] = field(default_factory=frozenset)
    """Host names that the admin port accepts, besides `localhost` and every IP address."""
    log_format: str = "auto"
    """`auto` (pretty on a terminal, JSON elsewhere), `json` or `pretty`."""
    log: str = "info"
    """The lowest level that is logged: `debug`, `info`, `warn` or `error`."""

    def check(self) -> None:
        """Checks what arguments alone do not. Raises `ValueError`."""
        files = (self.mtls_certificate_file, self.mtls_key_file, self.mtls_trust_bundle_file)
        if any(files) != all(files):
            raise SettingsError(
                "mTLS needs --mtls-certificate-file, --mtls-key-file and --mtls-trust-bundle-file"
            )
        if self.mtls_certificate_file and not self.mtls_allow:
            raise SettingsError("--mtls-allow must name the services that may call this one")
        if self.mtls_allow and not self.mtls_certificate_file:
            raise SettingsError("--mtls-allow requires --mtls-certificate-file")
        for spiffe_id in (*self.mtls_allow, *filter(None, [self.auth_spiffe_id])):
            parse_spiffe_id(spiffe_id)
        self._check_listen()
        parse_address(self.admin_listen)
        parse_url(self.auth_jwks_url, allow_plaintext=self.allow_plaintext)

    def _check_listen(self) -> None:
        if is_socket(self.listen):
            parse_socket(self.listen)
            if self.mtls_certificate_file:
                raise SettingsError(
                    f"cannot listen on {self.listen} with --mtls-certificate-file: --mtls-allow "
                    "cannot be enforced on a Unix-domain socket; set an address and a port"
                )
            return
        host, _ = parse_address(self.listen)
        if not (self.mtls_certificate_file or self.allow_plaintext or is_loopback(host)):
            raise SettingsError(
                f"cannot listen on {self.listen}: plaintext beyond loopback: "
                "set --mtls-certificate-file, or allow it with --allow-plaintext"
            )


def parse_address(text: str) -> tuple[str, int]:
    """Splits an address and a port, such as `127.0.0.1:7450` or `[::1]:7450`."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"{text}: expected an address and a port such as 127.0.0.1:7450")
    return host.strip("[]"), int(port)


def _commas(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("", "0", "false", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def _milliseconds(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of milliseconds")
    return int(text)


def _one_of(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(values)}")
        return text

    return parse


class _Options:
    """Options with environment variables."""

    def __init__(
        self, parser: argparse.ArgumentParser, service: str, environment: Mapping[str, str]
    ) -> None:
        self._parser = parser
        self._prefix = f"DRAWBRIDGE_{service.upper().replace('-', '_')}_"
        self._environment = environment

    def add(
        self,
        name: str,
        parse: Callable[[str], Any],
        default: Any,
        help: str,
        *,
        variable: str | None = None,
        metavar: str | None = None,
    ) -> None:
        variable = variable or self._prefix + name.upper().replace("-", "_")
        text = self._environment.get(variable)
        more: dict[str, Any] = {"metavar": metavar}
        if parse is _boolean:
            more = {"nargs": "?", "const": "true", "metavar": "BOOL"}
        if text is not None:
            try:
                default = parse(text)
            except ValueError as error:
                self._parser.error(f"{variable}: {error}")
            except argparse.ArgumentTypeError as error:
                self._parser.error(f"{variable}: {error}")
        shown = f" [default: {default}]" if isinstance(default, (str, int)) and default else ""
        self._parser.add_argument(
            f"--{name}",
            type=parse,
            default=default,
            help=f"{help}{shown} [env: {variable}]".replace("%", "%%"),
            **more,
        )


def parse_settings(
    service: str,
    defaults: Settings,
    arguments: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Parses the arguments of a service's process. Prints help or an error and exits if invalid."""
    parser = argparse.ArgumentParser(
        prog=f"drawbridge-{service}", allow_abbrev=False, description="A tool service."
    )
    options = _Options(parser, service, os.environ if environment is None else environment)
    add = options.add
    add("listen", str, defaults.listen, "where to serve gRPC: an address and a port, or unix:/path")
    add("admin-listen", str, defaults.admin_listen, "where to serve health and metrics")
    add("auth-jwks-url", str, defaults.auth_jwks_url, "the JWKS URL of transaction tokens")
    add("auth-issuer", str, defaults.auth_issuer, "the issuer of transaction tokens")
    add("auth-spiffe-id", str, None, "auth's SPIFFE id; default: beside this service's own")
    add("mtls-certificate-file", Path, None, "this service's certificate (PEM)", metavar="FILE")
    add("mtls-key-file", Path, None, "the certificate's key (PEM)", metavar="FILE")
    add("mtls-trust-bundle-file", Path, None, "the trusted authorities (PEM)", metavar="FILE")
    add("mtls-allow", _commas, (), "the SPIFFE ids that may call, comma-separated")
    add("allow-plaintext", _boolean, False, "serve in plaintext beyond loopback too")
    add("request-bytes-max", _positive, defaults.request_bytes_max, "the largest request, in bytes")
    add("calls-max", _positive, defaults.calls_max, "the maximum number of concurrent calls")
    add(
        "drain-delay-ms",
        _milliseconds,
        defaults.drain_delay_ms,
        "how long to accept calls after becoming not ready: for load balancers that poll",
    )
    add(
        "drain-timeout-ms",
        _milliseconds,
        defaults.drain_timeout_ms,
        "how long calls in flight may take to end after that",
    )
    add(
        "admin-allowed-host",
        _commas,
        (),
        "host names that the admin port accepts, comma-separated",
        variable="DRAWBRIDGE_ADMIN_ALLOWED_HOST",
    )
    formats = _one_of("auto", "json", "pretty")
    levels = _one_of("debug", "info", "warn", "warning", "error")
    add("log-format", formats, "auto", "auto, json or pretty", variable="DRAWBRIDGE_LOG_FORMAT")
    add("log", levels, "info", "the lowest level that is logged", variable="DRAWBRIDGE_LOG")
    parsed = vars(parser.parse_args(arguments))
    parsed["admin_allowed_hosts"] = frozenset(parsed.pop("admin_allowed_host"))
    settings = Settings(**parsed)
    try:
        settings.check()
    except ValueError as error:
        parser.error(str(error))
    return settings
