"""The signs of an identity that this machine has of its own; nobody is asked for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from loomstream.auth.signs import sign_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in (".aws/credentials", ".config/gcloud/application_default_credentials.json", "key.json",
                 "work/azureProfile.json", "nobody-of-this-name/work/azureProfile.json"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("scheme", "environ", "sign"),
    [
        ("aws", {}, "~/.aws/credentials"),
        ("aws", {"HOME": "{home}/empty"}, ""),
        ("aws", {"HOME": "{home}/empty", "AWS_PROFILE": "work"}, "AWS_PROFILE"),
        ("aws", {"HOME": "{home}/empty", "AWS_PROFILE": "  "}, ""),
        ("aws", {"HOME": "{home}/empty", "AWS_WEB_IDENTITY_TOKEN_FILE": "x"}, "AWS_WEB_IDENTITY_TOKEN_FILE"),
        ("aws", {"AWS_SHARED_CREDENTIALS_FILE": "{home}/key.json"}, "AWS_SHARED_CREDENTIALS_FILE"),
        ("aws", {"AWS_SHARED_CREDENTIALS_FILE": "{home}/nothing"}, ""),
        ("google", {}, "~/.config/gcloud/application_default_credentials.json"),
        ("google", {"CLOUDSDK_CONFIG": "{home}/empty"}, ""),
        ("google", {"GOOGLE_APPLICATION_CREDENTIALS": "{home}/key.json"}, "GOOGLE_APPLICATION_CREDENTIALS"),
        ("google", {"GOOGLE_APPLICATION_CREDENTIALS": "{home}/nothing"}, ""),
        ("aws", {"AWS_SHARED_CREDENTIALS_FILE": "~/key.json"}, "AWS_SHARED_CREDENTIALS_FILE"),
        ("google", {"GOOGLE_APPLICATION_CREDENTIALS": "~/key.json"}, ""),
        ("azure", {"AZURE_CONFIG_DIR": "~/work"}, "~/work/azureProfile.json"),
        ("azure", {"AZURE_CONFIG_DIR": "~nobody-of-this-name/work"}, ""),
        ("azure", {}, ""),
        ("azure", {"AZURE_CLIENT_SECRET": "s"}, "AZURE_CLIENT_SECRET"),
        ("azure", {"IDENTITY_ENDPOINT": "http://169.254.169.254"}, "IDENTITY_ENDPOINT"),
        ("bearer", {"AWS_PROFILE": "work"}, ""),
    ],
)
def test_signs(scheme: str, environ: dict[str, str], sign: str, home: Path) -> None:
    given = {"HOME": str(home), **{name: value.format(home=home) for name, value in environ.items()}}
    assert sign_of(scheme, given) == sign


def test_an_identity_that_nothing_here_can_use_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiobotocore", None)
    assert sign_of("aws", {"AWS_PROFILE": "work"}) == ""
