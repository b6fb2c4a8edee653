"""Rules that hold for the text of the headers: macros, includes, the umbrella; prints what including gg costs."""

import argparse
import pathlib
import re
import sys
import tempfile
import time

import checks

DEFINE = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)", re.MULTILINE)


def foreign_macros(text):
    """Macros that a header defines without GG_ in front, whether or not it undefines them again."""
    return sorted({name for name in DEFINE.findall(text) if not name.startswith("GG_")})


def foreign_includes(text):
    """Includes of a device header that are not gg's own."""
    return [name for bracket, name in checks.INCLUDE.findall(text) if bracket == "<" or not name.startswith("gg/")]


def reachable(text_of, start):
    """The gg headers that a header includes, directly or through others, itself among them."""
    seen, todo = set(), [start]
    while todo:
        header = todo.pop()
        if header in text_of and header not in seen:
            seen.add(header)
            todo += checks.own_includes(text_of[header])
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--include", required=True, type=pathlib.Path, help="the folder that holds gg/")
    parser.add_argument("--compiler", required=True)
    options = parser.parse_args()
    headers = checks.all_headers(options.include)
    device = checks.device_headers(options.include)
    files = checks.all_files(options.include)
    text_of = {h: (options.include / h).read_text(encoding="utf-8") for h in files}
    result = checks.Checks()

    result.check("macros are named GG_*", [f"{h} defines {m}" for h in files for m in foreign_macros(text_of[h])])
    result.check("every header has #pragma once", [h for h in headers if "\n#pragma once\n" not in text_of[h]])
    result.check("gg's own headers are included as \"gg/...\"",
                 [f"{h} includes {name}" for h in files for bracket, name in checks.INCLUDE.findall(text_of[h])
                  if bracket == '"' and not name.startswith("gg/") or bracket == "<" and name.startswith("gg/")])
    result.check("device headers include nothing from the system",
                 [f"{h} includes {name}" for h in device for name in foreign_includes(text_of[h])])
    result.check("device headers include only device headers",
                 [f"{h} includes {name}" for h in device for name in sorted(checks.own_includes(text_of[h]) - set(device))])
    # The CUDA backend is not part of the umbrella: a program without CUDA includes gg/gg.hpp.
    expected = {h for h in headers if not h.startswith("gg/cuda/")}
    result.check("gg/gg.hpp includes every public header",
                 sorted(expected - reachable(text_of, "gg/gg.hpp")) or
                 [f"it includes {h}" for h in checks.own_includes(text_of["gg/gg.hpp"]) - expected])

    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "umbrella.cpp")
        source.write_text('#include "gg/gg.hpp"\n', encoding="utf-8")
        compile_it = [options.compiler, "-std=c++20", f"-I{options.include}", source]
        listed = checks.run([*compile_it, "-M"])
        inside = str(options.include.resolve())
        files = [f for f in listed.stdout.replace("\\\n", " ").split() if f.startswith("/")]
        result.check("gg/gg.hpp needs no CUDA header",
                     [listed.stderr] if listed.returncode else
                     [f for f in files if "cuda" in f.lower() and not f.startswith(inside)])
        begin = time.monotonic()
        result.check_run("gg/gg.hpp compiles", checks.run([*compile_it, "-fsyntax-only"]))
        print(f"including gg/gg.hpp costs {time.monotonic() - begin:.1f} s")
    return result.close()


if __name__ == "__main__":
    sys.exit(main())
