#!/usr/bin/env bash
# Subject:   iptables-translate 1.8.9 (Debian 12, iptables 1.8.9-2), negated matches sctp --chunk-types and ecn
# Expected:  a negated match counts, as a rule for nft too, just what the match without the negation does not.
# Behaviour: `! --chunk-types all A,B` (not both are there) becomes "A is missing and B is missing", so that a packet with one
#            of them is no longer counted. `! --ecn-tcp-ece` (the flag is not set) becomes `tcp flags != ecn`, which nft reads as
#            "the flags are not just this one", so that a segment with ECE and ACK is counted. No warning, exit
#            status 0. The same text comes from 1.8.11 (Debian 13) and 1.8.13.
# Seen:      Linux 6.18.44, 2026-11-30:
#            sctp ! --chunk-types all DATA,INIT, an INIT alone: iptables 1, nft 0
#            tcp ! --ecn-tcp-ece, a segment with ECE and ACK: iptables 0, nft 1
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
# Nobody looks at the checksums before the filter does.
if sys.argv[1] == "sctp":
    init = struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1)
    body, proto = struct.pack("!HHII", 1000, 2000, 0, 0) + init, 132
else:
    ack, ece = 0x10, 0x40
    body, proto = struct.pack("!HHIIBBHHH", 1000, 2000, 1, 1, 5 << 4, ack | ece, 1000, 0, 0), 6
socket.socket(socket.AF_INET, socket.SOCK_RAW, proto).sendto(body, ("127.0.0.1", 0))
P
cat >count.sh <<'C'
set -euo pipefail
ip link set lo up
iptables-nft -A INPUT -p "$@" -j DROP
translation=$(iptables-translate -A INPUT -p "$@" -j ACCEPT)
echo "$translation" >&2
nft add table ip twin
nft 'add chain ip twin INPUT { type filter hook input priority -10; }'
eval "${translation/ip filter/ip twin}"
python3 send.py "$1"
echo "$(iptables-nft -vnxL INPUT | awk '/DROP/ { print $1 }') $(nft list chain ip twin INPUT | grep -c 'packets [1-9]' || true)"
C
as_described=true
expect() {
  local seen
  seen=$(unshare -n bash count.sh "${@:2}")
  echo "${*:2}: iptables $(cut -d' ' -f1 <<<"$seen"), nft $(cut -d' ' -f2 <<<"$seen")"
  [ "$seen" = "$1" ] || as_described=false
}
expect "0 0" sctp --chunk-types all DATA,INIT # as it should be
expect "1 0" sctp ! --chunk-types all DATA,INIT
expect "1 1" tcp -m ecn --ecn-tcp-ece # as it should be
expect "0 1" tcp -m ecn ! --ecn-tcp-ece
$as_described
