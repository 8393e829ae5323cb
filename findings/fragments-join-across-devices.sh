#!/bin/sh
# Subject:   Linux, reassembly of IPv4 and IPv6 fragments by connection tracking
# Expected:  fragments that come by different interfaces belong to different datagrams, at the latest where connection
#            tracking puts them together before any filter sees them.
# Behaviour: the interface is in no key: two halves by two links become one datagram, which has the interface of the half
#            that came last. Whoever trusts an interface must put fragments together before that.
# Seen:      Linux 6.18.44, 2026-11-30:
#            IPv4: 56 bytes by v1 and 64 by v2 came as one datagram, by the rule for v2
#            IPv6: 56 bytes by v1 and 64 by v2 came as one datagram, by the rule for v2
# Needs:     root, ip, nft, python3. Exit status: 0 as described, 1 otherwise.
set -eu
ns="find-frag-$$"
trap 'ip netns del "$ns" 2>/dev/null || true; ip netns del "$ns-far" 2>/dev/null || true' EXIT INT TERM
echo "kernel $(uname -r), $(nft --version)"
ip netns add "$ns"
ip netns add "$ns-far"
for i in 1 2; do
	ip link add "v$i" netns "$ns" address 02:00:00:00:00:0$i type veth peer name "w$i" netns "$ns-far"
	ip -n "$ns" link set "v$i" up
	ip -n "$ns-far" link set "w$i" up
	ip netns exec "$ns" sh -c "echo 0 >/proc/sys/net/ipv4/conf/v$i/rp_filter"
done
ip netns exec "$ns" sh -c 'echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter'
ip -n "$ns" addr add 192.0.2.1/24 dev v1
ip -n "$ns" -6 addr add 2001:db8::1/64 dev v1 nodad
ip -n "$ns" route add 198.51.100.0/24 dev v1
ip -n "$ns" -6 route add 2001:db8:9::/64 dev v1
ip netns exec "$ns" nft 'table inet t { chain c { type filter hook input priority 0; ct state new counter
	udp dport 9 iifname "v2" counter accept
	udp dport 9 counter drop
	accept
}
}'
ip netns exec "$ns" python3 - "$ns-far" <<'PY'
import ctypes, os, socket, struct, sys
def checksum(b):
    s = sum(struct.unpack("!%dH" % (len(b) // 2), b)); s = (s >> 16) + (s & 65535); return 65535 & ~(s + (s >> 16))
halves = b"A" * 56, b"B" * 64
udp = struct.pack("!HHHH", 5, 9, 128, 0) + halves[0]
def v4(i, data, word):
    h = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 4242, word, 64, 17, 0, socket.inet_aton("198.51.100.5"), socket.inet_aton("192.0.2.1"))
    return h[:10] + struct.pack("!H", checksum(h)) + h[12:] + data
src, dst = socket.inet_pton(socket.AF_INET6, "2001:db8:9::5"), socket.inet_pton(socket.AF_INET6, "2001:db8::1")
sum6 = checksum(src + dst + struct.pack("!II", 128, 17) + udp + halves[1])
udp6 = udp[:6] + struct.pack("!H", sum6) + udp[8:]
def v6(data, word):
    return struct.pack("!IHBB", 6 << 28, 8 + len(data), 44, 64) + src + dst + struct.pack("!BBHI", 17, 0, word, 4242) + data
hear = {4: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 6: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)}
hear[4].bind(("192.0.2.1", 9)); hear[6].bind(("2001:db8::1", 9))
fd = os.open("/var/run/netns/" + sys.argv[1], os.O_RDONLY); ctypes.CDLL(None, use_errno=True).setns(fd, 0)
def send(dev, kind, b):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("w%d" % dev, 0))
    s.send(bytes([2, 0, 0, 0, 0, dev]) + b"\x02\x00\x00\x00\x00\x77" + struct.pack("!H", kind) + b)
send(1, 0x0800, v4(4, udp, 0x2000)); send(2, 0x0800, v4(4, halves[1], 8))
send(1, 0x86dd, v6(udp6, 1)); send(2, 0x86dd, v6(halves[1], 64))
for n, s in hear.items():
    s.settimeout(3)
    b = s.recv(500)
    print("IPv%d: %d bytes by v1 and %d by v2 came as one datagram, by the rule for v2" % (n, b.count(b"A"), b.count(b"B")))
    assert b == halves[0] + halves[1]
PY
