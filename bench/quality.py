#!/usr/bin/env python3
"""Measures what each quantisation of a model costs, and writes bench/results/quality.json, the table of
docs/quality.md and its picture docs/quality.svg.

    python3 bench/quality.py --master MASTER.gguf

MASTER.gguf holds the model before quantisation, in BF16, F16 or F32. `gg quantize` makes the other files of it,
`gg perplexity` scores the held-out text with each, the master's probabilities being the reference, and
gg-bench-host_model measures decoding, in rounds that take every file in turn. --draw remakes table and picture
from the results alone. Needs nothing but Python and a build with GG_BUILD_BENCH=ON.
"""

import argparse
import html
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from compare_llama import output_of, processor

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results/quality.json"
PAGE = ROOT / "docs/quality.md"
PICTURE = ROOT / "docs/quality.svg"
BEGIN, END = "<!-- begin: written by bench/quality.py -->\n", "<!-- end -->\n"
MASTER = "BF16, the master"
PROMPT, DECODE_PROMPT = 512, 64
# What the table calls it, and the options of gg quantize. The first is the layout of published gpt-oss files.
VARIANTS = (
    ("MXFP4 experts, Q8_0", ["--type", "Q8_0", "--experts", "MXFP4"]),
    ("Q8_0", ["--type", "Q8_0"]),
    ("Q6_K", ["--type", "Q6_K"]),
    ("Q5_K", ["--type", "Q5_K"]),
    ("Q5_0", ["--type", "Q5_0"]),
    ("Q4_K", ["--type", "Q4_K"]),
    ("Q4_0", ["--type", "Q4_0"]),
    ("MXFP4", ["--type", "MXFP4"]),
)


def run(command, **options):
    """Runs a command whose messages are the user's to see; its standard output, or an exit on failure."""
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, **options)
    if result.returncode != 0:
        sys.exit(f"failed ({result.returncode}): {' '.join(str(part) for part in command)}")
    return result.stdout


def shown(command):
    """A command as a reader may repeat it: paths of the repository from its root, others by name."""
    words = []
    for part in command:
        if isinstance(part, pathlib.Path):
            part = part.resolve()
            part = part.relative_to(ROOT) if part.is_relative_to(ROOT) else part.name
        words.append(f"'{part}'" if " " in str(part) else str(part))
    return " ".join(words)


def make_files(options, folder):
    """[label, file, command that made it] of each row."""
    files = [[MASTER, options.master.resolve(), None]]
    for label, arguments in VARIANTS:
        path = folder / (label.replace(" ", "-").replace(",", "") + ".gguf")
        command = [options.gg, "quantize", options.master.resolve(), path, *arguments]
        run([*command, "--json"])
        files.append([label, path, shown(command)])
    for path in options.also:
        files.append([path.name, path.resolve(), None])
    return files


def measure_quality(options, folder, rows):
    reference = folder / "master.reference"
    common = ["--text-file", options.text, "-c", options.context, "--threads", options.threads]
    if options.chunks:
        common += ["--chunks", options.chunks]
    for row in rows:
        kept = "--save-reference" if row["name"] == MASTER else "--reference"
        command = [options.gg, "perplexity", "-m", row["path"], *common, kept, reference]
        row["perplexity_command"] = shown(command)
        row["perplexity"] = json.loads(run([*command, "--json"]))
        print(f"{row['name']:24} {row['perplexity']['perplexity']:.4f}", file=sys.stderr)


def measure_speed(options, folder, rows):
    tokens = folder / "tokens"
    ids = json.loads(run([options.gg, "tokenize", "-m", rows[0]["path"], "--file", options.text, "--json"]))
    tokens.write_text(" ".join(map(str, ids[:PROMPT])))
    for row in rows:
        row["decode_runs"], row["prefill_runs"] = [], []
    for number in range(options.rounds):
        for row in rows:
            command = [options.bench, row["path"], tokens, options.threads, DECODE_PROMPT, options.decode,
                       max(PROMPT, DECODE_PROMPT + options.decode)]
            row["speed_command"] = shown(command)
            result = json.loads(run(command))
            row["decode_runs"].append(round(result["decode"], 1))
            row["prefill_runs"].append(round(result["prefill"], 1))
        print(f"speed: round {number + 1}/{options.rounds}", file=sys.stderr)
    for row in rows:
        row["decode_tok_s"] = statistics.median(row["decode_runs"])
        row["prefill_tok_s"] = statistics.median(row["prefill_runs"])


