#!/usr/bin/env bash
# Subject:   Linux 6.18 and nft 1.0.6 (Debian 12, nftables 1.0.6-2+deb12u2), `nft monitor`, in a PID namespace
# Expected:  the process that nftables' news of a new generation names (NFTA_GEN_PROC_PID) has the number that it has for
#            whoever reads the news, as SO_PEERCRED and SCM_CREDENTIALS have it: one that /proc shows there.
# Behaviour: it is the number in the first PID namespace. In a container it names no process, or another one. The name
#            beside it (NFTA_GEN_PROC_NAME) is right.
# Seen:      2026-11-30: the process that made the change: 4 here
#            # new generation 2 by process 30092 (nft)
# Needs:     root (unshare), apt-get with Debian 12's packages. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
apt-get download -q nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu PATH=$dir/root/usr/sbin:$PATH
unshare -n -f -p --mount-proc bash -c '
  nft monitor >monitor.txt 2>&1 &
  monitor=$!
  # It says nothing when it begins to listen: change until it has told of a change.
  for i in $(seq 100); do
    nft add table inet t$i & nft=$!
    wait $nft
    sleep 0.1
    if grep -q "new generation" monitor.txt; then break; fi
  done
  kill $monitor
  echo "the process that made the change: $nft here"
  tail -1 monitor.txt
  echo $nft >here.txt'
told=$(sed -n 's/.*by process \([0-9]*\) (nft)$/\1/p' monitor.txt | tail -1)
[ -n "$told" ] && [ "$told" != "$(cat here.txt)" ]
