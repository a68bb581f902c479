"""Who may ask the viewer: each request as bytes on a socket, since clients mend what is malformed."""

from __future__ import annotations

import pytest

from dicomtorch import DicomFrames, view
from tests.support.phantoms import write_series
from tests.support.requirements import require
from tests.support.viewing import get, raw, token_of


@pytest.fixture(scope="module")
def viewing(tmp_path_factory):
    require("starlette")
    require("uvicorn")
    folder = tmp_path_factory.mktemp("guard")
    write_series(folder, 3)
    with view(DicomFrames(folder), browser=False) as found:
        yield found


def ask(viewing, first="GET /api/summary HTTP/1.1", host="127.0.0.1:{port}", token=True, more=()):
    """One request, as its lines say."""
    _, secret = token_of(viewing.url)
    lines = [first]
    if host is not None:
        lines.append(f"Host: {host.format(port=viewing.port)}")
    if token:
        lines.append(f"Authorization: Bearer {secret if token is True else token}")
    lines += [line.format(port=viewing.port) for line in more]
    return raw(viewing.port, "\r\n".join([*lines, "Connection: close", "", ""]))


@pytest.mark.parametrize(
    ("status", "options"),
    [
        (200, {}),
        (401, {"token": False}),
        (401, {"token": "wrong"}),
        (401, {"token": "\xe9"}),
        (401, {"first": "GET /api/summary?token=SECRET HTTP/1.1", "token": False}),
        (421, {"host": "evil.test:{port}"}),
        (421, {"host": "127.0.0.1:1"}),
        (421, {"host": "127.0.0.1"}),
        (400, {"host": None}),
        (400, {"more": ["Host: evil.test"]}),
        (421, {"host": "127.0.0.1.:{port}"}),
        (421, {"host": "localhost.:{port}"}),
        (200, {"host": "localhost:{port}"}),
        (200, {"host": "LOCALHOST:{port}"}),
        (200, {"host": "[::1]:{port}"}),
        (403, {"more": ["Origin: https://evil.test"]}),
        (403, {"more": ["Origin: null"]}),
        (200, {"more": ["Origin: http://127.0.0.1:{port}"]}),
        (403, {"more": ["Origin: https://127.0.0.1:{port}"]}),
        (403, {"more": ["Origin: http://127.0.0.1:1"]}),
        (403, {"more": ["Sec-Fetch-Site: cross-site"]}),
        (403, {"more": ["Sec-Fetch-Site: same-site"]}),
        (200, {"more": ["Sec-Fetch-Site: same-origin"]}),
        (200, {"more": ["Sec-Fetch-Site: none"]}),
        (403, {"first": "GET / HTTP/1.1", "more": ["Sec-Fetch-Site: cross-site"]}),
        (
            403,
            {
                "more": [
                    "Sec-Fetch-Site: cross-site",
                    "Sec-Fetch-Mode: navigate",
                    "Sec-Fetch-Dest: document",
                ]
            },
        ),
        (405, {"first": "OPTIONS /api/summary HTTP/1.1", "more": ["Origin: https://evil.test"]}),
        (405, {"first": "POST /api/summary HTTP/1.1"}),
        (405, {"first": "PUT /api/summary HTTP/1.1"}),
        (405, {"first": "DELETE /api/summary HTTP/1.1"}),
        (404, {"first": "GET /../pyproject.toml HTTP/1.1"}),
        (404, {"first": "GET /%2e%2e/pyproject.toml HTTP/1.1"}),
        (404, {"first": "GET /%252e%252e/pyproject.toml HTTP/1.1"}),
        (404, {"first": "GET /api/../../etc/passwd HTTP/1.1"}),
        (404, {"first": "GET /api/frames/%2e%2e/source HTTP/1.1"}),
        (404, {"first": "GET /static/viewer.js HTTP/1.1"}),
        (404, {"first": f"GET /api/frames/{'9' * 5000}/source HTTP/1.1"}),
        (404, {"first": "GET /api/frames/-1/source HTTP/1.1"}),
        (404, {"first": "GET /api/frames/3/source HTTP/1.1"}),
        (404, {"first": "GET /api/frames/%D9%A1/source HTTP/1.1"}),
        (404, {"first": "GET /api/samples/99/training HTTP/1.1"}),
        (404, {"first": f"GET /api/frames/0/source?step={'9' * 5000} HTTP/1.1"}),
        (400, {"more": ["Content-Length: 0", "Content-Length: 5"]}),
        (400, {"more": ["Content-Length: 5", "Transfer-Encoding: chunked"]}),
        (400, {"more": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"]}),
    ],
)
def test_requests_get_the_right_answer(viewing, status, options):
    if "first" in options:
        options = {**options, "first": options["first"].replace("SECRET", token_of(viewing.url)[1])}
    found, text = ask(viewing, **options)
    assert found == status, text
    assert "access-control" not in text.lower()
    assert "Traceback" not in text


def test_a_nul_in_the_path_is_refused(viewing):
    assert ask(viewing, "GET /api/summary\0 HTTP/1.1")[0] in (400, 404)
    assert ask(viewing, "GET /api/summary%00 HTTP/1.1")[0] == 404


def test_only_the_opening_of_the_page_may_come_from_elsewhere(viewing):
    more = ["Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"]
    assert ask(viewing, "GET / HTTP/1.1", token=False, more=more)[0] == 200
    more[2] = "Sec-Fetch-Dest: iframe"
    assert ask(viewing, "GET / HTTP/1.1", token=False, more=more)[0] == 403


def test_every_answer_has_the_headers_that_keep_it_to_the_page(viewing):
    for options in ({}, {"token": False}, {"first": "GET /viewer.js HTTP/1.1"}, {"host": "x"}):
        text = ask(viewing, **options)[1].lower()
        for line in (
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cross-origin-opener-policy: same-origin",
            "frame-ancestors 'none'",
            "default-src 'none'",
        ):
            assert line in text, (options, line)
        assert "server: " not in text.replace("server: dicomtorch", "server: ")
        assert "set-cookie" not in text


def test_ranges_are_ignored_and_head_is_get_without_a_body(viewing):
    whole = get(viewing.url, "/viewer.js")
    part = get(viewing.url, "/viewer.js", Range="bytes=0-9")
    assert (part.status, part.body) == (200, whole.body)
    status, text = ask(viewing, "HEAD /api/frames/0/source HTTP/1.1")
    assert status == 200
    assert text.endswith("\r\n\r\n")
    length = get(viewing.url, "/api/frames/0/source").headers["content-length"]
    assert f"content-length: {length}" in text.lower()
