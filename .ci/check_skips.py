"""Fails if a test was skipped, or failed as expected, without a reason in the list below.

Usage: check_skips.py REPORT.xml (what pytest writes with --junitxml)
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET

# "classname::name" of the test -> why it cannot run in continuous integration.
UNLIMITED = "a group without a limit cannot be full"
NO_TOKENS = "AWS has no token for such a request, so it cannot recognize a repeated one"
ALLOWED: dict[str, str] = {
    **{
        f"tests.contract.test_fake_group_contract.TestPlainGroup::{name}[{loop}]": UNLIMITED
        for name in ("test_full_group_accepts_in_part",)
        for loop in ("asyncio", "trio")
    },
    **{
        "plugins.fleeting-plugin-googlecloud.tests.test_gce_contract."
        f"{kind}::test_full_group_accepts_in_part": UNLIMITED
        for kind in ("TestZonalContract", "TestRegionalContract")
    },
    "plugins.fleeting-plugin-aws.tests.test_aws_contract.TestAwsContract"
    "::test_repeated_operation_adds_nothing": NO_TOKENS,
}
ALLOWED["tests.contract.test_local_contract.TestLocal::test_info_names_the_same_group_again"] = (
    "the instances of such a group end with it, so it is a different group each time"
)
ALLOWED |= {
    f"tests.integration.test_slot_users::{name}": "only root can run an sshd with users of its own"
    for name in (
        "test_each_slot_has_a_user",
        "test_nothing_of_a_slot_user_outlives_the_job",
        "test_a_slot_without_a_user",
    )
}
ALLOWED |= {
    f"tests.integration.test_ssh_ways::test_addresses_of_ipv6[{address}]": "no IPv6 here"
    for address in ("::1", "[::1]")
}
# Tests of the contract that a group skips because of what it is, or for want of a hook that only a
# fake cloud of our own has. Each of these promises is shown by another group: the fake one, or the
# provider of the page about HTTP clouds, which has every hook.
OF_A_GROUP = (
    "the group does not declare that it can",
    "the group declares that each opening creates a new one",
    "the group does not have `outcome`, which is optional",
    "to show it, ",
    "it needs ",
)


def main(report: str) -> int:
    """Print each skipped test, and return 1 if one of them has no reason in the list."""
    # The report is our own: pytest wrote it just now.
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314
    unexpected = 0
    for case in cases:
        skipped = case.find("skipped")
        if skipped is None:
            continue
        name = f"{case.get('classname')}::{case.get('name')}"
        message = skipped.get("message") or ""
        of_a_group = "ontract" in name and message.startswith(OF_A_GROUP)
        unexpected += name not in ALLOWED and not of_a_group
        print(f"{name} was skipped: {ALLOWED.get(name) or message}")
    print(f"{len(cases)} tests, {unexpected} skipped without a reason in {__file__}")
    return 1 if unexpected or not cases else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
