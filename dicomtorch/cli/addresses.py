"""`--storage-option KEY=VALUE`: how a bucket or server is asked, with keys in no message."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from typing import Any, Final

_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]+)?")
_WORDS: Final = {"true": True, "false": False}
_FROM_ENVIRONMENT: Final = "env:"


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--storage-option`."""
    parser.add_argument(
        "--storage-option",
        action=_Option,
        dest="storage_options",
        metavar="KEY=VALUE",
        help="of addresses as s3://bucket/prefix, again for each: skip_signature=true, endpoint=URL, io_threads=64, as "
        "storage_options= takes them; KEY.NAME=VALUE for a table; VALUE env:NAME is what the variable NAME has, for "
        "keys, as in headers.Authorization=env:TOKEN",
    )


class _Option(argparse.Action):
    """Puts one more option into the mapping; no message has its value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            options = with_option(getattr(namespace, self.dest) or {}, str(values))
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, options)


def with_option(options: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Options and one more, as `KEY=VALUE` or `KEY.NAME=VALUE`.

    `true` and `false` are words, whole and decimal numbers numbers, `env:NAME` the text of an environment variable, and
    everything else is text.

    Raises:
        ValueError: It is none, or contradicts another; the message names the key, never the value.
    """
    key, equals, value = text.partition("=")
    names = key.split(".", 1)
    if not equals or not all(names):
        raise ValueError(
            "needs KEY=VALUE, as in skip_signature=true or secret_access_key=env:SECRET"
        )
    inner: Any = options.get(names[0])
    if len(names) == 1:
        if inner is not None:
            raise ValueError(f"{key} is given twice")
        return {**options, key: _value(key, value)}
    inner = {} if inner is None else inner
    if not isinstance(inner, dict) or names[1] in inner:
        raise ValueError(f"{key} is given twice")
    # Names of a table may have dots themselves.
    return {**options, names[0]: {**inner, names[1]: _value(key, value)}}


def _value(key: str, text: str) -> Any:
    if text.startswith(_FROM_ENVIRONMENT):
        name = text.removeprefix(_FROM_ENVIRONMENT)
        found = os.environ.get(name)
        if not found:
            # What stands there may be a key that begins like this, and not the name of a variable.
            known = name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else "that it names"
            raise ValueError(f"{key}: the environment variable {known} is not set")
        return found
    if text in _WORDS:
        return _WORDS[text]
    if _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text
