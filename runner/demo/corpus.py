"""The training text: three public-domain files, cleaned into flowing prose, and what is held out of them.

austen.txt    six novels, one after another, hard-wrapped, each begun by its title and author
kjv.txt       the King James Bible, one verse a line after a label such as "Ge1:1"
mobydick.txt  Project Gutenberg's e-text with its header and licence

A document is a chapter: paragraphs of one line each (a chapter of the Bible is one paragraph of its verses).
Headings, labels, underscores of emphasis and everything that is not the author's are dropped. Of every book
(each novel, each book of the Bible) the last 3 % are held out for the figures and the 1 % before that chooses
the checkpoint; neither is trained on.
"""

import pathlib
import random
import re
from dataclasses import dataclass

HELD_OUT, VALIDATION = 0.03, 0.01
SYSTEM = (
    "You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n"
    "Current date: {date}\n\nReasoning: {effort}\n\n# Valid channels: analysis, commentary, final. "
    "Channel must be included for every message."
)


@dataclass
class Document:
    """Paragraphs or verses of one chapter, and what stands between them."""

    units: list
    between: str

    def text(self) -> str:
        return self.between.join(self.units)


def _paragraphs(text: str) -> list:
    return [" ".join(block.replace("_", "").split()) for block in re.split(r"\n\s*\n", text)]


def _is_heading(paragraph: str) -> bool:
    letters = [c for c in paragraph if c.isalpha()]
    return not letters or (len(paragraph) < 60 and all(c.isupper() for c in letters))


def _chapters(paragraphs: list, starts: str) -> list:
    chapters = [[]]
    for paragraph in paragraphs:
        if re.match(starts, paragraph):
            chapters.append([])
        elif not _is_heading(paragraph) and paragraph not in ("by", "Persuasion", "Finis"):
            chapters[-1].append(paragraph)
    return [Document(units, "\n\n") for units in chapters if units]


def _austen(text: str) -> list:
    novels = re.split(r"\n(?:[Bb]y )?Jane Austen\b.*\n", text)
    novels = [novel.split("\nA NOTE ON THE TEXT")[0] for novel in novels]
    books = [_chapters(_paragraphs(novel), r"(?i)(chapter|volume) [ivxlc\d]+\b") for novel in novels]
    return [book for book in books if book]


def _mobydick(text: str) -> list:
    begin = text.index("CHAPTER 1. Loomings.")
    end = text.index("End of Project Gutenberg's Moby Dick")
    return [_chapters(_paragraphs(text[begin:end]), r"(CHAPTER \d+\.|Epilogue)")]


def _bible(text: str) -> list:
    books, place = [], (None, None)
    for line in text.splitlines():
        label = re.match(r"(\d?[A-Za-z]+)(\d+):\d+\s+", line)
        if not label:
            raise SystemExit(
                f"kjv.txt: expected a verse such as 'Ge1:1 In the beginning', found {line[:60]!r}"
            )
        book, chapter = label.groups()
        if book != place[0]:
            books.append([])
        if (book, chapter) != place:
            books[-1].append(Document([], " "))
        books[-1][-1].units.append(line[label.end() :].strip())
        place = (book, chapter)
    return books


def read_books(folder: pathlib.Path) -> list:
    """Books, each a list of documents."""
    books = []
    for name, clean in (("austen", _austen), ("kjv", _bible), ("mobydick", _mobydick)):
        path = folder / f"{name}.txt"
        if not path.exists():
            raise SystemExit(f"{path}: not found. The folder needs austen.txt, kjv.txt and mobydick.txt.")
        books += clean(path.read_text(encoding="utf-8").replace("\ufeff", "").replace("\r\n", "\n"))
    return books


def split(books: list) -> tuple:
    """(training, validation, held-out) documents: the last parts of every book, cut between paragraphs."""
    parts = ([], [], [])
    for book in books:
        total = sum(len(unit) for document in book for unit in document.units)
        done = 0
        for document in book:
            pieces = ([], [], [])
            for unit in document.units:
                middle = (done + len(unit) / 2) / total
                part = 2 if middle > 1 - HELD_OUT else 1 if middle > 1 - HELD_OUT - VALIDATION else 0
                pieces[part].append(unit)
                done += len(unit)
            for part, units in zip(parts, pieces):
                if units:
                    part.append(Document(units, document.between))
    return parts


def plain(documents: list) -> str:
    return "\n\n".join(document.text() for document in documents) + "\n"


def _sentences(text: str) -> list:
    pieces = re.split(r'(?<=[.!?"])\s+(?=["A-Z])', text)
    joined = []
    for piece in pieces:
        if joined and re.search(r"\b(Mr|Mrs|Dr|St|Messrs)\.$", joined[-1]):
            joined[-1] += " " + piece
        else:
            joined.append(piece)
    return joined


def conversations(documents: list, count: int, seed: int) -> list:
    """Lists of (special or text, is_special): the user gives a sentence or two, the assistant goes on."""
    rng = random.Random(seed)
    long = [d for d in (_sentences(document.text()) for document in documents) if len(d) > 8]
    result = []
    for _ in range(count):
        sentences = rng.choice(long)
        asked, told = rng.choice((1, 1, 2)), rng.randint(2, 6)
        at = rng.randrange(len(sentences) - asked - 1)
        turns = []
        if rng.random() < 0.5:
            date = f"20{rng.randint(24, 39)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
            system = SYSTEM.format(date=date, effort=rng.choice(("low", "medium", "high")))
            turns += [
                ("<|start|>", True),
                ("system", False),
                ("<|message|>", True),
                (system, False),
                ("<|end|>", True),
            ]
        turns += [("<|start|>", True), ("user", False), ("<|message|>", True)]
        turns += [(" ".join(sentences[at : at + asked]), False), ("<|end|>", True)]
        turns += [("<|start|>", True), ("assistant", False), ("<|channel|>", True), ("final", False)]
        answer = " ".join(sentences[at + asked : at + asked + told])
        result.append(turns + [("<|message|>", True), (answer, False), ("<|return|>", True)])
    return result
