"""Counts what the phases of tests/run.sh did and prints the summary.

Each argument is NAME|SECONDS|STATUS|LOG. A log is the output of `ctest -V`, whose test programs are Catch2
(version 2 or 3) or scripts, or the output of a script alone. A script's own line "N passed, N failed" (with
", N skipped") counts if it prints one; otherwise it is one test. A phase without a log is a build: its status
counts as a failure, but it holds no tests. Exit status 1 if anything failed or no test ran.
"""

import argparse
import collections
import re
import sys

ALL_PASSED = re.compile(r"All tests passed \((?:(\d+) assertions?|no assertions?) in (\d+) test cases?\)")
CASES = re.compile(r"test cases:\s*\d+ \| (.*)")
ASSERTIONS = re.compile(r"assertions:\s*(\d+) \|")
SCRIPT = re.compile(r"(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")
SKIPPED = re.compile(r"SKIPPED:\s*(.*)")
FINISHED = re.compile(r"\s*\d+/\d+ Test\s+#(\d+): (\S+) [ .]*(?:\*\*\*)?(.+?)\s+[\d.]+ sec")
FAILURE_LINES = 80  # of a failed program's output, shown before the summary
NUMBERED = re.compile(r"(\d+): (.*)")


class Counts:
    """Passed, failed and skipped tests, and assertions."""

    def __init__(self):
        self.programs = self.passed = self.failed = self.skipped = self.assertions = 0
        self.reasons = collections.Counter()
        self.failures = []

    def add(self, other):
        for name in ("programs", "passed", "failed", "skipped", "assertions"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reasons.update(other.reasons)
        self.failures += other.failures


def count_catch(lines, counts):
    """Adds a Catch2 program's closing lines; False if there are none."""
    for line in lines:
        if match := ALL_PASSED.search(line):
            counts.assertions += int(match[1] or 0)
            counts.passed += int(match[2])
            return True
        if match := CASES.search(line):
            for number, what in re.findall(r"(\d+) (passed|failed as expected|failed|skipped)", match[1]):
                kind = {"failed as expected": "passed"}.get(what, what)
                setattr(counts, kind, getattr(counts, kind) + int(number))
            for rest in lines:
                if assertions := ASSERTIONS.search(rest):
                    counts.assertions += int(assertions[1])
            return True
    return False


def count_program(name, lines, outcome):
    """The counts of one program. `outcome` is what ctest says: Passed, Failed, Skipped, Timeout ..."""
    counts = Counts()
    counts.programs = 1
    # GG_SKIP of tests/catch.hpp prints "SKIPPED: reason (in test NAME)"; to Catch2 that test has passed.
    printed = [match[1] for line in lines if (match := SKIPPED.match(line)) and match[1]]
    script = next((m for line in reversed(lines) if (m := SCRIPT.match(line.strip()))), None)
    if count_catch(lines, counts):
        tests = {text.rpartition(" (in test ")[2] for text in printed}
        counts.passed -= len(tests)
        counts.skipped += len(tests)
        counts.reasons.update(text.partition(" (in test ")[0] for text in printed)
    elif script:
        counts.passed, counts.failed, counts.skipped = (int(script[i] or 0) for i in (1, 2, 3))
        counts.reasons.update(printed)
    elif outcome == "Skipped":
        counts.skipped = 1
        counts.reasons[printed[0] if printed else name] += 1
    elif outcome == "Passed":
        counts.passed = 1
    if outcome not in ("Passed", "Skipped"):
        counts.failed = max(counts.failed, 1)
    if counts.failed:
        counts.failures.append(f"{name} ({outcome})")
        print(f"--- {name}: {outcome}", *lines[-FAILURE_LINES:], sep="\n", file=sys.stderr)
    return counts


def count_phase(name, status, log):
    """The counts of one phase's log."""
    counts = Counts()
    if log:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        finished = [match for line in lines if (match := FINISHED.match(line))]
        if finished:
            output = collections.defaultdict(list)
            for line in lines:
                if match := NUMBERED.match(line):
                    output[match[1]].append(match[2])
            for match in finished:
                counts.add(count_program(match[2], output[match[1]], match[3]))
        else:
            counts = count_program(name, lines, "Passed" if status == 0 else f"exit {status}")
    if status != 0 and counts.failed == 0:
        counts.failed = 1
        counts.failures.append(f"{name} (exit {status})")
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, required=True, help="of the whole run")
    parser.add_argument("phases", nargs="+", metavar="NAME|SECONDS|STATUS|LOG")
    options = parser.parse_args()

    total = Counts()
    row = "{:<22} {:>8} {:>8} {:>8} {:>8} {:>11} {:>8}"
    print(row.format("phase", "programs", "passed", "failed", "skipped", "assertions", "seconds"))
    for phase in options.phases:
        name, seconds, status, log = phase.split("|")
        counts = count_phase(name, int(status), log)
        total.add(counts)
        print(row.format(name, counts.programs, counts.passed, counts.failed, counts.skipped,
                         counts.assertions, seconds))
    print(row.format("all", total.programs, total.passed, total.failed, total.skipped, total.assertions,
                     options.seconds))
    for reason, number in sorted(total.reasons.items()):
        print(f"skipped{f' ({number} times)' if number > 1 else ''}: {reason}")
    for failure in total.failures:
        print(f"failed: {failure}")
    if total.programs == 0:
        print("failed: no test ran")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or total.programs == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
