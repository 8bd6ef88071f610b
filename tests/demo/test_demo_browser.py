"""The demo in a real browser: what a visitor does, at the widths of a desktop and of a phone.

Needs gradio, selenium, Chromium and its driver, and skips without them:
`pip install "enclap-hf[demo]" selenium`, `apt-get install chromium chromium-driver`.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
SOUNDS = ROOT / "examples/sounds"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MISSING = [name for name in ("gradio", "selenium") if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["chromium"]
MISSING += [] if shutil.which("chromedriver") else ["chromedriver"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}; see the top of this file"),
]
DESKTOP, PHONE = (1280, 900), (390, 844)
# A page and a caption take a second; on a machine busy with other tests, many.
PATIENCE_S = 180
LONG_S = 23.5
# What the page's player shows: its clock, what its button would do, and which captions are marked.
PLAYER = """return [document.querySelector('.enclap-now').textContent,
document.querySelector('.enclap-play').getAttribute('aria-label'),
[...document.querySelectorAll('.enclap-cue')].flatMap((cue, i) => (cue.ariaCurrent === 'true' ? i : []))]"""
PLACE = "return document.querySelector('.enclap-timeline').style.getPropertyValue('--place')"
# Chromium's own parser of WebVTT.
READ_SUBTITLES = """const [text, done] = arguments;
const video = document.body.appendChild(document.createElement('video'));
const track = video.appendChild(document.createElement('track'));
track.onload = () => done([...track.track.cues].map(c => ({text: c.text, start: c.startTime, end: c.endTime})));
track.onerror = () => done('refused');
track.src = URL.createObjectURL(new Blob([text], {type: 'text/vtt'}));
track.track.mode = 'showing';"""


@contextlib.contextmanager
def served(command: list[str], folder: Path):
    """Run a command that serves the page; gives the page's address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "GRADIO_SERVER_PORT": str(port), "PYTHONPATH": str(ROOT)}
    with open(folder / "server.log", "w+", encoding="utf-8") as log:
        server = subprocess.Popen([sys.executable, *command], cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE_S
            while not answers(url):
                assert server.poll() is None, (folder / "server.log").read_text(encoding="utf-8")
                assert time.monotonic() < deadline, "the page did not start"
                time.sleep(0.2)
            yield url
        finally:
            server.terminate()
            server.wait(30)


def answers(url: str) -> bool:
    """Whether something serves this address."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def page_url(tmp_path_factory):
    with served(["-m", "enclap_hf", "demo"], tmp_path_factory.mktemp("demo")) as url:
        yield url


@pytest.fixture
def open_page(page_url, tmp_path):
    """A function that opens the page in a window of the given size; the windows are closed afterwards."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    browsers = []

    def open_at(size: tuple[int, int], url: str = page_url):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"):
            options.add_argument(f"--{flag}")
        options.add_argument("--disable-background-networking")
        options.add_argument("--disable-component-update")
        options.add_argument("--use-fake-device-for-media-stream")  # a microphone that beeps
        options.add_argument("--use-fake-ui-for-media-stream")  # and is allowed
        options.add_argument(f"--user-data-dir={tmp_path / f'profile{len(browsers)}'}")
        browsers.append(webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver"))))
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browsers[-1].execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browsers[-1].get(url)
        find(browsers[-1], "#enclap-button")
        return browsers[-1]

    yield open_at
    for browser in browsers:
        browser.quit()


def find(browser, selector: str):
    """The element of a selector, waited for until it is shown."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.ui import WebDriverWait

    shown = expected_conditions.visibility_of_element_located((By.CSS_SELECTOR, selector))
    return WebDriverWait(browser, PATIENCE_S).until(shown, f"no {selector} on the page")


def upload(browser, path: Path) -> None:
    """Choose a file, and wait until the page has it."""
    inputs = "#enclap-sound input[type=file]"  # never shown, and there a moment after the button
    wait_for(browser, lambda: browser.find_elements("css selector", inputs))
    browser.find_element("css selector", inputs).send_keys(str(path))
    find(browser, "#enclap-sound [aria-label='Clear'], #enclap-sound [title='Clear']")


def assert_fits(browser, width: int) -> None:
    """Nothing reaches over the right edge of a window; a phone's browser would widen the page to show it."""
    assert browser.execute_script("return Math.max(innerWidth, document.documentElement.scrollWidth)") == width
    over = browser.execute_script(
        "return [...document.querySelectorAll('main *')]"
        ".map(e => [e.outerHTML.slice(0, 120), e.getBoundingClientRect()])"
        ".filter(([html, box]) => box.width > 1 && box.right > arguments[0] + 1).map(([html, box]) => html)",
        width,
    )
    assert over == []


def caption_long_recording(browser, folder: Path) -> None:
    """Caption one that is longer than what the model hears at once."""
    sound, sampling_rate = soundfile.read(SOUNDS / "siren_over_engine.wav")
    soundfile.write(folder / "long.flac", np.tile(sound, 8)[: round(LONG_S * sampling_rate)], sampling_rate)
    upload(browser, folder / "long.flac")
    find(browser, "#enclap-button").click()
    find(browser, ".enclap-timeline")


def read_player(browser) -> list:
    return browser.execute_script(PLAYER)


def wait_for(browser, condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, find(browser, "#enclap-captions").text
        time.sleep(0.1)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("sound, words", [("siren_over_engine.wav", ("engine", "siren")), ("knocking.mp3", ("knock",))])
def test_an_uploaded_sound_is_captioned_and_drawn(open_page, size, sound, words):
    browser = open_page(size)
    upload(browser, SOUNDS / sound)
    find(browser, "#enclap-button").click()
    caption = find(browser, ".enclap-caption").text
    assert all(word in caption.lower() for word in words), caption
    assert len(browser.find_elements("css selector", ".enclap-candidates tbody tr")) == 3
    picture = find(browser, ".enclap-picture [role=img]")
    assert sound in picture.get_attribute("aria-label") and picture.size["height"] > 200
    assert browser.execute_script("return document.querySelector('.enclap-mel img').naturalWidth") > 100
    assert_fits(browser, size[0])


def test_a_text_file_with_an_audio_name_is_refused_in_words(open_page, tmp_path):
    (tmp_path / "notes.wav").write_text("These are notes, not a recording.\n" * 20)
    browser = open_page(PHONE)
    upload(browser, tmp_path / "notes.wav")
    find(browser, "#enclap-button").click()
    reason = find(browser, ".enclap-error").text
    assert reason.startswith("No caption. `notes.wav`: it is text, not audio (it begins 'These are notes")
    assert "Traceback" not in find(browser, "body").text and not browser.find_elements("css selector", ".toast-body")
    assert_fits(browser, PHONE[0])


def test_a_long_recording_does_not_widen_a_phones_page(open_page, tmp_path):
    """The player asks for 20 pixels a second, and once made the whole page that wide."""
    browser = open_page(PHONE)
    caption_long_recording(browser, tmp_path)
    assert find(browser, ".enclap-mel img").size["width"] > 200
    assert_fits(browser, PHONE[0])


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_caption_on_the_time_line_is_heard_and_no_further(open_page, tmp_path, size):
    browser = open_page(size)
    caption_long_recording(browser, tmp_path)
    cues = browser.find_elements("css selector", ".enclap-cue")
    assert [cue.text.split("\n")[0] for cue in cues] == ["0:00", "0:10", "0:20"]
    assert all(word in cues[0].text.lower() for word in ("siren", "engine")), cues[0].text
    assert read_player(browser) == ["0:00", "Play", []]

    cues[2].click()
    wait_for(browser, lambda: read_player(browser)[1:] == ["Pause", [2]])
    wait_for(browser, lambda: read_player(browser)[1] == "Play")  # at its end
    assert read_player(browser) == ["0:23", "Play", [2]]
    browser.find_element("css selector", ".enclap-block").click()
    wait_for(browser, lambda: read_player(browser)[:2] == ["0:01", "Pause"])
    browser.find_element("css selector", ".enclap-block").click()
    wait_for(browser, lambda: read_player(browser)[1:] == ["Play", [0]])
    browser.find_element("css selector", ".enclap-waveform").click()  # in its middle
    wait_for(browser, lambda: read_player(browser)[1:] == ["Pause", [1]])
    assert 48 < float(browser.execute_script(PLACE).rstrip("%")) < 75
    browser.find_element("css selector", ".enclap-play").click()
    wait_for(browser, lambda: read_player(browser)[1] == "Play")
    assert not browser.find_element("css selector", ".enclap-unplayable").is_displayed()


def test_a_phone_scrolls_to_its_result(open_page, tmp_path):
    browser = open_page(PHONE)
    upload(browser, SOUNDS / "knocking.mp3")
    assert browser.execute_script("return scrollY") == 0
    find(browser, "#enclap-button").click()
    find(browser, ".enclap-caption")
    top = "return document.querySelector('.enclap-result').getBoundingClientRect().top"
    wait_for(browser, lambda: 0 <= browser.execute_script(top) < PHONE[1] / 4)
    desktop = open_page(DESKTOP)
    upload(desktop, SOUNDS / "knocking.mp3")
    find(desktop, "#enclap-button").click()
    find(desktop, ".enclap-caption")
    time.sleep(1)
    assert desktop.execute_script("return scrollY") == 0, "what is in view stays there"


def test_the_browser_reads_the_subtitles_that_it_downloads(open_page, tmp_path):
    browser = open_page(DESKTOP)
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")}
    )
    caption_long_recording(browser, tmp_path)
    for link in browser.find_elements("css selector", ".enclap-download"):
        link.click()
    files = [tmp_path / "downloads" / f"long.{name}" for name in ("srt", "vtt", "csv")]
    wait_for(browser, lambda: all(file.exists() and file.stat().st_size for file in files))
    assert files[0].read_text("utf-8").startswith("1\n00:00:00,000 --> 00:00:10,000\n")
    cues = browser.execute_async_script(READ_SUBTITLES, files[1].read_text("utf-8"))
    shown = [cue.text.split("\n")[1] for cue in browser.find_elements("css selector", ".enclap-cue")]
    assert [cue["text"] for cue in cues] == shown
    assert [cue["start"] for cue in cues] == [0, 10, 20] and cues[2]["end"] == pytest.approx(LONG_S, abs=1e-3)


def test_the_microphone_is_captioned(open_page):
    browser = open_page(PHONE)
    find(browser, "[aria-label='Record audio']").click()
    find(browser, "#enclap-sound .record-button").click()
    time.sleep(2)  # what is recorded
    find(browser, "#enclap-sound .stop-button").click()
    find(browser, "#enclap-sound [aria-label='Clear'], #enclap-sound [title='Clear']")
    find(browser, "#enclap-button").click()
    assert find(browser, ".enclap-caption").text
    assert "wav" in find(browser, ".enclap-picture figcaption").text


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(open_page):
    """Tab through the page, start an example with Space, and an upload with Enter."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def press(key):
        ActionChains(browser).send_keys(key).perform()

    browser = open_page(DESKTOP)
    reached = {}
    for _ in range(12):
        press(Keys.TAB)
        element = browser.switch_to.active_element
        name = (element.accessible_name or "").strip()
        assert name, element.get_attribute("outerHTML")
        assert element.value_of_css_property("outline-style") != "none", f"{name}: nothing shows that it is focused"
        reached.setdefault(name.split("\n")[0], len(reached))
        if name == "knocking":
            press(Keys.SPACE)
    order = [reached[name] for name in ("Upload file", "Record audio", "dog then telephone", "Write the caption")]
    assert order == sorted(order)
    assert "knock" in find(browser, ".enclap-caption").text.lower()
    find(browser, "#enclap-sound [aria-label='Clear'], #enclap-sound [title='Clear']").click()
    upload(browser, SOUNDS / "siren_over_engine.wav")
    find(browser, "#enclap-button").send_keys(Keys.ENTER)
    find(browser, ".enclap-picture [aria-label*='siren_over_engine']")
    assert "siren" in find(browser, ".enclap-caption").text.lower()


def test_the_page_asks_no_other_host_for_anything(open_page, page_url):
    browser = open_page(DESKTOP)
    upload(browser, SOUNDS / "rain_and_piano.ogg")
    find(browser, "#enclap-button").click()
    find(browser, ".enclap-caption")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith(page_url) for url in urls), "the log must hold requests for this test to tell anything"
    allowed = (page_url, "data:", "blob:", "chrome:", "chrome-untrusted:")
    assert [url for url in urls if not url.startswith(allowed)] == []


def test_the_space_serves_the_same_page_as_it_is(open_page, tmp_path):
    shutil.copytree(ROOT / "examples/space", tmp_path / "space")
    with served(["app.py"], tmp_path / "space") as url:
        browser = open_page(PHONE, url)
        assert "synthesised sounds" in find(browser, ".enclap-notice").text
        upload(browser, SOUNDS / "owl_then_thunder.opus")
        find(browser, "#enclap-button").click()
        assert "owl" in find(browser, ".enclap-caption").text.lower()
