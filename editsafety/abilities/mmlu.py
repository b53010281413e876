"""MMLU (arXiv 2009.03300): questions of 57 subjects with four answers; the letter by plain likelihood (acc).

The layout is the published one: `<subject>_test.csv` without a heading, its columns question, A, B, C, D and the letter
of the answer; or the folder of these files.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from editsafety.abilities import Item
from editsafety.abilities._files import text_of
from editsafety.errors import DataError

LETTERS = ("A", "B", "C", "D")
COLUMNS = len(LETTERS) + 2


class Mmlu:
    """The letters are the options; the answers stand in the prompt."""

    family: ClassVar[str] = "mmlu"
    scorer: ClassVar[str] = "choice"

    def read(self, path: Path) -> tuple[Item, ...]:
        """Every question of the file, or of all .csv files of the folder, by name."""
        return tuple(
            item for file in (sorted(path.glob("*.csv")) if path.is_dir() else (path,)) for item in _items(file)
        )


def _items(path: Path) -> Iterator[Item]:
    subject = path.stem.removesuffix("_test").removesuffix("_val").removesuffix("_dev")
    reader = csv.reader(io.StringIO(text_of(path)), strict=True)
    try:
        for number, row in enumerate(reader, 1):
            where = f"{path.name}:{reader.line_num}"
            if len(row) != COLUMNS or row[-1].strip() not in LETTERS:
                raise DataError(
                    f"{where}: expected question, A, B, C, D and the letter of the answer, found {row!r:.80}."
                )
            question, *answers, letter = (field.strip() for field in row)
            listed = "\n".join(f"{name}. {answer}" for name, answer in zip(LETTERS, answers, strict=True))
            prompt = f"A question about {subject.replace('_', ' ')}.\n\n{question}\n{listed}\nAnswer:"
            yield Item(f"mmlu-{subject}-{number:04d}", prompt, LETTERS, LETTERS.index(letter), source=where)
    except csv.Error as error:
        raise DataError(f"{path.name}:{reader.line_num}: no comma-separated values ({error}).") from error


READER = Mmlu()
