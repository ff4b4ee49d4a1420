"""mTLS: a service's certificate with its SPIFFE id, and the ids that may call it.

The files are checked every second. When they have changed and settled, new connections use the new
content; files that cannot be used change nothing, and are reported.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often the files are read."""

_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
_SPIFFE_ID_BYTES_MAX = 2048


class MtlsError(ValueError):
    """The certificate files cannot be used."""


def parse_spiffe_id(text: str) -> str:
    """Checks a SPIFFE id, `spiffe://trust-domain/path` (SPIFFE-ID section 2)."""
    segments = text.split("/")[3:]
    if (
        len(text) > _SPIFFE_ID_BYTES_MAX
        or _SPIFFE_ID.fullmatch(text) is None
        or not {".", ".."}.isdisjoint(segments)
    ):
        raise MtlsError(
            f"invalid SPIFFE id {text!r} (expected for example spiffe://acme.example/edge)"
        )
    return text


def sibling_id(spiffe_id: str, service: str) -> str:
    """The id of a sibling service: the same but for its last segment."""
    return f"{spiffe_id.rpartition('/')[0]}/{service}"


@dataclass(frozen=True)
class Material:
    """A certificate chain, its key, and the trusted authorities, as PEM."""

    certificate: bytes
    key: bytes
    trust_bundle: bytes
    spiffe_id: str

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        """The material for gRPC."""
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.certificate)], root_certificates=self.trust_bundle
        )


class Identity:
    """A service's certificate and trusted authorities, which follow their files."""

    def __init__(self, certificate: Path, key: Path, trust_bundle: Path) -> None:
        self.certificate_file = certificate
        self.key_file = key
        self.trust_bundle_file = trust_bundle
        self.current = self._load(self._read())
        self.problem: str | None = None
        self._served: Material = self.current

    def _read(self) -> tuple[bytes, bytes, bytes]:
        files = (self.certificate_file, self.key_file, self.trust_bundle_file)
        try:
            certificate, key, trust_bundle = (file.read_bytes() for file in files)
        except OSError as error:
            raise MtlsError(f"cannot read {error.filename}: {error.strerror}") from error
        return certificate, key, trust_bundle

    def _load(self, contents: tuple[bytes, bytes, bytes]) -> Material:
        certificate, key, trust_bundle = contents
        try:
            leaf = x509.load_pem_x509_certificates(certificate)[0]
            private_key = load_pem_private_key(key, None)
        except (ValueError, TypeError) as error:
            raise MtlsError(f"{self.certificate_file} or {self.key_file}: {error}") from error
        try:
            authorities = x509.load_pem_x509_certificates(trust_bundle)
        except ValueError as error:
            raise MtlsError(f"{self.trust_bundle_file} contains no authority: {error}") from error
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if leaf.public_key().public_bytes(*form) != private_key.public_key().public_bytes(*form):
            raise MtlsError(f"{self.key_file} is not the key of {self.certificate_file}")
        now = datetime.now(timezone.utc)
        if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
            raise MtlsError(f"{self.certificate_file} is not valid now")
        if not authorities:
            raise MtlsError(f"{self.trust_bundle_file} contains no authority")
        return Material(certificate, key, trust_bundle, _id_of(leaf))

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials that require a certificate of every client, and follow the files."""
        return grpc.dynamic_ssl_server_credentials(
            self.current.server_configuration(),
            # Its type does not say that it may return `None`.
            cast(Any, self._changed_configuration),
            require_client_authentication=True,
        )

    def _changed_configuration(self) -> grpc.ServerCertificateConfiguration | None:
        """The material if it has changed since the last handshake; gRPC calls this in each."""
        current = self.current
        if current is self._served:
            return None
        self._served = current
        return current.server_configuration()

    def client_context(self) -> ssl.SSLContext:
        """A TLS context that presents the certificate. It checks SPIFFE ids, not host names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=self.current.trust_bundle.decode("ascii"))
        # The ssl module loads a key from files only. They may change in between; then the next
        # fetch succeeds.
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context

    async def follow(self, on_problem: Callable[[str | None], None]) -> None:
        """Follows the files until the task is cancelled."""
        seen: tuple[bytes, bytes, bytes] | str | None = None
        tried: tuple[bytes, bytes, bytes] | str | None = None
        while True:
            await asyncio.sleep(POLL_SECONDS)
            contents: tuple[bytes, bytes, bytes] | str
            try:
                contents = await asyncio.to_thread(self._read)
            except MtlsError as error:
                contents = str(error)
            # Several files do not change at once: equal contents at two polls have settled.
            settled, seen = contents == seen, contents
            if not settled or contents == tried:
                continue
            tried = contents
            self.problem = self._apply(contents)
            on_problem(self.problem)

    def _apply(self, contents: tuple[bytes, bytes, bytes] | str) -> str | None:
        """Uses the contents; returns what is wrong with them."""
        try:
            if isinstance(contents, str):
                raise MtlsError(contents)
            material = self._load(contents)
            if material.spiffe_id != self.current.spiffe_id:
                raise MtlsError(
                    f"the certificate belongs to {material.spiffe_id}, "
                    f"but this service is {self.current.spiffe_id}"
                )
        except MtlsError as error:
            logger.error("the certificate cannot be used; the previous one stays in use: %s", error)
            return str(error)
        if material != self.current:
            self.current = material
            logger.info("the certificate changed")
        return None


def _id_of(leaf: x509.Certificate) -> str:
    """The SPIFFE id of a service's certificate (X509-SVID sections 2 to 5)."""
    try:
        constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
        is_authority = constraints.ca
    except x509.ExtensionNotFound:
        is_authority = False
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if is_authority:
        raise MtlsError("the certificate is an authority's, not a service's")
    if len(uris) != 1:
        raise MtlsError(
            f"the certificate must have exactly one URI as a name, but has {len(uris)}"
        )
    return parse_spiffe_id(uris[0])
