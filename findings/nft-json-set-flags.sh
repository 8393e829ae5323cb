#!/usr/bin/env bash
# Subject:   nft 1.0.6 (Debian 12, nftables 1.0.6-2+deb12u2), `nft -j list ruleset` and `nft -j -f`
# Expected:  a set that nft lists as JSON and loads again from it has the flags that it had, as it has from the text.
# Behaviour: `auto-merge` is not in the JSON, and of `flags dynamic` nothing is. The set that is loaded again refuses an
#            element that overlaps another, where the set before took and joined it. No warning. 1.1.7 lists both.
# Seen:      Linux 6.18.44, 2026-11-30: adding 10.0.0.128/25 to a set with 10.0.0.0/24
#            before: taken; after: Error: interval overlaps with an existing one
#            flags of the other set: before dynamic,timeout; after timeout
# Needs:     root (unshare), apt-get with Debian 12's packages. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
apt-get download -q nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu PATH=$dir/root/usr/sbin:$PATH
cat >rules.nft <<'N'
table ip t {
  set merged {
    type ipv4_addr
    flags interval
    auto-merge
    elements = { 10.0.0.0/24 }
  }
  set seen {
    type ipv4_addr
    flags dynamic,timeout
  }
}
N
add() { nft add element ip t merged '{ 10.0.0.128/25 }' 2>&1 | head -1 | sed 's/.*Error/Error/' || true; }
export -f add
unshare -n bash -ec 'nft -f rules.nft; nft -j list ruleset >rules.json; nft -s list set ip t seen >before.txt; add >>before.txt
  nft flush ruleset; nft -j -f rules.json; nft -s list set ip t seen >after.txt; add >>after.txt'
grep -n 'flags\|Error' before.txt after.txt
grep -q 'flags dynamic,timeout' before.txt && ! grep -q Error before.txt && ! grep -q dynamic after.txt && grep -q Error after.txt
