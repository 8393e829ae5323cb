package peers

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/ike"
)

func contains(s, sub string) bool { return strings.Contains(s, sub) }

// sides are who may call.
var sides = []string{"us", "peer"}

var (
	aeads    = []string{"aes-128-gcm-16", "aes-192-gcm-16", "aes-256-gcm-16", "chacha20-poly1305"}
	ciphers  = []string{"aes-128-cbc", "aes-192-cbc", "aes-256-cbc"}
	integs   = []string{"hmac-sha2-256-128", "hmac-sha2-384-192", "hmac-sha2-512-256", "hmac-sha1-96"}
	prfs     = []string{"prf-hmac-sha2-256", "prf-hmac-sha2-384", "prf-hmac-sha2-512", "prf-hmac-sha1"}
	groups   = []string{"x25519", "p-256", "p-384", "p-521", "modp-2048", "modp-3072", "modp-4096"}
	outerTwo = []bool{false, true}
)

// protections are all ciphers with what they need for integrity.
func protections() (list []string) {
	list = append(list, aeads...)
	for _, c := range ciphers {
		for _, i := range integs {
			list = append(list, c+" "+i)
		}
	}
	return list
}

// suiteRows are the suites of IKE and child SAs. In short, every transform
// meets every side; in full, every suite meets every group.
func suiteRows() (rows []row) {
	n := 0
	add := func(call, suite string, after func(*play)) {
		r := row{name: "ike " + suite, call: call, after: after}
		r.suiteIKE = suite
		rows = append(rows, r)
	}
	for _, call := range sides {
		for i, p := range protections() {
			for j := range len(prfs) * len(groups) {
				// In short, each protection meets one pair of the others.
				if full() || j == i*5%(len(prfs)*len(groups)) {
					n++
					add(call, p+" "+prfs[j%len(prfs)]+" "+groups[j/len(prfs)], rekeyOnce(sides[n%2], "ike"))
				}
			}
		}
		for i, g := range groups {
			add(call, aeads[i%len(aeads)]+" "+prfs[i%3]+" "+g, nil)
		}
		for i, p := range protections() {
			for j, g := range append([]string{""}, groups...) {
				if full() || j == i%(len(groups)+1) {
					r := row{name: strings.TrimSpace("child " + p + " " + g), call: call, after: rekeyOnce(sides[(i+j)%2], "child")}
					r.suiteChild = p + " " + g + " no-esn"
					rows = append(rows, r)
				}
			}
		}
	}
	return rows
}

