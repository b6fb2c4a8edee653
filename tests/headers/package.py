"""gg configures on a machine without CUDA, installs, and a project outside its tree, whose program is the
README's example, builds against it and runs a model."""

import argparse
import os
import pathlib
import re
import shutil
import sys
import tempfile

import checks


def without_nvcc(environment):
    """The environment of a machine that has no nvcc: no folder in PATH holds one."""
    clean = {k: v for k, v in environment.items() if not k.startswith("CUDA")}
    folders = environment.get("PATH", "").split(os.pathsep)
    clean["PATH"] = os.pathsep.join(f for f in folders if not shutil.which("nvcc", path=f))
    return clean


def readme_example(readme):
    """The README's first C++ program."""
    return re.search(r"^```cpp\n(.*?)^```$", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]


def check_configuring(result, configure, folder):
    """Configures without CUDA into folder/build, and with CUDA where nvcc is found. Returns folder/build."""
    build = folder / "build"
    bare = checks.run([*configure, "-B", build], env=without_nvcc(os.environ))
    result.check_run("configures without CUDA", bare)
    result.check("finds no CUDA compiler there", [bare.stdout] if "CUDA compiler identification" in bare.stdout else [])
    if shutil.which("nvcc"):
        full = checks.run([*configure, "-B", folder / "cuda"])
        result.check_run("configures with CUDA", full)
        result.check("finds the CUDA compiler", [] if "CUDA compiler identification" in full.stdout else [full.stdout])
    else:
        result.skip("no nvcc: configuring with CUDA")
    return build


def check_consumer(result, program, model):
    """Runs the README's program on a model, and on a file that is not there."""
    if not program.exists():
        return result.check("the README's program runs", ["it was not built"])
    result.check_run("the README's program runs", checks.run([program, model]))
    refused = checks.run([program, "no-such-file.gguf"])
    wrong = refused.returncode != 1 or "no-such-file.gguf" not in refused.stderr
    return result.check("the README's program reports a missing file", [refused.stderr] if wrong else [])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("source", "cmake", "generator", "compiler"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    source = pathlib.Path(options.source)
    result = checks.Checks()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        configure = [options.cmake, "-G", options.generator, f"-DCMAKE_CXX_COMPILER={options.compiler}"]
        parts_off = [f"-DGG_BUILD_{part}=OFF" for part in ("RUNNER", "TESTS", "BENCH")]
        build = check_configuring(result, [*configure, "-S", source, *parts_off], folder)

        prefix, outside, example = folder / "prefix", folder / "outside", folder / "example.cpp"
        result.check_run("installs", checks.run([options.cmake, "--install", build, "--prefix", prefix]))
        example.write_text(readme_example(source / "README.md"), encoding="utf-8")
        result.check_run("find_package(gg) from outside",
                         checks.run([*configure, "-S", pathlib.Path(__file__).with_name("consumer"), "-B", outside,
                                     f"-DCMAKE_PREFIX_PATH={prefix}", f"-DEXAMPLE={example}"]))
        result.check_run("the README's program builds", checks.run([options.cmake, "--build", outside]))
        check_consumer(result, outside / "consumer", source / "tests/data/model/llama-text.gguf")
    return result.close()


if __name__ == "__main__":
    sys.exit(main())
