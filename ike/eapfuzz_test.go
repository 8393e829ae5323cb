package ike

import (
	"testing"
	"time"
)

// FuzzEAP feeds payloads that pass the integrity check, as anybody may send them
// who has made a key exchange, to an IKE SA in the middle of EAP, and to one that
// waits for the AUTH of a method that has succeeded. Nothing of it comes up: the
// key of the method is not known to whoever sends this. Nothing stays.
func FuzzEAP(f *testing.F) {
	auth := authPayload(authPSK, make([]byte, 32)).body
	for _, proved := range []bool{false, true} {
		f.Add(uint8(exIKEAuth), uint8(plEAP), append([]byte{0, 0, 0, 8}, 2, 1, 0, 4), proved)
		f.Add(uint8(exIKEAuth), uint8(plAUTH), append([]byte{0, 0, 0, byte(genericLen + len(auth))}, auth...), proved)
		f.Add(uint8(exIKEAuth), uint8(plNotify), []byte{0, 0, 0, 8, 0, 0, nAuthFailed >> 8, nAuthFailed & 255}, proved)
		f.Add(uint8(exInformational), uint8(plNone), []byte{}, proved)
		f.Add(uint8(exIntermediate), uint8(plKE), []byte{0, 0, 0, 9, 0, KEMLKEM768, 0, 0, 1}, proved)
		f.Add(uint8(exCreateChildSA), uint8(plSA), []byte{0, 0, 0, 8, 0, 0, 0, 0}, proved)
	}
	f.Fuzz(func(t *testing.T, exchange, first uint8, plain []byte, proved bool) {
		if len(plain) > 4000 || exchange == exIKESAInit { // that has no IKE SA to go to
			return
		}
		x := newEAPSides(t)
		x.rounds = 1
		x.pa.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
		x.meet()
		x.callEAP(x.a, x.caller)
		there := func() bool {
			for _, sa := range x.b.sas {
				return sa.hs != nil && sa.hs.eap != nil && (sa.hs.eap.msk != nil) == proved
			}
			return false
		}
		for !there() {
			if !x.step(x.now.Add(time.Second)) {
				t.Fatal("EAP does not begin")
			}
		}
		var sa, theirs *ikeSA
		for _, sa = range x.a.sas {
		}
		for _, theirs = range x.b.sas {
		}
		id := theirs.nextIn
		x.wire = nil
		m, err := sealOne(sa.header(exchange, id, false), plSK, first, nil, plain, sa.out)
		if err != nil {
			t.Fatal(err)
		}
		o := x.b.Handle(x.now, Datagram{Local: sa.remote, Remote: sa.local, Data: m})
		if theirs.nextIn != id+1 {
			t.Fatal("the message was not taken")
		}
		if len(o.Actions) != 0 || theirs.state != stHalfOpen && theirs.state != stDead {
			t.Errorf("state %d, actions %v", theirs.state, o.Actions)
		}
		x.take(x.b, o)
		x.nat = func(d Datagram) (Datagram, bool) { return d, false } // the caller says no more
		for x.b.guard.total > 0 {
			at, _ := x.b.Next()
			if at.Sub(simStart) > time.Hour {
				t.Fatal("half-open for an hour")
			}
			x.b.Tick(at)
		}
		if x.b.has(IKEUp) != 0 || len(x.b.spis) != 0 || len(x.b.sad) != 0 {
			t.Errorf("something is up: %d, %d SPIs", x.b.has(IKEUp), len(x.b.spis))
		}
		x.settled()
	})
}
