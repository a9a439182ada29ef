"""What AWS's shared files say of a region.

Contract: reads `AWS_CONFIG_FILE` and `AWS_SHARED_CREDENTIALS_FILE` (or `~/.aws/config` and `~/.aws/credentials`), which
takes well below a millisecond, and needs no library. A file that is missing says nothing.

Source: https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html; of two files the credentials one counts first.
"""

from __future__ import annotations

import os
from configparser import Error, RawConfigParser

from loomstream.errors import ConfigError

DEFAULT_REGION = "us-west-2"
"""Where nothing says a region."""

_FILES = (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config"))
_PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")


def region_of(profile: str, *, provider: str) -> str:
    """Give the region of a profile (of the one in use where it is empty), `DEFAULT_REGION` where it has none.

    Raises `ConfigError` for a file that cannot be read.
    """
    named = profile or next((value for name in _PROFILES if (value := os.environ.get(name, ""))), "default")
    regions = (_region_in(os.environ.get(variable) or usual, named, provider) for variable, usual in _FILES)
    return next(filter(None, regions), DEFAULT_REGION)


def _region_in(path: str, profile: str, provider: str) -> str:
    parser = RawConfigParser(strict=False, default_section="")
    try:
        with open(os.path.expanduser(path), encoding="utf-8") as file:  # noqa: PTH111, PTH123 (no error without a home)
            parser.read_file(file)
    except FileNotFoundError:
        return ""
    except (Error, OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read ({type(error).__name__}), so it tells no region: repair it, or set AWS_REGION"
        raise ConfigError(msg, provider=provider) from error
    sections = (f"profile {profile}", profile)
    return next((parser[name]["region"].strip() for name in sections if parser.has_option(name, "region")), "")
