#!/usr/bin/env bash
# Subject:   conntrack 1.4.7 (Debian 12, conntrack 1:1.4.7-1+b2, libnetfilter-conntrack3 1.0.9-3), `conntrack -L -o xml`
# Expected:  XML says of a connection what the text says.
# Behaviour: an SCTP association has the name of the TCP state with the same number: ESTABLISHED is FIN_WAIT. An ICMP one has
#            neither type nor code nor id, by which alone it differs from others of the two hosts.
# Seen:      Linux 6.18.44, 2026-11-30: text: sctp ESTABLISHED; icmp type=8 code=0 id=7
#            xml:  <state>FIN_WAIT</state>; <layer4 protonum="1" protoname="icmp"></layer4>
# Needs:     root (unshare), apt-get with Debian 12's packages. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
apt-get download -q conntrack=1:1.4.7-1+b2 libnetfilter-conntrack3=1.0.9-3 libnetfilter-cthelper0 libnetfilter-cttimeout1 libnetfilter-queue1 libnfnetlink0 >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu PATH=$dir/root/usr/sbin:$PATH
# make OPTION...: one connection more, of 192.0.2.1 with 192.0.2.2.
make() { conntrack -I -s 192.0.2.1 -d 192.0.2.2 -t 600 "$@" >/dev/null 2>&1; }
export -f make
unshare -n bash -ec 'make -p sctp --sport 5 --dport 6 --state ESTABLISHED --orig-vtag 1 --reply-vtag 2
  make -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 7
  conntrack -L 2>/dev/null; conntrack -L -o xml 2>/dev/null' | tee seen.txt
grep -q '^sctp .* ESTABLISHED ' seen.txt && grep -q '^icmp .*type=8 code=0 id=7' seen.txt &&
  grep -q 'protoname="sctp".*<state>FIN_WAIT</state>' seen.txt && grep -q 'protoname="icmp"></layer4>' seen.txt
