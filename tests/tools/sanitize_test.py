"""sanitize.py runs every test under every tool and reads what the tools say."""

import contextlib
import io
import json
import os
import pathlib
import tempfile
import time
import unittest
from unittest import mock

import sanitize

NAMES = {"a test, with a comma": "~", "leaks": "~", "sleeps": "~", "needs [all]": "", "asserts": "~", "on the host": "~",
         "lacks a file": "~", "outgrows the tool": "~"}
PROGRAM = f"""#!/usr/bin/env python3
import sys
if sys.argv[1] == "--help":
    print("LISTING")
else:
    assert sys.argv[1:-1] == "LISTING".split(), sys.argv
    names = {NAMES!r}
    tag, pattern = sys.argv[-1].split("]", 1)
    shown = [name for name in names if tag == names[name] + "[alone" and pattern in ("*", name)]
    print("\\n".join("  " + name for name in shown))
    sys.exit(len(shown) if "LISTING" == "--list-test-names-only" else 0)
"""
SANITIZER = """#!/usr/bin/env python3
import os, subprocess, sys, time
tool, name = sys.argv[1], sys.argv[-1]
racing = tool == "--tool=racecheck"
assert racing == ("GG_TEST_BRIEF" in os.environ)
errors = 3 if name == "leaks" and tool == "--tool=memcheck" else 0
if name == "on the host":
    sys.exit("Target application terminated before first instrumented API call")
if name == "sleeps":
    subprocess.run(["sleep", "60"])
if name == "lacks a file":
    print("SKIPPED: no file (in test lacks a file)")
if name == "outgrows the tool":
    print("encountered an error and didn't track the launch.\\n" * 2)
assert name in (r"a test\\, with a comma", r"needs \\[all\\]") or name.isalpha() or " " in name
print(f"========= RACECHECK SUMMARY: {errors} hazards displayed" if racing else f"========= ERROR SUMMARY: {errors} errors")
sys.exit(1 if name == "asserts" else 0)
"""


class SanitizeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.write("nvidia-smi", "#!/bin/sh\necho A GPU\n")
        self.write("compute-sanitizer", SANITIZER)
        path = mock.patch.dict(os.environ, {"PATH": f"{self.folder}:{os.environ['PATH']}"})
        path.start()
        self.addCleanup(path.stop)

    def write(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def sanitize(self, *arguments, listing="--list-test-names-only"):
        self.write("program", PROGRAM.replace("LISTING", listing))
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = sanitize.main(["--log", str(self.folder / "log"), str(self.folder / "program"), *arguments])
        return status, out.getvalue().splitlines()

    def test_outcomes(self):
        results = self.folder / "results.json"
        begin = time.monotonic()
        status, lines = self.sanitize("--tools", "memcheck,racecheck", "--seconds", "3", "--jobs", "4", "--json",
                                      str(results), "--commit", "abc")
        self.assertLess(time.monotonic() - begin, 30)
        self.assertEqual(status, 1)
        found = {(line[:9].strip(), line[35:]): line[11:25].strip() for line in lines[:-1]}
        self.assertEqual(len(found), 2 * len(NAMES))
        for tool in "memcheck", "racecheck":
            for test, expected in {"a test, with a comma": "clean", "needs [all]": "clean", "sleeps": "no end",
                                   "asserts": "failed", "on the host": "host only", "lacks a file": "skipped",
                                   "outgrows the tool": "2 not tracked"}.items():
                self.assertEqual(found[tool, test], expected, (tool, test))
        self.assertEqual(found["memcheck", "leaks"], "3 reports")
        self.assertEqual(found["racecheck", "leaks"], "clean")
        self.assertTrue(lines[-1].startswith("5 clean, 2 host only, 7 not clean, 2 skipped"), lines[-1])
        self.assertEqual([line[35:] for line in lines[-3:-1]], ["needs [all]"] * 2)
        rows = json.loads(results.read_text())
        self.assertEqual({(row["tool"], row["test"]): row["outcome"] for row in rows}, found)
        self.assertEqual({(row["device"], row["commit"], row["program"]) for row in rows}, {("A GPU", "abc", "program")})

    def test_rows_replace_earlier_ones(self):
        results = self.folder / "results.json"
        for commit in "one", "two":
            self.sanitize("--json", str(results), "--tools", "memcheck", "--commit", commit, "leaks")
        self.assertEqual([row["commit"] for row in json.loads(results.read_text())], ["two"])

    def test_brief(self):
        self.write("compute-sanitizer", SANITIZER.replace("assert racing ==", "assert True =="))
        results = self.folder / "results.json"
        status, _ = self.sanitize("--brief", "--json", str(results), "--tools", "initcheck,racecheck", "--commit", "one",
                                  "leaks")
        self.assertEqual(status, 0)
        self.assertEqual([row["command"] for row in json.loads(results.read_text())],
                         [f"sanitize.py --brief --tools {tool} program" for tool in ("initcheck", "racecheck")])

    def test_names_of_both_versions_of_catch(self):
        for listing in "--list-test-names-only", "--list-tests --verbosity quiet":
            status, lines = self.sanitize("--tools", "initcheck", "leaks", "a test, with a comma", listing=listing)
            self.assertEqual((status, len(lines)), (0, 3), lines)

    def test_nothing_to_run_is_no_success(self):
        status, lines = self.sanitize("no such test")
        self.assertEqual((status, len(lines)), (1, 1), lines)

    def test_reports_of_a_skipped_or_failed_test_count(self):
        summary = "========= ERROR SUMMARY: {} errors\n"
        skipped = "SKIPPED: no file (in test a)\n"
        self.assertEqual(sanitize.outcome(skipped + summary.format(2), 0), "2 reports")
        self.assertEqual(sanitize.outcome(skipped + summary.format(0), 1), "failed")
        self.assertEqual(sanitize.outcome(skipped + summary.format(0), 0), "skipped")
        self.assertEqual(sanitize.outcome(summary.format(0) + summary.format(3), 1), "3 reports")
        self.assertEqual(sanitize.outcome("it broke", 9), "status 9")
        died = "========= Error: process didn't terminate successfully\n"
        self.assertEqual(sanitize.outcome(died + summary.format(0), 9), "died")
        self.assertEqual(sanitize.outcome(died + summary.format(2), 9), "2 reports")

    def test_stopping_ends_the_runs_and_is_no_success(self):
        with mock.patch.object(sanitize.Runner, "run", side_effect=KeyboardInterrupt):
            with contextlib.redirect_stderr(io.StringIO()):
                status, _ = self.sanitize("--tools", "initcheck", "leaks")
        self.assertEqual(status, 130)

    def test_refusals(self):
        self.write("program", PROGRAM)
        program = str(self.folder / "program")
        for arguments in ["--tools", "memcheck,x", program], ["/nowhere/program"], ["--json", "/nowhere/a", program]:
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as refused:
                sanitize.parse(arguments)
            self.assertEqual(refused.exception.code, 2)
        self.write("nvidia-smi", "#!/bin/sh\nexit 9\n")
        with self.assertRaisesRegex(SystemExit, "no GPU"):
            self.sanitize()


if __name__ == "__main__":
    unittest.main(buffer=True)
