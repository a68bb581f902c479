"""The command line as a user meets it: output, exit codes, one-line errors, no identifiers."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest

from dicomtorch import FrameIndex, scan
from dicomtorch.cli import main as cli
from dicomtorch.cli.demo import run as run_demo
from dicomtorch.cli.options import EXIT_ERROR, EXIT_FOUND_PROBLEMS, EXIT_INTERRUPTED, EXIT_OK
from dicomtorch.errors import OptionError
from dicomtorch.reports.preview import write_preview
from tests.support.mask_phantoms import segmentation, series
from tests.support.phantoms import ct, ct_pixels, write

PROGRAM = [sys.executable, "-m", "dicomtorch"]
COMMANDS = (
    *("scan", "info", "doctor", "series", "verify", "preview", "show", "view", "bench", "demo"),
    *("merge", "purge"),
)


@pytest.fixture
def tree(tmp_path, bundled):
    """Two images of one frame, one of several, and a text file."""
    root = tmp_path / "Doe^Jane"
    root.mkdir()
    for name in ("CT_small.dcm", "MR_small.dcm", "rtdose.dcm"):
        shutil.copy(bundled / name, root)
    (root / "notes.txt").write_text("not DICOM\n" * 100)
    return root


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.mark.parametrize("columns", [None, "80"])
@pytest.mark.parametrize("command", ["scan", "info", "doctor", "verify"])
def test_output_fits_the_terminal_and_is_whole_in_a_pipe(
    capsys, monkeypatch, tmp_path, bundled, command, columns
):
    name = "a-file-with-a-rather-long-name-as-exports-of-archives-have-them-0001.dcm"
    below = tmp_path / "tree" / "2026-11-26-some-hospital" / "series-with-a-name"
    below.mkdir(parents=True)
    shutil.copy(bundled / "JPEG2000-embedded-sequence-delimiter.dcm", below / name)
    shutil.copy(bundled / "rtplan_truncated.dcm", below / f"damaged-{name}")
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    _, out, _ = run(capsys, command, tmp_path / "tree")
    lines = out.splitlines()
    assert "\x1b" not in out
    assert max(map(len, lines)) > 80 if columns is None else max(map(len, lines)) <= 80
    if command in ("scan", "doctor") and columns is None:
        assert f"2026-11-26-some-hospital/series-with-a-name/damaged-{name}" in out


def test_scan_keeps_its_index_and_saves_it_where_it_is_told(capsys, tmp_path, tree):
    code, _, _ = run(capsys, "scan", tree, "-o", tmp_path / "tree.index", "--tags", "PatientSex")
    assert code == EXIT_OK
    saved = FrameIndex.load(tmp_path / "tree.index")
    assert (len(saved), list(saved.tags)) == (17, ["PatientSex"])
    for command in ("scan", "info", "doctor", "verify"):
        assert run(capsys, command, tmp_path / "tree.index")[0] == EXIT_OK
    _, out, _ = run(capsys, "scan", tree, "--json")
    assert json.loads(out)["scan"]["read"] == 0
    assert json.loads(out)["scan"]["reused"] == 4
    code, _, err = run(capsys, "scan", tree, "-o", tmp_path / "tree.index")
    assert code == EXIT_ERROR
    assert "tree.index" in err


@pytest.mark.parametrize(
    "command", ["scan", "info", "doctor", "verify", "preview", "show", "view", "bench"]
)
def test_an_empty_path_is_not_the_current_folder(capsys, command):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, ""])
    assert caught.value.code == EXIT_ERROR
    assert "the path is empty" in capsys.readouterr().err


def test_a_warning_is_said_once(capsys, monkeypatch, tree):
    def warned(*_args, **_kwargs):
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                warnings.warn("the same", stacklevel=1)
            logging.getLogger("dicomtorch").warning("the same")
        raise OptionError("the end")

    monkeypatch.setattr("dicomtorch.scanner.open.scan", warned)
    _, _, err = run(capsys, "scan", tree)
    assert err == "dicomtorch: warning: the same\ndicomtorch: the end\n"


def test_scan_counts_what_pydicom_finds(capsys, tree):
    code, out, _ = run(capsys, "scan", tree, "--json")
    found = json.loads(out)
    datasets = [pydicom.dcmread(path) for path in tree.glob("*.dcm")]
    frames = Counter()
    for dataset in datasets:
        frames[dataset.Modality] += int(dataset.get("NumberOfFrames", 1))
    assert code == EXIT_OK
    assert found["files"]["image"] == len(datasets)
    assert found["files"]["not_dicom"] == 1
    assert found["frames"] == sum(frames.values())
    assert {e["name"]: e["frames"] for e in found["modalities"]} == dict(frames)
    assert {e["uid"] for e in found["sop_classes"]} == {d.SOPClassUID for d in datasets}
    assert {e["uid"] for e in found["transfer_syntaxes"]} == {
        d.file_meta.TransferSyntaxUID for d in datasets
    }
    assert {(e["rows"], e["columns"], e["bits_stored"]) for e in found["sizes"]} == {
        (d.Rows, d.Columns, d.BitsStored) for d in datasets
    }
    assert sum(e["frames"] for e in found["decoding"] if e["backend"]) == found["frames"]
    assert found["pixel_data_bytes"] == sum(len(dataset.PixelData) for dataset in datasets)


def test_scan_prints_a_table(capsys, tree):
    code, out, err = run(capsys, "scan", tree)
    assert code == EXIT_OK
    assert err == ""
    assert re.search(r"^4 files, \d+ frames, ", out)
    for line in (
        r"^CT +1 +1$",
        r"^RTDOSE +15 +1$",
        r"^images +3$",
        r"^not DICOM +1$",
        r"CT Image Storage",
    ):
        assert re.search(line, out, re.MULTILINE), line


def test_scan_of_a_damaged_file_names_it_and_exits_with_1(capsys, tree, bundled):
    data = (bundled / "CT_small.dcm").read_bytes()
    (tree / "cut.dcm").write_bytes(data[:1000])
    code, out, _ = run(capsys, "scan", tree)
    assert code == EXIT_FOUND_PROBLEMS
    assert re.search(r"^Damaged:\n  \S*cut\.dcm: \S", out, re.MULTILINE)


def test_scan_prints_no_identifier(capsys, tree):
    for options in ([], ["--json"]):
        _, out, _ = run(capsys, "scan", tree, *options, "--tags", "PatientName", "PatientID")
        for path in tree.glob("*.dcm"):
            dataset = pydicom.dcmread(path)
            for keyword in ("PatientName", "PatientID", "SOPInstanceUID", "StudyInstanceUID"):
                value = str(dataset.get(keyword, ""))
                assert not value or value not in out, keyword


def test_tags_are_counted(capsys, tree):
    _, out, _ = run(capsys, "scan", tree / "CT_small.dcm", "--json", "--tags", "PatientSex", "KVP")
    assert json.loads(out)["tags"] == {
        "PatientSex": {"frames": 1, "distinct": 1},
        "KVP": {"frames": 1, "distinct": 1},
    }


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_redacted_output_has_no_path(capsys, tree, options):
    (tree / "cut.dcm").write_bytes((tree / "CT_small.dcm").read_bytes()[:1000])
    code, out, err = run(capsys, "scan", tree, "--redact-paths", *options)
    assert code == EXIT_FOUND_PROBLEMS
    for name in ("Doe", "cut.dcm", "CT_small", str(tree.parent)):
        assert name not in out + err


def test_redacted_error_has_no_path(capsys, tmp_path):
    code, out, err = run(capsys, "scan", tmp_path / "Doe^Jane", "--redact-paths")
    assert (code, out) == (EXIT_ERROR, "")
    assert "Doe" not in err
    assert "<file " in err
    assert "cannot be opened" in err


@pytest.mark.parametrize("command", ["scan", "show"])
def test_missing_source_is_one_line_and_exit_2(capsys, tmp_path, command):
    code, out, err = run(capsys, command, tmp_path / "nowhere")
    assert (code, out) == (EXIT_ERROR, "")
    assert re.fullmatch(r"dicomtorch: .*nowhere.*\n", err)


def test_unknown_tag_is_one_line_and_exit_2(capsys, tree):
    code, _, err = run(capsys, "scan", tree, "--tags", "PatientSecks")
    assert code == EXIT_ERROR
    assert re.fullmatch(r"dicomtorch: .*PatientSecks.*\n", err)


@pytest.mark.parametrize("arguments", [[], ["scan"], ["nothing"], ["demo", "--workers", "-1"]])
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(capsys, command):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"dicomtorch {command}" in out.partition("examples:")[2]
    assert "exit codes:" in out


def test_every_command_is_described_and_tested():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text(
        encoding="utf-8"
    )
    parser = cli.make_parser()
    (choices,) = (action.choices for action in parser._actions if action.dest == "command")
    assert set(choices) == set(COMMANDS)
    for command in choices:
        assert f"dicomtorch {command}" in page


def test_interrupt_exits_with_130(capsys, monkeypatch, tree):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("dicomtorch.scanner.open.scan", interrupted)
    assert run(capsys, "scan", tree) == (EXIT_INTERRUPTED, "", "dicomtorch: interrupted\n")


def test_a_closed_pipe_is_no_error(tree):
    with subprocess.Popen(
        [*PROGRAM, "scan", tree, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, b"")


def test_version():
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"dicomtorch \d+\.\d+\.\d+\S*\n", done.stdout)


def identifiers(root):
    for path in root.rglob("*.dcm"):
        dataset = pydicom.dcmread(path)
        for keyword in ("PatientName", "PatientID", "SOPInstanceUID", "SeriesInstanceUID"):
            if value := str(dataset.get(keyword, "")):
                yield value


REPORTS = [
    ["info"],
    ["info", "--json"],
    ["doctor"],
    ["doctor", "--json"],
    ["verify"],
    ["verify", "--json"],
    ["verify", "--against", "pydicom", "--json"],
]


@pytest.mark.parametrize("arguments", REPORTS, ids=" ".join)
def test_reports_have_no_identifier_and_redacted_no_path(capsys, tree, arguments):
    data = (tree / "CT_small.dcm").read_bytes()
    (tree / "cut.dcm").write_bytes(data[:1000])
    shutil.copy(tree / "CT_small.dcm", tree / "copy.dcm")
    command, *options = arguments
    for redact in ([], ["--redact-paths"]):
        code, out, err = run(capsys, command, tree, *options, *redact)
        assert code == EXIT_FOUND_PROBLEMS  # the file that is cut off
        assert not [value for value in identifiers(tree) if value in out + err]
    for name in ("Doe", "cut.dcm", "CT_small", "copy.dcm", str(tree.parent)):
        assert name not in out + err


@pytest.mark.parametrize("arguments", REPORTS, ids=" ".join)
def test_reports_on_what_is_in_order_exit_with_0(capsys, tree, arguments):
    command, *options = arguments
    code, out, err = run(capsys, command, tree / "CT_small.dcm", *options)
    assert (code, err) == (EXIT_OK, "")
    if "--json" in options:
        assert json.loads(out)["frames"] == 1


@pytest.mark.parametrize("command", ["info", "doctor", "verify", "preview", "show"])
def test_commands_take_a_saved_index(capsys, tmp_path, tree, command):
    pytest.importorskip("matplotlib")
    index, _ = scan(tree)
    index.filter(Modality="RTDOSE").save(tmp_path / "dose.index")
    output = ["--output", tmp_path / "p.png"] if command in ("preview", "show") else []
    code, out, _ = run(capsys, command, tmp_path / "dose.index", *output)
    assert code == EXIT_OK
    assert command == "show" or "15" in out
    assert "MR" not in out


def test_info_of_one_file(capsys, bundled):
    code, out, _ = run(capsys, "info", bundled / "CT_small.dcm")
    assert code == EXIT_OK
    for line in (
        r"^Frames +1$",
        r"^Transfer syntax +Explicit VR Little Endian$",
        r"^Decoded by +\w+",
        r"^Frames found by +native",
        r"^Rows +128$",
        r"^PixelRepresentation +signed$",
        r"^RescaleIntercept +-1024$",
        r"^PixelSpacing +0\.661468",
        r"^ImagePositionPatient +-158\.136",
        r"^BurnedInAnnotation is absent",
    ):
        assert re.search(line, out, re.MULTILINE), line


def test_doctor_is_strict_if_told_to(capsys, tree):
    shutil.copy(tree / "CT_small.dcm", tree / "copy.dcm")
    assert run(capsys, "doctor", tree)[0] == EXIT_OK
    code, out, _ = run(capsys, "doctor", tree, "--strict")
    assert code == EXIT_FOUND_PROBLEMS
    assert re.search(r"1 SOPInstanceUID is in more than one file", out)
    assert re.search(r"^       CT_small\.dcm and 1 more$", out, re.MULTILINE)


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.parametrize("command", ["scan", "info", "doctor", "series"])
def test_reports_of_nothing_say_so_and_exit_with_1(capsys, tmp_path, command, options):
    assert run(capsys, command, tmp_path, *options)[::2] == (
        EXIT_FOUND_PROBLEMS,
        "dicomtorch: there is no frame here, in 0 files\n",
    )
    (tmp_path / "notes.txt").write_text("not DICOM")
    code, out, err = run(capsys, command, tmp_path, *options)
    assert code == EXIT_FOUND_PROBLEMS
    assert re.fullmatch(
        r"dicomtorch: there is no frame here, in 1 file \(not DICOM: no DICOM: .*\)\n", err
    )
    (tmp_path / "more.txt").write_text("not DICOM")
    assert run(capsys, command, tmp_path, *options)[2] == (
        "dicomtorch: there is no frame here, in 2 files (not DICOM: 2)\n"
    )
    assert not options or json.loads(out) == [] or json.loads(out)["frames"] == 0


@pytest.mark.parametrize("command", ["verify", "bench", "preview", "show"])
def test_commands_that_need_a_frame_say_in_one_line_that_there_is_none(capsys, tmp_path, command):
    (tmp_path / "notes.txt").write_text("not DICOM")
    code, out, err = run(capsys, command, tmp_path)
    assert (code, out) == (EXIT_ERROR, "")
    assert re.fullmatch(
        r"dicomtorch: there is no frame here, in 1 file \(not DICOM: .*\); .*\n", err
    )
    (tmp_path / "notes.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    assert "a PNG image" in run(capsys, command, tmp_path)[2]


def test_a_selection_without_frames_is_nothing_too(capsys, tmp_path, tree):
    scan(tree)[0].filter(Modality="NONE").save(tmp_path / "none.index")
    assert run(capsys, "doctor", tmp_path / "none.index")[0] == EXIT_FOUND_PROBLEMS
    assert run(capsys, "verify", tmp_path / "none.index")[0] == EXIT_ERROR


def test_verify_goes_on_with_its_state(capsys, tmp_path, tree):
    arguments = ["verify", tree, "--state", tmp_path / "verify.state", "--json"]
    for resumed in (0, 17):
        code, out, err = run(capsys, *arguments)
        assert (code, err) == (EXIT_OK, "")
        assert json.loads(out)["resumed"] == resumed
        assert json.loads(out)["decoded"] == 17
    code, out, err = run(capsys, *arguments, "--against", "pydicom")
    assert (code, out) == (EXIT_ERROR, "")
    assert re.fullmatch(r"dicomtorch: .*verify\.state belongs to a run with .*\n", err)


@pytest.mark.slow
def test_interrupted_verify_ends_at_once_and_goes_on(tmp_path, bundled):
    state = tmp_path / "verify.state"
    arguments = [*PROGRAM, "verify", bundled, "--state", state]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not state.exists() or b"key" not in state.read_bytes():
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    # A fast machine may be done.
    assert process.returncode in (EXIT_INTERRUPTED, EXIT_FOUND_PROBLEMS)
    assert process.returncode != EXIT_INTERRUPTED or err == "dicomtorch: interrupted\n"
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == EXIT_FOUND_PROBLEMS
    assert re.search(r"^[1-9]\d* frames? known from the state file$", done.stdout, re.MULTILINE)


def test_preview_draws_frames_and_says_what_may_show_names(capsys, tmp_path, tree):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    dataset = pydicom.dcmread(tree / "MR_small.dcm")
    dataset.BurnedInAnnotation = "YES"
    dataset.save_as(tree / "MR_small.dcm")
    picture = tmp_path / "p.png"
    code, out, err = run(capsys, "preview", tree, "-o", picture, "--frames", 5)
    assert (code, err) == (EXIT_OK, "")
    assert "5 of 17 frames, display values." in out
    assert "Warning: 1 frame with burned-in text" in out
    with image.open(picture) as drawn:
        assert drawn.width == 5 * 132 + 4
        assert drawn.height > 400  # the histogram is below the frames
    assert not [value for value in identifiers(tree) if value in out]


def test_preview_names_what_it_cannot_draw(capsys, tmp_path, tree, bundled):
    pytest.importorskip("matplotlib")
    shutil.copy(bundled / "JPEG2000-embedded-sequence-delimiter.dcm", tree / "broken.dcm")
    arguments = ["preview", tree, "-o", tmp_path / "p.png"]
    code, out, _ = run(capsys, *arguments)
    assert code == EXIT_FOUND_PROBLEMS
    assert re.search(r"^Not in it: broken\.dcm, index \d+: tiles in SIZ", out, re.MULTILINE)
    code, out, err = run(capsys, *arguments, "--redact-paths")
    assert code == EXIT_FOUND_PROBLEMS
    assert not [name for name in ("broken", "Doe", str(tmp_path)) if name in out + err]


def test_a_preview_of_no_frames_is_refused(tmp_path, tree):
    with pytest.raises(OptionError, match="count must be 1 or more; got 0"):
        write_preview(scan(tree)[0], tmp_path / "p.png", count=0)


def test_preview_of_nothing_and_to_an_unknown_format(capsys, tmp_path, tree):
    pytest.importorskip("matplotlib")
    (tmp_path / "empty").mkdir()
    for arguments in ([tmp_path / "empty"], [tree, "-o", tmp_path / "p.nothing"]):
        code, out, err = run(capsys, "preview", *arguments)
        assert (code, out) == (EXIT_ERROR, "")
        assert re.fullmatch(r"dicomtorch: .*\n", err)


def test_warnings_and_notices_are_one_line_each_and_hidden_if_redacted(
    capsys, tmp_path, tree, monkeypatch
):
    pytest.importorskip("matplotlib")
    dataset = pydicom.dcmread(tree / "CT_small.dcm")
    dataset.WindowCenter, dataset.WindowWidth = 40, 0  # a notice of the display rules
    dataset.save_as(tree / "CT_small.dcm")
    arguments = ["preview", tree / "CT_small.dcm", "-o", tmp_path / "p.png"]
    _, _, err = run(capsys, *arguments)
    assert re.fullmatch(r"dicomtorch: warning: .*WindowWidth.*CT_small\.dcm.*\n", err)
    _, _, err = run(capsys, *arguments, "--redact-paths")
    assert err == "dicomtorch: warning: a message may name paths; see it without --redact-paths\n"


def test_show_writes_a_picture(capsys, tmp_path, tree):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "ct.png"
    code, _, err = run(
        capsys, "show", tree / "CT_small.dcm", 0, "--window", 40, 400, "--output", picture
    )
    assert (code, err) == (EXIT_OK, "")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_show_without_a_display_says_what_to_do(capsys, tree):
    pytest.importorskip("matplotlib")
    code, _, err = run(capsys, "show", tree)
    assert code == EXIT_ERROR
    assert "--output" in err


def test_show_in_a_browser_is_no_error(capsys, monkeypatch, tree):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    shown = []
    monkeypatch.setattr(pyplot, "switch_backend", lambda name: None)
    monkeypatch.setattr("matplotlib.get_backend", lambda: "webagg")
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(1))
    assert run(capsys, "show", tree / "CT_small.dcm")[::2] == (EXIT_OK, "")
    assert shown == [1]


def test_show_with_a_backend_that_cannot_be_used_is_one_line(tree):
    pytest.importorskip("matplotlib")
    done = subprocess.run(
        [*PROGRAM, "show", tree / "CT_small.dcm"],
        env=os.environ | {"MPLBACKEND": "module://no_such_backend"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == EXIT_ERROR
    assert re.fullmatch(r"dicomtorch: .*no_such_backend.*--output FILE\.png\n", done.stderr)


def test_a_manifest_of_someone_else_makes_no_saved_index(capsys, tree):
    (tree / "manifest.json").write_text('{"images": 3}')
    code, out, _ = run(capsys, "info", tree)
    assert code == EXIT_OK
    assert "images: 3" in out


@pytest.mark.parametrize("text", ["-1", "two", "1.5"])
def test_numbers_that_are_none_are_told_in_words(capsys, tree, text):
    with pytest.raises(SystemExit):
        run(capsys, "verify", tree, f"--tolerance={text}")
    assert f"'{text}' is no whole number from 0 upwards" in capsys.readouterr().err


def test_show_to_an_unknown_format(capsys, tmp_path, tree):
    code, _, error = run(capsys, "show", tree, "0", "--output", tmp_path / "x.xyz")
    assert code == EXIT_ERROR
    assert "a picture cannot be written as '.xyz'" in error
    assert not list(tmp_path.glob("*.xyz*"))


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes it")
def test_without_standard_output_the_exit_code_says_it_all(tree):
    command = f'"{sys.executable}" -m dicomtorch scan "{tree}" >&-'
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (EXIT_OK, "")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes it")
def test_without_standard_error_what_is_printed_and_the_exit_code_are_as_ever(tree):
    def ran(arguments, closed="2>&-"):
        command = f'"{sys.executable}" -m dicomtorch {arguments} {closed}'
        ended = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        return ended.returncode, ended.stdout

    code, said = ran(f'scan "{tree}"')
    assert (code, said.partition(",")[0]) == (EXIT_OK, "4 files")
    assert ran(f'scan "{tree}/none"') == (EXIT_ERROR, "")
    assert ran(f'scan "{tree}" --workers none')[0] == EXIT_ERROR
    assert ran(f'scan "{tree}"', ">&- 2>&- <&-") == (EXIT_OK, "")
    code = (
        "import sys\nfrom dicomtorch.cli.main import main\n"
        f"main(['scan', {str(tree)!r}])\nprint(open(sys.executable).fileno() > 2)"
    )
    command = [sys.executable, "-c", code]
    for closed in ("2>&-", "<&- 2>&-"):
        line = f"{shlex.join(command)} {closed}"
        ended = subprocess.run(line, shell=True, capture_output=True, text=True, check=True)
        assert ended.stdout.endswith("True\n")


def test_demo_of_a_small_folder(tmp_path, tree):
    pytest.importorskip("PIL")
    lines = "\n".join(run_demo(tmp_path / "out", source=tree, num_workers=2))
    assert "RTDOSE" in lines
    assert re.search(r"17 frames of 1 x 256 x 256 in [\d.]+ s, \d+ frames/s", lines)
    assert "All 17 frames were decoded." in lines
    assert "2 frames that look different" in lines  # the dose has 10 x 10 pixels
    assert (tmp_path / "out" / "contact-sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_demo_is_short_and_ends_with_what_worked(tmp_path):
    pytest.importorskip("PIL")
    done = subprocess.run(
        [*PROGRAM, "demo", "--output", tmp_path],
        env=os.environ | {"COLUMNS": "80", "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert len(lines) < 60
    assert max(map(len, lines)) <= 80
    assert re.search(r"\d+ of \d+ frames were decoded", done.stdout)
    assert "Wrote " in " ".join(lines[-6:])
    assert "rror" not in done.stdout


@pytest.mark.slow
def test_interrupted_demo_ends_cleanly(tmp_path):
    pytest.importorskip("PIL")
    with subprocess.Popen(
        [*PROGRAM, "demo", "--output", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C reaches the whole group
    ) as process:
        while "Transfer syntax" not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        os.killpg(process.pid, signal.SIGINT)  # before the epoch, or while its workers start
        _, err = process.communicate()
    with pytest.raises(ProcessLookupError):  # nothing is left in the group
        os.killpg(process.pid, 0)
    assert process.returncode == EXIT_INTERRUPTED
    assert "dicomtorch: interrupted\n" in err
    # A worker may complain that nobody took its file descriptor; the interrupt itself must show no traceback.
    assert "KeyboardInterrupt" not in err


@pytest.mark.slow
def test_an_interrupt_while_workers_start_is_not_lost(tmp_path):
    """Python drops what hooks of `os.fork` raise; this one is where the interrupt comes."""
    program = (
        "import os, signal, sys\n"
        "os.register_at_fork(after_in_parent=lambda: signal.raise_signal(signal.SIGINT))\n"
        "from dicomtorch.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "demo", "--output", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == EXIT_INTERRUPTED
    assert "dicomtorch: interrupted\n" in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "shuffled epoch" not in done.stdout


def test_an_interrupt_that_became_another_error(monkeypatch, capsys, tmp_path):
    """As where it comes while NumPy is imported."""

    def scan(_):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("PyCapsule_Import could not import module") from error

    monkeypatch.setattr("dicomtorch.cli.scan._scan", scan)
    code, out, err = run(capsys, "scan", tmp_path)
    assert (code, out, err) == (EXIT_INTERRUPTED, "", "dicomtorch: interrupted\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_preview_draws_masks(capsys, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("matplotlib")
    slices = series(tmp_path / "ct", 3, (64, 64))
    block = np.zeros((64, 64), np.uint8)
    block[8:40, 8:40] = 1
    segmentation(tmp_path / "ct" / "seg.dcm", slices, [(1, 1, block)], names=["secret"])
    pictures = {}
    for name, more in (("plain", []), ("masks", ["--masks"])):
        code, out, err = run(
            capsys, "preview", tmp_path / "ct", "-o", tmp_path / f"{name}.png", *more
        )
        assert (code, err) == (EXIT_OK, "")
        assert "secret" not in out
        with image.open(tmp_path / f"{name}.png") as drawn:
            pictures[name] = np.asarray(drawn, np.int64)[:136]
    # With masks the one slice that has one is drawn, in colour where it is labelled.
    colours = {name: np.ptp(picture, axis=2) > 40 for name, picture in pictures.items()}
    assert not colours["plain"].any()
    assert 0.2 < colours["masks"][:, :136].mean() < 0.3


def test_a_picture_makes_its_folder(tmp_path, capsys):
    pytest.importorskip("PIL")
    source = write(ct(ct_pixels(0), 0), tmp_path / "a.dcm")
    target = tmp_path / "new" / "sheet.png"
    code, _, err = run(capsys, "preview", source, "-o", target)
    assert (code, err) == (0, "")
    assert target.read_bytes().startswith(b"\x89PNG")


def test_nothing_is_no_table(tmp_path, capsys):
    code, out, err = run(capsys, "series", tmp_path)
    assert (code, out) == (1, "")
    assert "there is no frame here" in err
    code, out, _ = run(capsys, "scan", tmp_path)
    assert (code, out) == (1, "0 files, 0 frames, 0 bytes of pixel data\n")


def test_a_crash_says_which_lines_called_it():
    code = (
        "import os, signal\n"
        "from dicomtorch.cli import main\n"
        "main._run = lambda arguments: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "main.main(['info', 'PATIENT^NAME'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "dicomtorch/cli/main.py" in done.stderr
    assert "PATIENT" not in done.stderr
