"""Transaction tokens (draft-ietf-oauth-transaction-tokens), which identify the caller."""

from __future__ import annotations

import base64
import hashlib
import hmac

import jwt

from ._caller import Caller, parse_caller
from ._keys import ALGORITHM, KeySet

TXN_TOKEN = "txn-token"
"""The metadata key of the transaction token."""
TOKEN_TYPE = "txntoken+jwt"
"""The `typ` of a transaction token."""
LEEWAY_SECONDS = 5
"""The clock skew that is tolerated."""


class TokenRefused(Exception):
    """Why a transaction token is rejected."""


class Verifier:
    """Verifies transaction tokens for one tool service."""

    def __init__(self, audience: str, issuer: str, keys: KeySet) -> None:
        self._audience = audience
        self._issuer = issuer
        self._keys = keys

    async def verify(self, token: str | None, rpc: str) -> Caller:
        """The caller by this token, which must be for `rpc`: `package.Service/Method`.

        Raises `TokenRefused`, or `KeysUnavailable`.
        """
        if token is None:
            raise TokenRefused("the call carries no transaction token")
        refused = TokenRefused("the transaction token is not valid here")
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError as error:
            raise refused from error
        key_id = header.get("kid")
        if header.get("typ") != TOKEN_TYPE or header.get("alg") != ALGORITHM or not key_id:
            raise refused
        key = await self._keys.key(key_id)
        if key is None:
            raise refused
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={
                    "require": ["exp", "iat", "aud", "iss", "sub"],
                    "strict_aud": True,
                    # Clocks differ; the expiry bounds the token's life.
                    "verify_iat": False,
                },
            )
            caller = parse_caller(claims, token)
        except (jwt.PyJWTError, ValueError) as error:
            raise refused from error
        if claims["tctx"].get("rpc") != rpc:
            raise TokenRefused("the transaction token is for another RPC")
        return caller


def check_message(caller: Caller, message: bytes) -> None:
    """Checks that the token authorizes this encoded protobuf message; raises `TokenRefused`."""
    decided = caller.message_sha256
    if decided is not None and not hmac.compare_digest(decided, message_digest(message)):
        raise TokenRefused("the transaction token is for another message")


def message_digest(message: bytes) -> str:
    """The SHA-256 of an encoded message as in a token: base64url without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(message).digest()).rstrip(b"=").decode()
