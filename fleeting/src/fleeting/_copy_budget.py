"""How much may be copied from an instance, which can report and send without end."""

from __future__ import annotations

import os

from fleeting.errors import TransferFailed

__all__ = ("CopyBudget",)

# The longest path that an operating system accepts.
PATH_BYTES = 4096
# All paths that an instance reports take memory until they are copied.
ALL_PATHS_BYTES = 64 * 1024 * 1024
FILES = 1_000_000


class CopyBudget:
    """The amount that may still be copied; several copies can share one.

    A connector charges it for what it receives, not for what the instance announces.

    Attributes:
        files: how many files, directories and links may still be reported or copied.
        total_bytes: how many bytes of files may still be copied; None is unlimited.
        file_bytes: how large one file may be; None is unlimited.
    """

    def __init__(
        self,
        *,
        files: int = FILES,
        total_bytes: int | None = None,
        file_bytes: int | None = None,
    ) -> None:
        self.files = files
        self.total_bytes = total_bytes
        self.file_bytes = file_bytes
        self._limits = (files, total_bytes)
        self._paths_bytes = ALL_PATHS_BYTES

    def charge_path(self, path: str) -> None:
        """Charge for a path that the instance reports.

        Raises:
            TransferFailed: there are too many, or it is too long.
        """
        length = len(os.fsencode(path))
        self.files -= 1
        self._paths_bytes -= length
        if self.files < 0:
            raise TransferFailed(f"the instance reports more than {self._limits[0]} files")
        if length > PATH_BYTES or self._paths_bytes < 0:
            raise TransferFailed("the instance reports paths that are too long")

    def charge_bytes(self, count: int, so_far: int) -> None:
        """Charge for received bytes of a file.

        Args:
            count: how many.
            so_far: the size of the file with them.

        Raises:
            TransferFailed: the file is too large, or all files together are.
        """
        if self.file_bytes is not None and so_far > self.file_bytes:
            raise TransferFailed(f"the file is larger than {self.file_bytes} bytes")
        if self.total_bytes is not None:
            self.total_bytes -= count
            if self.total_bytes < 0:
                raise TransferFailed(f"the files together are larger than {self._limits[1]} bytes")
