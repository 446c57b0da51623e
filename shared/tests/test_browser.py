"""The widgets in a real browser: JupyterLab is started, a notebook run, its controls are moved.

Notable: each widget has a twin, made here by the same line of code. What is done to the widget in
the browser is done to its twin in Python, and both must then say the same, word for word. A new
widget is a line in WIDGETS, which has it drawn and compared, and a test that moves its controls.

Without Chromium or Chrome these tests are skipped; with COURSE_BROWSER=required they fail.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import nbformat
import psutil
import pytest
from ipywidgets import HTML, Widget
from jupyter_server.serverapp import list_running_servers
from nbformat import v4
from playwright.sync_api import Browser, Locator, expect, sync_playwright

from shared.classroom.setup_cell import ROOT
from shared.classroom.slides import write_slides

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START = 120  # seconds in which even a slow machine has started a server, or a kernel with PyTorch
REACT = 30  # seconds in which a widget has answered, or a server has ended

ERRORS = ", ".join(  # what a cell printed to stderr or raised, and a widget that cannot be drawn
    [f'[data-mime-type="application/vnd.jupyter.{kind}"]' for kind in ("stderr", "error")]
    + [".jupyter-widgets-error-widget"]
)

SETUP = """\
from shared.classroom import widgets
from shared.chat import Chat
from shared.classroom.files import DATA
from shared.tokenizers import CharTokenizer, WordTokenizer, course_tokenizer
from shared.weights import load_course_model

