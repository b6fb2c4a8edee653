#!/usr/bin/env python3
"""Runs the tests of a program under NVIDIA's compute-sanitizer, each test a process, and says which are clean.

    python3 tests/tools/sanitize.py build/release/tests/cuda/gg-tests-device
    python3 tests/tools/sanitize.py --tools racecheck build/release/tests/gg-tests-cuda "sessions*" "a session*"

Prints a line for each tool and test: the tool, its outcome, seconds, the test. Outcomes:
  clean          the tool ended and reported nothing
  host only      the test uses no GPU
  skipped        the test says what it lacks: see the log
  N reports      see the log
  N not tracked  launches that the tool did not check, for want of memory
  no end         within --seconds; what it had reported by then is in the log
  failed         the tool reports nothing, but the test did not pass: see the log
  died           the process crashed, or was ended where memory ran out: fewer --jobs leave each more
  status N       the tool itself failed: see the log
Exit status: 0 all are one of the first three, 1 not all, 2 usage, 130 stopped by Ctrl-C, which ends the runs at hand.

racecheck follows every access to shared memory, so that a kernel takes thousands of times as long, and keeps what it
saw: tens of GB of the host's memory. Tests that repeat themselves do so less often under it (GG_TEST_BRIEF), with
--brief under every tool.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
from start_time import commit_here, gpu  # noqa: E402

# synccheck's own guess of a block's barriers is too low: up to 16 warps have a ring of them each. Launches that are
# not waited for hold memory of the tools. What a test provokes on purpose, it checks itself.
OPTIONS = {
    "memcheck": ["--report-api-errors=no"],
    "initcheck": [],
    "racecheck": [],
    "synccheck": ["--num-cuda-barriers=512"],
}
COMMON = ["--check-exit-code=no", "--show-backtrace=device", "--force-synchronization-limit=64"]
GOOD = ("clean", "host only", "skipped")
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")
Run = collections.namedtuple("Run", "tool test outcome seconds")


def test_names(program, patterns):
    """Names of the tests that match any pattern, first those that may run beside each other, then those that need
    the whole GPU (tagged [alone])."""
    # Catch2 version 2 has a list of names; version 3 has it under another name.
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=False).stdout
    listing = ["--list-test-names-only"] if "--list-test-names-only" in text else ["--list-tests", "--verbosity", "quiet"]
    for tag in "~[alone]", "[alone]":
        names = {}  # in the program's order
        for pattern in patterns:
            # Version 2 exits with the number of names.
            listed = subprocess.run([program, *listing, tag + pattern], capture_output=True, text=True, check=False)
            names.update(dict.fromkeys(line.strip() for line in listed.stdout.splitlines() if line.strip()))
        yield list(names)


def outcome(log, status):
    """What a run's log and exit status say; status None: it was stopped."""
    counts = [int(count) for count in SUMMARY.findall(log)]
    untracked = log.count("didn't track the launch")
    if status is None:
        return "no end"
    if "before first instrumented API call" in log:
        return "host only"
    if not counts:
        return f"status {status}"
    if sum(counts):
        return f"{sum(counts)} reports"
    if "process didn't terminate successfully" in log:
        return "died"
    if untracked:
        return f"{untracked} not tracked"
    if status:
        return "failed"
    return "skipped" if "SKIPPED: " in log else "clean"


class Runner:
    """Runs tests of one program."""

    def __init__(self, options):
        self.options = options
        self.processes = set()

    def run(self, tool, test):
        """One run; its output goes into a file named after it."""
        # Catch2 takes a comma for "or" and brackets for a tag.
        exact = re.sub(r"[\[\],]", r"\\\g<0>", test)
        command = ["compute-sanitizer", f"--tool={tool}", *OPTIONS[tool], *COMMON, self.options.program, exact]
        brief = self.options.brief or tool == "racecheck"
        environment = {**os.environ, **({"GG_TEST_BRIEF": "1"} if brief else {})}
        log = self.options.log / f"{tool}-{re.sub('[^A-Za-z0-9]', '_', test)}.log"
        begin = time.monotonic()
        with open(log, "w", encoding="utf-8") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                       env=environment, start_new_session=True)
            self.processes.add(process)
            try:
                status = process.wait(self.options.seconds)
            except subprocess.TimeoutExpired:
                self.stop(process)
                status = None
            self.processes.discard(process)
        text = log.read_text(encoding="utf-8", errors="replace")
        return Run(tool, test, outcome(text, status), round(time.monotonic() - begin))

    @staticmethod
    def stop(process):
        """Ends a run, and what it started."""
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    def all(self, tests, jobs):
        """Runs every tool on every test; yields runs as they end."""
        pairs = [(tool, test) for tool in self.options.tools for test in tests]
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self.run, *pair) for pair in pairs]
            try:
                for future in concurrent.futures.as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self.processes):
                    self.stop(process)
                raise


