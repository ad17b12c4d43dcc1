"""Pages in headless Chromium, at the width of a desktop and of a phone: answers, errors, keyboard, nothing let out."""

import base64
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import BIRDS
from pages import CHROMIUM, NODE_MODULES, needs_packages, serve
from PIL import Image

from kzoo.edge import LiteRTModel, read_card
from kzoo.images import Pixels, read_picture
from kzoo.page import write_page
from kzoo.page.runtime import CORE
from kzoo.predict.classifier import open_classifier, open_model
from kzoo.predict.segmenter import as_segmenter, class_areas

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [needs_packages, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]

DESKTOP = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True}
READY = "main:not([hidden]), #error:not([hidden])"
NO_ADAPTER = ("No available adapters.", "Failed to create default WebGPU device")  # of a machine without graphics
OWN_READING = ("Canvas2D: Multiple readback operations",)  # of the tests


class Sites(dict):
    """Folders of pages by what their files give, with two examples and LiteRT.js, each made when it is asked for."""

    def __init__(self, folder: Path, files: dict[str, Path], examples: list[Path]):
        super().__init__()
        self.folder, self.files, self.examples = folder, files, examples

    def __missing__(self, kind: str) -> Path:
        self[kind] = self.folder / kind
        write_page(self.files[kind], self[kind], runtime=NODE_MODULES / CORE, examples=self.examples)
        return self[kind]


@pytest.fixture(scope="module")
def sites(files, pictures, tmp_path_factory) -> Sites:
    return Sites(tmp_path_factory.mktemp("sites"), files, [pictures["photo.jpg"], pictures["turned6.jpg"]])


@pytest.fixture(scope="module")
def browse() -> Iterator:
    """Opens an address in a window of its own, with what it told the console and which addresses it asked for."""
    with playwright.sync_playwright() as tools:
        browsers = {}

        def open_page(address: str, *flags: str, before=None, **options):
            if flags not in browsers:
                arguments = ["--no-sandbox", *flags]
                browsers[flags] = tools.chromium.launch(executable_path=CHROMIUM, args=arguments)
            page = browsers[flags].new_context(**{**DESKTOP, **options}).new_page()
            page.told, page.asked = [], []
            page.on("console", lambda line: page.told.append((line.type, line.text)))
            page.on("pageerror", lambda error: page.told.append(("error", str(error))))
            page.on("request", lambda request: page.asked.append(request.url))
            if before is not None:
                before(page)
            page.goto(address)
            page.wait_for_selector(READY)
            return page

        yield open_page
        for browser in browsers.values():
            browser.close()


def give(page, path: Path) -> None:
    """Chooses a picture in the dialog, and waits for the answer."""
    page.evaluate("() => document.getElementById('answer').replaceChildren()")
    page.set_input_files("#file", path)
    page.wait_for_selector("#answer li, #error:not([hidden])")


def answer(page) -> dict[str, float]:
    """Name -> per cent, as they are shown."""
    rows = page.locator("#answer li").all()
    names, numbers = ([row.locator(part).inner_text() for row in rows] for part in ("bdi", ".share"))
    return dict(zip(names, (float(number.removesuffix(" %").removeprefix("< ")) for number in numbers), strict=True))


def mask_of(page) -> np.ndarray:
    """What is drawn over the picture, (height, width, 4)."""
    drawn = page.evaluate("""() => {
        const { width, height } = document.getElementById("mask");
        const context = document.getElementById("mask").getContext("2d");
        return { width, height, data: Array.from(context.getImageData(0, 0, width, height).data) };
    }""")
    return np.array(drawn["data"]).reshape(drawn["height"], drawn["width"], 4)


def check(page) -> str:
    page.click("#check")
    page.wait_for_selector("#checked.agrees, #checked.differs")
    return page.inner_text("#checked")