tale = (DATA / "tale.txt").read_text(encoding="utf-8")
tokenizer, model = course_tokenizer(), load_course_model()
tokenizers = {
    "characters": CharTokenizer(tale, unk=True),
    "words": WordTokenizer(tale, unk=True),
    "course BPE": tokenizer,
}"""
WIDGETS = {  # name: the last line of its cell
    "playground": 'widgets.TokenizerPlayground(tokenizers, "Otto met a platypus near the clock.")',
    "stepper": 'widgets.MergeStepper(tokenizer, "Milo the owl had lost a golden lantern.")',
    "attention": 'widgets.AttentionExplorer(model, tokenizer, "Pip met Otto. Otto met Pip.")',
    "sampling": 'widgets.SamplingExplorer(model, tokenizer, "One windy morning Pip met")',
    "message": "widgets.MessageExplorer("
    "lambda text: [(w, w.count('e') / 4) for w in text.split()], 'letters e', 'See the tree')",
    "chat": 'widgets.ChatBox(Chat(load_course_model("chat"), tokenizer), pace=0.1)',
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of the system, without a window."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        end = pytest.fail if os.environ.get("COURSE_BROWSER") == "required" else pytest.skip
        end(f"no browser found: install Chromium or Chrome, as one of {', '.join(BROWSERS)}")
    with (
        sync_playwright() as playwright,
        # Chromium's sandbox does not work for root, who runs the tests in most containers.
        playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as browser,
    ):
        yield browser


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab that has one notebook and no settings of this machine."""
    home = tmp_path_factory.mktemp("lab")
    cells = [v4.new_code_cell(source) for source in (SETUP, *WIDGETS.values())]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    (home / "notebooks").mkdir()
    notebook = v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, home / "notebooks" / "widgets.ipynb")

    folders = {f"JUPYTER_{name}_DIR": home / name for name in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {f"JUPYTERLAB_{name}_DIR": home / name for name in ("SETTINGS", "WORKSPACES")}
    folders["IPYTHONDIR"] = home / "IPYTHON"
    # Else JupyterLab asks whether it may fetch news, over the page.
    apputils = home / "SETTINGS" / "@jupyterlab" / "apputils-extension"
    apputils.mkdir(parents=True)
    (apputils / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')

    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.port=0", f"--ServerApp.root_dir={home / 'notebooks'}"]
    # Should these tests be killed, the server they leave behind ends by itself.
    command += ["--MappingKernelManager.cull_idle_timeout=300"]
    command += ["--ServerApp.shutdown_no_activity_timeout=300"]
    environment = os.environ | {name: str(path) for name, path in folders.items()}
    with open(home / "log.txt", "wb") as log:
        server = psutil.Popen(
            command,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        found = started(server, home)
        yield f"{found['url']}lab/tree/widgets.ipynb?token={found['token']}"
    finally:
        stop(server)


def started(server: psutil.Popen, home: Path) -> dict:
    """What a server says about itself, as soon as it says it: its address and token."""
    deadline = time.monotonic() + START
    while not (found := next(list_running_servers(home / "RUNTIME"), None)):
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"JupyterLab did not start:\n{(home / 'log.txt').read_text()}")
        time.sleep(0.1)
    return found


def stop(server: psutil.Popen) -> None:
    """End a server, which ends its kernels; and, whatever happens, all it has started."""
    with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself
        family = [server, *server.children(recursive=True)]
        server.terminate()
        for process in psutil.wait_procs(family, timeout=REACT)[1]:
            process.kill()


@pytest.fixture(scope="module")
def notebook(browser: Browser, lab: str) -> Locator:
    """The notebook in JupyterLab, all its cells run."""
    expect.set_options(timeout=1000 * REACT)
    page = browser.new_page()
    page.set_default_timeout(1000 * START)
    page.goto(lab)
    # Told to run before the kernel is there, JupyterLab asks for one; the status bar tells when.
    page.get_by_text("| Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    notebook = page.locator(".jp-Notebook")
    last = notebook.locator(".jp-CodeCell").last.locator(".jupyter-widgets")
    last.or_(notebook.locator(ERRORS)).first.wait_for()
    expect_no_errors(notebook)
    return notebook


@pytest.fixture(scope="module")
def pairs(notebook: Locator) -> dict[str, tuple[Locator, Widget]]:
    """Each widget: the output in which the browser shows it, and its twin."""
    here: dict = {}
    exec(SETUP, here)
    outputs = notebook.locator(".jp-CodeCell .jp-Cell-outputArea")
    return {
        name: (outputs.nth(number), eval(line, here))
        for number, (name, line) in enumerate(WIDGETS.items(), start=1)
    }


@pytest.fixture(autouse=True)
def no_complaint(notebook: Locator) -> Iterator[None]:
    """After each test no cell shows an error, or a widget that could not be drawn."""
    yield
    expect_no_errors(notebook)


def expect_no_errors(notebook: Locator) -> None:
    if errors := notebook.locator(ERRORS).all_inner_texts():
        pytest.fail("a cell shows an error:\n" + "\n".join(errors), pytrace=False)
    for words in ("Loading widget", "Error displaying widget"):
        expect(notebook).not_to_contain_text(words)


def texts(widget: Widget) -> list[str]:
    """What a widget says, in the order in which it is drawn: its HTML without tags."""
    if isinstance(widget, HTML):
        return [unescape(re.sub("<[^>]*>", "", widget.value))]
    return [text for child in getattr(widget, "children", ()) for text in texts(child)]


def expect_same(shown: Locator, twin: Widget) -> None:
    expect(shown.locator(".widget-html-content")).to_have_text(texts(twin))


@contextlib.contextmanager
def in_step(shown: Locator, twin: Widget) -> Iterator[None]:
    """Inside, the same is done to both: they say the same before, and something else after."""
    expect_same(shown, twin)
    before = texts(twin)
    yield
    assert texts(twin) != before
    expect_same(shown, twin)


def type_into(shown: Locator, name: str, text: str) -> None:
    """Key by key, as a person does: many of these keys are shortcuts of JupyterLab."""
    field = shown.get_by_label(name, exact=True)
    field.press("ControlOrMeta+a")
    field.press_sequentially(text)


def press(shown: Locator, name: str, key: str, value: str) -> None:
    """Move the slider of this name with a key, to this value."""
    slider = shown.locator(".widget-slider").filter(has_text=name)
    slider.get_by_role("slider").press(key)
    expect(slider.locator(".widget-readout")).to_have_text(value)


@pytest.mark.parametrize("name", WIDGETS)
def test_widget_is_drawn(pairs, name: str) -> None:
    shown, twin = pairs[name]
    expect(shown.locator(".jupyter-widgets").first).to_be_visible()
    expect_same(shown, twin)


def test_playground_cuts_what_is_typed(pairs) -> None:
    shown, twin = pairs["playground"]
    with in_step(shown, twin):
        type_into(shown, "text", "Add a dozen odd boxes & <b>y</b>!")
        twin.text.value = "Add a dozen odd boxes & <b>y</b>!"
    expect(shown).to_contain_text("33 tokens for 33 characters")


def test_playground_switches_the_tokenizer(pairs) -> None:
    shown, twin = pairs["playground"]
    for name in ("course BPE", "words"):
        with in_step(shown, twin):
            shown.get_by_role("button", name=name, exact=True).click()
            twin.choice.value = name


def test_stepper_merges_one_by_one_and_all(pairs) -> None:
    shown, twin = pairs["stepper"]
    for key, step in [("ArrowRight", 1), ("ArrowRight", 2), ("End", len(twin.merges))]:
        with in_step(shown, twin):
            press(shown, "merges", key, str(step))
            twin.step.value = step


def test_attention_follows_layer_head_token_and_text(pairs) -> None:
    shown, twin = pairs["attention"]
    for name in ("layer", "head"):
        with in_step(shown, twin):
            press(shown, name, "ArrowRight", "2")
            getattr(twin, name).value = 2
    with in_step(shown, twin):
        press(shown, "token", "ArrowLeft", str(twin.token.max - 1))
        twin.token.value = twin.token.max - 1
    with in_step(shown, twin):
        type_into(shown, "text", "Add an odd box.")
        twin.text.value = "Add an odd box."


def test_sampling_moves_the_bars(pairs) -> None:
    shown, twin = pairs["sampling"]
    bar = shown.locator("tr").first.locator("div").last  # the likeliest token's, in blue
    wide = bar.bounding_box()["width"]
    with in_step(shown, twin):
        press(shown, "temperature", "ArrowRight", "1.05")
        twin.temperature.value = 1.05
    assert bar.bounding_box()["width"] < wide


def test_sampling_writes(pairs) -> None:
    shown, twin = pairs["sampling"]
    with in_step(shown, twin):
        shown.get_by_role("button", name="write").click()
        twin.button.click()
    with in_step(shown, twin):
        press(shown, "seed", "ArrowRight", "2")
        twin.seed.value = 2
    with in_step(shown, twin):
        type_into(shown, "prompt", "Bad odd foxes")
        twin.prompt.value = "Bad odd foxes"


def test_message_is_judged_at_every_letter(pairs) -> None:
    shown, twin = pairs["message"]
    with in_step(shown, twin):
        type_into(shown, "message", "A bee & a <b>fee")
        twin.text.value = "A bee & a <b>fee"
    expect(shown).to_contain_text("letters e: 50.0%")
    with in_step(shown, twin):
        type_into(shown, "message", " ")
        twin.text.value = " "
    expect(shown).to_contain_text("write a message")


def test_chat_writes_token_by_token(pairs) -> None:
    shown, twin = pairs["chat"]
    request = "What is the plural of fox?"
    answer = "".join(twin.chats[""].say(request))
    type_into(shown, "instruction", request)
    shown.get_by_label("instruction", exact=True).press("Enter")
    transcript, seen = shown.locator(".widget-html-content").first, set()
    deadline = time.monotonic() + START
    while answer not in (text := transcript.inner_text()):
        seen.add(text)
        assert len(seen) < 1000
        assert time.monotonic() < deadline, f"{answer!r} never came, but {text!r}"
    assert len(seen) > 3  # not all at once
    expect(shown.get_by_role("button", name="send")).to_be_enabled()
    expect(shown.get_by_label("instruction", exact=True)).to_have_value("")
    shown.get_by_label("instruction", exact=True).press("Enter")
    expect(shown.locator(".widget-html-content").nth(1)).to_contain_text("the instruction is empty")


def test_chat_stops(pairs) -> None:
    shown, twin = pairs["chat"]
    tale = "By the pond there lived a bear called Otto. One afternoon Otto wanted to cook pea soup."
    request = "Continue the tale.", tale
    whole = "".join(twin.chats[""].say(*request))
    type_into(shown, "instruction", request[0])
    type_into(shown, "text, if any", request[1])
    shown.get_by_role("button", name="send").click()
    transcript = shown.locator(".widget-html-content").first
    expect(transcript).to_contain_text(" ".join(whole.split()[:3]))
    shown.get_by_role("button", name="stop").click()
    expect(shown.get_by_role("button", name="send")).to_be_enabled()
    told = transcript.inner_text().rpartition(request[1])[2].strip()
    assert whole.startswith(told) and 0 < len(told) < len(whole)


def test_slides_turn_with_the_keys_and_without_a_network(browser: Browser, tmp_path: Path) -> None:
    talk = write_slides(ROOT / "02_attention" / "attention.ipynb", tmp_path)
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        page.goto(talk.as_uri())
        expect(page.locator("section.present section.present h1")).to_be_visible()
        page.keyboard.press("ArrowRight")
        expect(page).to_have_url(f"{talk.as_uri()}#/1")
        expect(page.locator("section.present h1")).to_have_count(0)
