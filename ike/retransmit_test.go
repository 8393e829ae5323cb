package ike

import (
	"testing"
	"time"
)

// A peer's own schedule holds for each exchange: for the first message of a call, for
// IKE_AUTH, for a rekey, a probe and a Delete.
func TestRetransmissionTimes(t *testing.T) {
	const tries = 3 // datagrams of 2 s, 3 s and 4.5 s
	at := func(n int) time.Duration {
		return []time.Duration{0, 2 * time.Second, 5 * time.Second, 9500 * time.Millisecond}[n]
	}
	for name, exchange := range map[string]uint8{"call": exIKESAInit, "authentication": exIKEAuth, "rekey": exCreateChildSA, "probe": exInformational, "delete": exInformational} {
		s := newSim(t, 4)
		s.delay = time.Millisecond
		pa, pb := pskPeers()
		pa.Retransmit = Retransmit{First: 2 * time.Second, Factor: 1.5, Tries: tries}
		pa.DPD = -1
		if name == "probe" {
			pa.DPD = 20 * time.Second
		}
		a, _ := s.twoNodes(pa, pb)
		deaf := name == "call" || name == "authentication" // b's answers to this exchange are lost
		var sent []time.Time
		s.nat = func(d Datagram) (Datagram, bool) {
			h, err := parseHeader(d.Data)
			if !deaf || err != nil || h.exchange != exchange {
				return d, true
			}
			if h.response() {
				return d, false
			}
			if d.Local.Addr() == a.addr {
				sent = append(sent, s.now)
			}
			return d, true
		}
		s.call(a, "b", "net")
		if !deaf {
			s.run(3 * time.Second)
			deaf = true
			switch name {
			case "rekey":
				s.take(a, a.Rekey(s.now, "b", "net"))
			case "delete":
				s.take(a, a.Terminate(s.now, "b", ""))
			}
		}
		s.until("the end", 40*time.Second, func() bool { return len(sent) > 0 && len(a.sas) == 0 })
		if len(sent) != tries {
			t.Errorf("%s: %d datagrams", name, len(sent))
			continue
		}
		for i, x := range append(sent, s.now) {
			if got := x.Sub(sent[0]); got != at(i) {
				t.Errorf("%s: datagram %d after %s, want %s", name, i, got, at(i))
			}
		}
	}
	if d := (Retransmit{First: 2 * time.Second, Factor: 1.5, Tries: tries}).patience(); d != at(tries) {
		t.Errorf("given up after %s by the sum", d)
	}
}

// A schedule that is longer than a handshake may take otherwise is kept.
func TestRetransmissionLongerThanHandshakes(t *testing.T) {
	s := newSim(t, 4)
	pa, pb := pskPeers()
	pa.Retransmit = Retransmit{First: time.Minute, Factor: 1, Tries: 4}
	a, _ := s.twoNodes(pa, pb)
	s.nat = func(d Datagram) (Datagram, bool) {
		h, err := parseHeader(d.Data)
		return d, err != nil || h.exchange != exIKEAuth || !h.response()
	}
	s.call(a, "b", "net")
	if took := s.until("the end", 10*time.Minute, func() bool { return len(a.sas) == 0 }); took < 4*time.Minute || took > 5*time.Minute {
		t.Errorf("given up after %s", took)
	}
}
