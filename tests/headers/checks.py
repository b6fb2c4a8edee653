"""What the scripts of this folder share: which headers there are, and how checks are counted."""

import pathlib
import re
import subprocess

INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*([<\"])([^>\"]+)[>\"]", re.MULTILINE)

# Headers that device code includes too: they may include nothing from the system. The host's own headers
# stand beside them in format/: encoding, checking, and the switch over types.
DEVICE_FOLDERS = ("block", "format", "layer")
DEVICE_FILES = ("core/device.hpp", "core/math.hpp", "model/synthetic_blocks.hpp", "text/logit.hpp", "text/random.hpp")
HOST_FILES = tuple(f"format/{name}.hpp" for name in (
    "encode", "encode_blocks", "encode_k_minimum", "encode_k_search", "encode_nibbles", "encode_q6_k", "encode_scale",
    "validate", "visit"))

# Headers of the host that define kernels: only nvcc compiles them.
NVCC_FILES = ("cuda/launch.hpp",)


def all_headers(include, endings=("hpp", "cuh")):
    """Every header of the library, as it is included: "gg/core/error.hpp"."""
    files = [f for ending in endings for f in pathlib.Path(include, "gg").rglob(f"*.{ending}")]
    return sorted(str(f.relative_to(include)) for f in files)


def all_files(include):
    """The headers, and the parts that a header includes more than once (.inl)."""
    return all_headers(include, ("hpp", "cuh", "inl"))


def own_includes(text):
    """gg's headers that a text includes."""
    return {name for _, name in INCLUDE.findall(text) if name.startswith("gg/")}


def device_headers(include):
    """The headers that device code reads: those above, the stages (.cuh), and what stages and host share."""
    headers = all_headers(include)
    found = [h for h in headers
             if h.endswith(".cuh") or h.removeprefix("gg/") in DEVICE_FILES
             or h.split("/")[1] in DEVICE_FOLDERS and h.removeprefix("gg/") not in HOST_FILES]
    for header in found:
        text = pathlib.Path(include, header).read_text(encoding="utf-8")
        found += sorted(h for h in own_includes(text) if h.startswith("gg/cuda/") and h not in found)
    return [h for h in headers if h in found]


def run(command, **options):
    """Runs a command and returns it with its output as text."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace", **options)


class Checks:
    """Counts checks and prints what failed; close() prints the line that tests/tools/summary.py reads."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def check(self, name, faults):
        """One check: passed if there are no faults (a list of messages)."""
        if faults:
            self.failed += 1
            for fault in faults:
                print(f"FAILED: {name}: {fault}")
        else:
            self.passed += 1
            print(f"ok: {name}")

    def check_run(self, name, result):
        """One check: passed if the command ended with 0."""
        self.check(name, [] if result.returncode == 0 else [result.stdout + result.stderr])

    def skip(self, reason):
        self.skipped += 1
        print(f"SKIPPED: {reason}")

    def close(self):
        """Prints the counts and returns the exit status."""
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")
        return 1 if self.failed else 0
