"""DescribeUserScramCredentials (API 50): which SCRAM credentials users have (KIP-554)."""

from __future__ import annotations

from streamlog.wire.message import Request, Response
from streamlog.wire.schema import Int8, Int16, Int32, Struct


class UserName(Struct):
    name: str = ""


class DescribeUserScramCredentialsRequest(Request):
    """`users` None or empty asks for all."""

    api_key = 50
    min_version = 0
    max_version = 0
    flexible_since = 0

    users: list[UserName] | None = []


class CredentialInfo(Struct):
    mechanism: Int8 = 0
    iterations: Int32 = 0


class DescribeUserScramCredentialsResult(Struct):
    user: str = ""
    error_code: Int16 = 0
    error_message: str | None = ""
    credential_infos: list[CredentialInfo] = []


class DescribeUserScramCredentialsResponse(Response):
    """Mechanisms and iterations, never the secrets."""

    api_key = 50
    min_version = 0
    max_version = 0
    flexible_since = 0

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = ""
    results: list[DescribeUserScramCredentialsResult] = []
