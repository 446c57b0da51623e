"""Real texts, fetched on first use: a catalogue, and one function that finds a file anywhere.

Notable: every byte is checked against the catalogue's sha256, wherever it comes from. The order is
bundled, cache, COURSE_MIRROR, the URLs in turn, and pip for GPT-2's vocabulary, since pip works in
many places where other downloads do not. A file appears whole or not at all. A book is hashed on
its body alone, since Project Gutenberg edits the headers. Used from the bigram notebook on.
"""

import hashlib
import io
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy

from shared.classroom.files import DATA, ROOT, write_atomically

ALLOWED_SCHEMES = ("https://",)  # of redirects too
CONNECT_SECONDS = 5  # to look a host up and connect
STALL_SECONDS = 10  # without a single byte
RETRIES = 2  # per URL, after the first attempt
PAUSE_SECONDS = 0.5  # before a retry
FORGET_SECONDS = 60  # a host that could not be reached is not tried again for so long
PIP_SECONDS = 120  # for pip as a whole


# ---------------------------------------------------------------------------------------------
# The catalogue
# ---------------------------------------------------------------------------------------------


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


RAW = "https://raw.githubusercontent.com"
RASCHKA = f"{RAW}/rasbt/LLMs-from-scratch/28c65cdfbc3338e2e040016eea4b7fdf556e4d57"
OPENAI = "https://openaipublic.blob.core.windows.net"