def repeatable(options):
    """The command line, all choices that could change the results spelled out."""
    command = ["python3", "bench/quality.py", "--master", options.master, "--text", options.text]
    for path in options.also:
        command += ["--also", path]
    if options.chunks:
        command += ["--chunks", options.chunks]
    return command + ["-c", options.context, "--threads", options.threads, "--rounds", options.rounds, "--decode", options.decode]


def measure(options):
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = pathlib.Path(name)
        files = make_files(options, folder)
        rows = [{"name": label, "path": path, "bytes": path.stat().st_size, "made_by": command}
                for label, path, command in files]
        measure_quality(options, folder, rows)
        measure_speed(options, folder, rows)
        for row in rows:
            row["path"] = pathlib.Path(row["path"]).name
    text = options.text.read_bytes()
    return {
        "device": processor(),
        "threads": options.threads,
        "commit": output_of(["git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=40"]).strip(),
        "command": shown(repeatable(options)),
        "text": {"name": options.text.name, "bytes": len(text)},
        "decode_prompt": DECODE_PROMPT,
        "decode_tokens": options.decode,
        "prefill_tokens": PROMPT,
        "rounds": options.rounds,
        "rows": rows,
    }


def ordered(results):
    """Rows as they are shown: the largest file first."""
    return sorted(results["rows"], key=lambda row: -row["bytes"])


def change(row):
    """How much more perplexity than the master, per cent, and its standard error."""
    ratio = row["perplexity"].get("reference")
    if ratio is None:
        return 0.0, 0.0
    return 100 * (ratio["perplexity_ratio"] - 1), 100 * (ratio["perplexity_ratio_standard_error"] or 0)


def table(results):
    first = results["rows"][0]["perplexity"]
    lines = [
        f"{first['counted']} tokens of `{results['text']['name']}` count, in {first['windows']} windows of "
        f"{first['window']}. Decoding: {results['decode_tokens']} tokens after a prompt of {results['decode_prompt']}, "
        f"the median of {results['rounds']} runs.",
        "",
        f"Measured on {results['device']}, {results['threads']} threads, at commit `{results['commit']}`, by",
        f"`{results['command']}`.",
        "",
        "| matrices | MB | perplexity | against the master, % | KL, millinats | 99 % of KL below | same top, % | bits/byte | "
        "decode, tok/s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in ordered(results):
        p = row["perplexity"]
        cells = [row["name"], f"{row['bytes'] / 1e6:.2f}",
                 f"{p['perplexity']:.3f} ± {p['perplexity_standard_error'] or 0:.3f}"]
        if "reference" in p:
            r = p["reference"]
            cells += ["{:+.2f} ± {:.2f}".format(*change(row)),
                      f"{1e3 * r['kl']:.3f} ± {1e3 * (r['kl_standard_error'] or 0):.3f}", f"{1e3 * r['kl_99_percent']:.2f}",
                      f"{100 * r['same_top']:.2f} ± {100 * (r['same_top_standard_error'] or 0):.2f}"]
        else:
            cells += ["", "", "", ""]
        bits = p["bits_per_byte"]
        cells += ["" if bits is None else f"{bits:.4f}", f"{row['decode_tok_s']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


class Panel:
    """One column of the picture: a scale from `low` to `high`, and marks on it."""

    def __init__(self, title, left, width, low, high):
        self.title, self.left, self.width, self.low, self.high = title, left, width, low, high

    def x(self, value):
        return self.left + self.width * (value - self.low) / (self.high - self.low)


def round_step(span):
    """A step of 1, 2 or 5 times a power of ten that divides a span into four parts or fewer."""
    power = 10.0 ** -12
    while True:
        for factor in (1, 2, 5):
            if span / (factor * power) <= 4:
                return factor * power
        power *= 10


def draw(results):
    rows = ordered(results)
    height, top, names = 30, 62, 178
    bottom = top + height * len(rows)
    lows = [sum(pair) for pair in ((value, -2 * error) for value, error in map(change, rows))]
    highs = [value + 2 * error for value, error in map(change, rows)]
    margin = 0.08 * (max(highs) - min(min(lows), 0)) or 1
    panels = [
        Panel("perplexity against the master, % (± 2 standard errors)", names, 280,
              min(min(lows), 0) - margin, max(highs) + margin),
        Panel("file, MB", names + 320, 130, 0, 1.15 * max(row["bytes"] for row in rows) / 1e6),
        Panel("decode, tok/s", names + 490, 130, 0, 1.15 * max(row["decode_tok_s"] for row in rows)),
    ]
    width = names + 640
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 44}" font-family="sans-serif" font-size="13">',
           "<title>Perplexity, file size and speed of each quantisation</title>",
           f'<rect width="{width}" height="{bottom + 44}" fill="#fff"/>']
    for panel in panels:
        out.append(f'<text x="{panel.left}" y="24" font-weight="bold">{panel.title.split(" (")[0]}</text>')
        if " (" in panel.title:
            out.append(f'<text x="{panel.left}" y="42" fill="#333">({panel.title.split(" (")[1]}</text>')
        step = round_step(panel.high - panel.low)
        for number in range(round(panel.low / step) - 1, round(panel.high / step) + 2):
            value = number * step
            if panel.low <= value <= panel.high:
                x = panel.x(value)
                out.append(f'<path d="M{x:.1f} {top - 8}V{bottom}" stroke="{"#888" if number == 0 else "#ddd"}"/>')
                out.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#333">{value:g}</text>')
    for i, row in enumerate(rows):
        y = top + height * i + height / 2
        kind = "#b4562b" if "MXFP4" in row["name"] else "#3b5b92"
        out.append(f'<text x="{names - 14}" y="{y + 4}" text-anchor="end">{html.escape(row["name"])}</text>')
        value, error = change(row)
        quality, *bars = panels
        if error:
            out.append(f'<path d="M{quality.x(value - 2 * error):.1f} {y}H{quality.x(value + 2 * error):.1f}" '
                       f'stroke="{kind}" stroke-width="2"/>')
        out.append(f'<circle cx="{quality.x(value):.1f}" cy="{y}" r="4" fill="{kind}"/>')
        for panel, amount, text in zip(bars, (row["bytes"] / 1e6, row["decode_tok_s"]),
                                       (f"{row['bytes'] / 1e6:.1f}", f"{row['decode_tok_s']:.0f}")):
            out.append(f'<rect x="{panel.left}" y="{y - 8}" width="{panel.x(amount) - panel.left:.1f}" height="16" fill="{kind}"/>')
            out.append(f'<text x="{panel.x(amount) + 4:.1f}" y="{y + 4}" font-size="11">{text}</text>')
    return "\n".join(out) + "\n</svg>\n"


