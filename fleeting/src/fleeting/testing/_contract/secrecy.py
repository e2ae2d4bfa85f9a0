"""Tests that no error, log line or `repr` shows a secret."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from fleeting.errors import FleetingError
from fleeting.testing._contract.base import ContractBase, OpenGroup
from fleeting.testing._contract.expectations import expect
from fleeting.testing._contract.promises import Promise, shows
from fleeting.testing._contract.secrets import shows_secret

if TYPE_CHECKING:
    from fleeting.testing._contract.examination import Examination

__all__ = ("SecretTests",)


class SecretTests(ContractBase):
    """Secrets in what a group prints, logs and raises."""

    @shows(Promise.SECRETS, adds=1)
    async def test_no_secret_shows(
        self, open_group: OpenGroup, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No error, log line or `repr` shows a secret."""
        secrets = list(self.secrets)
        async with self.examined(open_group, adds=1) as examination:
            group = examination.group
            # Debug logs of other libraries are not the provider's responsibility.
            caplog.set_level(logging.INFO)
            caplog.set_level(logging.DEBUG, logger=type(group).__module__.partition(".")[0])
            (id,) = await examination.grow(1)
            info = await examination.call(group.connect_info, id)
            secrets += [secret for secret in (info.password, info.private_key) if secret]
            shown = {"the repr of connect_info": repr(info), "the repr of the group": repr(group)}
            shown |= await _complaints(examination, self.unknown_id)
            reasons = [one.reason for one in (await examination.listing()).instances]
            await examination.decrease([id])
            await examination.goes_away(id)
            shown |= await _complaints(examination, id)
        for number, record in enumerate(caplog.records):
            text = logging.Formatter().format(record)
            shown[f"log line {number} of {record.name!r}"] = text
        shown["a reason of an instance"] = " ".join(filter(None, reasons))
        for where, text in shown.items():
            expect(not shows_secret(text, secrets), f"{where} shows a secret")
        if not secrets:
            pytest.skip("no secret is known: connect_info returned none, and `secrets` is empty")


async def _complaints(examination: Examination, id: str) -> dict[str, str]:
    """Return the errors of asking about an instance that does not exist."""
    found: dict[str, str] = {}
    for ask in (examination.group.connect_info, examination.group.heartbeat):
        try:
            await examination.call(ask, id)
        except FleetingError as error:
            found[f"the error of {ask.__name__}({id!r})"] = _in_full(error)
    return found


def _in_full(error: BaseException | None) -> str:
    """Return the text of an error as a traceback shows it, with its causes and notes."""
    parts: list[str] = []
    while error is not None:
        parts += [str(error), repr(error), *getattr(error, "__notes__", ())]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(parts)
