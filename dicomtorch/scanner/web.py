"""A DICOMweb server as a source: instances by QIDO-RS, their headers by `/metadata` (PS3.18 sections 10.4 and 10.6).

A header in JSON becomes a data set, and goes the way of the header of a file. What it does not say, how frames are
encoded, a first frame says.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

import numpy as np
from tqdm import tqdm

from dicomtorch.errors import DicomTorchError, SourceError, StorageError, printable
from dicomtorch.index.builder import FileRows, Member, build_part
from dicomtorch.index.frame_index import FrameIndex
from dicomtorch.index.members import WEB
from dicomtorch.model.limits import Limits
from dicomtorch.model.report import ScanReport
from dicomtorch.model.schema import Kind
from dicomtorch.scanner.entries import UNREAD
from dicomtorch.scanner.given import paths_of
from dicomtorch.scanner.keywords import Tag, named_tags, tag_columns
from dicomtorch.scanner.web_rows import Described, WebReader, alike
from dicomtorch.scanner.worker import Job
from dicomtorch.storage.instances import instance_of
from dicomtorch.storage.multipart import (
    DamagedAnswerError,
    in_order,
    media_type,
    shown_type,
    split,
)
from dicomtorch.storage.web import (
    FRAMES,
    WebAnswer,
    WebClient,
    client_for,
    encoding_of,
    frames_in,
    is_web,
    real_url,
)

_logger = logging.getLogger("dicomtorch")

JSON: Final = "application/dicom+json"
_PAGE: Final = 1000
_OTHER_ADDRESS: Final = (
    ": the address may not be that of its DICOMweb services, which often ends with /dicom-web"
)
_LONGEST: Final = 64  # characters of a UID (PS3.5 section 9.1)
_BETWEEN_CHECKPOINTS: Final = 30.0  # seconds, and at most a tenth of the time
_FEW: Final = 3  # new instances of a series that are asked for one by one


class Instance(NamedTuple):
    """An instance by its unique identifiers."""

    study: str
    series: str
    uid: str

    @property
    def path(self) -> str:
        """Below the root of the server."""
        return f"{self.series_path}/instances/{quote(self.uid, safe='')}"

    @property
    def series_path(self) -> str:
        """Of its series."""
        return f"studies/{quote(self.study, safe='')}/series/{quote(self.series, safe='')}"


def scan_web(
    address: bytes,
    options: Mapping[str, Any] | None,
    index: FrameIndex | None,
    tags: Sequence[Tag],
    limits: Limits,
    progress: bool | None,
    checkpoint: Callable[[FrameIndex], None] | None = None,
) -> tuple[FrameIndex, ScanReport]:
    """As `scan.scan`, for a `dicomweb+https` address.

    An instance that is known is not asked for again: what has its SOP Instance UID does not change.

    Raises:
        SourceError: The server gives no list of instances.
        OptionError: An option means nothing.
    """
    began = time.monotonic()
    client = client_for(address, options)
    server = _Server(address, client)
    before = client.requests, client.bytes_read
    columns = tag_columns(named_tags(tags))
    found = {one.path.encode(): one for one in server.instances()}
    base = None
    if index is not None and index.root == server.root:
        columns = tag_columns([*index.tags, *columns])
        if columns.keys() <= index.tags.keys() and index.limits == limits:
            base = index.whole()
    job = Job(server.root + b"/", columns, limits)
    kept = np.zeros(0, np.bool_) if base is None else _kept(base, found)
    known = (
        set() if base is None else {p for p, k in zip(base.files["path"], kept, strict=True) if k}
    )
    wanted = [one for path, one in found.items() if path not in known]

    def assemble(rows: Sequence[FileRows]) -> FrameIndex:
        part = build_part(rows, job.columns)
        kinds: dict[str, Kind] = {keyword: tag.kind for keyword, tag in columns.items()}
        if base is not None:
            return base.updated(kept, part)
        return FrameIndex.build(part, root=server.root, tags=kinds, limits=limits)

    with _bar(len(wanted), progress) as bar:
        keep = None if checkpoint is None else lambda rows: checkpoint(assemble(rows))
        rows = _read(server.read(wanted, job), bar, client, keep)
    if server.unnamed:
        reason = f"{server.unnamed} instances in the list of the server have no UID that names them"
        rows.append(FileRows(b"studies", -1, UNREAD, 0, "unreadable", reason))
    gone = 0 if index is None else sum(path not in found for path in index.files["path"])
    result = base if base is not None and not rows and kept.all() else assemble(rows)
    report = replace(
        result.report(),
        read=len(rows),
        reused=int(kept.sum()),
        removed=gone,
        requests=client.requests - before[0],
        bytes_read=client.bytes_read - before[1],
        seconds=time.monotonic() - began,
    )
    return result, report


def _read(
    items: Iterator[FileRows],
    bar: tqdm[Any],
    client: WebClient,
    keep: Callable[[Sequence[FileRows]], None] | None,
) -> list[FileRows]:
    """All rows; what was read so far is kept now and then."""
    rows: list[FileRows] = []
    due = time.monotonic() + _BETWEEN_CHECKPOINTS
    for item in items:
        rows.append(item)
        bar.set_postfix_str(
            f"{client.requests:,} requests, {client.bytes_read / 1e6:,.1f} MB", refresh=False
        )
        bar.update()
        if keep is not None and (now := time.monotonic()) >= due:
            keep(rows)
            took = time.monotonic() - now
            due = now + took + max(_BETWEEN_CHECKPOINTS, 9 * took)
    return rows


def web_source(source: Any) -> bytes | None:
    """The address of the DICOMweb server that a source is, `None` if it is something else.

    Raises:
        SourceError: It is one of several sources.
    """
    paths = [os.fsencode(path) for path in paths_of(source)]
    if not any(map(is_web, paths)):
        return None
    if len(paths) > 1:
        raise SourceError(
            "a DICOMweb server is scanned alone; put datasets together with torch.utils.data.ConcatDataset"
        )
    return paths[0].rstrip(b"/")


def _bar(count: int, progress: bool | None) -> tqdm[Any]:
    disable = None if progress is None else not progress
    return tqdm(total=count, desc="scan", unit="instance", delay=2.0, disable=disable, leave=False)


def _kept(index: FrameIndex, found: Mapping[bytes, Instance]) -> Any:
    """Which rows of the files table of an index still hold."""
    files: Any = index.files
    there = np.array([path in found for path in files["path"]], np.bool_)
    return there & (np.asarray(files["mtime_ns"]) != UNREAD)


class _Server:
    """Lists and describes instances.

    Attributes:
        root: The address without what is below the server, as the index has it.
        unnamed: Instances of which the server does not give three UIDs.
    """

    def __init__(self, address: bytes, client: WebClient) -> None:
        self._client = client
        self.unnamed = 0
        self._said = False
        url = real_url(address, client.settings)
        root, mark, below = url.partition("/studies/")
        self._url, self._below = root, mark + below
        self.root = (
            address.partition(b"://")[0].lower() + b"://" + root.partition("://")[2].encode()
        )

    def instances(self) -> Iterator[Instance]:
        """What the server has below the address.

        Raises:
            SourceError: It gives no list.
        """
        try:
            if self._below:
                yield from self._instances(self._below)
                return
            for study in self._search("/studies"):
                try:
                    uid = quote(_uid(study, "0020000D"), safe="")
                except StorageError:
                    self.unnamed += 1
                    continue
                yield from self._instances(f"/studies/{uid}")
        except StorageError as error:
            hint = _OTHER_ADDRESS if getattr(error, "status", 0) in (400, 404, 405) else ""
            raise SourceError(
                f"{printable(self.root)} gives no list of instances: {error}{hint}"
            ) from error

    def _instances(self, below: str) -> Iterator[Instance]:
        for item in self._search(f"{below}/instances"):
            try:
                yield Instance(*(_uid(item, tag) for tag in ("0020000D", "0020000E", "00080018")))
            except StorageError:
                self.unnamed += 1

    def _search(self, below: str) -> Iterator[Any]:
        """All pages of a search; one that comes again, as of a server that ignores `offset`, ends it and is said."""
        tag = "0020000D" if below == "/studies" else "00080018"
        seen: set[str] = set()
        offset = 0
        while True:
            page = self._json(f"{self._url}{below}?limit={_PAGE}&offset={offset}")
            offset += len(page)
            new = False
            for item in page:
                uid = str(item.get(tag))
                if uid not in seen:
                    new = True
                    seen.add(uid)
                    yield item
            if not new:
                if page:
                    self._say_that_pages_repeat()
                return

    def _say_that_pages_repeat(self) -> None:
        if not self._said:
            self._said = True
            _logger.warning(
                "%s gives the same page of a list again where the next one is asked for: if it has more than one page "
                "has, the others are not in the index; scan its studies or series one by one",
                printable(self.root),
            )

    def _json(self, url: str) -> list[Any]:
        return self._client.read(url, JSON, _items_of)

    def read(self, wanted: Sequence[Instance], job: Job) -> Iterator[FileRows]:
        """The rows of instances, series by series."""
        of_series: dict[str, list[Instance]] = {}
        for one in wanted:
            of_series.setdefault(one.series_path, []).append(one)
        reader = WebReader(job, self._bulk, partial(instance_of, self.root))
        threads = self._client.settings.io_threads
        with ThreadPoolExecutor(threads, "dicomtorch-web-scan") as pool:
            headers = _ahead(pool, self._headers, list(of_series.values()), threads)
            for items, found in zip(of_series.values(), headers, strict=True):
                yield from self._rows(items, found, reader, pool)

    def _headers(self, items: Sequence[Instance]) -> dict[str, Any] | StorageError:
        """SOP Instance UID -> header in JSON of the instances of a series."""
        try:
            if len(items) > _FEW:
                found = self._json(f"{self._url}/{items[0].series_path}/metadata")
            else:
                found = [h for one in items for h in self._json(f"{self._url}/{one.path}/metadata")]
            return {_uid(header, "00080018"): header for header in found}
        except StorageError as error:
            return error

    def _rows(
        self,
        items: Sequence[Instance],
        found: dict[str, Any] | StorageError,
        reader: WebReader,
        pool: ThreadPoolExecutor,
    ) -> Iterator[FileRows]:
        """The rows of the instances of one series."""
        described: list[Described] = []
        for one in items:
            rows = FileRows(one.path.encode(), -1, 0, 0, "unreadable", member=Member(WEB))
            header = found.get(one.uid) if isinstance(found, dict) else None
            if header is None:
                why = (
                    f"its header was not given: {found}"
                    if isinstance(found, StorageError)
                    else "the server does not describe it"
                )
                rows.mtime_ns, rows.reason = UNREAD, why
                yield rows
                continue
            described.append(reader.described(header, rows))
        self._learn_syntaxes([one for one in described if one.is_image], pool)
        for each in described:
            yield reader.finished(each)

    def _learn_syntaxes(self, images: Sequence[Described], pool: ThreadPoolExecutor) -> None:
        """Asks for the first frame of some, or of all where alike ones turn out not to be."""
        groups: dict[Any, list[Described]] = {}
        for one in images:
            if not one.transfer_syntax_uid:
                groups.setdefault(alike(one), []).append(one)
        for group in groups.values():
            some = group if self._client.settings.probe == "instance" else [group[0], group[-1]]
            if len(self._probe(some, pool)) > 1:
                self._probe(group, pool)
            for one in group:
                if not (one.transfer_syntax_uid or one.problem):
                    one.transfer_syntax_uid, one.problem = (
                        group[0].transfer_syntax_uid,
                        group[0].problem,
                    )

    def _probe(self, some: Sequence[Described], pool: ThreadPoolExecutor) -> set[str]:
        unknown = [one for one in some if not (one.transfer_syntax_uid or one.problem)]

        def ask(one: Described) -> None:
            try:
                path = one.rows.path.decode()
                one.transfer_syntax_uid = first_syntax(self._client, f"{self._url}/{path}")
            except DicomTorchError as error:
                one.problem = f"its first frame was not given: {error}"

        list(pool.map(ask, {id(one): one for one in unknown}.values()))
        return {one.transfer_syntax_uid for one in some}

    def _bulk(self, address: str) -> bytes:
        """A value that a header names by its address, if that is of this server."""
        here, there = urlsplit(self._url), urlsplit(address)
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            raise StorageError("a value of the header lies on another server, which is not asked")
        accept = 'multipart/related; type="application/octet-stream"'
        return self._client.read(address, accept, _value_of)


def _items_of(answer: WebAnswer) -> list[Any]:
    """The data sets of an answer in JSON."""
    if answer.status == 204 or not answer.data:
        return []
    try:
        found = json.loads(answer.data)
    except (ValueError, RecursionError) as error:
        if media_type(answer.content_type).endswith("json"):
            raise DamagedAnswerError("the answer of the server is no JSON") from error
        raise StorageError(
            f"the server answered with {shown_type(answer.content_type)} and not with JSON{_OTHER_ADDRESS}"
        ) from error
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise StorageError("the answer of the server is no list of data sets")
    return found


def _value_of(answer: WebAnswer) -> bytes:
    """The one value of an answer."""
    parts = split(answer.content_type, answer.data)
    if len(parts) != 1:
        raise DamagedAnswerError(f"the server gave {len(parts)} values where one was asked for")
    return bytes(parts[0].data)


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Sequence[Any], count: int
) -> Iterator[Any]:
    """What `work` gives for each item, in order; `count` are worked on or wait to be taken."""
    futures: deque[Future[Any]] = deque()
    for item in items:
        futures.append(pool.submit(work, item))
        if len(futures) >= count:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


def first_syntax(client: WebClient, url: str) -> str:
    """The transfer syntax of the first frame of an instance, as the server says it."""
    (part,) = client.read(
        f"{url}/frames/1", FRAMES, lambda answer: in_order(frames_in(answer), [1])
    )
    return encoding_of(part.content_type)


def _uid(item: Mapping[str, Any], tag: str) -> str:
    """A unique identifier of an item, which becomes part of an address.

    Raises:
        StorageError: It is none.
    """
    try:
        uid = item[tag]["Value"][0]
    except (KeyError, IndexError, TypeError):
        uid = None
    is_name = isinstance(uid, str) and 0 < len(uid) <= _LONGEST and uid.isprintable()
    if not is_name or not uid.strip("."):
        raise StorageError(f"the server gave an item whose ({tag[:4]},{tag[4:]}) is no UID")
    return str(uid)
