package ike

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// schedules says which random schedules the model test plays, from the first on:
// IPFW_IKE_SCHEDULES=100000 for the long run, or 20000 from IPFW_IKE_FIRST=40000
// on. IPFW_IKE_SEED plays one, and shows its messages.
func schedules(t *testing.T) (first uint64, n int) {
	number := func(name string, def int) int {
		s := os.Getenv(name)
		if s == "" {
			return def
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if seed := number("IPFW_IKE_SEED", -1); seed >= 0 {
		return uint64(seed), 1
	}
	def := 2000
	if testing.Short() {
		def = 200
	}
	return uint64(number("IPFW_IKE_FIRST", 0)), number("IPFW_IKE_SCHEDULES", def)
}

// TestModel drives two Cores through random schedules of loss, duplication,
// reordering, and rekeys, calls and deletes from both sides at once. When the
// network has been well for long enough, both sides hold exactly one working
// pair of SAs or none, and one IKE SA at most.
func TestModel(t *testing.T) {
	first, n := schedules(t)
	pairs := 0
	for seed := first; seed < first+uint64(n); seed++ {
		var err error
		var one bool
		if one, err = playModel(t, seed); one {
			pairs++
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Logf("%d schedules, %d ended with a pair", n, pairs)
	if pairs < n/2 {
		t.Errorf("only %d of %d schedules ended with a pair", pairs, n)
	}
}

const dumpModel = true

func playModel(t *testing.T, seed uint64) (one bool, err error) {
	s := newSim(t, seed)
	if os.Getenv("IPFW_IKE_SEED") != "" {
		s.trace = true
	}
	pa, pb := pskPeers()
	// Small key exchanges, so that thousands of schedules take seconds; every
	// eighth has IKE_INTERMEDIATE and IKE_FOLLOWUP_KE, every ninth fragments.
	props := []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
	if seed%8 == 0 {
		props = []Proposal{ikeProp(tGCM128, tPRF, tX25519, tKEM)}
	}
	for _, p := range []*Peer{pa, pb} {
		p.Proposals = props
		p.DPD = 20 * time.Second
		if seed%5 == 0 {
			p.Children[0].Proposals = []Proposal{childProp(tGCM128, tX25519, tESN)}
		}
		if seed%40 == 1 {
			p.Children[0].Proposals = []Proposal{childProp(tGCM128, tX25519, tKEM, tESN)}
		}
	}
	size := 0
	if seed%9 == 0 {
		size = 150
	}
	// Three of four give their public-key work out; every 24th has some to
	// verify and to sign. Results come in any order, and some when nobody waits
	// for them any more.
	if seed%4 != 0 {
		s.jobs, s.jobTime = int(1+seed%5), time.Duration(s.rng.IntN(300))*time.Millisecond
		if seed%12 == 3 {
			s.jobTime = time.Duration(s.rng.IntN(4000)) * time.Millisecond
		}
		if seed%7 == 3 {
			s.jobs, s.late = 8, 5
		}
	}
	if seed%24 == 7 {
		withCerts(t, newPKI(t), pa, pb, "ecdsa")
	}
	a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}, Limits: Limits{FragmentSize: size}})
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{FragmentSize: size}})
	s.loss, s.dup = s.rng.IntN(4)*10, s.rng.IntN(3)*15
	s.delay = time.Duration(1+s.rng.IntN(1500)) * time.Millisecond
	if s.rng.IntN(2) == 0 {
		s.delay = 5 * time.Millisecond // almost in order, collisions close together
	}
	lossless := s.loss == 0
	s.call(a, "b", "net")
	s.emissions(20, 8*time.Second)
	if s.rng.IntN(2) == 0 {
		s.run(time.Duration(s.rng.IntN(2000)) * time.Millisecond)
		s.call(b, "a", "net")
	}
	s.run(time.Duration(s.rng.IntN(5000)) * time.Millisecond)
	for range 1 + s.rng.IntN(8) {
		n := s.nodes[s.rng.IntN(2)]
		what := s.rng.IntN(10)
		both := s.rng.IntN(2) == 0
		s.emissions(20, 4*time.Second)
		for _, x := range s.nodes {
			if x != n && !both {
				continue
			}
			switch {
			case what < 5:
				s.take(x, x.Rekey(s.now, "", "net"))
			case what < 8:
				s.take(x, x.Rekey(s.now, "", ""))
			case what == 8:
				s.call(x, x.cfg.Peers[0].Name, "net")
			case s.rng.IntN(4) == 0:
				s.take(x, x.Terminate(s.now, "", "net"))
				lossless = false // what is under way then has nowhere to go
			}
			if s.rng.IntN(2) == 0 {
				s.run(time.Duration(s.rng.IntN(30)) * time.Millisecond)
			}
		}
		s.run(time.Duration(s.rng.IntN(4000)) * time.Millisecond)
		if e := checkIndex(n.Core); e != nil {
			return false, fmt.Errorf("%s: %w", n.name, e)
		}
	}
	s.loss, s.dup, s.delay = 0, 0, 5*time.Millisecond
	s.run(6 * time.Minute)
	ps, err := s.tryPairs(a, b, "net")
	switch {
	case err != nil:
	case len(ps) > 1:
		err = fmt.Errorf("%d pairs", len(ps))
	case len(ps) == 1:
		one = true
		x, y := a.sad[a.out["net"]], b.sad[b.out["net"]]
		if x.SPIOut != y.SPIIn || y.SPIOut != x.SPIIn {
			err = fmt.Errorf("the two sides send by different pairs")
		}
	}
	if up := a.Stats().SAs; err == nil && (up > 1 || up != b.Stats().SAs || up == 0 && one) {
		err = fmt.Errorf("IKE SAs: %d and %d", up, b.Stats().SAs)
	}
	for _, n := range s.nodes {
		if err == nil && (len(n.spis) != len(n.sad) || len(n.expected) != 0 || n.guard.total != 0 || len(n.inits) != 0) {
			err = fmt.Errorf("%s holds %d SPIs for %d children, %d half-open", n.name, len(n.spis), len(n.sad), n.guard.total)
		}
	}
	for _, n := range s.nodes {
		if e := checkIndex(n.Core); err == nil && e != nil {
			err = fmt.Errorf("%s: %w", n.name, e)
		}
	}
	for _, n := range s.nodes {
		switch x := &n.traffic; {
		case err != nil:
		case len(x.waiting) > 0:
			err = fmt.Errorf("%s: %d packets wait for ever", n.name, len(x.waiting))
		case lossless && s.lates == 0 && x.lost > 0: // a result that comes too late ends a handshake on one side
			err = fmt.Errorf("%s: %d packets were lost, though no message was", n.name, x.lost)
		}
	}
	if err != nil && dumpModel {
		s.dump()
	}
	return one, err
}
