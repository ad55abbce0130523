"""Why a run of several processes cannot go on."""

from __future__ import annotations


class RoleError(RuntimeError):
    """A run of several processes cannot go on."""


class RoleFailedError(RuntimeError):
    """Another process ended before all had met, for the reason that it gives."""


class RoleLostError(RoleError):
    """The process of the other role is gone, or answers no more."""


class RemoteError(RoleError):
    """The curvature role could not do what it was asked to do."""


class RemoteStorageError(RemoteError):
    """The curvature role could not write or read a file; its inverse is as it was."""


class RankLostError(RoleError):
    """The process of another rank is gone."""


class RanksPartedError(RoleError):
    """The ranks do not do the same any more."""
