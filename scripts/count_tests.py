"""Prints "PASSED FAILED" of a JUnit report.

  count_tests.py REPORT.xml

A report that is missing or broken is one failure: its runner died. A testcase
whose output ends in Catch2's summary counts as that program's test cases. What
was skipped or not run counts as failed.
"""

import re
import sys
import xml.etree.ElementTree as xml

ALL_PASSED = re.compile(
    r"All tests passed \(\d+ assertions? in (\d+) test cases?\)")
SOME_FAILED = re.compile(r"^test cases:\s*(\d+)(.*)$", re.MULTILINE)
FAILED = re.compile(r"(\d+) failed")


def did_not_pass(case):
    return (case.get("status") in ("fail", "notrun", "disabled")
            or any(case.find(what) is not None
                   for what in ("failure", "error", "skipped")))


def catch2_count(output):
    """(passed, failed) of a Catch2 program's output; None if it is none."""
    if "No tests ran" in output:
        return 0, 1
    if found := ALL_PASSED.search(output):
        return int(found[1]), 0
    if found := SOME_FAILED.search(output):
        failed = FAILED.search(found[2])
        failed = int(failed[1]) if failed else 0
        return int(found[1]) - failed, failed
    return None


def count(case):
    bad = did_not_pass(case)
    passed, failed = (catch2_count(case.findtext("system-out") or "")
                      or (int(not bad), int(bad)))
    # A program that printed a good summary and then died has failed.
    return passed, max(failed, int(bad))


def main(path):
    try:
        cases = [count(case)
                 for case in xml.parse(path).getroot().iter("testcase")]
    except (OSError, xml.ParseError) as error:
        print(error, file=sys.stderr)
        cases = [(0, 1)]
    print(sum(passed for passed, _ in cases),
          sum(failed for _, failed in cases))


if __name__ == "__main__":
    main(sys.argv[1])
