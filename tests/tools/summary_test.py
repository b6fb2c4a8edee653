"""summary.py counts what Catch2 (versions 2 and 3), scripts and ctest print."""

import pathlib
import tempfile
import unittest

import summary

CTEST = """\
test 1
    Start 1: text

1: Test command: gg-tests-text
1: SKIPPED: no vocabulary (in test o200k: round trip)
1: SKIPPED: no vocabulary (in test o200k: speed)
1: SKIPPED: no vocabulary (in test o200k: speed)
1: ===============================================================================
1: All tests passed (1201 assertions in 9 test cases)
1: 
1/5 Test #1: text .............................   Passed    0.11 sec
test 2
2: ===============================================================================
2: test cases:  10 |  7 passed | 2 failed | 1 failed as expected
2: assertions: 400 | 398 passed | 2 failed
2/5 Test #2: gguf .............................***Failed    0.02 sec
test 3
3: SKIPPED: no nvcc
3: 4 passed, 0 failed, 1 skipped
3/5 Test #3: headers-device ...................   Passed    0.02 sec
test 4
4: about to crash
4/5 Test #4: model ............................***Exception: SegFault  0.02 sec
test 5
5/5 Test #5: runner ...........................***Not Run   0.00 sec
"""


def count(text, status):
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "log")
        log.write_text(text, encoding="utf-8")
        return summary.count_phase("phase", status, log)


class SummaryTest(unittest.TestCase):
    def test_ctest_log(self):
        counts = count(CTEST, 8)
        self.assertEqual((counts.programs, counts.passed, counts.failed, counts.skipped), (5, 19, 4, 3))
        self.assertEqual(counts.assertions, 1601)
        self.assertEqual(counts.reasons, {"no vocabulary": 3, "no nvcc": 1})
        self.assertEqual(counts.failures, ["gguf (Failed)", "model (Exception: SegFault)", "runner (Not Run)"])

    def test_nothing_asserted(self):
        counts = count("1: test cases: 2 | 1 passed | 1 skipped\n1: assertions: - none -\n"
                       "1/1 Test #1: cuda .....   Passed    0.11 sec\n", 0)
        self.assertEqual((counts.passed, counts.failed, counts.skipped, counts.assertions), (1, 0, 1, 0))

    def test_a_status_is_a_failure_even_if_nothing_says_so(self):
        self.assertEqual(count("1: ok\n1/1 Test #1: a .....   Passed    0.1 sec\n", 8).failed, 1)
        self.assertEqual(count("it broke\n", 3).failed, 1)
        self.assertEqual(count("2 passed, 0 failed\n", 1).failed, 1)
        self.assertEqual(summary.count_phase("build", 1, "").failed, 1)

    def test_a_script_alone(self):
        counts = count("SKIPPED: no clang\n2 passed, 1 failed, 1 skipped\n", 1)
        self.assertEqual((counts.programs, counts.passed, counts.failed, counts.skipped), (1, 2, 1, 1))


if __name__ == "__main__":
    unittest.main(buffer=True)
