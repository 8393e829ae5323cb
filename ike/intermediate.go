package ike

// interTask is one IKE_INTERMEDIATE with an additional key exchange, RFC 9242
// and RFC 9370 section 2.2.2.
type interTask struct{ kex keyExchange }

// nextHandshake continues as initiator after IKE_SA_INIT or an
// IKE_INTERMEDIATE.
func (c *Core) nextHandshake(sa *ikeSA) {
	if _, _, ok := sa.suite.nextAddKE(sa.hs.slot); ok {
		sa.enqueue(&interTask{})
		return
	}
	sa.enqueue(&authTask{})
}

func (t *interTask) build(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	_, method, _ := sa.suite.nextAddKE(sa.hs.slot)
	var err error
	if t.kex, err = c.kex.start(method); err != nil {
		c.fail(sa, Event{Failure: BadRandomness, Detail: err.Error()})
		c.destroy(sa, true)
		return 0, nil, false
	}
	list := []payload{kePayload(method, t.kex.public())}
	plain, first := appendPayloads(nil, list)
	sa.addInt(&sa.hs.intI, sa.keys.pi, sa.header(exIntermediate, sa.nextOut, false), first, plain)
	return exIntermediate, list, true
}

// addInt extends IntAuth by one message, RFC 9242 section 3.3.1:
// prf(SK_p of this exchange, previous IntAuth | message).
func (sa *ikeSA) addInt(v *[]byte, skp []byte, h header, first uint8, plain []byte) {
	*v = prf(sa.suite.prf, skp, *v, intAuthData(h, first, plain))
}

func (t *interTask) answer(c *Core, sa *ikeSA, m *opened, ns notifies) {
	kep, ok := find(m.payloads, plKE)
	method, public, err := parseKE(kep.body)
	if !ok || err != nil || method != t.kex.method() {
		c.failAnswer(sa, m, ns, "IKE_INTERMEDIATE without the key exchange that was agreed")
		return
	}
	work(c, sa, false, len(m.plain), func() (r secret) { r.shared, r.err = t.kex.shared(public); return r }, func(r secret) {
		if r.err != nil {
			c.failAnswer(sa, m, ns, r.err.Error())
			return
		}
		sa.addInt(&sa.hs.intR, sa.keys.pr, m.header, m.inner, m.plain)
		if c.nextKeys(sa, r.shared) {
			c.nextHandshake(sa)
		}
	})
}

// nextKeys mixes an additional shared secret into all keys.
func (c *Core) nextKeys(sa *ikeSA, shared []byte) bool {
	defer wipe(shared)
	sa.hs.slot, _, _ = sa.suite.nextAddKE(sa.hs.slot)
	sa.hs.slot++
	return c.keySA(sa, seedNext(sa.suite.prf, sa.keys.d, shared, sa.hs.ni, sa.hs.nr))
}

func (c *Core) serveIntermediate(sa *ikeSA, m *opened, d Datagram) {
	c.follow(sa, d)
	_, want, ok := sa.suite.nextAddKE(sa.hs.slot)
	kep, ok2 := find(m.payloads, plKE)
	method, public, err := parseKE(kep.body)
	if !ok || !ok2 || err != nil || method != want {
		c.refuse(sa, m, d, nInvalidSyntax, Event{Failure: Malformed, Detail: "IKE_INTERMEDIATE without the key exchange that was agreed"})
		return
	}
	work(c, sa, false, len(m.plain), func() (r secret) { r.public, r.shared, r.err = c.kex.respond(method, public); return r }, func(r secret) {
		c.answerIntermediate(sa, m, d, method, r)
	})
}

func (c *Core) answerIntermediate(sa *ikeSA, m *opened, d Datagram, method uint16, r secret) {
	defer wipe(r.shared)
	if r.err != nil {
		c.refuse(sa, m, d, nInvalidSyntax, Event{Failure: Malformed, Detail: r.err.Error()})
		return
	}
	list := []payload{kePayload(method, r.public)}
	plain, first := appendPayloads(nil, list)
	sa.addInt(&sa.hs.intI, sa.keys.pi, m.header, m.inner, m.plain)
	sa.addInt(&sa.hs.intR, sa.keys.pr, sa.header(exIntermediate, m.id, true), first, plain)
	c.respond(sa, m, d, list) // still under the keys of the request
	if sa.state != stDead {
		c.nextKeys(sa, r.shared)
	}
}

// refuse answers a request with an error and ends the IKE SA.
func (c *Core) refuse(sa *ikeSA, m *opened, d Datagram, kind uint16, ev Event) {
	c.respond(sa, m, d, []payload{note(kind)})
	c.fail(sa, ev)
	c.destroy(sa, true)
}

// failAnswer ends the IKE SA because of an answer that cannot be used, with
// the peer's own error if it sent one.
func (c *Core) failAnswer(sa *ikeSA, m *opened, ns notifies, detail string) {
	ev := Event{Failure: Malformed, Detail: detail}
	if n, ok := ns.failure(); ok {
		ev = c.peerError(sa, n)
	}
	c.fail(sa, ev)
	c.destroy(sa, true)
}
