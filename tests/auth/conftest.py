"""Loopback credential services, and an environment in which no credential of this machine is found."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme
from botocore.credentials import SSOProvider
from botocore.tokens import SSOTokenProvider
from botocore.utils import ContainerMetadataFetcher

sys.path.insert(0, str(Path(__file__).parent))  # what the tests share stands beside them, and they are no package

from auth_services import Given, Service, Start
from aws_answers import SETTINGS

from loomstream.auth.aws import AWSAuthenticator

_FOREIGN = ("AWS_", "AZURE_", "CLOUDSDK_", "GCE_", "GCLOUD_", "GOOGLE_", "IDENTITY_", "IMDS_", "MSI_", "NO_GCE_")


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hide this machine's credentials, tools and proxies; give the home folder in their place."""
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    values = {
        "AWS_CONFIG_FILE": str(home / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "aws-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "CLOUDSDK_CONFIG": str(home / "gcloud"),
        "HOME": str(home),
        "NO_GCE_CHECK": "true",
        "PATH": str(home),
        "USERPROFILE": str(home),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return home


@pytest.fixture
def start() -> Iterator[Start]:
    """Give the way to start a service, which ends with the test."""
    with ExitStack() as stack:
        yield lambda handle: stack.enter_context(Service(handle).running())


@pytest.fixture
def start_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    """The same behind TLS, with a certificate that requests trusts."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with ExitStack() as stack:
        yield lambda handle: stack.enter_context(Service(handle, context).running())


# --- AWS ---


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, bare_machine: Path) -> None:
    """Let botocore try once, and look for logins in this test's home, not where it was when botocore was imported."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    cache = str(bare_machine / "sso-cache")
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", cache)
    monkeypatch.setattr(SSOTokenProvider, "_SSO_TOKEN_CACHE_DIR", cache)


@pytest.fixture
def ambient() -> AWSAuthenticator:
    """Credentials from AWS's own chain."""
    return AWSAuthenticator(Given(settings=SETTINGS))


@pytest.fixture
def by_profile() -> AWSAuthenticator:
    """Credentials of the profile `role`."""
    return AWSAuthenticator(Given(settings={**SETTINGS, "profile": "role"}))
