"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dicomtorch import DicomFrames, DicomTorchError, DicomVolumes, FrameLoader, view
from tests.support.phantoms import ct, ct_pixels, image, lut, write, write_series
from tests.support.requirements import browser, require, samples_folder
from tests.support.viewing import phantom, token_of

pytestmark = pytest.mark.timeout(300)

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
VIEWER = "document.getElementById('dicomtorch-viewer').viewer"


@pytest.fixture(scope="module")
def launch():
    """Starts browsers with further flags."""
    require("browser")
    require("starlette")
    from playwright.sync_api import sync_playwright

    with contextlib.ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())

        def launched(*more: str) -> Any:
            made = playwright.chromium.launch(executable_path=browser(), args=[*FLAGS, *more])
            stack.callback(made.close)
            return made

        yield launched


@pytest.fixture(scope="module")
def chromium(launch):
    return launch()


class Page:
    """The page of one viewer, with all that it asked for and complained of."""

    def __init__(self, page: Any, viewing: Any) -> None:
        self.page, self.viewing = page, viewing
        self.hosts: set[str] = set()
        self.complaints: list[str] = []
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2]))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._said)
        page.goto(viewing.url)
        self.until(f"{VIEWER}?.summary")
        self.settled()

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def js(self, expression: str) -> Any:
        return self.page.evaluate(expression)

    def until(self, expression: str, seconds: float = 30) -> None:
        for _ in range(int(seconds / 0.05)):
            if self.js(f"!!({expression})"):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"{expression} did not come true")

    def settled(self) -> None:
        """Waits until what is asked for is there and drawn."""
        self.until(
            f"{VIEWER}.summary.loader && {VIEWER}.ui.panes.hidden || !{VIEWER}.store.wished.size && !{VIEWER}.pending"
            f" && !document.querySelector('.dtv-waits:not([hidden])')"
        )
        self.page.wait_for_timeout(150)
        self.until(f"!{VIEWER}.store.wished.size")

    def keys(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settled()

    @property
    def k(self) -> int:
        return int(self.js(f"{VIEWER}.k"))

    def pixels(self, pane: str = "source") -> np.ndarray[Any, Any]:
        """The gray values of the scratch canvas of a pane: the image before it is scaled."""
        width, height, data = self.js(
            f"(() => {{ const s = {VIEWER}.{pane}.scratch; return [s.width, s.height, "
            f"btoa(Array.from(s.pixels.data, (v) => String.fromCharCode(v)).join(''))]; }})()"
        )
        flat = np.frombuffer(base64.b64decode(data), np.uint8)
        return flat.reshape(height, width, 4)[..., :3].astype(np.int16)


@pytest.fixture
def opened(chromium):
    """Opens viewers; at the end nothing was asked elsewhere and nothing was complained of."""
    pages: list[Page] = []
    with contextlib.ExitStack() as stack:

        def made(given: Any, size: tuple[int, int] = (1280, 800), **options: Any) -> Page:
            viewing = stack.enter_context(view(given, browser=False))
            context = chromium.new_context(
                viewport={"width": size[0], "height": size[1]}, **options
            )
            stack.callback(context.close)
            pages.append(Page(context.new_page(), viewing))
            return pages[-1]

        yield made
        for page in pages:
            assert page.complaints == []
            assert page.hosts == {f"127.0.0.1:{page.viewing.port}"}


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    write_series(folder, 70)
    for k in range(3):
        write(
            ct(ct_pixels(100 + k), 100 + k, SeriesInstanceUID="1.2.3", Modality="MR"),
            folder / f"z{k}.dcm",
        )
    return folder


def test_the_token_leaves_the_address_bar(opened, series):
    page = opened(DicomFrames(series))
    assert "token" not in page.page.url
    assert page.js("location.hash") == ""
    assert token_of(page.viewing.url)[1] not in page.page.content()


def test_sixty_steps_of_the_wheel_show_sixty_frames(opened, series):
    frames = DicomFrames(series)
    page = opened(frames)
    page.page.mouse.move(400, 400)
    for _ in range(60):
        page.page.mouse.wheel(0, 120)
        page.page.wait_for_timeout(15)
    page.settled()
    assert page.k == 60
    assert page.page.locator(".dtv-controls output").text_content() == "61 / 70"
    expected = np.rint(frames[60][0][0].numpy() * 255)
    for pane in ("source", "training"):
        assert np.abs(page.pixels(pane)[..., 0] - expected).max() <= 1
    page.page.keyboard.down("Shift")
    page.page.mouse.wheel(0, -120)
    page.page.keyboard.up("Shift")
    page.settled()
    assert page.k == 50


def test_keys_go_through_frames_and_series(opened, series):
    page = opened(DicomFrames(series))
    page.keys("ArrowDown", "ArrowDown", "ArrowUp")
    assert page.k == 1
    page.keys("End")
    assert page.k == 69
    page.keys("Shift+ArrowUp")
    assert page.k == 59
    page.keys("Home")
    assert page.k == 0
    page.keys("PageDown")
    assert "MR" in str(page.page.locator(".dtv-source .dtv-caption").text_content())
    page.keys("PageUp")
    assert "CT" in str(page.page.locator(".dtv-source .dtv-caption").text_content())
    for mode in ("training", "source", "both"):
        page.keys("t")
        assert page.js(f"{VIEWER}.mode") == mode
    page.keys("/")
    assert page.js("document.activeElement.type") == "search"
    page.page.keyboard.type("n")  # letters are no commands while something is typed
    assert page.js(f"{VIEWER}.draw") == 0


def test_a_drag_and_presets_set_the_window(opened, series):
    page = opened(DicomFrames(series))
    before = page.js(f"{VIEWER}.current")
    assert before == [40, 400]
    page.page.mouse.move(400, 400)
    page.page.mouse.down()
    page.page.mouse.move(440, 380, steps=8)
    page.page.mouse.up()
    page.settled()
    center, width = page.js(f"{VIEWER}.current")
    assert width > 400, "to the right is wider"
    assert center < 40, "down is higher"
    frames = DicomFrames(series, window=(center, width))
    assert np.abs(page.pixels()[..., 0] - frames[0][0][0].numpy() * 255).max() <= 1
    page.keys("2")
    lung = DicomFrames(series, window="lung")
    assert page.js(f"{VIEWER}.current") == [-600, 1500]
    assert np.abs(page.pixels()[..., 0] - lung[0][0][0].numpy() * 255).max() <= 1
    page.keys("i")
    assert np.abs(255 - page.pixels()[..., 0] - lung[0][0][0].numpy() * 255).max() <= 1
    page.keys("Escape")
    assert page.js(f"[{VIEWER}.window, {VIEWER}.inverts]") == [None, False]
    page.page.get_by_label("Window width").fill("100")
    page.page.get_by_label("Window width").press("Enter")
    assert page.js(f"{VIEWER}.current") == [40, 100]


def kinds(folder: Path) -> list[Path]:
    """A file of every kind of way to display values."""
    pixels = ct_pixels(3)
    pixels[:4] = -5
    voi = [lut([4096, 64512, 12], [min(4095, k * k // 4096) for k in range(4096)])]
    rescaling = [lut([4096, 64512, 16], [k // 3 for k in range(4096)])]
    more: dict[str, dict[str, Any]] = {
        "signed": {},
        "rescaled": {"RescaleSlope": 2.5, "RescaleIntercept": -300},
        "inverted": {"PhotometricInterpretation": "MONOCHROME1"},
        "sigmoid": {"VOILUTFunction": "SIGMOID"},
        "exact": {"VOILUTFunction": "LINEAR_EXACT"},
        "step": {"WindowWidth": 1},
        "padded": {"PixelPaddingValue": -5},
        "range": {"WindowWidth": 0},
        "lut": {"VOILUTSequence": voi},
        "modality": {"ModalityLUTSequence": rescaling},
    }
    paths: list[Path] = []
    for name, attributes in more.items():
        made = ct(pixels, len(paths), SeriesInstanceUID=f"1.2.{len(paths)}", **attributes)
        if name == "modality":
            del made.RescaleSlope, made.RescaleIntercept
        paths.append(write(made, folder / f"{name}.dcm"))
    colour = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    rgb = image(
        colour[..., 0],
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        PixelData=colour.tobytes(),
    )
    paths.append(write(rgb, folder / "rgb.dcm"))
    tables: dict[str, Any] = {}
    for k, name in enumerate(("Red", "Green", "Blue")):
        entries = np.random.default_rng(k).integers(0, 65536, 256).astype("<u2")
        tables[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
    tables["PhotometricInterpretation"] = "PALETTE COLOR"
    paths.append(write(image(colour[..., 1], **tables), folder / "palette.dcm"))
    floats = np.random.default_rng(1).normal(0, 40, (24, 32)).astype(np.float32)
    paths.append(write(image(floats), folder / "float.dcm"))
    return paths


def compare(page: Page, frames: DicomFrames) -> int:
    """Goes to each frame of its series and compares what is drawn with display values."""
    compared = 0
    for i in range(len(frames)):
        page.js(
            f"(async () => {{ const {{info}} = await {VIEWER}.store.get('places/{i}'); "
            f"await {VIEWER}.open(info.number, info.item); }})()"
        )
        page.settled()
        assert page.js(f"{VIEWER}.position") == i
        expected = np.moveaxis(frames[i][0].numpy(), 0, -1) * 255
        drawn = page.pixels()[..., : expected.shape[-1]]
        if drawn.shape == expected.shape:
            assert np.abs(drawn - expected).max() <= 1.01, i
            compared += 1
    return compared


def test_the_page_shows_display_values_of_every_kind(opened, tmp_path):
    paths = kinds(tmp_path)
    frames = DicomFrames(tmp_path)
    assert compare(opened(frames), frames) == len(paths)


def test_the_page_shows_display_values_of_samples(opened):
    require("samples")
    folder = samples_folder()
    assert folder is not None
    whole = DicomFrames(folder, on_error="replace").index
    small = (
        (whole.column("Rows") <= 512)
        & (whole.column("Rows") >= 64)
        & (whole.column("Columns") <= 600)
    )
    chosen: list[int] = []
    for photometric in ("MONOCHROME1", "RGB", "YBR_FULL", "PALETTE COLOR", "MONOCHROME2"):
        fit = np.flatnonzero(small & whole.where(PhotometricInterpretation=photometric))
        _, first = np.unique(np.asarray(whole.column("frame_values"))[fit], return_index=True)
        readable = 0
        for position in fit[first].tolist():
            with contextlib.suppress(DicomTorchError):
                values = DicomFrames(whole.select([position]))[0][0]
                if readable < 8 and 0 <= float(values.min()) <= float(values.max()) <= 1:
                    chosen.append(position)
                    readable += 1
    assert len(chosen) >= 20
    frames = DicomFrames(whole.select(chosen))
    assert compare(opened(frames), frames) >= 20


def test_random_transforms_are_drawn_again(opened, series):
    def shifted(image: torch.Tensor) -> torch.Tensor:
        return torch.roll(image, int(torch.randint(1, 30, ())), -1)

    state = torch.get_rng_state()
    page = opened(DicomFrames(series, transform=shifted))
    first = page.pixels("training")
    seen = {first.tobytes()}
    for _ in range(4):
        page.keys("n")
        seen.add(page.pixels("training").tobytes())
    assert len(seen) > 2
    page.keys("Shift+N")
    assert page.page.locator(".dtv-strip button canvas").count() == 8
    page.page.locator(".dtv-strip button").nth(3).click()
    page.settled()
    assert page.js(f"{VIEWER}.draw") == 7
    assert torch.equal(torch.get_rng_state(), state)


def test_volumes_have_three_planes_with_one_cursor_and_masks(opened, tmp_path):
    phantom(tmp_path)
    page = opened(DicomVolumes(tmp_path, masks=True, labels=["liver", "kidney"]))
    assert page.page.locator(".dtv-pane:visible").count() == 4
    assert page.js(
        f"[{VIEWER}.training, ...{VIEWER}.planes].map((p) => [p.image.rows, p.image.columns])"
    ) == [[40, 48], [12, 48], [12, 40]]
    assert page.js(f"{VIEWER}.planes[0].image.aspect") == [2, 1]
    labels = page.js(
        f"Array.from({VIEWER}.training.image.labels.array).reduce((a, b) => Math.max(a, b), 0)"
    )
    assert labels in (1, 2)
    box = page.page.locator(".dtv-plane1 canvas").bounding_box()
    page.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2 + 4)
    page.settled()
    assert page.js(f"{VIEWER}.cross[0] === {VIEWER}.k")
    before = page.js(f"{VIEWER}.cross[1]")
    page.page.mouse.wheel(0, 120)
    page.settled()
    assert page.js(f"{VIEWER}.cross[1]") == before + 1
    page.keys("m")
    assert page.page.locator("button:has-text('Masks')").get_attribute("aria-pressed") == "false"
    page.keys("m")
    page.page.get_by_label("Next frame that has kidney").click()
    page.settled()
    assert page.page.locator(".dtv-legend li").count() == 2


def test_a_frame_that_fails_says_why_in_its_place(opened, tmp_path):
    paths = write_series(tmp_path, 3)
    frames = DicomFrames(tmp_path)
    with open(paths[1], "r+b") as file:
        file.truncate(700)
    page = opened(frames)
    page.keys("ArrowDown")
    for pane in ("source", "training"):
        error = page.page.locator(f".dtv-{pane} .dtv-error")
        assert error.is_visible()
        assert "this file" in str(error.text_content())
        assert page.js(f"getComputedStyle({VIEWER}.{pane}.canvas).visibility") == "hidden"
    page.keys("ArrowDown")
    assert page.page.locator(".dtv-error:visible").count() == 0


def test_batches_come_in_the_order_of_the_sampler(opened, series):
    frames = DicomFrames(series)
    loader = FrameLoader(frames, 8, shuffle=True, seed=3)
    page = opened(loader)
    page.until("document.querySelectorAll('.dtv-tiles li').length === 8")
    texts = page.page.locator(".dtv-tiles li span").all_text_contents()
    _, meta = next(iter(loader))
    assert [int(text.split(" ")[0]) for text in texts] == meta["index"].tolist()
    page.page.locator(".dtv-tiles button").nth(2).click()
    page.until(f"!{VIEWER}.ui.panes.hidden && {VIEWER}.position === {int(meta['index'][2])}")


def test_fingers_scroll_and_zoom(opened, series):
    page = opened(DicomFrames(series), (390, 844), has_touch=True, is_mobile=True)
    session = page.page.context.new_cdp_session(page.page)
    box = page.page.locator(".dtv-source canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *points: tuple[float, float]) -> None:
        named = [{"x": a, "y": b, "id": k} for k, (a, b) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": named})

    touch("touchStart", (x, y - 40))
    for dy in range(-40, 60, 20):
        touch("touchMove", (x, y + dy))
    touch("touchEnd")
    page.settled()
    assert page.k == 5
    touch("touchStart", (x - 20, y), (x + 20, y))
    for d in (30, 40, 60):
        touch("touchMove", (x - d, y), (x + d, y))
    touch("touchEnd")
    page.settled()
    assert page.js(f"{VIEWER}.view.zoom") > 2
    assert page.k == 5


@pytest.mark.parametrize("size", [(1280, 800), (640, 400), (390, 844)])
def test_nothing_is_cut_off_at_any_size(opened, series, size):
    """640 x 400 is a window of 1280 x 800 at 200 %."""
    page = opened(DicomFrames(series), size)
    assert page.js("document.documentElement.scrollWidth <= innerWidth")
    for pane in ("source", "training"):
        box = page.page.locator(f".dtv-{pane} canvas").bounding_box()
        assert min(box["width"], box["height"]) > 100
    page.page.set_viewport_size({"width": 900, "height": 600})
    page.settled()
    width = page.js(
        f"{VIEWER}.source.canvas.width / {VIEWER}.source.frame.getBoundingClientRect().width"
    )
    assert width == pytest.approx(1, abs=0.02)


def test_a_frame_larger_than_what_is_sent_shows_all_its_pixels_when_enlarged(opened, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4200, 4000), np.uint8)
    write(image(pixels, Modality="DX"), tmp_path / "0.dcm")
    page = opened(DicomFrames(tmp_path, size=(256, 256)))
    assert page.js(f"{VIEWER}.shown.entry.info.step") == 2
    page.js(f"{VIEWER}.zoom(16)")
    page.until(f"{VIEWER}.source.image.detail && !{VIEWER}.moving")
    detail = page.js(
        f"(() => {{ const d = {VIEWER}.detail; return [d.top, d.left, d.found.info.shape]; }})()"
    )
    (top, left, shape) = detail
    found = np.frombuffer(
        base64.b64decode(
            page.js(
                f"btoa(Array.from({VIEWER}.detail.found.array, (v) => String.fromCharCode(v)).join(''))"
            )
        ),
        np.uint8,
    ).reshape(shape)
    assert np.array_equal(found, pixels[top : top + shape[0], left : left + shape[1]])


def test_a_notebook_gets_the_same_through_messages(opened, series):
    frames = DicomFrames(series)
    page = opened(frames)
    token = token_of(page.viewing.url)[1]
    page.page.evaluate(
        """async (token) => {
          const module = await import("/viewer.js");
          const transport = module.fetchTransport(token), listeners = [];
          const model = { on: (_, listen) => listeners.push(listen), send: async ({ id, path }) => {
            const { status, info, data } = await transport.get(path);
            const buffers = data ? [new DataView(data)] : [];
            listeners.forEach((listen) => listen({ id, status, info }, buffers));
          } };
          const cell = document.createElement("div");
          document.body.append(cell);
          window.ended = module.default.render({ model, el: cell });
          window.cell = cell.querySelector(".dtv-notebook").viewer;
        }""",
        token,
    )
    page.until("window.cell?.source?.image && !window.cell.store.wished.size")
    page.js("window.cell.go(7)")
    page.until(
        "window.cell.shown?.entry.info.rows && !window.cell.store.wished.size && !window.cell.pending"
    )
    expected = frames[page.js("window.cell.position")][0][0].numpy() * 255
    drawn = page.js("Array.from(window.cell.source.scratch.pixels.data)")
    gray = np.array(drawn, np.uint8).reshape(*expected.shape, 4)[..., 0].astype(float)
    assert np.abs(gray - expected).max() <= 1
    page.js("window.ended()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_accessible(opened, tmp_path, scheme, size):
    require("axe_playwright_python")
    from axe_playwright_python.sync_playwright import Axe

    phantom(tmp_path)
    page = opened(
        DicomFrames(tmp_path, masks=True, labels=["liver", "kidney"]),
        size,
        color_scheme=scheme,
        bypass_csp=True,
    )
    for button in ("List", "Details"):
        found = page.page.get_by_role("button", name=button, exact=True)
        if found.get_attribute("aria-pressed") == "false":
            found.click()
    page.settled()
    violations = Axe().run(page.page).response["violations"]
    bad = [one for one in violations if one["impact"] in ("serious", "critical")]
    assert bad == [], json.dumps(bad, indent=1)[:3000]


def test_targets_are_large_enough_and_everything_can_be_reached(opened, series):
    page = opened(DicomFrames(series))
    small = page.js(
        "[...document.querySelectorAll('.dtv button, .dtv select, .dtv input')].filter((e) => e.offsetParent)"
        ".map((e) => [e.title || e.ariaLabel || e.type, e.getBoundingClientRect()])"
        ".filter(([, box]) => box.width < 16 || box.height < 16).map(([name]) => name)"
    )
    assert small == []
    unnamed = page.js(
        "[...document.querySelectorAll('.dtv button, .dtv select, .dtv input')].filter((e) => e.offsetParent)"
        ".filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert unnamed == []


def test_cine_stops_and_can_be_slowed(opened, series):
    page = opened(DicomFrames(series))
    page.page.keyboard.press("c")
    page.until(f"{VIEWER}.k > 3")
    page.page.keyboard.press("c")
    page.settled()
    stopped = page.k
    page.page.wait_for_timeout(400)
    assert page.k == stopped


def test_cine_has_the_rate_of_the_file_and_respects_reduced_motion(opened, tmp_path):
    pixels = np.stack([ct_pixels(k) for k in range(40)])
    write(ct(pixels, 0, Modality="XA", FrameTime=50), tmp_path / "0.dcm")
    page = opened(DicomFrames(tmp_path), reduced_motion="reduce")
    page.until(f"{VIEWER}.ui.rate.value === '20'")
    page.page.keyboard.press("c")
    page.page.wait_for_timeout(2000)
    page.page.keyboard.press("c")
    assert page.k <= 5, "two frames a second at most"


def test_markup_in_labels_and_names_of_series_stays_text(opened, tmp_path):
    evil = "<img src=x onerror=document.title='hit'>"
    write_series(tmp_path / evil.replace("/", ""), 2)
    frames = DicomFrames(tmp_path)
    uids = list(frames.index.column("SOPInstanceUID"))
    labels = {
        "SOPInstanceUID": uids,
        "label": [evil, "</script><script>document.title='hit'</script>"],
    }
    page = opened(DicomFrames(frames.index.join(labels)))
    page.keys("ArrowDown", "ArrowUp")
    page.until("document.querySelector('.dtv-strong td')")
    assert page.page.locator(".dtv-strong td").first.text_content() == evil
    assert page.page.title() == "dicomtorch view"
    assert page.page.locator(".dtv img").count() == 0


def test_the_filter_box_says_what_it_leaves(opened, series):
    page = opened(DicomFrames(series))
    box = page.page.get_by_label("Filter by columns of the index")
    box.fill("Modality=MR")
    box.press("Enter")
    page.settled()
    assert page.page.locator(".dtv-said").text_content() == "3 frames in 1 series"
    assert page.page.locator("nav li").count() == 1
    box.fill("Modalty=MR")
    box.press("Enter")
    page.settled()
    assert "no column" in str(page.page.locator(".dtv-said").text_content())


def test_a_page_of_another_name_gets_nothing(launch, series):
    """DNS rebinding: evil.test leads to the loopback, as its owner can arrange."""
    with view(DicomFrames(series), browser=False) as viewing:
        made = launch("--host-resolver-rules=MAP evil.test 127.0.0.1")
        page = made.new_page()
        reply = page.goto(f"http://evil.test:{viewing.port}/")
        assert reply.status == 421
        reply = page.goto(viewing.url)
        assert reply.status == 200
        page.goto("about:blank")
        stolen = page.evaluate(
            f"fetch('http://127.0.0.1:{viewing.port}/api/summary', {{headers: {{Authorization: 'Bearer x'}}}})"
            ".then((r) => r.status, () => 'refused')"
        )
        assert stolen == "refused"
        made.close()


WITH_STORE = f"""
  const module = await import("/viewer.js"), Store = {VIEWER}.store.constructor;
  const later = (value, time = 300) => new Promise((resolve) => setTimeout(() => resolve(value), time));
  const bytes = (dtype = "u1") => ({{ status: 200, info: {{ dtype }}, data: new ArrayBuffer(1000) }});
"""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        # A message whose answer nobody wants any more is waited for no longer, and its answer is left alone.
        pytest.param(
            """
        const sent = [], listeners = [], control = new AbortController();
        const model = { on: (_, listen) => listeners.push(listen), send: (message) => sent.push(message) };
        const transport = module.messageTransport(model);
        const ended = transport.get("a", control.signal).then(() => "answered", (error) => error.name);
        const other = transport.get("b", new AbortController().signal);
        control.abort();
        const none = transport.get("c", control.signal).then(() => "answered", (error) => error.name);
        for (const { id, path } of sent) listeners[0]({ id, status: 200, info: { path } }, []);
        const soon = [ended, none].map((one) => Promise.race([one, later("waits")]));
        return [...await Promise.all(soon), (await other).info.path, sent.length];
    """,
            ["AbortError", "AbortError", "b", 2],
            id="nobody waits",
        ),
        # A path that was forgotten and asked for again counts once, whichever answer comes first.
        pytest.param(
            """
        const waiting = [], store = new Store({ get: () => new Promise((resolve) => waiting.push(resolve)) });
        const path = "samples/1/training?draw=0", first = store.get(path, true);
        store.forget();
        const second = store.get(path);
        for (const resolve of waiting) { resolve(bytes()); await later(); }
        return [(await first).info.dropped, (await second).status, store.bytes, store.kept.size, store.running];
    """,
            [True, 200, 1000, 1, 0],
            id="asked twice",
        ),
        # What was asked for before all was forgotten is not kept afterwards.
        pytest.param(
            """
        const waiting = [], store = new Store({ get: () => new Promise((resolve) => waiting.push(resolve)) });
        const first = store.get("batches/1");
        store.clear();
        waiting[0](bytes());
        const said = (await Promise.race([first, later({ info: {} })])).info;
        await later();
        return [said.dropped, store.bytes, store.kept.size, store.running];
    """,
            [True, 0, 0, 0],
            id="before all was forgotten",
        ),
        # An answer of a type that no browser has says so, and others come after it.
        pytest.param(
            """
        const store = new Store({ get: async (path) => bytes(path === "odd" ? "f16" : "u1") });
        const odd = await Promise.race([store.get("odd").catch(() => null), later(null)]);
        for (let k = 0; k < 9; k++) await Promise.race([store.get(`even${k}`), later(null)]);
        return [odd && odd.status, odd && odd.info.error.startsWith("The answer"), store.running, store.kept.size];
    """,
            [-1, True, 0, 9],
            id="odd type",
        ),
        # Small pictures of series are not thrown away by each step through frames.
        pytest.param(
            """
        const waiting = [], store = new Store({ get: () => new Promise((resolve) => waiting.push(resolve)) });
        const small = store.get("frames/1/thumb", true), frame = store.get("frames/1/source", true);
        store.forget();
        for (const resolve of waiting) resolve(bytes());
        return [(await small).status, (await frame).info.dropped];
    """,
            [200, True],
            id="small pictures",
        ),
    ],
)
def test_what_is_kept_of_answers(opened, series, code, expected):
    page = opened(DicomFrames(series))
    assert page.js(f"async () => {{{WITH_STORE}{code}}}") == expected


def test_what_was_passed_by_is_no_failure(opened, series):
    page = opened(DicomFrames(series))
    page.js(f"""(async () => {{
      const v = {VIEWER}, running = v.store.running;
      v.store.clear();
      v.store.running = 4; // nothing begins
      const loaded = v.load();
      v.store.forget();
      await loaded;
      window.failed = v.failures.size;
      v.store.running = running;
    }})()""")
    assert page.js("window.failed") == 0


def test_frames_are_there_after_the_order_was_asked_for_anew(opened, series):
    page = opened(FrameLoader(DicomFrames(series), 8, shuffle=True, seed=3))
    page.until("document.querySelectorAll('.dtv-tiles li').length === 8")
    page.js(f"{VIEWER}.showBatches(false)")
    page.until(f"{VIEWER}.store.peek({VIEWER}.sourcePath({VIEWER}.k))")
    page.js(f"{VIEWER}.showBatches(true)")
    page.page.get_by_text("Order anew").click()
    page.until("document.querySelectorAll('.dtv-tiles li').length === 8")
    page.page.wait_for_timeout(300)
    page.js(f"{VIEWER}.showBatches(false)")
    page.until(f"{VIEWER}.store.peek({VIEWER}.sourcePath({VIEWER}.k))", 5)


def test_what_the_page_is_made_of_is_small():
    from dicomtorch.viewer import app

    folder = Path(app.__file__).with_name("static")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 100_000
    for path in folder.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "innerHTML" not in text
