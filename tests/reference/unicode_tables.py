"""Writes include/gg/text/unicode_tables.hpp: the general category of every code point of Unicode 16.0.

    pip install unicodedata2==16.0.0
    python3 tests/reference/unicode_tables.py            # writes the header
    python3 tests/reference/unicode_tables.py --check    # exit 1 if the header differs

The table has two stages: each 256 code points name one of the distinct pages; a page holds a letter for each code
point, 'A' + the category's place in CATEGORIES.
"""

import pathlib
import sys

import unicodedata2

VERSION = "16.0.0"
CATEGORIES = [
    "Lu",
    "Ll",
    "Lt",
    "Lm",
    "Lo",
    "Mn",
    "Mc",
    "Me",
    "Nd",
    "Nl",
    "No",
    "Pc",
    "Pd",
    "Ps",
    "Pe",
    "Pi",
    "Pf",
    "Po",
    "Sm",
    "Sc",
    "Sk",
    "So",
    "Zs",
    "Zl",
    "Zp",
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Cn",
]
PAGE = 256
HEADER = pathlib.Path(__file__).resolve().parents[2] / "include/gg/text/unicode_tables.hpp"


def text() -> str:
    if unicodedata2.unidata_version != VERSION:
        sys.exit(
            f"expected Unicode {VERSION}, found {unicodedata2.unidata_version}: pip install unicodedata2==16.0.0"
        )
    letter = {name: chr(ord("A") + i).replace("\\", "\\\\") for i, name in enumerate(CATEGORIES)}
    pages: dict[tuple[str, ...], int] = {}
    numbers = []
    for start in range(0, 0x110000, PAGE):
        page = tuple(letter[unicodedata2.category(chr(i))] for i in range(start, start + PAGE))
        numbers.append(pages.setdefault(page, len(pages)))
    assert len(pages) <= 256 and len(pages) * PAGE < 65536

    lines = [
        f"// The general category of every code point of Unicode {VERSION}, in two stages; read through unicode.hpp.",
        "// Written by tests/reference/unicode_tables.py from the Unicode Character Database: not edited by hand.",
        "#pragma once",
        "",
        "namespace gg::text::unicode_tables {",
        "",
        "// clang-format off",
        f"/// Which of the pages below holds code points {PAGE}*i to {PAGE}*i + {PAGE - 1}.",
        f"inline constexpr unsigned char page_of[{len(numbers)}] = {{",
    ]
    row = "   "
    for number in numbers:
        if len(row) + len(f" {number},") > 109:
            lines.append(row)
            row = "   "
        row += f" {number},"
    lines += [
        row,
        "};",
        "",
        f"/// {len(pages)} pages of {PAGE} letters: 'A' + the category's number in Category.",
        "inline constexpr char pages[] =",
    ]
    for page in pages:
        for start in range(0, PAGE, 64):
            lines.append('    "' + "".join(page[start : start + 64]) + '"')
    lines[-1] += ";"
    lines += ["// clang-format on", "", "}  // namespace gg::text::unicode_tables", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    made = text()
    if "--check" in sys.argv[1:]:
        sys.exit(0 if HEADER.read_text() == made else f"{HEADER} differs from what this script writes")
    HEADER.write_text(made)
