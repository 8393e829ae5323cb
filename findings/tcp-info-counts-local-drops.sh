#!/usr/bin/env bash
# tcp-info-counts-local-drops: what struct tcp_info says was sent, less what it says
# was sent again, is not what was sent once, where a firewall of the same host drops
# on the way out.
#
# Linux 6.18.44, nftables 1.0.6, python 3.11, in a network namespace of its own.
#
# Expected: tcpi_bytes_sent - tcpi_bytes_retrans is the number of bytes that have
# left at least once, whatever happens to them on their way.
#
# Seen: a segment that the output hook drops is an error to TCP. Its bytes are counted
# in tcpi_bytes_sent, the segment stays unsent, and is counted again with each try.
# On 6.18.44, 1,000 bytes written while output drops, then acknowledged:
#   before the drop: bytes sent once 5, written 5
#   after it: bytes sent once 3005 (it grows with each try), written 1005
#
# What follows: who tells by these counters who opened a connection (the opener's SYN
# counts as one byte that is acknowledged) has to ask before a firewall drops.
set -euo pipefail
ns=finding-tcpinfo-$$
ip netns add "$ns"
trap 'ip netns del "$ns"' EXIT
ip -n "$ns" link set lo up
uname -r
nft --version
ip netns exec "$ns" python3 - <<'P'
import socket, struct, subprocess, sys, time

def once(s):
    b = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    sent, again = struct.unpack_from("<QQ", b, 200)
    return sent - again

def acked(s):
    return struct.unpack_from("<Q", s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 120)[0]

def nft(text):
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)

def until(what):
    for _ in range(600):
        if what():
            return
        time.sleep(0.05)
    sys.exit("not within 30 s")

l = socket.create_server(("127.0.0.1", 0))
c = socket.create_connection(l.getsockname())
a, _ = l.accept()
c.sendall(b"x" * 5)
until(lambda: acked(c) == 6)
print("before the drop: bytes sent once", once(c), "written 5; acknowledged, with the SYN,", acked(c))
before = once(c) == 5
port = l.getsockname()[1]
nft("table inet t { chain o { type filter hook output priority 0; tcp dport %d drop; }; }" % port)
c.sendall(b"y" * 1000)
until(lambda: once(c) > 1005)
nft("delete table inet t")
until(lambda: acked(c) == 1006)
print("after it: bytes sent once", once(c), "written 1005; acknowledged, with the SYN,", acked(c))
sys.exit(0 if before and once(c) > 1005 else 1)
P
