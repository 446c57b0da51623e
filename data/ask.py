"""Ask the chat model sixty things as a curious student types them, known and new, in and out.

    python data/ask.py            print the answers of the bundled chat model
    python data/ask.py --write    write them into the datasheet, between the marks of "answers"

The requests stand in `asked.txt`. Every one begins a new conversation; answers are greedy.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from data.world import explain  # noqa: E402
from shared.chat import Chat  # noqa: E402
from shared.classroom.files import BUNDLED, write_atomically  # noqa: E402
from shared.tokenizers import course_tokenizer  # noqa: E402
from shared.weights import load_checkpoint  # noqa: E402


def answers() -> dict[str, str]:
    """Request → answer, of the bundled chat model."""
    model, tokenizer = load_checkpoint(BUNDLED.with_stem("chat")).eval(), course_tokenizer()
    requests = (HERE / "asked.txt").read_text(encoding="utf-8").splitlines()
    return {request: "".join(Chat(model, tokenizer).say(request)) for request in requests}


def answers_table(given: dict[str, str]) -> str:
    """The answers in markdown; of a tale, whether the grammar could have told it."""
    rows = ["| you | the model |", "|---|---|"]
    for request, answer in given.items():
        if len(answer) > 200:
            answer += " *(possible)*" if explain(answer).ways else " *(impossible)*"
        rows.append(f"| {request} | {answer} |")
    return "\n".join(rows)


def with_answers(datasheet: str, given: dict[str, str]) -> str:
    """The datasheet with these answers."""
    marks = r"(<!-- answers: [^>]*-->\n).*?(<!-- end of answers -->)"
    table = f"{answers_table(given)}\n"
    return re.sub(marks, lambda match: match[1] + table + match[2], datasheet, flags=re.S)


def main() -> None:
    """Print the answers, or write them down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write them into the datasheet")
    given = answers()
    if parser.parse_args().write:
        sheet = HERE / "README.md"
        text = with_answers(sheet.read_text(encoding="utf-8"), given).encode()
        write_atomically(sheet, lambda file: file.write(text))
    print(answers_table(given))


if __name__ == "__main__":
    main()
