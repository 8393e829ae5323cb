#!/usr/bin/env bash
# Subject:   nft 1.1.3 (Debian 13, nftables 1.1.3-1), `meta mark set ip6 flowlabel`
# Expected:  the packet's mark becomes its flow label, as `meta mark set udp dport` makes it the port.
# Behaviour: of the three octets that hold the label the first two change places with regard to the third, since the byte
#            order is turned in units of two octets; a mask that changes nothing (& 0xfffff) changes the result. A rule that
#            compares the label is right. 1.1.7 does the same; 1.0.6 (Debian 12) turns none of the three.
# Seen:      Linux 6.18.44 (x86-64), 2026-11-30: a datagram with flow label 0x12345 to port 9
#            the label is 0x12345: 1 packet; marks { 0x00000009, 0x00050123, 0x00450123 }
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
label = 0x12345
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
share_create = (socket.inet_pton(socket.AF_INET6, "::1") + label.to_bytes(4, "big") + bytes([0, 255]) + (1).to_bytes(2, "little") + bytes(8))
s.setsockopt(socket.IPPROTO_IPV6, 32, share_create)  # IPV6_FLOWLABEL_MGR: lease the label
s.setsockopt(socket.IPPROTO_IPV6, 33, 1)             # IPV6_FLOWINFO_SEND
s.sendto(b"x", ("::1", 9, label, 0))
P
cat >rules.nft <<'N'
table ip6 t {
  set marks {
    type mark
    flags dynamic
  }
  chain c {
    type filter hook input priority 0
    udp dport 9 ip6 flowlabel 0x12345 counter
    udp dport 9 meta mark set udp dport
    udp dport 9 add @marks { meta mark }
    udp dport 9 meta mark set ip6 flowlabel
    udp dport 9 add @marks { meta mark }
    udp dport 9 meta mark set ip6 flowlabel & 0xfffff
    udp dport 9 add @marks { meta mark }
  }
}
N
unshare -n bash -ec 'ip link set lo up; nft -f rules.nft; python3 send.py; nft list table ip6 t' | tee listed.txt
marks=$(grep -o '0x00[0-9a-f]\{6\}\b' listed.txt | sort | tr '\n' ' ')
grep -q 'flowlabel 74565 counter packets 1 ' listed.txt && [ "$marks" = "0x00000009 0x00050123 0x00450123 " ]
