"""Commands on addresses: `--storage-option`, and that what it gives is nowhere in what is said or kept."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicomtorch.cli import main as cli
from dicomtorch.cli.addresses import with_option
from dicomtorch.cli.options import EXIT_ERROR, EXIT_OK
from dicomtorch.storage import choose
from dicomtorch.viewer.server import Viewing
from tests.support.phantoms import ct, write
from tests.support.requirements import require
from tests.support.servers import KEY, S3, SECRET, s3_server
from tests.support.viewing import get


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["skip_signature=true", "anon=false"], {"skip_signature": True, "anon": False}),
        (["io_threads=16", "timeout=2.5"], {"io_threads": 16, "timeout": 2.5}),
        (["endpoint=http://h:1/?a=b"], {"endpoint": "http://h:1/?a=b"}),
        (["region=", "key=007"], {"region": "", "key": "007"}),
        (["key=env:A_KEY", "more=env:DIGITS"], {"key": "from=there", "more": "12"}),
        (
            ["headers.Authorization=env:A_KEY", "headers.X.Y=1"],
            {"headers": {"Authorization": "from=there", "X.Y": 1}},
        ),
    ],
)
def test_options_are_words_numbers_text_and_tables(
    texts: list[str], expected: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "from=there")
    monkeypatch.setenv("DIGITS", "12")
    options: dict[str, object] = {}
    for text in texts:
        options = with_option(options, text)
    assert options == expected
    assert {k: type(v) for k, v in options.items()} == {k: type(v) for k, v in expected.items()}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["hunter2"], "needs KEY=VALUE"),
        (["=hunter2"], "needs KEY=VALUE"),
        (["a.=hunter2"], "needs KEY=VALUE"),
        (["a=1", "a=hunter2"], "a is given twice"),
        (["a.b=1", "a=hunter2"], "a is given twice"),
        (["a=1", "a.b=hunter2"], "a.b is given twice"),
        (["a=env:NO_SUCH_NAME"], "a: the environment variable NO_SUCH_NAME is not set"),
        (["a=env:-hunter2"], "that it names is not set"),
    ],
)
def test_options_that_mean_nothing_are_refused_without_their_values(
    texts: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for text in texts for word in ("--storage-option", text)]
    with pytest.raises(SystemExit) as caught:
        cli.main(["info", "s3://bucket/x", *words])
    assert caught.value.code == EXIT_ERROR
    err = capsys.readouterr().err
    assert said in err
    assert "hunter2" not in err


def test_an_option_that_is_misspelt_is_named_without_its_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for word in ("--storage-optoin=key=hunter2", "--s=hunter2"):
        with pytest.raises(SystemExit):
            cli.main(["doctor", "s3://bucket/x", word])
        assert "hunter2" not in capsys.readouterr().err


def test_a_folder_takes_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(ct(np.zeros((8, 8), np.int16)), tmp_path / "a.dcm")
    for command in (["scan", tmp_path], ["info", file], ["doctor", file]):
        given = [*map(str, command), "--storage-option", "secret_access_key=hunter2"]
        assert cli.main(given) == EXIT_ERROR
        out, err = capsys.readouterr()
        assert "for addresses" in err
        assert "hunter2" not in out + err


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    require("obstore")
    require("moto")
    with s3_server() as server:
        yield server


def looked_at(
    address: str, options: list[str], monkeypatch: pytest.MonkeyPatch, count: int = 3
) -> list[bytes]:
    """Everything that `view` answers of an address."""
    require("starlette")
    require("uvicorn")
    found: list[bytes] = []

    def look(viewing: Viewing) -> None:
        for path in ("/", "/api/summary", "/api/samples/0", "/api/samples/0/training"):
            reply = get(viewing.url, path)
            assert reply.status == 200
            found.extend((reply.body, repr(reply.headers).encode()))
            if path == "/api/summary":
                assert reply.info["frames"] == count

    monkeypatch.setattr(Viewing, "wait", look)
    assert cli.main(["view", address, "--no-browser", *options]) == EXIT_OK
    return found


def test_commands_read_a_bucket(
    s3: S3,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("A_SECRET", SECRET)
    monkeypatch.setattr(choose, "_of_place", {})
    s3.client.create_bucket(Bucket="commands")
    for k in range(3):
        file = write(ct(np.full((64, 64), k, np.int16)), tmp_path / f"{k}.dcm")
        s3.client.put_object(Bucket="commands", Key=f"a/{k}.dcm", Body=file.read_bytes())
    caplog.set_level(logging.DEBUG)  # from here on: boto3 itself logs keys
    caplog.clear()
    given = {**s3.options, "secret_access_key": "env:A_SECRET"}
    options = [
        word for key, value in given.items() for word in ("--storage-option", f"{key}={value}")
    ]
    address = "s3://commands/a"
    said = ""

    def run(*words: object, codes: tuple[int, ...] = (EXIT_OK,)) -> str:
        nonlocal said
        code = cli.main([*map(str, words), *options])
        out, err = capsys.readouterr()
        said += out + err
        assert code in codes, err
        return out

    saved = tmp_path / "saved.index"
    assert json.loads(run("scan", address, "--json", "-o", saved))["frames"] == 3
    assert json.loads(run("info", address, "--json"))["frames"] == 3
    monkeypatch.setattr(choose, "_of_place", {})
    assert json.loads(run("info", saved, "--json"))["scan"]["read"] == 0
    assert json.loads(run("doctor", address, "--json"))["frames"] == 3
    assert "Wrote" in run("preview", saved, "-o", tmp_path / "p.png", "--redact-paths")
    assert json.loads(run("verify", address, "--json"))["frames"] == 3
    run("series", address)
    run("show", address, 0, "--output", tmp_path / "shown.png")
    replies = looked_at(address, options, monkeypatch)
    said += "".join(capsys.readouterr())
    parts = [tmp_path / f"part-{k}.index" for k in (1, 2)]
    monkeypatch.setattr(choose, "_of_place", {})
    counted = [
        json.loads(run(*("scan", address, "--part", f"{k}/2", "-o", part, "--json"), codes=(0, 1)))
        for k, part in enumerate(parts, 1)
    ]
    assert sum(one["frames"] for one in counted) == 3
    bad = ["info", address, *options[:-2], "--storage-option", "nosuchoption=hunter2"]
    assert cli.main(bad) == EXIT_ERROR
    said += "".join(capsys.readouterr())
    assert "nosuchoption" in said
    kept = [file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()]
    for one in [*kept, *replies, *(text.encode() for text in (said, caplog.text))]:
        assert not re.search(f"{SECRET}|{KEY}|hunter2".encode(), one)
