package peers

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
)

// hybridSuite is what strongSwan calls X25519 with ML-KEM-768 behind it.
const hybridSuite = "aes256gcm16-prfsha384-curve25519-ke1_mlkem768"

// hybrid asks both sides whether their IKE SA was made with ML-KEM, and goes on.
func hybrid(want bool, next func(*play)) func(*play) {
	return func(p *play) {
		p.Helper()
		check := func() {
			p.Helper()
			p.us.mu.Lock()
			ours := p.us.core.Status()[0].Suite
			p.us.mu.Unlock()
			theirs := p.site.peer.Do("--list-sas", "--raw")
			if contains(ours, "+ml-kem-768") != want || contains(theirs, "ke1=ML_KEM_768") != want {
				p.Errorf("with ML-KEM: want %v, we have %s, the peer %s", want, ours, theirs)
			}
		}
		check()
		if next != nil {
			next(p)
			check()
		}
	}
}

// kemChildren wants rekeyed children with ML-KEM of their own, agreed by
// IKE_FOLLOWUP_KE: the IKE SA and the child name it, in the peer's list.
func kemChildren(next func(*play)) func(*play) {
	return func(p *play) {
		next(p)
		list := p.site.peer.Do("--list-sas", "--raw")
		if n := strings.Count(list, "ke1=ML_KEM_768"); n != 2 || !contains(p.site.peer.Log(), "IKE_FOLLOWUP_KE") {
			p.Errorf("the child was rekeyed without ML-KEM: %s", list)
		}
	}
}

// kemRows are played with a peer that has ML-KEM (RFC 9242, RFC 9370).
func kemRows() (rows []row) {
	twice := func(a, b func(*play)) func(*play) { return func(p *play) { a(p); b(p) } }
	for _, call := range sides {
		add := func(name string, r row) {
			r.name, r.call, r.theirsIKE = name, call, or(r.theirsIKE, hybridSuite)
			rows = append(rows, r)
		}
		for _, v6 := range outerTwo {
			add("our default proposal, psk, outer "+version(v6), row{v6: v6, after: hybrid(true, nil)})
		}
		for i, kind := range keyKinds {
			if !full() && i != len(keyKinds)/2*strings.Count(call, "peer") {
				continue
			}
			rows = append(rows, certs(row{name: "certificates " + kind, call: call, theirsIKE: hybridSuite, after: hybrid(true, nil)}, kind, "pubkey", 0),
				rawKeys(row{name: "raw keys " + kind, call: call, theirsIKE: hybridSuite, after: hybrid(true, nil)}, kind))
		}
		add("they have it and prefer none", row{theirsIKE: "aes256gcm16-prfsha384-curve25519", after: hybrid(false, rekeyOnce("us", "ike"))})
		add("they offer it first, and not alone", row{theirsIKE: hybridSuite + ", aes256gcm16-prfsha384-curve25519", after: hybrid(true, nil)})
		add("we have none", row{theirsIKE: hybridSuite + ", aes256gcm16-prfsha384-curve25519", after: hybrid(false, nil), ours: func(p *ike.Peer, c *ike.Child) {
			p.Proposals = ike.DefaultIKEProposals()[1:]
		}})
		add("another group first (INVALID_KE_PAYLOAD)", row{theirsIKE: either(call == "us", "aes256gcm16-prfsha384-ecp384-ke1_mlkem768", "aes256gcm16-prfsha384-ecp384-curve25519-ke1_mlkem768"), after: hybrid(true, nil)})
		add("cookies", row{limits: ike.Limits{CookieAfter: -1}, after: hybrid(true, nil)})
		add("post-quantum pre-shared key as well (RFC 8784)", row{conn: "ppk_id = k1\n    ppk_required = yes", secrets: pskAnd("ppk-1 {\n    secret = \"quantum\"\n    id-1 = k1\n  }"),
			ours: ppk("quantum", true), after: hybrid(true, rekeyOnce(call, "ike"))})
		add("without fragmentation (RFC 7383)", row{conn: "fragmentation = no", after: hybrid(true, nil)})
		rows = append(rows, certs(row{name: "certificates so long that messages are fragmented", call: call, theirsIKE: hybridSuite, after: hybrid(true, fragmented(true))}, "rsa-3072", "pubkey", 60))
		add("small fragments", row{limits: ike.Limits{FragmentSize: 576}, after: hybrid(true, rekeyOnce("us", "ike"))})
		for i, g := range groups {
			for j, prf := range prfs[:3] {
				for k, cipher := range aeads {
					if full() || i == 2 && j == 1 && k == 3 {
						r := row{name: "ike " + cipher + " " + prf + " " + g + " +ml-kem-768", call: call, after: hybrid(true, rekeyOnce(sides[(i+j+k)%2], "ike"))}
						r.suiteIKE = cipher + " " + prf + " " + g + " +ml-kem-768"
						rows = append(rows, r)
					}
				}
			}
		}
		r := row{name: "ike with a cipher in CBC", call: call, after: hybrid(true, rekeyOnce(call, "ike"))}
		r.suiteIKE = "aes-256-cbc hmac-sha2-512-256 prf-hmac-sha2-512 p-384 +ml-kem-768"
		rows = append(rows, r)
		for _, by := range []string{"us", "peer", "both"} {
			add(by+" rekeys ike under load (IKE_FOLLOWUP_KE)", row{after: hybrid(true, rekey(by, "ike"))})
			r := row{theirsChild: "aes256gcm16-curve25519-ke1_mlkem768", after: hybrid(true, kemChildren(rekey(by, "child"))), ours: func(p *ike.Peer, c *ike.Child) {
				c.Proposals = kemChild
			}}
			add(by+" rekeys child with ML-KEM under load (IKE_FOLLOWUP_KE)", r)
		}
		for _, by := range sides {
			add(by+" rekeys both, then again", row{after: hybrid(true, twice(twice(rekeyOnce(by, "ike"), rekeyOnce(by, "child")), rekeyOnce(by, "ike")))})
			add(by+" deletes ike", row{after: remove(by, "ike")})
		}
	}
	if !full() { // the callers take turns
		n := -1
		rows = slices.DeleteFunc(rows, func(r row) bool { n++; return n%2 == 0 == (r.call == "us") })
	}
	return rows
}

