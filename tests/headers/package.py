"""gg configures on a machine without CUDA, installs, and a project outside its tree, whose programs are the
examples of README.md and docs/api.md, builds against it. Two run a model; where nvcc is found, one runs a stage on a
GPU, and one opens a model with the CUDA backend."""

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


def examples_of(document, language):
    """A document's programs in a language."""
    text = document.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


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


def check_consumer(result, name, program, model, lines):
    """Runs a program on a model, which prints so many lines at least, and on a file that is not there."""
    if not program.exists():
        return result.check(f"{name} runs", ["it was not built"])
    ran = checks.run([program, model])
    result.check_run(f"{name} runs", ran)
    result.check(f"{name} prints", [] if ran.stdout and ran.stdout.count("\n") >= lines else [ran.stdout])
    refused = checks.run([program, "no-such-file.gguf"])
    wrong = refused.returncode != 1 or "no-such-file.gguf" not in refused.stderr
    return result.check(f"{name} reports a missing file", [refused.stderr] if wrong else [])


def check_cuda_consumer(result, program):
    """Runs the README's program for nvcc, which prints a logit from a GPU and from the host. The GPU's operand is
    FP16: off by at most 2^-11 sum |w y|, and that sum is at most |w| |y| <= (16 / 4) 16, for 256 weights up to 1/4
    and a normed row with gains up to 1."""
    if not program.exists():
        return result.check("the README's program for nvcc runs", ["it was not built"])
    ran = checks.run([program])
    if "cudaErrorNoDevice" in ran.stderr or "cudaErrorInsufficientDriver" in ran.stderr:
        return result.skip("no CUDA device: running the README's program for nvcc")
    numbers = [float(word) for word in ran.stdout.split()]
    right = ran.returncode == 0 and len(numbers) == 2 and abs(numbers[0] - numbers[1]) <= 64 * 2**-11
    return result.check("the README's program for nvcc runs", [] if right else [ran.stdout + ran.stderr])


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

        prefix, outside = folder / "prefix", folder / "outside"
        result.check_run("installs", checks.run([options.cmake, "--install", build, "--prefix", prefix]))
        readme, api = source / "README.md", source / "docs/api.md"
        embedding, with_gpu = examples_of(api, "cpp")
        texts = {"EXAMPLE": ("example.cpp", examples_of(readme, "cpp")[0]), "API_EXAMPLE": ("api.cpp", embedding)}
        if shutil.which("nvcc"):
            texts["CUDA_EXAMPLE"] = ("example.cu", examples_of(readme, "cuda")[0])
            texts["GPU_EXAMPLE"] = ("gpu.cpp", with_gpu)
        for path, text in texts.values():
            (folder / path).write_text(text, encoding="utf-8")
        result.check_run("find_package(gg) from outside",
                         checks.run([*configure, "-S", pathlib.Path(__file__).with_name("consumer"), "-B", outside,
                                     f"-DCMAKE_PREFIX_PATH={prefix}",
                                     *(f"-D{name}={folder / path}" for name, (path, _) in texts.items())]))
        result.check_run("the documents' programs build", checks.run([options.cmake, "--build", outside]))
        model = source / "tests/data/model/llama-text.gguf"
        check_consumer(result, "the README's program", outside / "consumer", model, 0)
        check_consumer(result, "the program of docs/api.md", outside / "api-consumer", model, 4)
        if "CUDA_EXAMPLE" in texts:
            check_cuda_consumer(result, outside / "cuda-consumer")
            check_consumer(result, "the program of docs/api.md for GPUs", outside / "gpu-consumer", model, 1)
        else:
            result.skip("no nvcc: the README's program for nvcc")
            result.skip("no nvcc: the program of docs/api.md for GPUs")
    return result.close()


if __name__ == "__main__":
    sys.exit(main())
