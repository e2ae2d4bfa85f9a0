"""Fails if a test was skipped, or failed as expected, without a reason that stands here.

Usage: check_skips.py REPORT.xml (what pytest writes with --junitxml)
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

# "classname::name" of the test -> why it cannot run in continuous integration.
UNLIMITED = "a group without a limit cannot be full"
NO_TOKENS = "AWS knows no token for such a request, so that a repeated one is another one"
ALLOWED: dict[str, str] = {
    **{
        f"tests.contract.test_fake_group_contract.TestPlainGroup::{name}[{loop}]": UNLIMITED
        for name in ("test_full_group_accepts_in_part",)
        for loop in ("asyncio", "trio")
    },
    "plugins.fleeting-plugin-aws.tests.test_aws_contract.TestAwsContract"
    "::test_repeated_operation_adds_nothing": NO_TOKENS,
}
ALLOWED["tests.contract.test_local_contract.TestLocal::test_info_names_the_same_group_again"] = (
    "a group whose instances end with it is another one each time"
)
# That such a group refuses what it does not declare, another test of the contract proves.
UNDECLARED = "the group does not declare that it can"


def main(report: str) -> int:
    """Print each test that was not run, and return 1 if there is one that should have been."""
    # The report is our own, from a moment ago.
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314
    unexpected = 0
    for case in cases:
        skipped = case.find("skipped")
        if skipped is None:
            continue
        name = f"{case.get('classname')}::{case.get('name')}"
        message = skipped.get("message") or ""
        unexpected += name not in ALLOWED and not message.startswith(UNDECLARED)
        print(f"{name} was skipped: {ALLOWED.get(name) or message}")
    print(f"{len(cases)} tests, {unexpected} skipped without a reason in {__file__}")
    return 1 if unexpected or not cases else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
