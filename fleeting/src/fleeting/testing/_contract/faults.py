"""The troubles of a cloud that an author's fake can cause for the contract."""

from __future__ import annotations

from enum import Enum

__all__ = ("Fault",)


class Fault(Enum):
    """What goes wrong with the next request to the cloud, for `InstanceGroupContract.fault`.

    Unless the text says otherwise, a fault concerns one request, and that request does nothing.

    Attributes:
        NONE: nothing; faults that were asked for and have not happened are off.
        THROTTLED: it is refused because there were too many.
        UNAVAILABLE: the cloud answers with an internal error.
        GARBLED: the answer is not one of the API's, such as a page of a proxy with status 200.
        CUT: the connection is cut before the answer.
        DENIED: the credentials are refused.
        GROUP_GONE: the cloud answers that the group does not exist.
        PAGE_FAILS: the next request for a page after the first is answered with an internal
            error.
        REPLY_LOST: the next request that changes something is carried out, and the connection
            is cut before the answer.
        REMOVAL_REFUSED: the next removal is refused, for one instance.
        QUOTA: the next creation is refused because a limit of the account is reached.
        CAPACITY: the next creation is refused because the cloud has no capacity.
        STRANGE_STATE: the next listing shows every instance in a state that the API's
            description does not have.
        BOOT_FAILS: the next instance is created, and fails before it runs.
        BOOT_HANGS: the next instance is created, and never finishes booting.
    """

    NONE = "none"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    GARBLED = "garbled"
    CUT = "cut"
    DENIED = "denied"
    GROUP_GONE = "group gone"
    PAGE_FAILS = "page fails"
    REPLY_LOST = "reply lost"
    REMOVAL_REFUSED = "removal refused"
    QUOTA = "quota"
    CAPACITY = "capacity"
    STRANGE_STATE = "strange state"
    BOOT_FAILS = "boot fails"
    BOOT_HANGS = "boot hangs"
