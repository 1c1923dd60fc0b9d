"""Where a training's processes meet, so that no stranger can.

torchrun's own ways listen on every interface, ask nobody who they are, and of one machine's (`c10d`) unpickle what they
find: whoever reaches the port runs code. Here torchrun (``python -m regdpo.runs.rendezvous`` instead of ``torchrun``)
gets a way of its own:

one machine      nothing listens: ranks meet in a file in memory that only this user's processes can open, and talk over
                 the loopback interface
several machines the first machine's store listens at one address, see ``address``, and holds no pickle
"""

import ipaddress
import os
import socket
from datetime import timedelta

import psutil
import torch.distributed as dist
from torch.distributed import run
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousParameters
from torch.distributed.elastic.rendezvous.api import RendezvousStoreInfo, rendezvous_handler_registry

BACKEND = "regdpo"
"""torchrun's name for it: ``--rdzv-backend``. The endpoint is ``NAME:PORT``, where the environment variable NAME has
the first machine's name; ``--rdzv-conf rank=N`` is the machine's number."""
FILE = "REGDPO_RENDEZVOUS"
"""The environment's name of the file where one machine's ranks meet."""
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""The environment's names of the network interface over which ranks talk."""

QUIET = {"NCCL_RAS_ENABLE": "0"}
"""NCCL's status service would listen on the loopback interface, for every user of the machine."""


class Rendezvous(RendezvousHandler):
    """One meeting of a known number of machines, as torchrun asks for it."""

    def __init__(self, params: RendezvousParameters):
        self.params, self.machines, self.rank = params, params.max_nodes, int(params.config.get("rank", 0))
        self._info: RendezvousInfo | None = None

    def get_backend(self) -> str:
        return BACKEND

    @property
    def use_agent_store(self) -> bool:
        """Ranks of several machines use the store of the first machine's torchrun."""
        return True

    def next_rendezvous(self) -> RendezvousInfo:
        if self._info is None:
            store, where = self._one_machine() if self.machines == 1 else self._several()
            store = dist.PrefixStore(self.params.run_id, store)
            self._info = RendezvousInfo(store, self.rank, self.machines, where)
        return self._info

    def _one_machine(self) -> tuple[dist.Store, RendezvousStoreInfo]:
        self._memory = os.memfd_create("regdpo")
        os.environ[FILE] = f"/proc/{os.getpid()}/fd/{self._memory}"
        os.environ.update(dict.fromkeys(INTERFACES, loopback()))
        return dist.HashStore(), RendezvousStoreInfo("none", 0)

    def _several(self) -> tuple[dist.Store, RendezvousStoreInfo]:
        name, _, port = self.params.endpoint.rpartition(":")
        head = os.environ[name]
        if self.rank:
            where = RendezvousStoreInfo(head, int(port))
            timeout = timedelta(seconds=int(self.params.config["timeout"]))
            return dist.TCPStore(head, int(port), self.machines, is_master=False, timeout=timeout), where
        family, found = address(head)
        listener = socket.create_server((found, int(port)), family=family)
        where = RendezvousStoreInfo(found, int(port))
        store = dist.TCPStore(
            where.master_addr,
            where.master_port,
            self.machines,
            is_master=True,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
        return store, where

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None:
        pass

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return str(self.params.run_id)

    def shutdown(self) -> bool:
        return True


def store() -> dist.Store | None:
    """The store of this rank; None where torch finds it by itself."""
    if FILE not in os.environ:
        return None
    return dist.FileStore(os.environ[FILE], int(os.environ["WORLD_SIZE"]))


def loopback() -> str:
    """The name of the interface that leaves no machine."""
    return next(
        name for name, addresses in psutil.net_if_addrs().items() if any(it.address == "127.0.0.1" for it in addresses)
    )


def address(head: str) -> tuple[int, str]:
    """Where this machine, the first, listens, with its family: the address that its name stands for; where that is a
    loopback's, as some systems have it, that of the interface which ``INTERFACES`` name."""
    family, *_, where = socket.getaddrinfo(head, None, type=socket.SOCK_STREAM)[0]
    if ipaddress.ip_address(str(where[0]).partition("%")[0]).is_loopback:
        addresses = psutil.net_if_addrs()
        wanted = [it for name in INTERFACES for it in addresses.get(os.environ.get(name, ""), [])]
        for it in wanted:
            if it.family == socket.AF_INET:
                return it.family, it.address
    return family, str(where[0])


def main() -> None:
    """torchrun."""
    os.environ.update(QUIET)
    rendezvous_handler_registry.register(BACKEND, Rendezvous)
    run.main()


if __name__ == "__main__":
    main()