def save(run, device, options):
    """Adds a run to the file of results, in place of an earlier one of the same tool and test."""
    path = options.json
    program = pathlib.Path(options.program).name
    key = ("program", "tool", "test")
    rows = {tuple(row[k] for k in key): row for row in (json.loads(path.read_text()) if path.exists() else [])}
    command = f"sanitize.py{' --brief' if options.brief else ''} --tools {run.tool} {program}"
    row = {"device": device, "commit": options.commit, "command": command, "program": program, **run._asdict()}
    rows[tuple(row[k] for k in key)] = row
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(sorted(rows.values(), key=lambda row: [row[k] for k in key]), indent=1) + "\n")
    partial.replace(path)


def tool_list(text):
    """The tools in a list with commas."""
    tools = text.split(",")
    for tool in tools:
        if tool not in OPTIONS:
            raise argparse.ArgumentTypeError(f"there is no tool {tool!r} (there are {', '.join(OPTIONS)})")
    return tools


def parse(arguments):
    """The command line."""
    first, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=first, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="gg-tests-cuda or gg-tests-device, built for this machine's GPU")
    parser.add_argument("test", nargs="*", default=["*"], help="names, patterns or tags as Catch2 has them (all)")
    parser.add_argument("--tools", type=tool_list, default=list(OPTIONS), metavar="LIST",
                        help=f"of {','.join(OPTIONS)} (all)")
    parser.add_argument("--brief", action="store_true", help="tests repeat themselves less often")
    parser.add_argument("--jobs", type=int, default=2, metavar="N",
                        help="processes at a time (2; the GPU gives each its turn, and they wait for it)")
    parser.add_argument("--seconds", type=float, default=1800, metavar="N", help="for one run (1800)")
    parser.add_argument("--log", type=pathlib.Path, default=ROOT / "build/logs/sanitize", metavar="FOLDER",
                        help="where the tools' words go (build/logs/sanitize)")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="add the outcomes to a file of results")
    parser.add_argument("--commit", metavar="NAME", help="what was built, for --json (the commit here)")
    options = parser.parse_intermixed_args(arguments)
    if not os.access(options.program, os.X_OK):
        parser.error(f"{options.program}: no program")
    if options.json and not options.json.parent.is_dir():
        parser.error(f"{options.json}: its folder does not exist")
    if options.json and not options.commit:
        options.commit = commit_here()
    if not shutil.which("compute-sanitizer"):
        sys.exit("error: no compute-sanitizer: it is part of the CUDA Toolkit (add its bin folder to PATH)")
    return options


def main(arguments):
    """Runs everything; the exit status."""
    options = parse(arguments)
    device = gpu() or sys.exit("error: nvidia-smi lists no GPU: there is nothing to check")
    options.log.mkdir(parents=True, exist_ok=True)
    runner, runs = Runner(options), []
    try:
        for tests, jobs in zip(test_names(options.program, options.test), (options.jobs, 1)):
            for run in runner.all(tests, jobs):
                print(f"{run.tool:9}  {run.outcome:14}  {run.seconds:4} s  {run.test}", flush=True)
                runs.append(run)
                if options.json:
                    save(run, device, options)
    except KeyboardInterrupt:
        print(f"stopped after {len(runs)} runs; logs in {options.log}", file=sys.stderr)
        return 130
    counts = collections.Counter(run.outcome if run.outcome in GOOD else "not clean" for run in runs)
    print(", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "no tests", "- logs in", options.log)
    return 0 if runs and not counts["not clean"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
