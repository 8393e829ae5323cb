#!/usr/bin/env bash
# Subject:   nft 1.1.3 (Debian 13, nftables 1.1.3-1), `nft list ruleset` of rules that look at a part of an octet
# Expected:  the listing says what the rule does; 1.0.6 (Debian 12) shows mask and shift.
# Behaviour: a mask on the DSCP (the upper six bits) is shown as a match on the ECN field (the lower two), and a shift to the
#            right of the header length is not shown at all. The kernel has the rules as they were given. The text, and JSON
#            too, loaded again, are other rules. 1.1.7 does the same.
# Seen:      Linux 6.18.44, 2026-11-30:
#            given: ip dscp & 0x3 == 1               listed: ip ecn ect1
#            given: meta mark set ip hdrlength >> 1  listed: meta mark set ip hdrlength
#            a datagram with DSCP 1 and no ECN: counted before, not counted after the listing was loaded
# Needs:     root (unshare), apt-get with Debian's packages, python3. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
# Packages of Debian 13, from where this machine's apt has Debian's, with lists of their own.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT)' 'Created-By: Packages' | awk '$2 == "main" && $1 ~ /\/debian\/$/ { print $1; exit }')
mkdir -p apt/lists/partial apt/archives/partial apt/none
: >apt/status
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >apt/sources.list
apt13() {
  apt-get -qq -o Dir::State="$dir/apt" -o Dir::State::status="$dir/apt/status" -o Dir::Cache="$dir/apt" -o Dir::Etc::sourcelist="$dir/apt/sources.list" \
    -o Dir::Etc::sourceparts="$dir/apt/none" -o Dir::Etc::preferencesparts="$dir/apt/none" -o APT::Sandbox::User=root -o Acquire::Languages=none "$@" >/dev/null
}
apt13 update
apt13 download nftables=1.1.3-1 libnftables1=1.1.3-1 libnftnl11 libmnl0 libjansson4 libgmp10 libedit2 libxtables12 libtinfo6 libbsd0 libmd0 libc6
for d in *.deb; do dpkg -x "$d" root; done
cat >nft <<N
#!/bin/sh
exec $dir/root/usr/lib64/ld-linux-x86-64.so.2 --library-path $dir/root/usr/lib/x86_64-linux-gnu $dir/root/usr/sbin/nft "\$@"
N
chmod +x nft
export PATH=$dir:$PATH
cat >send.py <<'P'
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 1 << 2)
s.sendto(b"x", ("127.0.0.1", 9))
P
unshare -n bash -ec 'ip link set lo up; nft add table ip t; nft "add chain ip t c { type filter hook input priority 0; }"
  nft "add rule ip t c udp dport 9 ip dscp & 0x3 == 1 counter"; nft "add rule ip t c meta mark set ip hdrlength >> 1"
  nft -s list ruleset >listed.nft
  python3 send.py
  nft list ruleset | grep -o "counter packets [0-9]*" >before.txt
  nft flush ruleset
  nft -f listed.nft
  python3 send.py
  nft list ruleset | grep -o "counter packets [0-9]*" >after.txt'
cat listed.nft before.txt after.txt
grep -q 'ip ecn ect1' listed.nft && grep -q 'meta mark set ip hdrlength$' listed.nft && grep -q 'packets 1' before.txt && grep -q 'packets 0' after.txt
