#!/bin/sh
# nft's `ct id` of the first packet of a connection.
#
# Good guess: an unconfirmed connection has no id yet, so that a rule which
# writes the id into a set fails (NFT_BREAK) for the first packet, or writes an
# id that changes once the connection has been put into the table.
# What happens (Linux 6.18, nft 1.0.6): the very first packet has the id that
# all later packets of both directions have. One packet is enough to fill a set
# that is keyed by connection.
#
# Needs root; makes a network namespace of its own and removes it.
set -eu
ns=finding-ctid-$$
trap 'ip netns del "$ns"' EXIT
trap 'exit 1' INT TERM
ip netns add "$ns"
run() { ip netns exec "$ns" "$@"; }
echo "Linux $(uname -r), $(nft --version), $(ping -V)"
run ip link set lo up
run nft -f - <<'X'
table inet t {
	set first { typeof ct id; flags dynamic; size 16; }
	set later { typeof ct id; flags dynamic; size 16; }
	chain output {
		type filter hook output priority 0
		icmp type echo-request ct state new update @first { ct id }
		icmp type echo-reply update @later { ct id }
	}
}
X
ids() { run nft list set inet t "$1" | sed -n 's/.*elements = { \(.*\) }/\1/p'; }
run ping -c 1 -W 2 127.0.0.1 >/dev/null
first=$(ids first)
later=$(ids later)
echo "id of the first packet: ${first:-none}; of its answer: ${later:-none}"
[ -n "$first" ] && [ "$first" = "$later" ]
