#!/usr/bin/env bash
# Subject:   ip 6.1.0 (Debian 12, iproute2 6.1.0-3), `ip -j route show` of a route through a light-weight tunnel
# Expected:  the JSON tells the route's destination and the tunnel's, as the text does.
# Behaviour: both are members "dst" of one object, and so would be two "src". RFC 8259 section 4 leaves it to the reader which one
#            counts; most take the last one, so that the route seems to be to the tunnel's far end, one host instead of a
#            network, and the destination is lost. IPv6 (`encap ip6`) is the same.
# Seen:      Linux 6.18.44, 2026-11-30: 10.10.0.0/16 encap ip id 5 dst 192.0.2.9 dev d0
#            {"dst":"10.10.0.0/16","encap":"ip","id":5,"src":"0.0.0.0","dst":"192.0.2.9",...}; python3 reads dst 192.0.2.9
# Needs:     root (unshare), apt-get with Debian 12's packages, python3. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
apt-get download -q iproute2=6.1.0-3 >/dev/null 2>&1
dpkg -x iproute2*.deb root
export PATH=$dir/root/sbin:$dir/root/bin:$PATH
unshare -n bash -ec 'ip link add d0 type veth peer name d1; ip link set d0 up; ip link set d1 up; ip addr add 192.0.2.1/24 dev d0
  ip route add 10.10.0.0/16 encap ip id 5 dst 192.0.2.9 dev d0
  ip route show 10.10.0.0/16; ip -j route show 10.10.0.0/16' | tee seen.txt
read_as=$(tail -1 seen.txt | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["dst"])')
echo "read as: $read_as"
grep -q '^10.10.0.0/16 ' seen.txt && [ "$read_as" = 192.0.2.9 ]
