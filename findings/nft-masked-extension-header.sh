#!/usr/bin/env bash
# Subject:   nft 1.0.6 (Debian 12, nftables 1.0.6-2+deb12u2), masks on fields of IPv6 extension headers
# Expected:  `nft list ruleset` shows the rule, in a form that nft takes.
# Behaviour: it shows the field as "unknown", which nft does not take; a rule set with such a rule that is saved to a file
#            cannot be loaded. (Without the mask, and with a mask on a field of the fixed header, all is well.) JSON has the
#            same. 1.1.3 (Debian 13) and 1.1.7 too.
# Seen:      Linux 6.18.44, 2026-11-30: hbh hdrlength & 0x1 == 1
#            hbh unknown & 1 == 1
#            Error: syntax error, unexpected string
# Needs:     root (unshare), apt-get with Debian 12's packages. Exit status: 0 as described, 1 otherwise.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
apt-get download -q nftables=1.0.6-2+deb12u2 libnftables1=1.0.6-2+deb12u2 >/dev/null 2>&1
for d in *.deb; do dpkg -x "$d" root; done
export LD_LIBRARY_PATH=$dir/root/usr/lib/x86_64-linux-gnu PATH=$dir/root/usr/sbin:$PATH
unshare -n bash -ec 'nft add table inet t; nft add chain inet t c; nft add rule inet t c "ip6 hoplimit & 0x1 == 1"; nft add rule inet t c "hbh hdrlength & 0x1 == 1"; nft list ruleset >listed.nft
  nft flush ruleset; nft -f listed.nft 2>errors.txt || echo "exit status $?" >>errors.txt'
cat listed.nft errors.txt
grep -q 'ip6 hoplimit & 1 == 1\|ip6 hoplimit & 0x1 == 0x1' listed.nft && grep -q 'hbh unknown & 1 == 1' listed.nft && grep -q 'Error: syntax error' errors.txt
