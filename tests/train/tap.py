"""Runs the unittest cases of the calling file and prints TAP, as meson and tools/test read it.

    if __name__ == "__main__":
        tap.main()

A method is one case, unless it has subtests: then each of these is one.
"""

import sys
import unittest


class TapResult(unittest.TestResult):
    """Prints one line for each case as it ends, and what went wrong as comments below it."""

    def __init__(self):
        super().__init__()
        self.number = 0
        self.in_subtests = set()

    def _line(self, good, test, details="", directive=""):
        self.number += 1
        name = test.id().removeprefix("__main__.").replace("#", "")
        print(f"{'ok' if good else 'not ok'} {self.number} - {name}{directive}")
        for line in details.splitlines():
            print("# " + line)
        sys.stdout.flush()

    def addSuccess(self, test):
        super().addSuccess(test)
        if test not in self.in_subtests:
            self._line(True, test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._line(False, test, self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self._line(False, test, self.errors[-1][1])

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._line(True, test, directive=f" # SKIP {reason}")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        self.in_subtests.add(test)
        details = ""
        if err is not None:
            of_its_kind = self.failures if issubclass(err[0], AssertionError) else self.errors
            details = of_its_kind[-1][1]
        self._line(err is None, subtest, details)


def main():
    """Runs every case of __main__; the exit status is 1 when one failed or none ran."""
    result = TapResult()
    unittest.defaultTestLoader.loadTestsFromName("__main__").run(result)
    print(f"1..{result.number}")
    sys.exit(0 if result.wasSuccessful() and result.number > 0 else 1)
