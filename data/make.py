"""Remake every generated file of this folder, byte for byte.

    python data/make.py             write the files
    python data/make.py --check     write nothing; say which files would change

The hand-written files (`world.txt`, `tale.txt`, the sheets, and the tables in the makers) are the
sources. The tokenizer (`course.tiktoken`) is trained here too, on all that training may read:
tales, rhymes, lessons, exercises, messages, and instructions in their prompt format. The checkpoint
is not made here: training is not the same to the last bit on every machine.
`04_pretraining/pretraining.ipynb` writes it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from data.facts import make_lessons  # noqa: E402
from data.instructions import format_prompt, is_new, make_instructions  # noqa: E402
from data.messages import PATTERNS, make_messages  # noqa: E402
from data.school import make_school  # noqa: E402
from data.world import tell_tales  # noqa: E402
from shared.classroom.files import write_atomically  # noqa: E402
from shared.classroom.tales import TaleTest  # noqa: E402
from shared.tokenizers import BPETokenizer  # noqa: E402

TRAIN_TALES, VAL_TALES, RHYMES = 8000, 600, 5000
VOCAB_SIZE = 2048
PRETRAINED = ("stories", "rhymes", "facts", "school")  # and messages


def lines(texts: list[str]) -> str:
    """One text per line."""
    return "".join(text + "\n" for text in texts)


def make_files() -> Iterator[tuple[str, bytes]]:
    """Name and content of every generated file, in the order in which they need each other."""
    val = tell_tales(VAL_TALES, seed=1)
    train = tell_tales(TRAIN_TALES, seed=2, without=val)
    rhymes = tell_tales(RHYMES, seed=5, start="rhyme")
    lessons = make_lessons(seed=3)
    school = make_school(seed=6)
    messages = make_messages()
    instructions = make_instructions(seed=4)
    yield "stories_val.txt", lines(val).encode()
    yield "stories.txt", lines(train).encode()
    yield "rhymes.txt", lines(rhymes).encode()
    yield "facts.txt", lines(lessons).encode()
    yield "school.txt", lines(school).encode()

    table = io.StringIO()
    writer = csv.DictWriter(table, ["label", "text", "split"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(messages)
    yield "messages.csv", table.getvalue().encode()
    rows = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in instructions)
    yield "instructions.json", f"[\n{rows}\n]\n".encode()

    known = [m["text"] for m in messages if m["split"] in ("train", "unlabelled")]
    taught = [format_prompt(e) + e["output"] for e in instructions if e["split"] == "train"]
    tokenizer = BPETokenizer.train(train + rhymes + lessons + school + known + taught, VOCAB_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder) / "ranks")
        yield "course.tiktoken", (Path(folder) / "ranks").read_bytes()


def table(files: dict[str, bytes]) -> str:
    """The datasheet's table of sizes and checksums, in markdown."""
    rows = ["| file | bytes | content | sha256 |", "|---|---|---|---|"]
    for name, content in sorted(files.items()):
        if name == "instructions.json":
            count = f"{len(json.loads(content)):,} entries"
        elif name == "messages.csv":
            count = f"{len(list(csv.reader(io.StringIO(content.decode())))) - 1:,} messages"
        else:
            count = f"{content.count(bytes([10])):,} lines"
        checksum = hashlib.sha256(content).hexdigest()
        rows.append(f"| `{name}` | {len(content):,} | {count} | `{checksum}` |")
    return "\n".join(rows)


def mixture_table(files: dict[str, bytes]) -> str:
    """What pretraining reads, kind by kind, and the two floors under the loss on its tales."""
    messages = csv.DictReader(io.StringIO(files["messages.csv"].decode()))
    counts = {name: files[f"{name}.txt"].count(b"\n") for name in PRETRAINED}
    counts["messages"] = sum(m["split"] in ("train", "unlabelled") for m in messages)
    rows, everything = ["| documents | number | share |", "|---|---|---|"], sum(counts.values())
    for name, number in counts.items():
        rows.append(f"| `{name}` | {number:,} | {number / everything:.1%} |")
    tales = files["stories_val.txt"].decode().splitlines()[:200]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ranks").write_bytes(files["course.tiktoken"])
        test = TaleTest(tales, BPETokenizer.load(Path(folder) / "ranks"))
    reader = test.mixture_floor(counts["stories"] / everything)
    words = set(re.findall(r"[a-z]+(?:[-'][a-z]+)*", files["stories.txt"].decode().lower()))
    return "\n".join(rows) + (
        f"\n\nThe floor of the first 200 validation tales is {test.floor:.4f} nats per token, "
        f"the ideal reader's {reader:.4f}. The tales are made of {len(words)} words."
    )


def splits_table(files: dict[str, bytes]) -> str:
    """How many messages, patterns of spam and of ham, and instructions each split has."""
    messages = list(csv.DictReader(io.StringIO(files["messages.csv"].decode())))
    instructions = json.loads(files["instructions.json"])
    rows = ["| split | messages | spam | patterns | of spam | instructions | in new wordings |"]
    rows.append("|---|---|---|---|---|---|---|")
    for split in ("train", "unlabelled", "val", "test"):
        texts = [m["label"] for m in messages if m["split"] == split]
        patterns = [p.label for p in PATTERNS if p.split == split]
        entries = [e for e in instructions if e["split"] == split]
        numbers = (len(texts), texts.count("spam"), len(patterns), patterns.count("spam"),
                   len(entries), sum(map(is_new, entries)))  # fmt: skip
        rows.append(f"| {split} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    return "\n".join(rows)


def with_tables(datasheet: str, files: dict[str, bytes]) -> str:
    """The datasheet with its tables brought up to date."""
    for name, make in {"table": table, "mixture": mixture_table, "splits": splits_table}.items():
        marks = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)"
        text = f"{make(files)}\n"
        datasheet = re.sub(marks, lambda m, text=text: m[1] + text + m[2], datasheet, flags=re.S)
    return datasheet


def main() -> int:
    """Write or check the files; the exit status says whether all were as made."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check, changed = parser.parse_args().check, 0
    files = dict(make_files())
    datasheet = (HERE / "README.md").read_text(encoding="utf-8")
    listed = files | {"tale.txt": (HERE / "tale.txt").read_bytes()}
    files["README.md"] = with_tables(datasheet, listed).encode()
    for name, content in files.items():
        path = HERE / name
        same = path.is_file() and path.read_bytes() == content
        changed += not same
        if not same and not check:
            write_atomically(path, lambda file, content=content: file.write(content))
        verdict = "unchanged" if same else "differs" if check else "written"
        print(f"{name:20} {len(content):>10,} bytes  {verdict}")
    return int(check and changed > 0)


if __name__ == "__main__":
    sys.exit(main())