def assert_quiet(page, address: str) -> None:
    """No error and no warning in the console, but of a lacking graphics card; nothing asked for outside the folder."""
    loud = [(kind, text) for kind, text in page.told if kind not in ("debug", "log", "info")]
    assert [each for each in loud if not each[1].startswith(NO_ADAPTER + OWN_READING)] == []
    assert page.asked
    assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.mark.parametrize("window", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("kind", ["classes", "grey", "bytes"])
def test_classes_are_those_of_python(kind, window, browse, sites, files, pictures):
    classifier = open_classifier(str(files[kind]))
    with serve(sites[kind]) as address:
        page = browse(address, **window)
        for name in ("photo.png", "grey.jpg", "turned6.jpg"):
            give(page, pictures[name])
            probabilities = classifier.predict(classifier.pixels.read(pictures[name], classifier.input_shape)[None])[0]
            expected = {each["class"]: 100 * each["probability"] for each in classifier.top(probabilities, 5)}
            found = answer(page)
            assert list(found) == list(expected), name
            assert found == pytest.approx(expected, abs=0.011 if name.endswith("png") else 0.5), name
        told = check(page)
        assert told.startswith("Agrees with Python on 2 pictures: pixels differ by at most 0 of 255")
        assert "the best class is the same in 100.0 %" in told
        assert re.fullmatch(r"[\d.]+ ms, median of 3 runs", page.inner_text("#latency"))
        assert page.inner_text("#backend") == "WebAssembly, 1 thread"
        assert_quiet(page, address)


@pytest.mark.parametrize("window", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_maps_are_those_of_python(window, browse, sites, files, pictures):
    segmenter = as_segmenter(open_model(str(files["map"])))
    mask = segmenter.segment(read_picture(pictures["photo.png"], 3))
    expected = {
        each["class"]: 100 * each["share"] for each in class_areas(mask, segmenter.class_names) if each["share"]
    }
    colours = np.array(json.loads((sites["map"] / "page.json").read_text())["colours"])
    with serve(sites["map"]) as address:
        page = browse(address, **window)
        give(page, pictures["photo.png"])
        assert answer(page) == pytest.approx(expected, abs=0.1)
        assert (mask_of(page)[..., :3] == colours[mask]).all(axis=-1).mean() > 0.995
        page.fill("#opacity", "20")
        assert page.evaluate("() => document.getElementById('mask').style.opacity") == "0.2"
        assert check(page).startswith("Agrees with Python on 2 pictures: pixels differ by at most 0 of 255")
        page.locator("#examples button").nth(1).click()
        page.wait_for_timeout(500)
        assert page.evaluate("() => document.getElementById('picture').height") == 130
        assert_quiet(page, address)


def test_a_heat_map_lies_where_the_model_looks(browse, sites, files, pictures):
    lite, card = LiteRTModel(files["heat"]), read_card(files["heat"])
    pixels = card.pixels.read(pictures["photo.png"], (29, 37, 3))
    outputs = {name: output[0] for name, output in lite.predict_each(pixels[None]).items()}
    best = int(outputs["answer"].argmax())
    plane = Image.fromarray(np.maximum(outputs["heatmap"][..., best], 0).astype("float32"))
    with serve(sites["heat"]) as address:
        page = browse(address)
        give(page, pictures["photo.png"])
        assert next(iter(answer(page))) == BIRDS[best]
        assert page.locator("#heat option").all_inner_texts() == list(answer(page))
        shown = mask_of(page)
        wide, high = 130 * 37 / 47, 90 * 29 / 33  # it sees 37 × 29 of the picture at 47 × 33
        width, height = round(wide), round(high)
        left, top = round((130 - wide) / 2), round((90 - high) / 2)
        around = shown.copy()
        around[top : top + height, left : left + width] = (0, 0, 0, 255)
        assert (around == (0, 0, 0, 255)).all()
        large = plane.resize((37, 29), Image.Resampling.BILINEAR).resize((width, height), Image.Resampling.BILINEAR)
        expected = np.asarray(large) / np.asarray(large).max()
        found = shown[top : top + height, left : left + width, :3].sum(axis=-1) / 765
        assert np.abs(found - expected).max() < 0.01
        page.select_option("#heat", index=1)
        assert (mask_of(page) != shown).any()
        assert re.search(r"; heat maps differ by at most \d\.\d+e-\d of their highest\.$", check(page))
        assert_quiet(page, address)


def test_pictures_of_every_kind_become_the_pixels_of_python(browse, sites, pictures):
    folder, shape = sites["classes"], (61, 47, 3)
    pixels = Pixels("pad", interpolation="bicubic")
    for name, path in pictures.items():
        (folder / name).write_bytes(path.read_bytes())
    with serve(folder) as address:
        page = browse(address)
        for name, path in pictures.items():
            found = page.evaluate(
                """async ([name, shape, pixels]) => {
                    const { decode, readPixels, toPixels } = await import("./kzoo.js");
                    const bitmap = await decode(await (await fetch(name)).blob(), name);
                    return Array.from(toPixels(readPixels(bitmap, bitmap.width, bitmap.height), shape, pixels));
                }""",
                [name, shape, pixels.to_json()],
            )
            difference = np.abs(np.array(found).reshape(shape) - pixels.read(path, shape).astype(int))
            assert difference.max() <= 1, name
    for name in pictures:
        (folder / name).unlink()


def test_a_check_that_fails_is_told(browse, sites, tmp_path):
    told = json.loads((sites["classes"] / "page.json").read_text())
    told["examples"][0]["probabilities"][2] += 0.25
    with serve(sites["classes"]) as address:
        page = browse(address, before=lambda page: page.route("**/page.json", lambda route: route.fulfill(json=told)))
        assert re.match("Differs from Python on 2 pictures: .* probabilities by at most 0.25", check(page))


def drop(page, name: str, content: str, event: str) -> None:
    """Drops or pastes a file into the page."""
    page.evaluate(
        """([name, content, event]) => {
            const data = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
            data.items.add(new File([bytes], name));
            const made = event === "paste" ? new ClipboardEvent(event, { clipboardData: data, bubbles: true })
              : new DragEvent(event, { dataTransfer: data, bubbles: true, cancelable: true });
            document.getElementById("stage").dispatchEvent(made);
        }""",
        [name, content, event],
    )


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(event, browse, sites, pictures):
    with serve(sites["classes"]) as address:
        page = browse(address)
        give(page, pictures["photo.png"])
        expected = answer(page)
        page = browse(address)
        drop(page, "photo.png", base64.b64encode(pictures["photo.png"].read_bytes()).decode(), event)
        page.wait_for_selector("#answer li")
        assert answer(page) == expected
        drop(page, "notes.txt", base64.b64encode(b"no picture").decode(), event)
        page.wait_for_selector("#error:not([hidden])")
        assert page.inner_text("#error").startswith("notes.txt cannot be read as a picture; give a PNG")
        give(page, pictures["photo.png"])
        assert not page.is_visible("#error")


def test_the_camera_answers_until_it_is_stopped(browse, sites):
    flags = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with serve(sites["classes"]) as address:
        page = browse(address, *flags)
        page.click("#camera")
        page.wait_for_selector("#answer li")
        page.wait_for_timeout(500)
        assert page.inner_text("#camera") == "Stop the camera"
        assert page.get_attribute("#camera", "aria-pressed") == "true"
        page.click("#camera")
        assert page.inner_text("#camera") == "Start the camera"
        page.wait_for_timeout(200)
        still = page.inner_text("#latency")
        page.wait_for_timeout(300)
        assert page.inner_text("#latency") == still
        assert_quiet(page, address)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--use-fake-device-for-media-stream",), "The camera was refused. Allow it, or choose a picture."),
        (("--use-fake-ui-for-media-stream",), "The camera was not found. Allow it, or choose a picture."),
    ],
)
def test_a_camera_that_cannot_be_had_is_told(flags, message, browse, sites):
    with serve(sites["classes"]) as address:
        page = browse(address, *flags)
        page.click("#camera")
        page.wait_for_selector("#error:not([hidden])")
        assert page.inner_text("#error") == message


