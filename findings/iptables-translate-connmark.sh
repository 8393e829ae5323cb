#!/usr/bin/env bash
# Subject:   iptables-translate 1.8.9 (Debian 12, iptables 1.8.9-2), target CONNMARK with masks
# Expected:  what it prints for nft leaves the connection the mark that CONNMARK leaves it.
# Behaviour: --set-mark and --set-xmark VALUE/MASK: the parts stand in the order in which nft takes the mask to the value
#            and not to the old mark, so the bits of VALUE are lost. --save-mark with a mask: the bits outside
#            of it are set to zero instead of being kept. No warning, exit status 0. The same text comes from
#            1.8.11 (Debian 13) and 1.8.13.
# Seen:      Linux 6.18.44, 2026-11-30: each with connection mark 0x1234, packet mark 0x56 before
#            --set-xmark 0x5/0xff: iptables 0x1205, nft 0x1234
#            --save-mark --mask 0xff: iptables 0x1256, nft 0x56
# Needs:     root (unshare), apt-get with Debian 12's packages, nft. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
v=1.8.9-2
apt-get download -q iptables=$v libxtables12=$v libip4tc2=$v libip6tc2=$v >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu XTABLES_LIBDIR=$dir/root/usr/lib/x86_64-linux-gnu/xtables PATH=$dir/root/usr/sbin:$PATH
cat >mark.sh <<'C'
set -euo pipefail
ip link set lo up
# Each family of commands in a network namespace of its own; the mark is read by nft.
nft -f - <<'N'
table ip seen {
  chain before {
    type filter hook output priority -180
    ct mark set 0x1234
    meta mark set 0x56
  }
  chain after { type filter hook output priority -100; }
}
table ip mangle {
  chain OUTPUT { type route hook output priority mangle; }
}
N
if [ "$1" = iptables ]; then
  nft delete table ip mangle
  iptables-nft -t mangle -A OUTPUT -j CONNMARK "${@:2}"
else
  translation=$(iptables-translate -t mangle -A OUTPUT -j CONNMARK "${@:2}")
  echo "$translation" >&2
  eval "$translation"
fi
for mark in 0x1234 0x1205 0x1200 0x56 0x1256 0x5; do nft "add rule ip seen after ct mark $mark counter"; done
echo x >/dev/udp/127.0.0.1/9
nft list chain ip seen after | sed -n 's/.*ct mark \(0x[0-9a-f]*\) counter packets [1-9].*/\1/p'
C
as_described=true
expect() {
  local a b
  a=$(unshare -n bash mark.sh iptables "${@:3}")
  b=$(unshare -n bash mark.sh nft "${@:3}")
  echo "${*:3}: iptables $a, nft $b"
  [ "$((a)) $((b))" = "$(($1)) $(($2))" ] || as_described=false
}
expect 0x1205 0x1234 --set-xmark 0x5/0xff
expect 0x1205 0x1234 --set-mark 0x5/0xff
expect 0x1256 0x56 --save-mark --mask 0xff
expect 0x5 0x5 --set-mark 0x5 # as it should be
$as_described
