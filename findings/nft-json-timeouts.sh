#!/usr/bin/env bash
# Subject:   nft 1.0.6 (Debian 12, nftables 1.0.6-2+deb12u2), `nft -j list ruleset` and `nft -j -f`
# Expected:  a rule set that nft lists as JSON and loads again from it has the time-outs that it had, as it has from the text.
# Behaviour: JSON has time-outs in whole seconds and leaves off the rest. One of less than a second becomes 0, which is
#            read as none: the default time-out of a set, an element's own, and the one of a rule that adds elements are gone,
#            and what was to be forgotten after 700 ms stays for good. No warning. 1.1.3 (Debian 13) and 1.1.7 do the same.
# Seen:      Linux 6.18.44, 2026-11-30, before and after:
#            before: timeout 500ms | 10.0.0.1 timeout 1s500ms, 10.0.0.2 timeout 700ms | ip daddr timeout 700ms
#            after:                | 10.0.0.1 timeout 1s, 10.0.0.2                    | ip daddr
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
  set d {
    type ipv4_addr
    flags dynamic,timeout
    timeout 500ms
  }
  set e {
    type ipv4_addr
    flags timeout
    elements = { 10.0.0.1 timeout 1500ms, 10.0.0.2 timeout 700ms }
  }
  chain c {
    type filter hook output priority 0
    update @d { ip daddr timeout 700ms }
  }
}
N
unshare -n bash -ec 'nft -f rules.nft; nft -j list ruleset >rules.json; nft -s list ruleset >before.txt; nft flush ruleset; nft -j -f rules.json; nft -s list ruleset >after.txt'
grep -n timeout before.txt after.txt
[ "$(grep -c '500ms\|700ms' before.txt)" = 3 ] && ! grep -q ms after.txt && grep -q '10.0.0.1 timeout 1s, 10.0.0.2 }' after.txt && grep -q '{ ip daddr }' after.txt
