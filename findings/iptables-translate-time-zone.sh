#!/usr/bin/env bash
# Subject:   iptables-translate 1.8.9 (Debian 12, iptables 1.8.9-2), match time; nft 1.0.6 (nftables 1.0.6-2+deb12u2)
# Expected:  a rule of iptables for some hours of the day, and the rule for nft that is printed for it, hold in the same hours.
# Behaviour: iptables takes --timestart and --timestop for UTC (unless --kerneltz is there), nft takes `meta hour` for the local
#            time of whoever loads the rule. The hours are copied as they stand: on a host whose time zone is nine hours
#            from UTC the rule holds nine hours earlier. With TZ=UTC both are the same. --kerneltz is dropped without a
#            word. 1.8.11 (Debian 13) and 1.8.13 print the same text.
# Seen:      Linux 6.18.44, 2026-11-30: one datagram to lo, a window of two hours around now in UTC
#            TZ=UTC0:  iptables 1, nft 1
#            TZ=JST-9: iptables 1, nft 0
# Needs:     root (unshare), apt-get with Debian 12's packages. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
v=1.8.9-2
apt-get download -q iptables=$v libxtables12=$v libip4tc2=$v libip6tc2=$v nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu XTABLES_LIBDIR=$dir/root/usr/lib/x86_64-linux-gnu/xtables PATH=$dir/root/usr/sbin:$PATH
cat >count.sh <<'C'
set -euo pipefail
ip link set lo up
window=(-m time --timestart "$(date -u -d '-1 hour' +%H:%M)" --timestop "$(date -u -d '+1 hour' +%H:%M)")
iptables-nft -A INPUT -p udp "${window[@]}" -j ACCEPT
translation=$(iptables-translate -A INPUT -p udp "${window[@]}" -j ACCEPT)
echo "$translation" >&2
nft add table ip twin
nft 'add chain ip twin INPUT { type filter hook input priority -10; }'
eval "${translation/ip filter/ip twin}"
echo x >/dev/udp/127.0.0.1/9
echo "$(iptables-nft -vnxL INPUT | awk '/ACCEPT/ && NR > 2 { print $1 }') $(nft list chain ip twin INPUT | grep -c 'packets [1-9]' || true)"
C
as_described=true
for zone in "UTC0 1 1" "JST-9 1 0"; do
  read -r tz want <<<"$zone"
  seen=$(TZ=$tz unshare -n bash count.sh)
  echo "TZ=$tz: iptables $(cut -d' ' -f1 <<<"$seen"), nft $(cut -d' ' -f2 <<<"$seen")"
  [ "$seen" = "$want" ] || as_described=false
done
$as_described
