package ike

import (
	"fmt"
	"slices"
)

func transforms(kind uint8, ids ...uint16) []Transform {
	var out []Transform
	for _, id := range ids {
		out = append(out, Transform{Type: kind, ID: id})
	}
	return out
}

func aesBits(id uint16, bits ...uint16) []Transform {
	var out []Transform
	for _, b := range bits {
		out = append(out, Transform{Type: TransformENCR, ID: id, Bits: b})
	}
	return out
}

// DefaultIKEProposals is what is offered and accepted when a policy names
// nothing: what RFC 8247 asks for, without its SHOULD NOTs, strongest first.
// The first proposal adds ML-KEM-768 to the classic exchange (RFC 9370); the
// others serve peers that lack it. The MODP groups and P-521, which cost ten to a
// hundred times as much, must be named: anybody may ask for what is accepted.
func DefaultIKEProposals() []Proposal {
	groups := transforms(TransformKE, KEX25519, KEP256, KEP384)
	ciphers := append(aesBits(EncrAESGCM16, 256, 128), Transform{Type: TransformENCR, ID: EncrChaCha20})
	prfs := transforms(TransformPRF, PRFSHA256, PRFSHA384, PRFSHA512)
	integs := transforms(TransformINTEG, IntegSHA256, IntegSHA384, IntegSHA512)
	return []Proposal{
		{Protocol: ProtoIKE, Transforms: slices.Concat(ciphers, prfs, groups, transforms(TransformADDKE, KEMLKEM768))},
		{Protocol: ProtoIKE, Transforms: slices.Concat(ciphers, prfs, groups)},
		{Protocol: ProtoIKE, Transforms: slices.Concat(aesBits(EncrAESCBC, 256, 128), prfs, integs, groups)},
	}
}

// DefaultChildProposals is the same for child SAs, after RFC 8221. The key
// exchange "none" stands first: fresh keys come from SK_d, unless the peer
// wants a key exchange of its own in a rekey.
func DefaultChildProposals(proto uint8) []Proposal {
	esn := transforms(TransformESN, esnYes, esnNo)
	groups := transforms(TransformKE, KENone, KEX25519, KEP256, KEP384)
	integs := transforms(TransformINTEG, IntegSHA256, IntegSHA384, IntegSHA512)
	if proto == ProtoAH {
		return []Proposal{{Protocol: ProtoAH, Transforms: slices.Concat(integs, groups, esn)}}
	}
	ciphers := append(aesBits(EncrAESGCM16, 256, 128), Transform{Type: TransformENCR, ID: EncrChaCha20})
	return []Proposal{
		{Protocol: ProtoESP, Transforms: slices.Concat(ciphers, groups, esn)},
		{Protocol: ProtoESP, Transforms: slices.Concat(aesBits(EncrAESCBC, 256, 128), integs, groups, esn)},
	}
}

// check refuses a configured proposal that could not work or be secure.
func (p Proposal) check() error {
	has := map[uint8]int{}
	ciphers, aeads := 0, 0
	for _, t := range p.Transforms {
		has[t.Type]++
		s := suite{encr: t.ID, encrBits: t.Bits, integ: t.ID}
		bad := false
		switch {
		case t.Type == TransformENCR:
			ciphers++
			if aead(t.ID) {
				aeads++
			}
			bad = s.encrKeyLen() == 0 || t.ID != EncrChaCha20 && t.Bits != 128 && t.Bits != 192 && t.Bits != 256
			switch t.ID {
			case EncrNull: // has no key
				bad = t.Bits != 0 || p.Protocol == ProtoIKE
			case EncrAESCTR, EncrAESGMAC:
				bad = bad || p.Protocol == ProtoIKE
			}
		case t.Type == TransformPRF:
			bad = prfLen(t.ID) == 0
		case t.Type == TransformINTEG:
			gmac := t.ID == IntegGMAC128 || t.ID == IntegGMAC192 || t.ID == IntegGMAC256
			bad = s.integKeyLen() == 0 || gmac && p.Protocol != ProtoAH
		case t.Type == TransformKE, isAddKE(t.Type):
			bad = t.ID != KENone && !knownKE(t.ID)
		case t.Type == TransformESN:
			bad = t.ID > esnYes || p.Protocol == ProtoIKE
		default:
			bad = true
		}
		if bad {
			return fmt.Errorf("proposal %s: %s cannot be used here", p, t)
		}
	}
	switch {
	case p.Protocol == ProtoAH && (ciphers > 0 || has[TransformINTEG] == 0):
		return fmt.Errorf("proposal %s: AH takes integrity and no encryption", p)
	case p.Protocol != ProtoAH && ciphers == 0:
		return fmt.Errorf("proposal %s: no encryption", p)
	case aeads != 0 && aeads != ciphers:
		return fmt.Errorf("proposal %s: combined and plain ciphers cannot share a proposal (RFC 7296 section 3.3)", p)
	case p.Protocol != ProtoAH && (aeads > 0) == (has[TransformINTEG] > 0):
		return fmt.Errorf("proposal %s: plain ciphers need an integrity algorithm and combined ones none", p)
	case p.Protocol == ProtoIKE && (has[TransformPRF] == 0 || has[TransformKE] == 0):
		return fmt.Errorf("proposal %s: an IKE proposal needs a PRF and a key exchange", p)
	}
	return nil
}

