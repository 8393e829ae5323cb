package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// synonyms are the words of other firewalls that no spelling distance finds.
// They are tried when the word they lead to is among the candidates.
var synonyms = map[string][]string{
	"accept": {"bypass"}, "allow": {"bypass"}, "permit": {"bypass"}, "pass": {"bypass"},
	"deny": {"discard"}, "drop": {"discard"}, "block": {"discard"}, "reject": {"discard"},
	"encrypt": {"protect"}, "ipsec": {"protect"}, "secure": {"protect"},
	"input": {"in", "inbound"}, "inbound": {"in"}, "ingress": {"in", "inbound"}, "incoming": {"in", "inbound"},
	"output": {"out", "outbound"}, "outbound": {"out"}, "egress": {"out", "outbound"}, "outgoing": {"out", "outbound"},
	"routed": {"forward"}, "any": {"both"}, "inout": {"both"},
	"source": {"remote_address"}, "src": {"remote_address"}, "saddr": {"remote_address"}, "from": {"remote_address"},
	"destination": {"local_address"}, "dst": {"local_address"}, "daddr": {"local_address"}, "to": {"local_address"},
	"port": {"local_port"}, "ports": {"local_port"}, "dport": {"local_port"}, "sport": {"remote_port"},
	"proto": {"protocol"}, "comment": {"description"}, "disabled": {"enabled"}, "verdict": {"action"},
	"iface": {"interface"}, "dev": {"interface"}, "icmp_code": {"icmp_type"}, "local": {"locals"}, "tests": {"test"},
	"packet": {"packets"}, "vpn": {"ipsec"}, "peer": {"ike"}, "default": {"policy"}, "psk": {"psk_file"},
	"eap": {"remote_auth"}, "secret": {"psk_file", "key_file"}, "key": {"private_key", "key_file"}, "cert": {"certificate"},
	"cipher": {"encryption"}, "auth": {"integrity"}, "dh_group": {"key_exchange"}, "pfs": {"key_exchange"},
	"remote": {"remote_endpoint"}, "peers": {"remote_endpoint"},
	"null": {"insecure-null"}, "none": {"insecure-null"},
}

// Nearest gives the candidate that somebody most likely meant who wrote given, by
// spelling alone; "": none is near.
func Nearest(given string, candidates []string) string {
	best, _ := nearest(given, candidates)
	return best
}

// suggestion gives the candidate that the writer most likely meant, or "".
func suggestion(given string, candidates []string) string {
	best, dist := nearest(given, candidates)
	if dist <= 1 {
		return best
	}
	known := keys(synonyms)
	word := strings.ReplaceAll(strings.ToLower(given), "-", "_")
	if s, d := nearest(word, known); d <= 1 {
		word = s // a synonym may be misspelt too
	}
	for _, s := range synonyms[word] {
		if contains(candidates, s) {
			return s
		}
	}
	return best
}

// nearest gives the candidate with the smallest spelling distance, as long as
// no more than a third of the word is wrong. Swapped letters count as one
// mistake, and come before one wrong letter: they are typed more easily.
func nearest(given string, candidates []string) (string, int) {
	norm := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }
	g := norm(given)
	best, bestDist := "", 1<<30
	for _, c := range candidates {
		n := norm(c)
		d := levenshtein.Distance(g, n, nil)
		if d > 0 && len(g) > 2 && letters(g) == letters(n) {
			d = min(d, 1)
			if d < bestDist || !strings.HasPrefix(norm(best), g[:1]) {
				best, bestDist = c, d
			}
			continue
		}
		if d < bestDist && d <= max(1, min(len(n), len(g)+1)/3) {
			best, bestDist = c, d
		}
	}
	return best, bestDist
}

// letters gives the letters of a word in order.
func letters(s string) string {
	b := []byte(s)
	slices.Sort(b)
	return string(b)
}

// didYouMean gives a question for the end of a sentence, or "".
func didYouMean(given string, candidates []string) string {
	if s := suggestion(given, candidates); s != "" {
		return fmt.Sprintf("; did you mean %q?", s)
	}
	return ""
}

// oneOf lists words as a person would: "a, b or c".
func oneOf(words []string) string {
	switch n := len(words); n {
	case 0:
		return ""
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
}