def without(path: str):
    return lambda page: page.route(f"**/{path}", lambda route: route.fulfill(status=404, body="absent"))


FAULTS = {
    "no SIMD": (
        lambda page: page.add_init_script("WebAssembly.validate = () => false"),
        "This browser has no WebAssembly with SIMD; use one of 2023 or later.",
    ),
    "no runtime": (without("core/dist/index.js"), "LiteRT.js is missing or broken in the folder litert."),
    "no WebAssembly": (without("*.wasm"), "LiteRT.js is missing or broken in the folder litert."),
    "no model": (without("model.tflite"), "model.tflite is not in the page's folder"),
    "no card": (without("model.tflite.json"), "model.tflite.json is not in the page's folder"),
    "no page.json": (without("page.json"), "page.json is not in the page's folder"),
    "a broken model": (
        lambda page: page.route("**/model.tflite", lambda route: route.fulfill(body="broken")),
        "LiteRT.js does not run this model",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_what_is_missing_is_told(kind, browse, sites):
    before, message = FAULTS[kind]
    with serve(sites["classes"]) as address:
        page = browse(address, before=before)
        assert page.inner_text("#error").startswith(message)
        assert not page.is_visible("main")


def test_a_page_opened_as_a_file_says_what_to_do(browse, sites):
    page = browse((sites["classes"] / "index.html").as_uri())
    assert page.inner_text("#error").startswith("Opened as a file, a page may not read its model. Start a server")
    assert not page.is_visible("main")


def test_the_keyboard_reaches_everything_in_order(browse, sites, pictures):
    with serve(sites["map"]) as address:
        page = browse(address)
        give(page, pictures["photo.png"])
        reached = []
        for _ in range(6):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate("""() => {
                const { activeElement: at } = document;
                const outlined = getComputedStyle(at).outlineStyle !== "none";
                const name = at.labels?.[0]?.textContent || at.textContent || at.querySelector("img").alt;
                return [name.trim(), outlined];
            }""")
            )
        names = ["Choose a picture", "Start the camera", "Opacity over the picture", "photo", "turned6"]
        assert reached == [[name, True] for name in [*names, "Check against Python"]]


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("kind", ["classes", "map"])
def test_a_page_is_as_wide_as_its_window(kind, width, browse, sites, pictures):
    with serve(sites[kind]) as address:
        page = browse(address, viewport={"width": width, "height": 800})
        give(page, pictures["photo.png"])
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        small = page.evaluate("""() => Array.from(document.querySelectorAll("button, select, input, summary"))
            .filter((each) => each.checkVisibility())
            .filter((each) => each.getBoundingClientRect().height < 44).map((each) => each.id)""")
        assert small == []
        assert page.evaluate("() => document.querySelectorAll('b').length") == 0  # names of classes are no HTML


def test_a_screen_reader_hears_the_answer_and_its_errors(browse, sites, pictures):
    with serve(sites["classes"]) as address:
        page = browse(address)
        assert page.get_attribute("#said", "aria-live") == "polite"
        assert page.get_attribute("#error", "role") == "alert"
        give(page, pictures["photo.png"])
        best, share = next(iter(answer(page).items()))
        assert page.inner_text("#said") == f"{best}, {share:.2f} %"
        levels = page.evaluate("""() => Array.from(document.querySelectorAll("h1, h2, h3"))
            .filter((each) => each.checkVisibility()).map((each) => +each.tagName[1])""")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_threads_and_graphics_answer_alike(browse, sites, files, pictures):
    headers = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
    with serve(sites["classes"], headers) as address:
        page = browse(address)
        assert re.fullmatch(r"WebAssembly, \d+ threads", page.inner_text("#backend"))
        assert check(page).startswith("Agrees with Python")
        assert_quiet(page, address)
    software = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
    with serve(sites["classes"]) as address:
        page = browse(address, *software)
        if page.inner_text("#backend") != "WebGPU":
            pytest.skip("this Chromium has no graphics in software")
        assert check(page).startswith("Agrees with Python")
        page.select_option("#device", "wasm")
        page.wait_for_selector("text=WebAssembly, 1 thread")
        assert check(page).startswith("Agrees with Python")
        assert_quiet(page, address)
