"""The commands: what each takes, does and prints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType

from dicomtorch.cli.addresses import add_storage_options
from dicomtorch.cli.console import page
from dicomtorch.cli.options import (
    EXIT_FOUND_PROBLEMS,
    EXIT_OK,
    LOST,
    Commands,
    add_redact_paths,
    add_root,
    add_window,
    new_command,
    open_frames,
    open_source,
    positive_number,
    report_code,
    source_path,
    whole_number,
)
from dicomtorch.cli.purge import add_purge
from dicomtorch.cli.scan import add_merge, add_scan
from dicomtorch.cli.series import add_series
from dicomtorch.cli.view import add_view
from dicomtorch.errors import OptionError, import_optional


def _add_info(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = new_command(
        commands,
        "info",
        "Say what is in one file or one saved index: frames, pixels, values, geometry; no identifiers.",
        "  dicomtorch info image.dcm\n"
        "  dicomtorch info ct.index                # what FrameIndex.save wrote\n"
        "  dicomtorch info image.dcm --json\n"
        "  dicomtorch info s3://bucket/prefix --storage-option skip_signature=true\n",
        found=LOST,
    )
    parser.add_argument(
        "path", type=source_path, help="a file, a saved index, a folder, or an address"
    )
    add_storage_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with every value")
    add_redact_paths(parser)
    parser.set_defaults(run=_info)


def _info(arguments: argparse.Namespace) -> int:
    from dicomtorch.reports.info import describe, format_info
    from dicomtorch.reports.summary import has_problems
    from dicomtorch.scanner.scan import scan

    is_file = Path(arguments.path).is_file()  # one look at one file leaves no index behind
    index, report = (
        scan(arguments.path, storage_options=arguments.storage_options)
        if is_file
        else open_source(arguments, [arguments.path])
    )
    found = describe(index, report, redact_paths=arguments.redact_paths)
    print(json.dumps(found, indent=2) if arguments.json else format_info(found, page()))
    return report_code(index, report, has_problems(found))


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = new_command(
        commands,
        "doctor",
        "Say what of a tree is decoded and by what, what to install, and what may spoil a training.",
        "  dicomtorch doctor studies/\n"
        "  dicomtorch doctor studies/ --strict     # exit with 1 on warnings as well\n"
        "  dicomtorch doctor studies/ --json --redact-paths > doctor.json\n",
        found="there are problems: files that are damaged or incomplete, frames that nothing decodes;\n"
        "     with --strict also on warnings: windows that differ, burned-in text, duplicates, ...",
    )
    add_root(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, with every file concerned")
    parser.add_argument("--strict", action="store_true", help="exit with 1 on warnings as well")
    add_redact_paths(parser)
    parser.set_defaults(run=_doctor)


def _doctor(arguments: argparse.Namespace) -> int:
    from dicomtorch.reports.doctor import examine, format_report, to_json

    index, report = open_source(arguments, arguments.root)
    found = examine(index, report)
    if arguments.json:
        print(json.dumps(to_json(found, index, redact_paths=arguments.redact_paths), indent=2))
    else:
        print(format_report(found, index, redact_paths=arguments.redact_paths, page=page()))
    bad = ("problem", "warning") if arguments.strict else ("problem",)
    return report_code(index, report, found.worst in bad)


def _add_verify(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = new_command(
        commands,
        "verify",
        "Decode every frame once, or with two decoders that are compared, and list what fails or differs.",
        "  dicomtorch verify studies/\n"
        "  dicomtorch verify studies/ --backend imagecodecs --against pydicom\n"
        "  dicomtorch verify studies/ --state verify.state     # interrupted? the same line goes on\n"
        "  dicomtorch verify studies/ --quarantine damaged.json\n",
        found="some frame fails or differs, or a file is damaged",
    )
    add_root(parser)
    parser.add_argument(
        "--backend", default="auto", metavar="NAME", help="what decodes; default: %(default)s"
    )
    parser.add_argument("--against", metavar="NAME", help="a second decoder, to compare with")
    parser.add_argument(
        "--tolerance",
        type=whole_number,
        default=2,
        metavar="N",
        help="difference that lossy streams and converted colour may have; lossless ones may have none; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="note there what is done (no paths, no identifiers), and do only the rest, what failed, and what changed",
    )
    parser.add_argument(
        "--quarantine",
        type=Path,
        metavar="FILE",
        help="write there which frames to leave out, for DicomFrames(root, exclude=FILE)",
    )
    parser.add_argument(
        "--no-isolation",
        action="store_true",
        help="decode in this process: a little faster, but a stream that ends or hangs a decoder ends or hangs verify",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with every frame found")
    add_redact_paths(parser)
    parser.set_defaults(run=_verify)


def _verify(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dicomtorch.index.quarantine import write_quarantine
    from dicomtorch.reports.verify import DEFAULT_ISOLATION, Verification
    from dicomtorch.reports.verify_result import format_result, to_json

    index = open_frames(arguments, arguments.root)
    verification = Verification(
        index,
        backend=arguments.backend,
        against=arguments.against,
        tolerance=arguments.tolerance,
        state=arguments.state,
        isolation=None if arguments.no_isolation else DEFAULT_ISOLATION,
    )
    with tqdm(total=len(index), desc="verify", unit="frame", disable=None, leave=False) as bar:
        for frames in verification:
            bar.update(frames)
    result = verification.result
    if arguments.quarantine is not None:
        redact = arguments.redact_paths
        write_quarantine(arguments.quarantine, index, result.quarantined(), redact_paths=redact)
    if arguments.json:
        print(json.dumps(to_json(result, index, redact_paths=arguments.redact_paths), indent=2))
    else:
        print(format_result(result, index, redact_paths=arguments.redact_paths, page=page()))
    return EXIT_OK if result.ok else EXIT_FOUND_PROBLEMS


def _add_preview(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = new_command(
        commands,
        "preview",
        "Draw frames of all series as training sees them, and a histogram of their values, in one picture.",
        "  dicomtorch preview studies/ -o studies.png\n"
        "  dicomtorch preview ct/ --window 40 400 -o soft-tissue.png\n"
        "  dicomtorch preview ct/ --values modality --frames 64 -o hounsfield.png\n"
        "  dicomtorch preview ct/ --masks -o masks.png\n",
        found="some of the frames chosen cannot be read; the others are drawn",
    )
    add_root(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("preview.png"),
        metavar="PNG",
        help="default: %(default)s; below each frame: its position (frames[17]), modality, rows x columns",
    )
    parser.add_argument(
        "--frames",
        type=positive_number,
        default=32,
        metavar="N",
        help="at most; default: %(default)s",
    )
    parser.add_argument(
        "--values",
        choices=("display", "modality", "stored"),
        default="display",
        help="as in DicomFrames(values=...); default: %(default)s",
    )
    parser.add_argument(
        "--masks", action="store_true", help="draw the labels of SEG and RTSTRUCT beside the images"
    )
    add_window(parser)
    add_redact_paths(parser)
    parser.set_defaults(run=_preview)


def _preview(arguments: argparse.Namespace) -> int:
    from dicomtorch.model.options import PixelOptions
    from dicomtorch.reports.checks import burned_in
    from dicomtorch.reports.page import harmless
    from dicomtorch.reports.preview import masks_to_look_at, write_preview
    from dicomtorch.reports.text import format_name, name_file

    window = arguments.window and tuple(arguments.window)
    options = PixelOptions(values=arguments.values, window=window)
    index, masks = open_frames(arguments, arguments.root), None
    if arguments.masks:
        index, masks = masks_to_look_at(index)
    drawn = write_preview(
        index, arguments.output, count=arguments.frames, options=options, masks=masks
    )
    output = "the picture" if arguments.redact_paths else arguments.output
    print(
        f"Wrote {output}: {len(drawn.positions)} of {len(index):,} frames, {arguments.values} values."
    )
    for position, reason in drawn.failures:
        where = index.locate([position])[0].file
        name = format_name(name_file(index, where, redact_paths=arguments.redact_paths))
        print(f"Not in it: {name}, index {position}: {harmless(reason)}")
    for remark in burned_in(index.select(drawn.positions)):
        print(f"Warning: {remark.text}; look before you pass the picture on.")
    return EXIT_FOUND_PROBLEMS if drawn.failures else EXIT_OK


def _add_show(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = new_command(
        commands,
        "show",
        "Show frames as training sees them: a slider and the mouse wheel go through them.",
        "  dicomtorch show studies/                          # all frames\n"
        "  dicomtorch show image.dcm 17                      # one frame\n"
        "  dicomtorch show ct/ --window 40 400 --output ct.png\n",
    )
    parser.add_argument(
        "path", type=source_path, help="a folder, a file, an address, or a saved index"
    )
    add_storage_options(parser)
    parser.add_argument(
        "frame", nargs="?", type=int, help="position in the index; all frames if left out"
    )
    add_window(parser)
    parser.add_argument(
        "--output", type=Path, metavar="PNG", help="write a picture instead of opening a window"
    )
    parser.set_defaults(run=_show)


def _show(arguments: argparse.Namespace) -> int:
    from dicomtorch.datasets.frames import DicomFrames
    from dicomtorch.pictures import plot

    pyplot = _pyplot()
    frames = DicomFrames(
        open_frames(arguments, [arguments.path]),
        window=arguments.window and tuple(arguments.window),
    )
    figure = frames.show(arguments.frame)
    if arguments.output is not None:
        plot.write(arguments.output, lambda file, kind: figure.savefig(file, format=kind))
    elif not plot.is_interactive(figure):
        raise OptionError(
            f"matplotlib's backend {pyplot.get_backend()!r} opens no window here; write a picture with "
            f"--output FILE.png, or name another backend in MPLBACKEND"
        )
    else:
        pyplot.show()
    return EXIT_OK


def _pyplot() -> ModuleType:
    """Matplotlib with the backend that MPLBACKEND or a setting names, which may need another package."""
    pyplot = import_optional("matplotlib.pyplot", "view")
    try:
        pyplot.switch_backend(pyplot.get_backend())
    except (ImportError, RuntimeError) as error:
        raise OptionError(
            f"matplotlib's backend {pyplot.get_backend()!r} cannot be used here ({error}); install what it needs, name "
            f"another one in MPLBACKEND, or write a picture with --output FILE.png"
        ) from error
    return pyplot


def _add_bench(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = new_command(
        commands,
        "bench",
        "Measure how fast these files load here: each backend, number of workers and of threads, and which is best.",
        "  dicomtorch bench studies/\n"
        "  dicomtorch bench studies/ --size 224 224 --batch-size 64\n"
        "  dicomtorch bench studies/ --counts 4 8 16 --seconds 300\n",
        found="some frames of the sample cannot be read; the others are measured",
    )
    add_root(parser)
    parser.add_argument(
        "--batch-size", type=positive_number, default=32, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=positive_number,
        metavar=("H", "W"),
        help="resize, as DicomFrames(size=) does; left out, frames of the most frequent size are measured",
    )
    parser.add_argument(
        "--counts",
        nargs="+",
        type=positive_number,
        metavar="N",
        help="numbers of workers and threads; default: 1, 2, 4, ... up to the cores",
    )
    parser.add_argument(
        "--seconds",
        type=positive_number,
        default=60,
        metavar="N",
        help="what it may take, about; default: %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with every repeat")
    parser.set_defaults(run=_bench)


def _bench(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dicomtorch.reports.bench import REPEATS, format_result, measure, to_json

    index = open_frames(arguments, arguments.root)
    rounds = measure(
        index,
        batch_size=arguments.batch_size,
        size=arguments.size and tuple(arguments.size),
        counts=arguments.counts,
        seconds=arguments.seconds,
    )
    for result in tqdm(rounds, "bench", REPEATS + 1, unit="round", disable=None, leave=False):
        last = result
    print(json.dumps(to_json(last), indent=2) if arguments.json else format_result(last, page()))
    return EXIT_FOUND_PROBLEMS if last.failed else EXIT_OK


def _add_demo(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = new_command(
        commands,
        "demo",
        "Index the files that come with pydicom, load one epoch, write a contact sheet.",
        "  dicomtorch demo\n  dicomtorch demo --output /tmp/demo --workers 4\n",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("out"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--workers",
        type=whole_number,
        default=2,
        metavar="N",
        help="DataLoader workers; default: %(default)s",
    )
    parser.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> int:
    from dicomtorch.cli.demo import run

    for line in run(arguments.output, num_workers=arguments.workers, page=page()):
        print(f"{line}\n", flush=True)
    return EXIT_OK


def add_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Adds every command, in the order in which `--help` lists them."""
    add_scan(commands)
    add_merge(commands)
    _add_info(commands)
    _add_doctor(commands)
    add_series(commands)
    _add_verify(commands)
    add_purge(commands)
    _add_preview(commands)
    _add_show(commands)
    add_view(commands)
    _add_bench(commands)
    _add_demo(commands)
