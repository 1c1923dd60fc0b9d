"""Where a training's processes meet: what of it a stranger can reach. One machine's ranks are in tests/parallel."""

import os
import socket

import psutil
import pytest
from torch.distributed.elastic.rendezvous import RendezvousParameters

from regdpo.runs import rendezvous
from regdpo.runs.rendezvous import Rendezvous


@pytest.fixture
def interface(monkeypatch):
    """An address of this machine that is not a loopback's; its interface is named."""
    for name, addresses in psutil.net_if_addrs().items():
        for it in addresses:
            if it.family == socket.AF_INET and not it.address.startswith("127."):
                monkeypatch.setenv("GLOO_SOCKET_IFNAME", name)
                return it
    pytest.skip("this machine has no network")


def of_machine(rank: int, port: int, machines: int = 2) -> Rendezvous:
    options = {"rank": str(rank), "timeout": 10}
    return Rendezvous(RendezvousParameters("regdpo", f"HEAD:{port}", "9", machines, machines, **options))


def listening() -> set[tuple[str, int]]:
    return {tuple(it.laddr) for it in psutil.Process().net_connections("inet") if it.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("head", ["localhost", "address"])
def test_several_machines_meet_at_one_address(monkeypatch, interface, head):
    """A name that is the loopback's on the machine itself stands for the named interface."""
    monkeypatch.setenv("HEAD", interface.address if head == "address" else head)
    with socket.create_server((interface.address, 0)) as free:
        port = free.getsockname()[1]
    before = listening()
    first = of_machine(0, port).next_rendezvous()
    assert listening() - before == {(interface.address, port)}
    monkeypatch.setenv("HEAD", interface.address)
    second = of_machine(1, port).next_rendezvous()
    first.store.set("is", "seen")
    assert second.store.get("is") == b"seen"
    assert [(it.rank, it.world_size) for it in (first, second)] == [(0, 2), (1, 2)]
    assert first.bootstrap_store_info.master_addr == interface.address


def test_the_ranks_of_one_machine_meet_in_memory(monkeypatch, tmp_path):
    for name in (rendezvous.FILE, *rendezvous.INTERFACES):
        monkeypatch.setenv(name, "other")  # and put back
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = listening()
    of_machine(0, 0, machines=1).next_rendezvous()
    ranks = [rendezvous.store() for _ in range(2)]
    ranks[0].set("is", "seen")
    assert ranks[1].get("is") == b"seen"
    assert listening() == before
    assert os.environ["GLOO_SOCKET_IFNAME"] == rendezvous.loopback()
    monkeypatch.delenv(rendezvous.FILE)
    assert rendezvous.store() is None
