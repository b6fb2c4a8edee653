"""The headers that host and device share compile as device code, for every architecture that gg names; those that
only nvcc compiles, alone and as a whole."""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile

import checks

ARCHITECTURES = ("sm_80", "sm_89", "sm_90a", "sm_120a")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--include", required=True, type=pathlib.Path)
    options = parser.parse_args()
    result = checks.Checks()
    nvcc = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if not nvcc:
        result.skip("no nvcc: device compilation of the shared headers")
        return result.close()
    includes = [part for header in checks.device_headers(options.include) for part in ("-include", header)]
    supported = checks.run([nvcc, "--list-gpu-code"]).stdout.split()
    with tempfile.TemporaryDirectory() as folder:
        for architecture in ARCHITECTURES:
            if architecture.rstrip("a") not in supported:
                result.skip(f"this nvcc has no {architecture}")
                continue
            command = [nvcc, "-std=c++20", "-cubin", f"-arch={architecture}", "--Werror", "all-warnings",
                       f"-I{options.include}", *includes, pathlib.Path(__file__).with_name("device.cu"),
                       "-o", os.path.join(folder, f"{architecture}.cubin")]
            result.check_run(f"device headers for {architecture}", checks.run(command))
        for header in checks.NVCC_FILES:
            source = pathlib.Path(folder, "alone.cu")
            source.write_text(f'#include "gg/{header}"\n', encoding="utf-8")
            result.check_run(f"gg/{header} alone", checks.run(
                [nvcc, "-std=c++20", "-c", "--Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror",
                 f"-I{options.include}", source, "-o", os.path.join(folder, "alone.o")]))
    return result.close()


if __name__ == "__main__":
    sys.exit(main())
