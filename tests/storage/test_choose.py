"""Storages and clients of a place: threads that want one at the same time get the same, with its one budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dicomtorch.storage import choose, web
from dicomtorch.storage.choose import make_client, storage_for
from dicomtorch.storage.client import Settings
from dicomtorch.storage.remote import RemoteStorage
from dicomtorch.storage.web import WebClient, client_for
from tests.support.requirements import require


def slow(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make(*arguments: Any) -> Any:
        time.sleep(0.05)
        return kind(*arguments)

    return make


def given(call: Callable[[], Any]) -> set[int]:
    """What threads that call at the same time get."""
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call) for _ in range(4)]
        return {id(one.result()) for one in calls}


def test_the_client_of_a_server_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    require("urllib3")
    monkeypatch.setattr(web, "_of_place", {})
    monkeypatch.setattr(web, "WebClient", slow(WebClient))
    assert len(given(lambda: client_for(b"dicomweb+https://once.example/x"))) == 1


def test_the_storage_of_a_place_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    require("fsspec")
    made: list[RemoteStorage] = []

    def remember(self: RemoteStorage) -> None:
        made.append(self)
        time.sleep(0.05)

    monkeypatch.setattr(choose, "_of_place", {})
    monkeypatch.setattr(RemoteStorage, "client", property(remember))
    assert len(given(lambda: storage_for(b"memory://once"))) == 1
    assert len(made) == 1


def test_the_client_of_a_storage_is_made_once() -> None:
    require("fsspec")
    storage = RemoteStorage("memory://", Settings(), slow(make_client))
    assert len(given(lambda: storage.client)) == 1
