#!/usr/bin/env bash
# Subject:   conntrack 1.4.7 (Debian 12, conntrack 1:1.4.7-1+b2), `conntrack -L -o save` and `conntrack -R`
# Expected:  what is saved is put back as it was: as routing and offloading by marks of connections need it.
# Behaviour: the mark is not saved. The connections are back with status, state, zone and addresses, and mark 0.
# Seen:      Linux 6.18.44, 2026-11-30: before: mark=52; after: mark=0
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
unshare -n bash -ec 'make -p udp --sport 1 --dport 53 -m 0x34
  conntrack -L 2>/dev/null
  conntrack -L -o save >saved.txt 2>/dev/null
  conntrack -F 2>/dev/null
  conntrack -R saved.txt
  conntrack -L 2>/dev/null' | tee seen.txt
[ "$(grep -o 'mark=[0-9]*' seen.txt | tr '\n' ' ')" = "mark=52 mark=0 " ]
