"""What is known of a company's own issuer of tokens.

Apart from what checks them, whose libraries cost a gateway 12 MB (measured 2026-11-24): most have no issuer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IssuerConfig:
    """Where keys come from (one of the two), and what tokens must say; plain values, so that it crosses Ray."""

    jwks_url: str | None = None
    public_key_pem: str | None = None
    issuer: str | None = None
    audience: str | None = None
    tenant_claim: str = "tenant"
    scopes_claim: str = "scope"
