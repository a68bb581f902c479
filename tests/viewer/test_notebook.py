"""The viewer in a cell: the same answers as messages, and no pixel in what a notebook saves."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from dicomtorch import DicomFrames
from dicomtorch.viewer import notebook
from dicomtorch.viewer.notebook import NotebookView
from tests.support.phantoms import ct, ct_pixels, write, write_series
from tests.support.requirements import require


@pytest.fixture
def frames(tmp_path):
    write_series(tmp_path, 3)
    return DicomFrames(tmp_path)


class Comm:
    """What a widget sends, in place of a browser."""

    def __init__(self) -> None:
        self.sent: list[tuple[dict[str, Any], list[Any]]] = []

    def send(self, message, buffers=None):
        self.sent.append((message, buffers or []))


def test_messages_are_answered_with_the_values_of_the_frame(frames):
    require("anywidget")
    view = frames.widget()
    comm = Comm()
    for number, path in enumerate(
        ("summary", "frames/2/source", "frames/7/source", "series?filter=x")
    ):
        notebook._send(comm, view._content, {"id": number, "path": path})
    notebook._send(comm, view._content, {"path": 3})
    view.close()
    summary, source, missing, wrong = comm.sent
    assert summary[0]["info"]["frames"] == 3
    stored = np.frombuffer(source[1][0], "<i2").reshape(source[0]["info"]["shape"])
    assert np.array_equal(stored, ct_pixels(2))
    assert (source[0]["id"], source[0]["status"]) == (1, 200)
    assert (missing[0]["status"], wrong[0]["status"]) == (404, 422)
    json.dumps([message for message, _ in comm.sent], allow_nan=False)


def test_a_widget_answers_from_a_thread(frames):
    require("anywidget")
    view = frames.widget()
    sent = []
    view._widget.send = lambda message, buffers=None: sent.append(message)
    view._widget._handle_custom_msg({"id": 1, "path": "series"}, [])
    for _ in range(400):
        if sent:
            break
        time.sleep(0.02)
    assert sent[0]["info"]["count"] == 1
    view.close()


def test_no_pixel_is_in_the_state_that_a_notebook_saves(frames):
    require("anywidget")
    view = frames.widget()
    comm = Comm()
    notebook._send(comm, view._content, {"id": 1, "path": "frames/0/source"})
    state = view._widget.get_state()
    saved = json.dumps(
        {
            name: value
            for name, value in state.items()
            if isinstance(value, str | int | float | bool | None)
        }
    )
    assert ct_pixels(0).tobytes()[:16].hex() not in saved
    bundle = view._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    assert not any(kind.startswith("image/") for kind in bundle)
    view.close()


def test_without_anywidget_there_is_a_picture_unless_it_is_not_to_be_saved(frames, monkeypatch):
    require("PIL")
    monkeypatch.setattr(notebook.importlib.util, "find_spec", lambda name: None)
    bundle = NotebookView(frames)._repr_mimebundle_()
    assert bundle["image/png"].startswith("iVBOR")
    assert "dicomtorch[notebook]" in bundle["text/plain"]
    assert "image/png" not in NotebookView(frames, embed=False)._repr_mimebundle_()


def test_the_picture_leaves_out_what_may_say_who_it_is(tmp_path, monkeypatch):
    write(ct(ct_pixels(0), 0, BurnedInAnnotation="YES"), tmp_path / "0.dcm")
    monkeypatch.setattr(notebook.importlib.util, "find_spec", lambda name: None)
    assert "image/png" not in NotebookView(DicomFrames(tmp_path))._repr_mimebundle_()