// of gives the transforms of one type; a type that does not occur is the
// transform 0 of that type ("none", "no extended sequence numbers").
func (p Proposal) of(kind uint8) []Transform {
	var out []Transform
	for _, t := range p.Transforms {
		if t.Type == kind {
			out = append(out, t)
		}
	}
	if out == nil {
		out = []Transform{{Type: kind}}
	}
	return out
}

// without gives the proposal less some transform types.
func (p Proposal) without(drop func(Transform) bool) Proposal {
	p.Transforms = slices.DeleteFunc(slices.Clone(p.Transforms), drop)
	return p
}

// byKE splits a proposal for a child that allows a key exchange and "none" in
// two, in the order of the policy: peers take one with groups for a demand, and
// one without for a refusal. In IKE_AUTH there is no key exchange.
func (p Proposal) byKE(inAuth bool) []Proposal {
	plain := p.without(func(t Transform) bool { return t.Type == TransformKE || isAddKE(t.Type) })
	groups := p.without(func(t Transform) bool { return t.Type == TransformKE && t.ID == KENone })
	switch none := slices.Contains(p.of(TransformKE), Transform{Type: TransformKE}); {
	case inAuth || none && groups.group() == KENone:
		return []Proposal{plain}
	case !none:
		return []Proposal{p}
	case p.of(TransformKE)[0].ID == KENone:
		return []Proposal{plain, groups}
	}
	return []Proposal{groups, plain}
}

// group is the first key exchange of a proposal that is one.
func (p Proposal) group() uint16 {
	for _, t := range p.of(TransformKE) {
		if t.ID != KENone {
			return t.ID
		}
	}
	return KENone
}

// negotiation is what choose needs to know beside the proposals.
type negotiation struct {
	ke   uint16 // key exchange for which the KE payload at hand is; preferred to others that are no stronger
	noKE bool   // no key exchange in this exchange (the child of IKE_AUTH)
}

// choose picks a suite (RFC 7296 section 2.7): our order of proposals and
// transforms decides. The answer carries number and SPI of their proposal, and no
// transform of a type that theirs is without. Proposals for a child that do not say
// how long sequence numbers are come last, see withoutESN.
func choose(ours, theirs []Proposal, n negotiation) (s suite, answer Proposal, ok bool) {
	for _, lacking := range []bool{false, true} {
		for _, o := range ours {
			for _, t := range theirs {
				if t.withoutESN() != lacking {
					continue
				}
				s, miss := match(o, t, n)
				if miss != 0 {
					continue
				}
				answer = s.proposal()
				answer.num, answer.spi = t.num, t.spi
				return s, answer, true
			}
		}
	}
	return suite{}, Proposal{}, false
}

