"""What processes listen on, from Linux's /proc."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

LISTENING = "0A"


def listening(processes: Iterable[int]) -> list[IPv4Address | IPv6Address]:
    """The addresses of all sockets on which one of these processes waits for connections."""
    inodes = set()
    for pid in processes:
        try:
            inodes |= {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()}
        except OSError:  # it has ended, or a file was closed meanwhile
            continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and f"socket:[{fields[9]}]" in inodes:
                found.append(_address(fields[1].split(":")[0]))
    return found


def _address(digits: str) -> IPv4Address | IPv6Address:
    """As the kernel writes it: words of four bytes, each in the machine's own order."""
    raw = bytes.fromhex(digits)
    words = (raw[start : start + 4][::-1] for start in range(0, len(raw), 4))
    found = ip_address(b"".join(words))
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found
