"""The viewer in a cell of a notebook: the page's module over messages, or a picture where there is no anywidget."""

from __future__ import annotations

import base64
import importlib.util
import io
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import numpy as np

from dicomtorch.errors import import_optional
from dicomtorch.index.burned_in import burned_in
from dicomtorch.viewer.answer import Answer
from dicomtorch.viewer.app import static
from dicomtorch.viewer.content import Content
from dicomtorch.viewer.looked import Opened

_SAMPLES = 16  # in the picture


class NotebookView:
    """What `widget()` of a dataset returns; a notebook shows it.

    Pixels travel as messages and are in no state that is saved. Where anywidget is not installed a contact sheet is
    shown, which the notebook saves; of frames whose pixels may say who it is there is none.

    Args:
        given: As in `view`.
        embed: Whether a contact sheet may be saved with the notebook.
        show_paths: As in `view`.
    """

    def __init__(self, given: Any, *, embed: bool = True, show_paths: bool = False) -> None:
        self._given = given
        self._opened = Opened(given)
        self._embed = embed
        self._widget: Any = None
        if importlib.util.find_spec("anywidget") is not None:
            self._content = Content(self._opened, show_paths=show_paths)
            self._widget = _widget(self._content)

    def close(self) -> None:
        """Ends what runs for it."""
        if self._widget is not None:
            self._widget.close()
            self._content.close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        if self._widget is not None:
            return self._widget._repr_mimebundle_(**options)
        bundle = {"text/plain": f"{self._given!r}\nInstall anywidget for a viewer here: "}
        bundle["text/plain"] += 'pip install "dicomtorch[notebook]"'
        picture = self._picture() if self._embed else b""
        if picture:
            bundle["image/png"] = base64.b64encode(picture).decode("ascii")
        return bundle

    def _picture(self) -> bytes:
        """A contact sheet of samples whose pixels cannot have a name in them, as PNG."""
        opened = self._opened
        hidden = np.logical_or.reduce(burned_in(opened.index))
        chosen = [
            int(i)
            for i in opened.samples[:: max(1, len(opened.samples) // _SAMPLES)]
            if not any(hidden[list(opened.dataset.frames_of(int(i)))])
        ]
        if not chosen:
            return b""
        buffer = io.BytesIO()
        opened.dataset.show_batch(chosen[:_SAMPLES]).save(buffer, format="PNG")
        return buffer.getvalue()


def _widget(content: Content) -> Any:
    """A widget whose front end is the page's module, and whose messages are answered by `content`."""
    anywidget: Any = import_optional("anywidget", "notebook")
    front = {"_esm": static("viewer.js"), "_css": static("viewer.css")}
    made: Any = type("DicomtorchViewer", (anywidget.AnyWidget,), front)()

    def answer(_: Any, message: Any, buffers: Any) -> None:
        # A thread for each, so that a slow frame keeps the kernel free.
        threading.Thread(target=_send, args=(made, content, message), daemon=True).start()

    made.on_msg(answer)
    return made


def _send(widget: Any, content: Content, message: Any) -> None:
    """Sends the answer to one message of the front end."""
    if not isinstance(message, Mapping) or not isinstance(message.get("path"), str):
        return
    path, _, query = message["path"].partition("?")
    found: Answer = content.answer(path, dict(parse_qsl(query)))
    buffers = None if found.data is None else [found.data]
    reply = {"id": message.get("id"), "status": found.status, "info": found.plain}
    widget.send(reply, buffers)
