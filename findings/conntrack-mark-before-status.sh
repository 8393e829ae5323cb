#!/usr/bin/env bash
# Subject:   conntrack 1.4.7 (Debian 12, conntrack 1:1.4.7-1+b2), `conntrack -I` with a mark and a status
# Expected:  the connection has the mark and the status that the options give, in whichever order they stand.
# Behaviour: a mark that stands before the status is replaced by the number of the status' bits; after it, it holds. No error.
# Seen:      Linux 6.18.44, 2026-11-30: -m 0x120 -u ASSURED: mark=4; -u ASSURED -m 0x120: mark=288
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
unshare -n bash -ec 'make -p tcp --sport 1 --dport 80 --state ESTABLISHED -m 0x120 -u ASSURED
  make -p tcp --sport 2 --dport 80 --state ESTABLISHED -u ASSURED -m 0x120
  conntrack -L 2>/dev/null | sed "s/.*\(sport=[12] \).*\(mark=[0-9]*\).*/\1\2/" | sort' | tee seen.txt
[ "$(cat seen.txt)" = "sport=1 mark=4
sport=2 mark=288" ]