_SOURCES = (
    Source(
        "the-verdict.txt",
        "Edith Wharton, The Verdict (1908), a short story",
        "public domain",
        20_479,
        "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
        (
            f"{RASCHKA}/ch02/01_main-chapter-code/the-verdict.txt",
            f"{RAW}/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
        ),
    ),
    Source(
        "sherlock-holmes.txt",
        "Arthur Conan Doyle, The Adventures of Sherlock Holmes (1892)",
        "public domain in the US",
        575_794,
        "a4866cc751985c68a8dec9753cc5afc4f5c7da0332f1be320e053ae8d19a7c71",
        (
            f"{RAW}/RU-ECE/ECE451-Parallel/c58dca3a6abedd8041057571c247e9a393cc3b4d/data/pg1661.txt",
            "https://www.gutenberg.org/cache/epub/1661/pg1661.txt",
        ),
        is_book=True,
    ),
    Source(
        "meditations.txt",
        "Marcus Aurelius, Meditations, in Meric Casaubon's translation",
        "public domain in the US",
        398_683,
        "95bcfa55d3a6bba03c42af3f32cff2dd5a7e3822962c8f267d3249f769adbfba",
        (
            f"{RAW}/idiomat/goo11ynyt/fb051a289c29350ca52c6f0e74b220556f0e599c/data/pg2680.txt",
            "https://www.gutenberg.org/cache/epub/2680/pg2680.txt",
        ),
        is_book=True,
    ),
    Source(
        "tiny-shakespeare.txt",
        "parts of Shakespeare's plays, 1,115,394 characters, 65 of them distinct",
        "public domain",
        1_115_394,
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        (
            f"{RAW}/karpathy/ng-video-lecture/52201428ed7b46804849dea0b3ccf0de9df1a5c3/input.txt",
            f"{RAW}/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        ),
    ),
    Source(
        "SMSSpamCollection.tsv",
        "UCI SMS Spam Collection (Almeida and Hidalgo): label TAB text, 4,827 ham and 747 spam",
        "CC BY 4.0",
        477_907,
        "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
        (
            f"{RAW}/ret0/CS-6240/16b714708b9a513e1f7a406f4300903d8059840b/data/"
            "SMSSpamCollectionOriginal",
            "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",
            "https://f001.backblazeb2.com/file/LLMs-from-scratch/sms%2Bspam%2Bcollection.zip",
        ),
        member="SMSSpamCollection",
    ),
    Source(
        "instruction-data.json",
        "1,100 entries for instruction tuning (Raschka 2024)",
        "Apache-2.0",
        203_524,
        "7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
        (
            f"{RASCHKA}/ch07/01_main-chapter-code/instruction-data.json",
            f"{RAW}/rasbt/LLMs-from-scratch/main/ch07/01_main-chapter-code/instruction-data.json",
        ),
    ),
    Source(
        "instruction-data-with-preference.json",
        "the same 1,100 entries, each with a chosen and a rejected response",
        "Apache-2.0; the responses are Llama 3.1 output",
        386_968,
        "305315abf14f65fa42c01a0877572f832606571c2a7d49f152ac1d758b16756e",
        (
            f"{RASCHKA}/ch07/04_preference-tuning-with-dpo/instruction-data-with-preference.json",
            f"{RAW}/rasbt/LLMs-from-scratch/main/ch07/04_preference-tuning-with-dpo/"
            "instruction-data-with-preference.json",
        ),
    ),
    Source(
        "gpt2.tiktoken",
        "GPT-2's vocabulary: 50,256 tokens and their ranks, in tiktoken's format",
        "MIT",
        835_554,
        "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930",
        (
            f"{OPENAI}/encodings/r50k_base.tiktoken",
            f"{RAW}/openai/whisper/c0d2f624c09dc18e709e37c2ad90c039a4eb72a2/whisper/assets/"
            "gpt2.tiktoken",
        ),
        # A wheel is a plain archive: pip fetches it without building or running anything.
        wheel="mlx-whisper==0.4.3 --hash=sha256:"
        "6b82b6597a994643a3e5496c7bc229a672e5ca308458455bfe276e76ae024489",
        member="mlx_whisper/assets/gpt2.tiktoken",
    ),
    Source(
        "encoder.json",
        "GPT-2's vocabulary as OpenAI released it: each token and its id",
        "Modified MIT",
        1_042_301,
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        (
            f"{RASCHKA}/ch02/02_bonus_bytepair-encoder/gpt2_model/encoder.json",
            f"{OPENAI}/gpt-2/encodings/main/encoder.json",
        ),
    ),
    Source(
        "vocab.bpe",
        "GPT-2's 50,000 merges as OpenAI released them",
        "Modified MIT",
        456_318,
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        (
            f"{RASCHKA}/ch02/02_bonus_bytepair-encoder/gpt2_model/vocab.bpe",
            f"{OPENAI}/gpt-2/encodings/main/vocab.bpe",
        ),
    ),
    Source(
        "tinystories-sample.txt",
        "the first 10,000 lines of TinyStories V2 (Eldan and Li 2023), the last story cut short",
        "CDLA-Sharing-1.0",
        1_424_708,
        "5a19b936d7b53bbdac1eea03230b00161dceca24ae272f5bd8e9dbbc2a883418",
        (
            f"{RAW}/mines-opt-ml/decoding-gpt/79274e31fe66ed5cf23be815bf51dc63a4ca57a6/data/"
            "tinystories_10k.txt",
        ),
    ),
    Source(
        "openwebtext-sample.txt",
        "some documents of OpenWebText (Gokaslan and Cohen 2019) as running text",
        "CC0 for the packaging; the texts are their authors'",
        505_978,
        "a65a6708b66eb461b75b7ab1d313e29c17e786fa14059b8205ffc93362c58045",
        (
            f"{RAW}/Tanisha-A/LLM-BPE-BERT/69eab6253f00a6a26c0d08a31ab9b7444ae9383e/"
            "openwebtext_sample.txt",
        ),
    ),
    Source(
        "fineweb-edu-sample.txt",
        "1,000,000 characters of FineWeb-Edu (Penedo et al. 2024), the last document cut short",
        "ODC-By 1.0",
        1_004_029,
        "898138edfad3ff17d91697ee8c758d64b79356720c427accddbbdf6612bb5a6e",
        (f"{RAW}/sdrshn-nmbr/gpt-2.x/5c89630697f144d518b455077107b8bc3b21a54b/fineweb_sample.txt",),
    ),
)
CATALOGUE: dict[str, Source] = {source.name: source for source in _SOURCES}


# ---------------------------------------------------------------------------------------------
# Finding a file
# ---------------------------------------------------------------------------------------------


class FetchError(RuntimeError):
    """A file could not be had; the first line says what to do, the others what was tried."""


def cache_dir() -> Path:
    """Return the folder of fetched files: COURSE_CACHE, else ~/.cache/gpt-course."""
    return _folder(os.environ.get("COURSE_CACHE") or "~/.cache/gpt-course")


def _folder(path: str) -> Path:
    # Relative to the course, not to the notebook that happens to ask.
    return ROOT / Path(path).expanduser()


def fetch(name: str) -> Path:
    """Return the path of a bundled file or of a verified file of the catalogue.

    Looks in data/, the cache and COURSE_MIRROR (a folder with the same file names; relative paths
    count from the course's root), then downloads. Raises ValueError for a name that is not known,
    FetchError when no source gives the right bytes.
    """
    source = _known(name)
    if source is None:
        return DATA / name
    problems: list[str] = []
    found = _find_locally(source, problems)
    if found:
        path, content = found
        if path.parent != _mirror() and path.stat().st_size == len(content):
            return path
    else:
        content = _download(source, problems)
    if content is None:
        raise FetchError(
            f"cannot get {name} ({source.description}): go online and run this again, or set "
            f"COURSE_MIRROR to a folder that holds {name}.\nTried:\n  " + "\n  ".join(problems)
        )
    return _land(name, content)


def available(name: str) -> bool:
    """Say whether `fetch(name)` succeeds without the network: bundled, cached or mirrored."""
    source = _known(name)
    return source is None or _find_locally(source, []) is not None


def _known(name: str) -> Source | None:
    """Return the catalogue's entry, or None for a bundled file; refuse every other name."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError(f"{name!r} is not a plain file name: give it without folders")
    if name not in CATALOGUE and not (DATA / name).is_file():
        raise ValueError(f"{name!r} is not bundled, and the catalogue has {', '.join(CATALOGUE)}")
    return CATALOGUE.get(name)


def _mirror() -> Path | None:
    mirror = os.environ.get("COURSE_MIRROR")
    return _folder(mirror) if mirror else None


def _find_locally(source: Source, problems: list[str]) -> tuple[Path, bytes] | None:
    """Return the path and the verified content of a copy on this machine, None without one."""
    for folder in (DATA, cache_dir(), _mirror()):
        if folder is None:
            problems.append("COURSE_MIRROR: not set")
            continue
        path = folder / source.name
        try:
            return path, _verified(source, path.read_bytes())
        except FileNotFoundError:
            problems.append(f"{path}: no such file")
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}")
    return None


def _verified(source: Source, content: bytes) -> bytes:
    """Return the file as it lands (a member taken out, a book's body); ValueError if it differs."""
    if source.member and zipfile.is_zipfile(io.BytesIO(content)):
        try:
            with zipfile.ZipFile(io.BytesIO(content)).open(source.member) as member:
                content = member.read(source.bytes + 1)  # an archive may unpack to far too much
        except Exception as error:  # zipfile has a dozen ways to say that an archive is damaged
            raise ValueError(f"the archive does not give {source.member} ({error})") from None
    if source.is_book:
        content = gutenberg_body(content.decode("utf-8-sig")).encode()
    found = hashlib.sha256(content).hexdigest()
    if found != source.sha256:
        raise ValueError(
            f"wrong or damaged content: {len(content):,} bytes with sha256 {found[:12]}…, "
            f"expected {source.bytes:,} bytes with {source.sha256[:12]}…"
        )
    return content


def gutenberg_body(text: str) -> str:
    """Return a Gutenberg book between its START and END marks, or all of a text without them."""
    text = text.replace("\r\n", "\n")
    start = re.search(r"^ *\*\*\* ?START OF .*\*\*\* *$", text, re.MULTILINE)
    end = re.search(r"^ *\*\*\* ?END OF .*\*\*\* *$", text, re.MULTILINE)
    return text[start.end() if start else 0 : end.start() if end else None].strip() + "\n"


def _land(name: str, content: bytes) -> Path:
    """Write a file of the cache: whole or not at all, even if two processes do so at once."""
    path = cache_dir() / name
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise FetchError(
            f"cannot write {path} ({error}): set COURSE_CACHE to a folder with room for it"
        ) from None
    return path


# ---------------------------------------------------------------------------------------------
# GPT-2's weights, from the Hugging Face hub, whose cache other programs share
# ---------------------------------------------------------------------------------------------

GPT2 = {  # size: repository, commit, sha256 of its model.safetensors
    "124M": (
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "355M": (
        "openai-community/gpt2-medium",
        "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "774M": (
        "openai-community/gpt2-large",
        "32b71b12589c2f8d625668d2335a01cac3249519",
        "5f47f3e12f91cd33b662ce7e433b6150ad5512b5884a2cee961b50e9c3bbebce",
    ),
    "1558M": (
        "openai-community/gpt2-xl",
        "15ea56dee5df4983c59b2538573817e1667135e2",
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
}


def fetch_gpt2(size: str) -> Path:
    """Return the path of GPT-2's weights, verified: from COURSE_MIRROR, the hub's cache, the hub.

    In the mirror the file is gpt2-SIZE.safetensors. Raises ValueError for another size than
    "124M", "355M", "774M" and "1558M", FetchError when no source gives the right bytes.
    """
    if size not in GPT2:
        raise ValueError(f"there is no GPT-2 {size!r}: choose one of {', '.join(GPT2)}")
    repository, commit, sha256 = GPT2[size]
    problems = []
    name = f"gpt2-{size}.safetensors"
    for place, find in (
        ("COURSE_MIRROR", lambda: _mirror() / name if _mirror() else None),
        ("the hub's cache", lambda: _from_hubs_cache(repository, commit)),
        (repository, lambda: _from_hub(repository, commit)),
    ):
        try:
            path = find()
            if path is None:
                raise FileNotFoundError("not set")
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found == sha256:
                return path
            problems.append(f"{place}: {path} has sha256 {found[:12]}…, expected {sha256[:12]}…")
        # The hub's client raises OSErrors, httpx2's errors, and hf_xet's RuntimeErrors.
        except Exception as error:
            reason = error.__cause__ or error  # the client's own words hide the reason
            problems.append(f"{place}: {' '.join(str(reason).split())}")
    raise FetchError(
        f"cannot get the weights of GPT-2 {size}: go online and run this again, set COURSE_MIRROR "
        f"to a folder that holds {name}, or COURSE_WEIGHTS=stand-in to go through the notebook "
        f"with a small random network.\nTried:\n  " + "\n  ".join(problems)
    )


def _from_hubs_cache(repository: str, commit: str) -> Path:
    from huggingface_hub import try_to_load_from_cache  # only who wants GPT-2 waits for it

    # Not hf_hub_download(local_files_only=True), which may ask the hub about something else.
    path = try_to_load_from_cache(repository, "model.safetensors", revision=commit)
    if not isinstance(path, str):
        raise FileNotFoundError("not there")
    return Path(path)


def _from_hub(repository: str, commit: str) -> Path:
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    # The client alone would try for minutes, and not say what went wrong.
    _check_connection(constants.ENDPOINT)
    url = hf_hub_url(repository, "model.safetensors", revision=commit)
    _check_connection(get_hf_file_metadata(url, timeout=CONNECT_SECONDS).location)
    # Whatever the cache has is wrong, or it would have been taken.
    path = hf_hub_download(
        repository, "model.safetensors", revision=commit, force_download=True,
        etag_timeout=CONNECT_SECONDS,
    )  # fmt: skip
    return Path(path)


# ---------------------------------------------------------------------------------------------
# Downloading
# ---------------------------------------------------------------------------------------------

_unreached: dict[str, tuple[float, str]] = {}  # host -> when it was tried, and what happened


def _download(source: Source, problems: list[str]) -> bytes | None:
    """Return the verified content from the first URL that gives it, then from pip; else None."""
    began = time.monotonic()
    for url in source.urls:
        try:
            return _from_url(source, url)
        except (OSError, ValueError) as error:  # requests' errors are OSErrors
            problems.append(f"{url}: {error}")
    if source.wheel:
        # Where the URLs met only silence, pip will too: then do not wait for it as long.
        silent = time.monotonic() - began >= CONNECT_SECONDS
        try:
            return _from_pip(source, 2 * CONNECT_SECONDS if silent else PIP_SECONDS)
        except (OSError, ValueError) as error:
            print(" failed")
            problems.append(f"pip download {source.wheel.split()[0]}: {error}")
    return None


def _from_url(source: Source, url: str) -> bytes:
    if not url.startswith(ALLOWED_SCHEMES):
        raise ValueError(f"refused, only {', '.join(ALLOWED_SCHEMES)} is allowed")
    _check_connection(url)
    print(f"fetching {source.name} from {urlsplit(url).hostname}:", end="", flush=True)
    for attempt in range(1 + RETRIES):
        try:
            content = _verified(source, _read_url(url, source.bytes))
        except (OSError, ValueError) as error:
            refused = isinstance(error, requests.HTTPError) and error.response.status_code < 500
            if refused or attempt == RETRIES:
                print(" failed")
                raise ValueError(f"{error} ({attempt + 1} attempts)") from None
            print(" retry:", end="", flush=True)
            time.sleep(PAUSE_SECONDS * (attempt + 1))
        else:
            print(" done")
            return content


def _read_url(url: str, size: int) -> bytes:
    """Return what a URL gives; `size`, about what is expected, bounds it and scales progress."""
    content = bytearray()
    limit = 2 * size + 2**20  # a book's header and licence, or an archive's other members
    shown = 0
    with requests.Session() as session:
        session.adapters.clear()  # so that no redirect leads away from the allowed schemes
        for scheme in ALLOWED_SCHEMES:
            session.mount(scheme, HTTPAdapter())
        timeout = (CONNECT_SECONDS, STALL_SECONDS)
        with session.get(url, stream=True, timeout=timeout) as response:
            response.raise_for_status()
            for chunk in response.iter_content(2**14):
                content += chunk
                if len(content) > limit:
                    raise ValueError(f"more than {limit:,} bytes, about {size:,} are expected")
                while shown < min(4, 4 * len(content) // size):
                    shown += 1
                    print(f" {25 * shown}%", end="", flush=True)
    return bytes(content)


def _check_connection(url: str) -> None:
    """Raise ConnectionError unless the host (or the proxy to it) takes a connection in time.

    requests tries each address of a host in turn and looks names up without a time-out, which can
    take minutes where a network swallows everything. A thread of our own bounds it all together.
    """
    proxy = select_proxy(url, get_environ_proxies(url))
    parts = urlsplit(prepend_scheme_if_needed(proxy, "http") if proxy else url)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    host = f"{parts.hostname}:{port}"
    _recall(host)
    problems = [f"no answer in {CONNECT_SECONDS} s"]

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()
            problems.clear()
        except OSError as error:
            problems[0] = str(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    for problem in problems[:]:  # a copy: the thread may still come to an end just now
        _remember(host, problem)


def _recall(host: str) -> None:
    """Raise ConnectionError if the host failed a moment ago: so a whole course fails fast."""
    when, problem = _unreached.get(host, (-FORGET_SECONDS, ""))
    if (ago := time.monotonic() - when) < FORGET_SECONDS and problem:
        raise ConnectionError(
            f"{problem} (so it was {ago:.0f} s ago; tried again after {FORGET_SECONDS} s)"
        )


def _remember(host: str, problem: str) -> None:
    _unreached[host] = (time.monotonic(), problem)
    raise ConnectionError(problem)


def _from_pip(source: Source, seconds: float) -> bytes:
    """Return the member of a wheel that pip downloads, unbuilt and with its hash checked."""
    options = "--quiet --no-input --disable-pip-version-check --no-deps --only-binary=:all:"
    options += f" --require-hashes --timeout {2 * CONNECT_SECONDS} --retries 1"
    print(f"fetching {source.name} with pip:", end="", flush=True)
    _recall("pip")
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted.txt")
        wanted.write_text(source.wheel)
        command = [sys.executable, "-m", "pip", "download", *options.split()]
        command += ["--requirement", str(wanted), "--dest", folder]
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
        except subprocess.TimeoutExpired:
            _remember("pip", f"no end in {seconds} s")
        except subprocess.CalledProcessError as error:
            _remember("pip", (error.stderr.strip() or f"it ended with {error}").splitlines()[-1])
        (wheel,) = Path(folder).glob("*.whl")
        content = _verified(source, wheel.read_bytes())
    print(" done")
    return content
