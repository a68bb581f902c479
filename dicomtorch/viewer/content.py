"""All that the viewer can be asked, by path and parameters, and its answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dicomtorch._version import __version__
from dicomtorch.errors import DicomTorchError, printable
from dicomtorch.model.options import CT_PRESETS
from dicomtorch.viewer.answer import Answer, NotThereError, asked, number_of, of_array
from dicomtorch.viewer.aside import Aside, UsersError
from dicomtorch.viewer.groups import Groups
from dicomtorch.viewer.looked import Opened
from dicomtorch.viewer.source import Sources

Query = Mapping[str, str]

_PRESETS = (
    *("soft_tissue", "lung", "bone", "brain", "mediastinum", "liver", "angio", "stroke"),
    "subdural",
)
_MOST_GROUPS = 200  # in one answer
_MOST_TRIED = 2_000  # frames that are looked through for a label in one answer


class Content:
    """What is shown of a dataset or a loader.

    Args:
        opened: The dataset or loader.
        show_paths: Whether paths are said: below the root of the index.
        title: What the page is called.
    """

    def __init__(self, opened: Opened, *, show_paths: bool = False, title: str = "") -> None:
        self._opened = opened
        self._show_paths = show_paths
        self._title = title
        self._sources = Sources(opened)
        self._groups = Groups(opened)
        self._aside = Aside(opened)
        self._frames = len(opened.index)

    def close(self) -> None:
        """Ends what runs beside."""
        self._aside.close()

    def answer(self, path: str, query: Query) -> Answer:
        """The answer to one question.

        Args:
            path: Below `/api/`, as in "frames/3/source".
            query: Parameters.

        Returns:
            With status 404 where there is no such thing, 422 where something cannot be read or made: `info["error"]`
            says why.
        """
        positions: list[int] = []
        try:
            return self._route(path.split("/"), query, positions)
        except NotThereError as error:
            return Answer(404, {"error": str(error)})
        except (DicomTorchError, UsersError, MemoryError) as error:
            text = f"{error}" or "there is not enough memory for this"
            return Answer(422, {"error": self._without_paths(text, positions)})

    def _route(self, parts: list[str], query: Query, positions: list[int]) -> Answer:
        match parts:
            case ["summary"]:
                return Answer(200, self._summary())
            case ["series"]:
                return Answer(200, self._listed(query))
            case ["series", number]:
                return Answer(200, self._series(self._groups.number(number), query))
            case ["places", text]:
                return Answer(200, self._place(text))
            case ["next"]:
                return Answer(200, self._next(query))
            case ["frames", text, what]:
                positions.append(number_of(text, self._frames, "frame"))
                return self._frame(positions[0], what, query)
            case ["samples", text, *rest]:
                return self._sample(text, rest, query, positions)
            case ["batches", *rest]:
                return self._batches(rest, query)
        raise NotThereError("there is no such page")

    # What there is

    def _summary(self) -> dict[str, Any]:
        opened = self._opened
        dataset = opened.dataset
        options = opened.dataset.frame_reader.options
        random = dataset.transform is not None or dataset.sample_transform is not None
        channels = [str(window) for window in options.windows]
        return {
            "title": self._title,
            "version": __version__,
            "kind": dataset.sample_name,
            "frames": self._frames,
            "samples": len(opened.samples),
            "groups": len(self._groups),
            "values": options.values,
            "transforms": random,
            "size": list(options.size) if options.size else None,
            "channels": channels if len(channels) > 1 else [],
            "loader": opened.loader is not None,
            "masks": dataset.mask_index is not None,
            "legend": [{"number": n, "name": name} for n, name in dataset.legend],
            "presets": [[name.replace("_", " "), *CT_PRESETS[name]] for name in _PRESETS],
            "burned": self._sources.any_burned_in,
            "overview": opened.index.overview(),
        }

    def _listed(self, query: Query) -> dict[str, Any]:
        groups = self._groups.listed(query.get("filter", ""))
        offset = asked(query, "offset", 0)
        limit = min(asked(query, "limit", _MOST_GROUPS), _MOST_GROUPS)
        return {
            "count": len(groups),
            "frames": sum(len(group.items) for group in groups),
            "groups": [self._groups.described(group) for group in groups[offset : offset + limit]],
        }

    def _series(self, number: int, query: Query) -> dict[str, Any]:
        items = self._groups.items(number, query.get("filter", ""))
        if self._opened.has_frames:
            samples = [self._opened.sample_of(position) for position in items.tolist()]
            return {"number": number, "frames": items.tolist(), "samples": samples}
        return {
            "number": number,
            "frames": items.tolist(),
            "sample": int(self._opened.samples[number]),
        }

    def _place(self, text: str) -> dict[str, Any]:
        """Where a sample of a loader is in the list."""
        opened = self._opened
        k = number_of(text, len(opened.samples), "sample")
        if not opened.has_frames:
            return {"number": k, "item": 0}
        position = int(opened.samples[k])
        number = self._groups.holding(position)
        items = self._groups.items(number, "")
        return {"number": number, "item": int(np.flatnonzero(items == position)[0])}

    # Frames

    def _frame(self, position: int, what: str, query: Query) -> Answer:
        match what:
            case "source":
                names = ("top", "bottom", "left", "right")
                several = tuple(asked(query, name, 0) for name in names)
                part: Any = several if "bottom" in query else None
                step = max(1, asked(query, "step", 1, 1000))
                answer = self._sources.source(position, step, part)
                assert isinstance(answer.info, dict)
                answer.info["path"] = self._path(position)
                return answer
            case "table":
                return self._sources.table(position)
            case "thumb":
                return self._sources.thumbnail(position)
            case "mask":
                return self._mask(position)
        raise NotThereError("there is no such page")

    def _mask(self, position: int) -> Answer:
        """Labels of a frame as the file has it: 0, or 1 + the place of a label in the legend; the last one wins."""
        masks = self._opened.dataset.mask_index
        sample = self._opened.sample_of(position)
        if masks is None or sample < 0:
            raise NotThereError("this dataset has no masks")
        result = np.zeros(masks.shape(sample), np.uint16)
        for layer in masks.layers(sample):
            result.reshape(-1)[layer.flat(result.shape[1])] = layer.label + 1
        return of_array(result)

    def _next(self, query: Query) -> dict[str, Any]:
        """The next frame of a group, after or before one, that has a label."""
        masks = self._opened.dataset.mask_index
        if masks is None:
            raise NotThereError("this dataset has no masks")
        place = asked(query, "label", 0, len(masks.labels))
        number = self._groups.number(query.get("series", "0"))
        items = self._groups.items(number, query.get("filter", "")).tolist()
        start = asked(query, "from", 0, len(items) + 1)
        backwards = query.get("back") == "1"
        later = range(start - 1, -1, -1) if backwards else range(start + 1, len(items))
        covered = masks.covered()
        for tried, k in enumerate(later):
            sample = self._opened.sample_of(items[k]) if self._opened.has_frames else items[k]
            if sample < 0 or not covered[sample]:
                continue
            if any(layer.label == place and layer.area for layer in masks.layers(sample)):
                return {"item": k}
            if tried >= _MOST_TRIED:
                return {"item": None, "tried": k}
        return {"item": None}

    # Samples and batches

    def _sample(self, text: str, rest: list[str], query: Query, positions: list[int]) -> Answer:
        dataset = self._opened.dataset
        i = number_of(text, len(dataset), "sample")
        positions += [int(k) for k in dataset.frames_of(i)][:1]
        draw = asked(query, "draw", 0)
        plane = asked(query, "plane", 0) if "plane" in query else None
        where = (asked(query, "axis", 0, 3), plane, asked(query, "time", 0))
        match rest:
            case []:
                return Answer(200, self._aside.ask("describe", i, draw))
            case ["training"]:
                edge = asked(query, "edge", 0)
                return self._answered("image", i, draw, *where, edge)
            case ["mask"]:
                return self._answered("mask", i, draw, *where)
        raise NotThereError("there is no such page")

    def _batches(self, rest: list[str], query: Query) -> Answer:
        match rest:
            case []:
                if query.get("new") == "1":
                    self._aside.renew()
                offset, limit = asked(query, "offset", 0), asked(query, "limit", 100, 1001)
                return Answer(200, self._aside.ask("batches", offset, limit))
            case [number]:
                return Answer(200, self._aside.ask("batch", asked({"k": number}, "k", 0)))
            case [number, "training"]:
                edge, item = asked(query, "edge", 0), asked(query, "item", 0)
                k = asked({"k": number}, "k", 0)
                return self._answered("batch_image", k, item, edge)
        raise NotThereError("there is no such page")

    def _answered(self, method: str, *arguments: Any) -> Answer:
        answer: Answer = self._aside.ask(method, *arguments)
        return answer

    # Paths

    def _path(self, position: int) -> str:
        if not self._show_paths:
            return ""
        index = self._opened.index
        (frame,) = index.gather("frame", np.array([position]))
        path = index.path(position).removeprefix(os.fsdecode(index.path_prefix))
        return f"{printable(path)}, frame {frame}"

    def _without_paths(self, text: str, positions: list[int]) -> str:
        """A message without what may name a patient: the files that the frames are of, and where they lie."""
        if self._show_paths:
            return text
        index = self._opened.index
        ways: tuple[Callable[[str], str], ...] = (printable, str, lambda path: repr(path)[1:-1])
        for position in positions[:1]:
            for way in ways:
                text = text.replace(way(index.path(position)), "this file")
        root = os.fsdecode(index.path_prefix)
        for way in ways:
            if len(root) > 1:
                text = _cut(text, way(root))
        return text


def _cut(text: str, root: str) -> str:
    """Whatever begins with the root, up to where a path may end, is said to be a file."""
    before, found, after = text.partition(root)
    if not found:
        return text
    ends = [at for mark in (", frame", ": ", "'", '"', "\n", "; ") if (at := after.find(mark)) >= 0]
    return f"{before}another file{_cut(after[min(ends, default=len(after)) :], root)}"