// kemChild is a child proposal whose rekeys take ML-KEM as well.
var kemChild = []ike.Proposal{{Protocol: ike.ProtoESP, Transforms: []ike.Transform{{Type: ike.TransformENCR, ID: ike.EncrAESGCM16, Bits: 256},
	{Type: ike.TransformKE, ID: ike.KEX25519}, {Type: ike.TransformADDKE, ID: ike.KEMLKEM768}, {Type: ike.TransformESN}}}}

// kemKernelRows are played with a peer that has ML-KEM and the kernel's ESP.
func kemKernelRows() (rows []row) {
	for _, call := range sides {
		for _, mode := range []ike.Mode{ike.Tunnel, ike.Transport} {
			for _, v6 := range outerTwo {
				r := row{call: call, mode: mode, v6: v6, theirsIKE: hybridSuite}
				where := fmt.Sprintf("%s, outer %s", mode, version(v6))
				r.name, r.after = where, hybrid(true, nil)
				if full() {
					rows = append(rows, r)
				}
				for _, by := range []string{"us", "peer", "both"} {
					if full() {
						r.name, r.after = by+" rekeys ike under load (IKE_FOLLOWUP_KE), "+where, hybrid(true, rekey(by, "ike"))
						rows = append(rows, r)
					}
					// In short, each caller rekeys the other's, in another mode and family.
					if full() || by != call && by != "both" && v6 == (mode == ike.Tunnel) && v6 == (call == "us") {
						more := r
						more.theirsChild, more.ours = "aes256gcm16-curve25519-ke1_mlkem768", func(p *ike.Peer, c *ike.Child) { c.Proposals = kemChild }
						more.name, more.after = by+" rekeys child with ML-KEM under load (IKE_FOLLOWUP_KE), "+where, hybrid(true, kemChildren(rekey(by, "child")))
						rows = append(rows, more)
					}
				}
			}
		}
	}
	return rows
}

// TestStrongSwanKEM is the matrix with a strongSwan that has ML-KEM.
func TestStrongSwanKEM(t *testing.T) {
	t.Parallel()
	m := new(matrix)
	t.Run("rows", func(t *testing.T) {
		m.play(t, "ML-KEM", func(t *testing.T) *site {
			return directSiteOf(t, (*lab.Host).CharonKEM, "")
		}, kemRows())
	})
	m.print(t)
}
