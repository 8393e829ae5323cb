#!/usr/bin/env bash
# Subject:   iptables-translate 1.8.9 (Debian 12, iptables 1.8.9-2), match multiport with --ports
# Expected:  the rule for nft that it prints counts the packets that the rule of iptables counts; what nft cannot say comes
#            back as a comment, as it does for other matches.
# Behaviour: of a range only its two ends are left, two single ports, and a negation is dropped. No warning, exit status 0.
#            (--sports and --dports are right, and so are ranges and negations there.) The same text comes from 1.8.11
#            (Debian 13) and 1.8.13, and `nft list ruleset` shows it for a rule that iptables-nft has made.
# Seen:      Linux 6.18.44, 2026-11-30: a connection to port 1500 of lo, no other traffic
#            --dports 1000:2000    both count it
#            --ports 1000:2000     iptables counts it, nft does not
#            ! --ports 1000:2000   iptables does not, nft does not
#            ! --ports 3000:4000   iptables counts it, nft does not
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
cat >count.sh <<'C'
set -euo pipefail
ip link set lo up
iptables-nft -A INPUT -p tcp --syn -m multiport "$@" -j ACCEPT
translation=$(iptables-translate -A INPUT -p tcp --syn -m multiport "$@" -j ACCEPT)
echo "$translation" >&2
nft add table ip twin
nft 'add chain ip twin INPUT { type filter hook input priority -10; }'
eval "${translation/ip filter/ip twin}"
(: </dev/tcp/127.0.0.1/1500) 2>/dev/null || true
counted() { "$@" | grep -c 'packets [1-9]' || true; }
echo "$(iptables-nft -vnxL INPUT | awk '/multiport/ { print $1 }') $(counted nft list chain ip twin INPUT)"
C
as_described=true
expect() {
  local seen
  seen=$(unshare -n bash count.sh "${@:2}")
  echo "${*:2}: iptables $(cut -d' ' -f1 <<<"$seen"), nft $(cut -d' ' -f2 <<<"$seen")"
  [ "$seen" = "$1" ] || as_described=false
}
expect "1 1" --dports 1000:2000 # as it should be
expect "1 0" --ports 1000:2000
expect "0 0" ! --ports 1000:2000
expect "1 0" ! --ports 3000:4000
$as_described
