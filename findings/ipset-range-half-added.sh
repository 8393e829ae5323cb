#!/usr/bin/env bash
# Subject:   ipset 7.17 (Debian 12, ipset 7.17-1), adding a range to a set
# Expected:  one command adds all addresses of a range, or on an error none.
# Behaviour: the addresses are added one by one, and an error leaves those before it in the set. Where the set is full, that is what
#            had room; where one is there already, what lies behind it is left out, and nothing says how much.
# Seen:      Linux 6.18.44, 2026-11-30:
#            maxelem 3, add 10.0.0.1-10.0.0.4: "Hash is full, cannot add more elements", and 3 are in the set
#            10.0.0.2 is there, add 10.0.0.1-10.0.0.4: "it's already added", and 10.0.0.1 and 10.0.0.2 are
# Needs:     root (unshare), apt-get with Debian 12's packages. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
apt-get download -q ipset=7.17-1 libipset13=7.17-1 >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu PATH=$dir/root/sbin:$dir/root/usr/sbin:$PATH
unshare -n bash -ec 'ipset create full hash:ip maxelem 3; ipset create there hash:ip; ipset add there 10.0.0.2
  for set in full there; do
    ipset add $set 10.0.0.1-10.0.0.4 2>&1 || echo "exit status $?"
    echo "$set: $(ipset save $set | sed -n "s/^add $set //p" | sort | tr "\n" " ")"
  done' | tee seen.txt
[ "$(grep -c 'exit status 1' seen.txt)" = 2 ] && [ "$(grep '^full' seen.txt | wc -w)" = 4 ] && grep -q '^there: 10.0.0.1 10.0.0.2 $' seen.txt
