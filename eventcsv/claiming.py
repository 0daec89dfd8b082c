"""What a run knows of claims, whether or not its log is on a server; `claims` makes them."""

from __future__ import annotations

import os
from enum import Enum
from typing import Final

LEASE_S: Final = 30.0
"""How long a claim lasts without being renewed, in seconds."""


class Refusal(Enum):
    """Why a PO could not be claimed."""

    HELD = "another host works on it"
    TOO_LONG = "no claim can be made for so long a key"
    FINISHED = "another host has finished it since"
    INTERRUPTED = "another host had begun it and is gone, and such POs are to be held back"


def owner_of(writer: str) -> str:
    """Return what a run calls itself in its claims."""
    return f"{os.uname().nodename} process {os.getpid()} {writer}"