// strength ranks key exchanges. The KE payload at hand may be for a weaker one
// than both sides would take, because somebody in between has answered with
// INVALID_KE_PAYLOAD: so both say again all that they have (RFC 7296 section
// 1.2), and the stronger one is insisted on.
func strength(method uint16) int {
	switch method {
	case KEMLKEM768:
		return 2 // quantum computers do not break it
	case KEMODP2048, KENone:
		return 0
	}
	return 1
}

// withoutESN says that a proposal for ESP or AH has no transform for sequence
// numbers, which must be there (RFC 7296 section 3.3.3). By section 3.3.6 another
// one is to be taken. Where there is no other, as from libreswan 4.10 when nothing
// was said about them, it is read as such peers mean it, 32 bits, if our policy has
// that; a peer that means 64 (RFC 4306) would have its packets refused.
// Its children are then rekeyed with offers of the same form first.
func (p Proposal) withoutESN() bool {
	return p.Protocol != ProtoIKE && !slices.ContainsFunc(p.Transforms, func(t Transform) bool { return t.Type == TransformESN })
}

// match picks one transform of every type. miss is the type in which the two
// have nothing in common, or 0; it is the number 255 for another protocol.
func match(ours, theirs Proposal, n negotiation) (s suite, miss uint8) {
	if ours.Protocol != theirs.Protocol {
		return s, 255
	}
	s.proto, s.esnUnsaid = ours.Protocol, theirs.withoutESN()
	for _, t := range theirs.Transforms { // a type we do not know cannot be chosen
		if t.Type == 0 || t.Type >= TransformADDKE+7 {
			return s, t.Type
		}
	}
	for kind := uint8(TransformENCR); kind < TransformADDKE+7; kind++ {
		if n.noKE && (kind == TransformKE || isAddKE(kind)) {
			continue
		}
		a, b := ours.of(kind), theirs.of(kind)
		i := slices.IndexFunc(a, func(t Transform) bool { return slices.ContainsFunc(b, t.same) })
		if kind == TransformKE && n.ke != KENone {
			want := Transform{Type: kind, ID: n.ke}
			if slices.Contains(a, want) && slices.Contains(b, want) && strength(n.ke) >= strength(a[max(i, 0)].ID) {
				i = slices.Index(a, want)
			}
		}
		if i < 0 {
			return s, kind
		}
		switch t := a[i]; {
		case kind == TransformENCR:
			s.encr, s.encrBits = t.ID, t.Bits
		case kind == TransformPRF:
			s.prf = t.ID
		case kind == TransformINTEG:
			s.integ = t.ID
		case kind == TransformKE:
			s.ke = t.ID
		case kind == TransformESN:
			s.esn = t.ID == esnYes
		case isAddKE(kind):
			s.addke[kind-TransformADDKE] = t.ID
		}
	}
	return s, 0
}

// same compares transforms; the fixed key length of ChaCha20 is often sent
// although RFC 7634 section 4 says not to.
func (t Transform) same(u Transform) bool {
	if t.ID == EncrChaCha20 && t.Type == TransformENCR && (u.Bits == 0 || u.Bits == 256) {
		u.Bits = t.Bits
	}
	return t == u
}

// accepts says that an answer is one we offered: one transform for each type
// of one of our proposals. n.noKE as for choose.
func accepts(ours []Proposal, answer Proposal, n negotiation) (suite, bool) {
	seen := map[uint8]bool{}
	for _, t := range answer.Transforms {
		if seen[t.Type] {
			return suite{}, false
		}
		seen[t.Type] = true
	}
	i := int(answer.num) - 1
	if i < 0 || i >= len(ours) {
		return suite{}, false
	}
	s, miss := match(ours[i], answer, n)
	return s, miss == 0
}

// nearest says in people's words where two offers come closest.
func nearest(ours, theirs []Proposal, n negotiation) string {
	best := uint8(0)
	var text string
	for _, o := range ours {
		for _, t := range theirs {
			_, miss := match(o, t, n)
			if miss == 255 || miss <= best {
				continue
			}
			best = miss
			text = fmt.Sprintf("they agree up to %s: ours %s, theirs %s", transformType(miss),
				proposalText([]Proposal{{Transforms: o.of(miss)}}), proposalText([]Proposal{{Transforms: t.of(miss)}}))
		}
	}
	return cut(text)
}
