"""Processes on one machine connect where nobody else can listen or write, and leave no files behind."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
import torch
from processes import linux

import nhgd_pde as nhgd
from nhgd_pde.run.curvature_role import curvature_role
from nhgd_pde.run.launcher import started
from nhgd_pde.run.meeting import on_loopback, private_meeting

PROBLEMS = Path(__file__).parents[1] / "problems"
CPU = torch.device("cpu")
# States of sockets in /proc/net/tcp, and the addresses of the loopback interface there.
LISTENING = "0A"
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


def listening(*processes: int) -> list[str]:
    """The addresses at which processes listen, as written in /proc/net/tcp."""
    sockets = set()
    for process in processes:
        for file in Path(f"/proc/{process}/fd").iterdir():
            # A file may have been closed since the folder was read.
            if file.exists() or file.is_symlink():
                sockets.add(os.readlink(file))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENING and f"socket:[{inode}]" in sockets:
                found.append(local.partition(":")[0])
    return found


def children() -> list[int]:
    own = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return [int(number) for number in own.read_text().split()]


@linux
def test_two_roles_listen_on_the_loopback_interface_only() -> None:
    problem = nhgd.load(PROBLEMS / "poisson_control.yaml", {"mesh.cells": [4, 4]})
    with curvature_role(problem.file, None, CPU):
        found = listening(os.getpid(), *children())
    assert found and set(found) <= set(LOOPBACK)


@linux
def test_ranks_listen_on_the_loopback_interface_only(tmp_path: Path) -> None:
    small = {"mesh.cells": "[4,4]", "scenarios.count": "4", "scenarios.validation": "0"}
    changes = [part for name, value in small.items() for part in ("--set", f"{name}={value}")]
    arguments = ["solve", str(PROBLEMS / "robust_poisson.yaml"), *changes, "--output", str(tmp_path / "run")]
    # The other rank is killed when this one leaves with an exception.
    with pytest.raises(KeyboardInterrupt), started(2, arguments) as place, place.team(CPU):
        found = listening(os.getpid(), *children())
        raise KeyboardInterrupt
    assert found and set(found) <= set(LOOPBACK)


def test_the_store_is_closed_to_other_users_and_removed_after_the_meeting() -> None:
    with private_meeting(2) as meeting:
        folder = meeting.path.parent
        one, other = meeting.store(), meeting.store()
        one.set("key", "value")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert other.get("key") == b"value"
    assert not folder.exists()


def test_a_killed_run_leaves_its_folder_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    dead, alive, other = (tmp_path / f"nhgd-pde-meeting-{name}" for name in (f"{child}-a", f"{os.getpid()}-b", "x"))
    for folder in (dead, alive, other):
        folder.mkdir()
    with private_meeting(1):
        assert not dead.exists() and alive.exists() and other.exists()


def test_an_interface_that_the_user_has_named_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    with on_loopback():
        assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7" and os.environ["NCCL_SOCKET_IFNAME"].startswith("lo")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7" and "NCCL_SOCKET_IFNAME" not in os.environ
