#!/usr/bin/env bash
# Subject:   nft 1.1.3 (Debian 13, nftables 1.1.3-1), a range of one value on `tcp flags`
# Expected:  `tcp flags 0x12-0x12` takes the segments whose flags are 0x12 (SYN and ACK), as 1.0.6 does and as ranges of one
#            value do on other fields; programs that write rules write such ranges.
# Behaviour: the range becomes the one value, and a single value on flags means "at least one of these": each segment with SYN
#            or ACK is counted, and `nft list ruleset` shows `tcp flags syn,ack`. 1.1.7 does the same.
# Seen:      Linux 6.18.44, 2026-11-30: a connection to a port of lo at which nobody listens, no other traffic: SYN there,
#            RST with ACK back
#            1.1.3: tcp flags syn,ack counter packets 2     1.0.6: tcp flags 0x12-0x12 counter packets 0
# Needs:     root (unshare), apt-get with Debian's packages. Exit status: 0 as described, 1 otherwise.
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
unshare -n bash -ec 'ip link set lo up; nft add table ip t; nft "add chain ip t c { type filter hook input priority 0; }"
  nft "add rule ip t c tcp flags 0x12-0x12 counter"; nft "add rule ip t c tcp flags == 0x12 counter"; nft "add rule ip t c ip ttl 64-64 counter"
  (: </dev/tcp/127.0.0.1/9) 2>/dev/null || true
  nft list table ip t' | tee listed.txt
grep -q 'tcp flags syn,ack counter packets 2 ' listed.txt && grep -q 'tcp flags == syn | ack counter packets 0 \|tcp flags == 0x12 counter packets 0 \|tcp flags == (syn | ack) counter packets 0 ' listed.txt && grep -q 'ip ttl 64 counter packets 2 \|ip ttl 64-64 counter packets 2 ' listed.txt
