"""Who may do what with a file: its owner, its group, whom an access control list names, and everybody else.

Once a file has a list, the bits of its mode for the group are no rights but the list's mask, the most that anybody whom
it names gets. So a mode that is copied without the list may give the group what it never had. Linux keeps the list in
the extended attribute system.posix_acl_access: a version, then entries of a tag, permissions and an id; see acl(5).

Nothing here touches a file; `storage` reads and gives.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LIST: Final = "system.posix_acl_access"
READ: Final = 4
WRITE: Final = 2
LOOK: Final = 1
"""To go through a directory."""
_ALL: Final = READ | WRITE | LOOK

_VERSION: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_OWNER, _USER, _GROUP_OF_FILE, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY: Final = 0xFFFFFFFF
_FIELDS: Final = 4


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights to a file. Each is a sum of 4 (read), 2 (write) and 1 (execute, or go through).

    Attributes:
        uid: Its owner.
        gid: Its group.
        owner: What the owner may.
        group: What its group may.
        other: What everybody may who is neither and is not named.
        users: What users may whom the list names, by uid.
        groups: What groups may that the list names, by gid.
        exact: The list as the system has it, or None when there is none or these rights were worked out.
    """

    uid: int
    gid: int
    owner: int
    group: int
    other: int
    users: tuple[tuple[int, int], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()
    exact: bytes | None = None

    @property
    def mode(self) -> int:
        """The mode without a list: what it would give to more people than the list did is left out."""
        named = [may for _, may in self.users]
        group = _common([self.group, *named])  # a user who is named may be in the group, too
        other = _common([self.other, *named, *(may for _, may in self.groups)])
        return self.owner << 6 | group << 3 | other

    @property
    def least(self) -> int:
        """What nobody is kept from."""
        return _common([self.group, self.other, *(may for _, may in (*self.users, *self.groups))])

    @property
    def as_list(self) -> bytes:
        """The list as the system takes it; one that names nobody says the same as a mode."""
        if self.exact is not None:
            return self.exact
        entries = [(_OWNER, self.owner, _NOBODY)]
        entries += [(_USER, may, uid) for uid, may in sorted(self.users)]
        entries.append((_GROUP_OF_FILE, self.group, _NOBODY))
        entries += [(_GROUP, may, gid) for gid, may in sorted(self.groups)]
        if self.users or self.groups:
            mask = self.group
            for _, may in (*self.users, *self.groups):
                mask |= may
            entries.append((_MASK, mask, _NOBODY))
        entries.append((_OTHER, self.other, _NOBODY))
        return _VERSION.pack(2) + b"".join(_ENTRY.pack(*entry) for entry in entries)

    def within(self, other: Rights) -> bool:
        """Tell whether these certainly give nobody but the owner more than others of the same owner do."""
        if self.uid != other.uid:
            return False
        if self.users or self.groups or other.users or other.groups or self.gid != other.gid:
            return not (self.group or self.other or any(may for _, may in (*self.users, *self.groups)))
        return not (self.group & ~other.group or self.other & ~other.other)

    def under(self, uid: int, gid: int) -> Rights:
        """Return the same rights for a file that has another owner or group, since it could not be given away.

        Who owned it and who was in its group are named in a list; nobody gets more than before, but for the new owner,
        who has made it.
        """
        if (uid, gid) == (self.uid, self.gid):
            return self
        users, groups, group = dict(self.users), dict(self.groups), self.group
        users.pop(uid, None)
        if self.uid not in {uid, 0} and {self.owner} != {self.group, self.other, *users.values(), *groups.values()}:
            users[self.uid] = self.owner
        if gid != self.gid:
            group = self.least  # of a group that was nobody's business so far
            groups[self.gid] = groups.get(self.gid, 0) | self.group
        return replace(
            self,
            uid=uid,
            gid=gid,
            group=group,
            users=tuple(users.items()),
            groups=tuple(groups.items()),
            exact=None,
        )

    def with_each(self, instead: Callable[[int], int]) -> Rights:
        """Return these rights with what stands for each of them instead."""
        return replace(
            self,
            owner=instead(self.owner),
            group=instead(self.group),
            other=instead(self.other),
            users=tuple((name, instead(may)) for name, may in self.users),
            groups=tuple((name, instead(may)) for name, may in self.groups),
            exact=None,
        )

    def to_read(self, uid: int) -> Rights:
        """Return the rights to a file of the user `uid` that whoever may read this one may read, and nobody else."""
        mine = self.with_each(READ.__and__).under(uid, self.gid)
        return replace(mine, owner=READ | WRITE)

    def to_look_into(self, uid: int) -> Rights:
        """Return the rights to a directory of the user `uid` that whoever may read this file may look into."""
        return replace(self.to_read(uid).with_each(_looking), owner=_ALL)

    def __str__(self) -> str:
        """Return them as a text that `from_text` reads."""
        mode = self.owner << 6 | self.group << 3 | self.other
        has_list = self.exact or self.users or self.groups
        return f"{self.uid}:{self.gid}:{mode:03o}:{self.as_list.hex() if has_list else ''}"


def rights_of(uid: int, gid: int, mode: int, acl: bytes | None) -> Rights:
    """Return the rights to a file.

    Args:
        uid: Its owner.
        gid: Its group.
        mode: Its mode.
        acl: Its access control list as the system has it, or None when it has none.
    """
    plain = Rights(uid, gid, mode >> 6 & _ALL, mode >> 3 & _ALL, mode & _ALL)
    if acl is None:
        return plain
    entries = list(_ENTRY.iter_unpack(acl[_VERSION.size :]))
    mask = next((may for tag, may, _ in entries if tag == _MASK), _ALL)
    return replace(
        plain,
        group=next((may & mask for tag, may, _ in entries if tag == _GROUP_OF_FILE), 0),
        users=tuple((name, may & mask) for tag, may, name in entries if tag == _USER),
        groups=tuple((name, may & mask) for tag, may, name in entries if tag == _GROUP),
        exact=acl,
    )


def from_text(text: object) -> Rights | None:
    """Return the rights that a text of theirs means, or None when it is none."""
    fields = text.split(":") if isinstance(text, str) else []
    if len(fields) != _FIELDS:
        return None
    uid, gid, mode, acl = fields
    try:
        return rights_of(int(uid), int(gid), int(mode, 8), bytes.fromhex(acl) or None)
    except (ValueError, struct.error):
        return None


def _looking(may: int) -> int:
    return READ | LOOK if may & READ else 0


def _common(rights: Iterable[int]) -> int:
    return reduce(and_, rights, _ALL)