// directRows are everything else without NAT.
func directRows() (rows []row) {
	for _, call := range sides {
		for _, v6 := range outerTwo {
			rows = append(rows, row{name: "psk, outer " + version(v6), call: call, v6: v6})
		}
		for _, kind := range keyKinds {
			rows = append(rows, certs(row{name: "certificates " + kind, call: call}, kind, "pubkey", 0), rawKeys(row{name: "raw keys " + kind, call: call}, kind))
		}
		if full() {
			rows = append(rows, certs(row{name: "certificates rsa-4096", call: call, after: proved("RSA_EMSA_PSS")}, "rsa-4096", "rsa/pss-sha512", 0), rawKeys(row{name: "raw keys rsa-4096", call: call}, "rsa-4096"))
		}
		for _, hash := range []string{"sha256", "sha384", "sha512"} {
			rows = append(rows, certs(row{name: "certificates rsa pss " + hash, call: call, after: proved("RSA_EMSA_PSS")}, "rsa-2048", "rsa/pss-"+hash, 0),
				certs(row{name: "certificates rsa of an RSASSA-PSS CA, pkcs1 " + hash, call: call, pss: true}, "rsa-2048", "rsa-"+hash, 0),
				certs(row{name: "certificates ecdsa " + hash, call: call}, "ecdsa-256", "ecdsa-"+hash, 0))
		}
		rows = append(rows,
			certs(row{name: "certificates so long that messages are fragmented", call: call, after: fragmented(true)}, "ecdsa-256", "pubkey", 60),
			certs(row{name: "long certificates without fragmentation (RFC 7383)", call: call, conn: "fragmentation = no", after: fragmented(false)}, "ecdsa-256", "pubkey", 60),
			row{name: "post-quantum pre-shared key", call: call, conn: "ppk_id = k1\n    ppk_required = yes", secrets: pskAnd("ppk-1 {\n    secret = \"quantum\"\n    id-1 = k1\n  }"), ours: ppk("quantum", true)},
			row{name: "post-quantum pre-shared key, wanted by them, not had by us", call: call, conn: "ppk_id = k1\n    ppk_required = no", secrets: pskAnd("ppk-1 {\n    secret = \"quantum\"\n    id-1 = k1\n  }")},
			row{name: "post-quantum pre-shared key, wanted by us, not had by them", call: call, ours: ppk("quantum", false)},
			row{name: "another group (INVALID_KE_PAYLOAD)", call: call, theirsIKE: either(call == "us", "aes256gcm16-prfsha384-ecp384", "aes256gcm16-prfsha384-curve25519-ecp384"),
				ours: func(p *ike.Peer, c *ike.Child) {
					if call == "peer" {
						p.Proposals = []ike.Proposal{{Protocol: ike.ProtoIKE, Transforms: []ike.Transform{{Type: 1, ID: 20, Bits: 256}, {Type: 2, ID: 6}, {Type: 4, ID: 20}}}}
					}
				}},
			row{name: "narrowed by them", call: call, ours: func(p *ike.Peer, c *ike.Child) {
				c.RemoteTS = []ike.TrafficSelector{ike.SelectorOf(netip.MustParsePrefix("10.2.0.0/16")), ike.SelectorOf(netip.MustParsePrefix("fd02::/16"))}
			}},
			row{name: "icmp only", call: call, ts: "local_ts = 10.2.0.1/32[icmp], fd02::1/128[ipv6-icmp]\n        remote_ts = 10.1.0.1/32[icmp], fd01::1/128[ipv6-icmp]"},
			row{name: "their rekeys want a key exchange, ours have none", call: call, theirsChild: "aes128gcm16-ecp256", after: rekeyOnce("peer", "child")},
			row{name: "our default rekey of their child with a key exchange", call: call, theirsChild: "aes128gcm16-ecp256", after: rekeyOnce("us", "child")},
			row{name: "our default rekey of their child without a key exchange", call: call, theirsChild: "aes128gcm16", after: rekeyOnce("us", "child")},
			row{name: "childless", call: call, conn: either(call == "us", "", "childless = force"), ours: func(p *ike.Peer, c *ike.Child) { p.Childless = true }},
			row{name: "without MOBIKE", call: call, conn: "mobike = no"},
			row{name: "without MOBIKE on our side", call: call, ours: func(p *ike.Peer, c *ike.Child) { p.MOBIKE = ike.Off }},
			row{name: "cookies", call: call, limits: ike.Limits{CookieAfter: -1}},
		)
		rows = append(rows, nameRows(call)...)
		rows = append(rows, selectorRows(call)...)
		for _, by := range []string{"us", "peer", "both"} {
			for _, what := range []string{"child", "ike"} {
				rows = append(rows, row{name: fmt.Sprintf("%s rekeys %s under load", by, what), call: call, after: rekey(by, what)})
			}
		}
		for _, by := range []string{"us", "peer", "both"} {
			for _, what := range []string{"child", "ike"} {
				rows = append(rows, row{name: fmt.Sprintf("%s deletes %s", by, what), call: call, after: remove(by, what)})
			}
		}
	}
	return rows
}

// roamRows are remote users and hosts that move or start anew.
func roamRows() []row {
	pools := []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd09::/112")}
	rows := []row{
		{name: "they get addresses from our pool", call: "peer", leased: "peer", conn: "vips = 0.0.0.0, ::", ts: "remote_ts = 10.1.0.1/32, fd01::1/128",
			ours: func(p *ike.Peer, c *ike.Child) { p.Pools, c.RemoteTS = pools, nil }},
		{name: "we get addresses from their pool", call: "us", leased: "us", conn: "pools = four, six", ts: "local_ts = 10.2.0.1/32, fd02::1/128",
			pools: "four {\n    addrs = 10.9.0.0/24\n  }\n  six {\n    addrs = fd09::/112\n  }",
			ours:  func(p *ike.Peer, c *ike.Child) { p.RequestIPv4, p.RequestIPv6, c.LocalTS = true, true, nil }},
		{name: "we get a DNS server and its domain from their pool", call: "us", leased: "us", conn: "pools = four, six", ts: "local_ts = 10.2.0.1/32, fd02::1/128",
			pools: "four {\n    addrs = 10.9.0.0/24\n    dns = 10.2.0.53\n    25 = corp.example\n  }\n  six {\n    addrs = fd09::/112\n  }",
			ours:  func(p *ike.Peer, c *ike.Child) { p.RequestIPv4, p.RequestIPv6, c.LocalTS = true, true, nil }, after: splitDNS},
		{name: "we start anew", call: "us", after: reboot},
		{name: "our address changes", call: "us", after: move},
	}
	for _, r := range rows[:2] {
		r.name, r.after = r.name+", rekeyed", rekeyOnce(r.call, "child")
		rows = append(rows, r)
	}
	if full() {
		rows = append(rows, row{name: "our address goes, and they have called", call: "peer", conn: "dpd_delay = 1s\n    remote_addrs = 10.77.0.2, 10.77.0.4", retransmit: quick, silent: true,
			ours: func(p *ike.Peer, c *ike.Child) { p.DPD, p.Endpoint = 1e9, netip.MustParseAddrPort("10.77.0.1:500") }, after: ourLoss})
	}
	return append(rows, lifeRows()...) // the last of which leaves the peer elsewhere
}