def write(results, page, picture):
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        sys.exit(f"{page}: expected the markers {BEGIN.strip()} and {END.strip()} once each, in this order")
    before, rest = text.split(BEGIN)
    page.write_text(before + BEGIN + table(results) + END + rest.split(END)[1], encoding="utf-8")
    picture.write_text(draw(results), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--master", type=pathlib.Path, help="the model before quantisation")
    parser.add_argument("--also", type=pathlib.Path, action="append", default=[], metavar="GGUF",
                        help="measure this file too; may be given several times")
    parser.add_argument("--text", type=pathlib.Path, default=ROOT / "runner/demo/heldout.txt", help="text that the model never saw")
    parser.add_argument("-c", "--context", type=int, default=1024, help="tokens of a window (%(default)s)")
    parser.add_argument("--chunks", type=int, help="only the first windows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="of the speed (%(default)s)")
    parser.add_argument("--decode", type=int, default=512, help="tokens to decode (%(default)s)")
    parser.add_argument("--gg", type=pathlib.Path, default=ROOT / "build/release/runner/gg")
    parser.add_argument("--bench", type=pathlib.Path, default=ROOT / "build/release/bench/gg-bench-host_model")
    parser.add_argument("--folder", type=pathlib.Path, help="where temporary files go; they take some hundred MB")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--page", type=pathlib.Path, default=PAGE)
    parser.add_argument("--picture", type=pathlib.Path, default=PICTURE)
    parser.add_argument("--draw", action="store_true", help="measure nothing: table and picture from the results that are there")
    options = parser.parse_args()
    if options.draw == bool(options.master):
        parser.error("give either --master or --draw")
    if options.draw:
        results = json.loads(options.results.read_text())
    else:
        results = measure(options)
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(results, indent=2) + "\n")
    write(results, options.page, options.picture)


if __name__ == "__main__":
    main()
