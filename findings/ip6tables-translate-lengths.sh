#!/usr/bin/env bash
# Subject:   ip6tables-translate 1.8.9 (Debian 12, iptables 1.8.9-2), matches ah and hbh
# Expected:  the length of an extension header means the same to the rule of ip6tables and to the rule for nft that is
#            printed, and so does the reserved field.
# Behaviour: ip6tables counts octets (--ahlen 24 is an AH header with an ICV of 96 bits), nft the header's own field
#            (RFC 4302: words of 32 bits less two; RFC 8200: units of 8 octets less the first). The number is
#            copied as it stands, so the rule for nft counts other packets, or none. --ahres asks for a
#            reserved field of zero, as RFC 4302 has it; for nft it becomes a field of one. No warning, exit status 0. The
#            same text comes from 1.8.11 (Debian 13) and 1.8.13.
# Seen:      Linux 6.18.44, 2026-11-30: packets of this machine to itself
#            ah --ahlen 24, AH with length field 4: ip6tables 1, nft 0
#            ah --ahres, AH with reserved field 0: ip6tables 1, nft 0
#            hbh --hbh-len 8, the shortest hop-by-hop options: ip6tables 1, nft 0
# Needs:     root (unshare), apt-get with Debian 12's packages, nft, python3. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
v=1.8.9-2
apt-get download -q iptables=$v libxtables12=$v libip4tc2=$v libip6tc2=$v >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu XTABLES_LIBDIR=$dir/root/usr/lib/x86_64-linux-gnu/xtables PATH=$dir/root/usr/sbin:$PATH
cat >send.py <<'P'
import socket, struct, sys
if sys.argv[1] == "ah":
    s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 51)
    s.sendto(struct.pack("!BBHII", 59, 4, 0, 0x1000, 1) + bytes(12), ("::1", 0))
else:
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_HOPOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0])) # PadN
    s.sendto(b"x", ("::1", 9))
P
cat >count.sh <<'C'
set -euo pipefail
ip link set lo up
ip6tables-nft -A INPUT -m "$@" -j ACCEPT
translation=$(ip6tables-translate -A INPUT -m "$@" -j ACCEPT)
echo "$translation" >&2
nft add table ip6 twin
nft 'add chain ip6 twin INPUT { type filter hook input priority -10; }'
eval "${translation/ip6 filter/ip6 twin}"
python3 send.py "$1"
echo "$(ip6tables-nft -vnxL INPUT | awk '/ACCEPT/ && NR > 2 { print $1 }') $(nft list chain ip6 twin INPUT | grep -c 'packets [1-9]' || true)"
C
as_described=true
expect() {
  local seen
  seen=$(unshare -n bash count.sh "${@:2}")
  echo "${*:2}: ip6tables $(cut -d' ' -f1 <<<"$seen"), nft $(cut -d' ' -f2 <<<"$seen")"
  [ "$seen" = "$1" ] || as_described=false
}
expect "1 1" ah --ahspi 0x1000 # as it should be
expect "1 0" ah --ahlen 24
expect "1 0" ah --ahres
expect "1 0" hbh --hbh-len 8
$as_described