// lifeRows are about peers that end, fall silent, or move.
func lifeRows() (rows []row) {
	impatient := func(p *ike.Peer, c *ike.Child) { p.DPD = 1e9 }
	for _, call := range sides {
		for _, signal := range []string{"KILL", "TERM"} {
			rows = append(rows, row{name: "they start anew after SIG" + signal, call: call, retransmit: quick, silent: true, ours: impatient, after: started(signal)})
		}
	}
	return append(rows, row{name: "they fall silent, and are there again", call: "us", retransmit: quick, silent: true, ours: impatient, after: deaf},
		row{name: "their address changes", call: "peer", after: theirMove})
}

func version(v6 bool) string { return either(v6, "IPv6", "IPv4") }

func either(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// pskAnd is the secrets block with one more secret.
func pskAnd(more string) string {
	return "ike-row {\n    secret = \"" + secret + "\"\n  }\n  " + more
}

func ppk(key string, required bool) func(*ike.Peer, *ike.Child) {
	return func(p *ike.Peer, c *ike.Child) {
		p.PPKs, p.PPKID, p.PPKRequired = map[string][]byte{"k1": []byte(key)}, "k1", required
	}
}

// fragmented asks the peer's log whether messages were cut.
func fragmented(want bool) func(*play) {
	return func(p *play) {
		log := p.site.peer.Log()
		for _, what := range []string{"splitting IKE message", "received fragment #"} {
			if contains(log, what) != want {
				p.Errorf("the peer's log has %q: %v, want %v", what, !want, want)
			}
		}
	}
}

// proved asks the peer's log whether both sides have signed in one way.
func proved(how string) func(*play) {
	return func(p *play) {
		for _, who := range []string{"us.example", "peer.example"} {
			if !contains(p.site.peer.Log(), "authentication of '"+who+"' with "+how) && !contains(p.site.peer.Log(), "authentication of '"+who+"' (myself) with "+how) {
				p.Errorf("%s has not signed by %s", who, how)
			}
		}
	}
}

// natRows are played with a NAT; inside is who is behind it, and calls.
func natRows(inside string) (rows []row) {
	for _, v6 := range outerTwo {
		r := row{name: "psk, outer " + version(v6), call: inside, v6: v6}
		rows = append(rows, r)
		for _, by := range []string{"us", "peer", "both"} {
			for _, what := range []string{"child", "ike"} {
				r.name, r.after = fmt.Sprintf("%s rekeys %s under load, outer %s", by, what, version(v6)), rekey(by, what)
				rows = append(rows, r)
			}
		}
		for _, by := range sides {
			for _, what := range []string{"child", "ike"} {
				r.name, r.after = fmt.Sprintf("%s deletes %s, outer %s", by, what, version(v6)), remove(by, what)
				rows = append(rows, r)
			}
		}
		rows = append(rows, certs(row{name: "fragmented certificates, outer " + version(v6), call: inside, v6: v6, after: fragmented(true)}, "rsa-2048", "pubkey", 60))
	}
	return rows
}

// anyPortRows are played with a peer that calls from whatever port it gets, and calls
// port 4500 at once where it is told to.
func anyPortRows() []row {
	return []row{
		{name: "from any port", call: "peer", after: rekeyOnce("us", "child")},
		{name: "from any port, to 4500 at once", call: "peer", conn: "remote_port = 4500", after: rekeyOnce("us", "child")},
	}
}

// anewRows are played with a peer that authenticates anew every few seconds, by a new IKE
// SA, and wants to be shown anew who has called it (RFC 4478).
func anewRows(how string) (rows []row) {
	for _, call := range sides {
		rows = append(rows, row{name: "the peer authenticates anew, " + how, call: call, conn: "reauth_time = 4s\n    over_time = 20s\n    rekey_time = 0\n    rand_time = 0", after: anew})
	}
	return rows
}

// oldRows are played with a peer that knows no RFC 7427.
func oldRows() (rows []row) {
	for _, call := range sides {
		for _, kind := range []string{"ecdsa-256", "ecdsa-384", "ecdsa-521"} {
			rows = append(rows, certs(row{name: "certificates by the old methods, " + kind, call: call}, kind, "pubkey", 0))
		}
		// The peer takes nothing but SHA-1 either, with RSA.
		r := row{name: "certificates by the old methods, rsa", call: call, failure: ike.WrongKey, theirs: "received AUTHENTICATION_FAILED", detail: "signs with RSA and SHA-1"}
		if call == "us" {
			r.failure, r.theirs, r.detail = ike.WrongKeyByPeer, "AUTH_FAILED", "does not make: give this host a certificate with an ECDSA key"
		}
		rows = append(rows, certs(r, "rsa-2048", "pubkey", 0))
	}
	return rows
}

// failureRows must fail, each for its reason, ours and theirs.
func failureRows() (rows []row) {
	other := func(p *ike.Peer, c *ike.Child) { p.PSK = []byte("another secret") }
	gcm := func(p *ike.Peer, c *ike.Child) {
		p.Proposals = []ike.Proposal{{Protocol: ike.ProtoIKE, Transforms: []ike.Transform{{Type: 1, ID: 20, Bits: 128}, {Type: 2, ID: 5}, {Type: 4, ID: 31}}}}
	}
	esp := func(p *ike.Peer, c *ike.Child) {
		c.Proposals = []ike.Proposal{{Protocol: ike.ProtoESP, Transforms: []ike.Transform{{Type: 1, ID: 20, Bits: 128}, {Type: 5}}}}
	}
	elsewhere := func(p *ike.Peer, c *ike.Child) {
		c.RemoteTS = []ike.TrafficSelector{ike.SelectorOf(netip.MustParsePrefix("10.99.0.0/16"))}
	}
	rows = []row{
		{name: "secrets differ", call: "us", ours: other, failure: ike.WrongKeyByPeer, theirs: "MAC mismatched"},
		{name: "secrets differ", call: "peer", ours: other, failure: ike.WrongKey, theirs: "received AUTHENTICATION_FAILED"},
		{name: "no IKE proposal in common", call: "us", ours: gcm, theirsIKE: "aes256-sha256-modp2048", failure: ike.NoProposal, theirs: "received proposals unacceptable"},
		{name: "no IKE proposal in common", call: "peer", ours: gcm, theirsIKE: "aes256-sha256-modp2048", failure: ike.NoProposal, theirs: "received NO_PROPOSAL_CHOSEN"},
		{name: "no child proposal in common", call: "us", ours: esp, theirsChild: "aes256-sha256", failure: ike.NoProposal, theirs: "no acceptable proposal found"},
		{name: "no child proposal in common", call: "peer", ours: esp, theirsChild: "aes256-sha256", failure: ike.NoProposal, theirs: "received NO_PROPOSAL_CHOSEN"},
		{name: "selectors do not overlap", call: "us", ours: elsewhere, failure: ike.NoSelectors, theirs: "TS_UNACCEPT"},
		{name: "selectors do not overlap", call: "peer", ours: elsewhere, failure: ike.NoSelectors, theirs: "received TS_UNACCEPTABLE"},
		{name: "they expect somebody else", call: "us", remote: "auth = psk\n      id = other.example", failure: ike.WrongKeyByPeer, theirs: "no matching peer config"},
		{name: "they expect somebody else", call: "peer", remote: "auth = psk\n      id = other.example", failure: ike.WrongIdentity, theirs: "received AUTHENTICATION_FAILED"},
		{name: "we expect somebody else", call: "us", ours: func(p *ike.Peer, c *ike.Child) { p.RemoteID = "*.elsewhere" }, failure: ike.WrongIdentity, theirs: "AUTH_FAILED"},
		{name: "we expect somebody else", call: "peer", ours: func(p *ike.Peer, c *ike.Child) { p.RemoteID = "other.example" }, failure: ike.UnknownPeer, theirs: "received AUTHENTICATION_FAILED"},
		{name: "EAP is not there", call: "peer", local: "auth = eap-md5\n      id = peer.example\n      eap_id = someone",
			secrets: pskAnd("eap-1 {\n    secret = x\n    id = someone\n  }"), failure: ike.WrongMethod, theirs: "received AUTHENTICATION_FAILED"},
		{name: "they want EAP of us", call: "us", remote: "auth = eap-md5\n      id = us.example", failure: ike.WrongKeyByPeer, theirs: "AUTH_FAILED"},
		{name: "they refuse our AUTH", call: "peer", remote: "auth = pubkey\n      id = us.example", failure: ike.WrongKeyByPeer, theirs: "AUTH_FAILED"},
		{name: "post-quantum key differs", call: "us", conn: "ppk_id = k1\n    ppk_required = yes", secrets: pskAnd("ppk-1 {\n    secret = \"a\"\n    id-1 = k1\n  }"),
			ours: ppk("b", true), failure: ike.WrongKeyByPeer, theirs: "MAC mismatched"},
		{name: "post-quantum key wanted by us, not there", call: "us", ours: ppk("b", true), failure: ike.NoPPK, theirs: "IKE_SA_INIT"},
	}
	for _, call := range sides {
		// Their certificate is of a CA that we do not have.
		r := certs(row{name: "unknown CA", call: call, failure: ike.BadCertificate, theirs: "AUTH_FAILED",
			ours: func(p *ike.Peer, c *ike.Child) { p.CAs = nil; strangeCA(p) }}, "ecdsa-256", "pubkey", 0)
		rows = append(rows, r)
		for _, who := range sides {
			if who == "us" {
				rows = append(rows, row{name: "we fall silent", call: call, conn: "dpd_delay = 1s", retransmit: quick, silent: true,
					ours: func(p *ike.Peer, c *ike.Child) { p.DPD = 1e9 }, after: silence("us")})
			}
		}
	}
	return rows
}

// kernelRows are played with a peer whose ESP is the kernel's.
func kernelRows() (rows []row) {
	for _, call := range sides {
		for _, mode := range []ike.Mode{ike.Tunnel, ike.Transport} {
			for _, v6 := range outerTwo {
				for _, udp := range []string{"", " in UDP"} {
					r := row{name: fmt.Sprintf("%s%s, outer %s", mode, udp, version(v6)), call: call, v6: v6, mode: mode}
					if udp != "" {
						r.conn = "encap = yes"
					}
					rows = append(rows, r)
					for _, by := range []string{"us", "peer", "both"} {
						for _, what := range []string{"child", "ike"} {
							if full() || udp == "" && !v6 && (mode == ike.Transport) == (call == "us") && (by == "both") == (mode == ike.Transport) {
								more := r
								more.name, more.after = fmt.Sprintf("%s rekeys %s under load, %s", by, what, r.name), rekey(by, what)
								rows = append(rows, more)
							}
						}
					}
				}
			}
		}
		for i, p := range protections() {
			for j, esn := range []string{"no-esn", "esn"} {
				for k, g := range append([]string{""}, groups...) {
					if full() || i < 6 && k == (2*i+j)%(len(groups)+1) && (call == "us") == ((i+j)%2 == 0) {
						r := row{name: fmt.Sprintf("child %s %s %s", p, g, esn), call: call, after: rekeyOnce(sides[(i+j+k)%2], "child")}
						r.suiteChild = p + " " + g + " " + esn
						rows = append(rows, r)
					}
				}
			}
		}
	}
	return rows
}

// natKernelRows are played with a NAT and a peer whose ESP is the kernel's;
// inside is who is behind it, and calls.
func natKernelRows(inside string) (rows []row) {
	for _, mode := range []ike.Mode{ike.Tunnel, ike.Transport} {
		for _, v6 := range outerTwo {
			r := row{name: fmt.Sprintf("%s, outer %s", mode, version(v6)), call: inside, v6: v6, mode: mode}
			if full() || v6 == (mode == ike.Tunnel) == (inside == "us") {
				rows = append(rows, r)
			}
			for i, by := range []string{"us", "peer", "both"} {
				for j, what := range []string{"child", "ike"} {
					if full() || !v6 && mode == ike.Transport && (i+j)%2 == 0 && (i < 2) == (inside == "us") {
						more := r
						more.name, more.after = fmt.Sprintf("%s rekeys %s under load, %s", by, what, r.name), rekey(by, what)
						rows = append(rows, more)
					}
				}
			}
			for _, by := range sides {
				for _, what := range []string{"child", "ike"} {
					if full() {
						more := r
						more.name, more.after = fmt.Sprintf("%s deletes %s, %s", by, what, r.name), remove(by, what)
						rows = append(rows, more)
					}
				}
			}
		}
	}
	return rows
}

// roamKernelRows are those of roamRows that are about the two themselves.
func roamKernelRows() []row {
	return slices.DeleteFunc(roamRows(), func(r row) bool { return r.leased != "" || !full() && r.call == "peer" })
}
