package peers

import (
	"time"

	"github.com/ipfw/ipfw/ike"
)

func (p *play) do(f func(c *ike.Core, now time.Time) ike.Output) {
	p.us.with(func(now time.Time) ike.Output { return f(p.us.core, now) })
}

// whileTraffic pings all the time while f runs, and fails if one is lost.
// charon's user-space ESP, on a busy machine, at times keeps the newest packets
// until further ones come: never one in the middle is missing, but up to some
// tens of the last, on the way in or out. So there further ones follow.
func (p *play) whileTraffic(f func()) {
	p.Helper()
	from, to := p.peerEnds()
	more := 5
	if p.site.userSpace {
		more = 60
	}
	lost := p.site.peer.PingFlood(from[0], to[0], 80, more)
	time.Sleep(100 * time.Millisecond)
	f()
	p.us.mu.Lock()
	bad := p.us.lost
	p.us.mu.Unlock()
	if gone := lost(); len(gone) > 0 || len(bad) > 0 {
		p.Errorf("of 80 packets these were lost: %v; by us: %q", gone, bad)
	}
}

// startRekey asks one side or both for a rekey of the child or the IKE SA.
func (p *play) startRekey(by, what string) ike.EventKind {
	kind, child, arg := ike.ChildRekeyed, "net", []string{"--rekey", "--child", "net"}
	if what == "ike" {
		kind, child, arg = ike.IKERekeyed, "", []string{"--rekey", "--ike", "row"}
	}
	us := func() {
		p.do(func(c *ike.Core, now time.Time) ike.Output { return c.Rekey(now, "peer", child) })
	}
	switch by {
	case "us":
		us()
	case "peer":
		p.site.peer.Do(arg...)
	default:
		p.collided = true
		// Ours goes out when their request is about to be read.
		p.us.delay(func() { us() })
		p.site.peer.Do(arg...)
	}
	return kind
}

// rekey has one side or both rekey, while packets run.
func rekey(by, what string) func(*play) {
	return func(p *play) {
		p.whileTraffic(func() {
			kind := p.startRekey(by, what)
			p.eventually("the rekey", func() bool { return p.us.count(kind) >= 1 })
			p.same()
		})
		p.traffic()
	}
}

// rekeyOnce is rekey without much ado, for rows about suites.
func rekeyOnce(by, what string) func(*play) {
	return func(p *play) {
		kind := p.startRekey(by, what)
		p.eventually("the rekey", func() bool { return p.us.count(kind) >= 1 })
		p.same()
		p.traffic()
	}
}

// remove has one side delete, or both: then ours goes out as theirs is about to
// be read, and the two cross.
func remove(by, what string) func(*play) {
	return func(p *play) {
		if by == "both" {
			child := either(what == "ike", "", "net")
			p.us.delay(func() {
				p.do(func(c *ike.Core, now time.Time) ike.Output { return c.Terminate(now, "peer", child) })
			})
		}
		switch {
		case by == "us" && what == "ike":
			p.do(func(c *ike.Core, now time.Time) ike.Output { return c.Terminate(now, "peer", "") })
		case by == "us":
			p.do(func(c *ike.Core, now time.Time) ike.Output { return c.Terminate(now, "peer", "net") })
		case what == "ike":
			p.site.peer.Do("--terminate", "--ike", "row")
		default:
			p.site.peer.Do("--terminate", "--child", "net")
		}
		if what == "ike" {
			p.gone()
			return
		}
		p.eventually("the end of the child", func() bool { return p.us.count(ike.ChildDown) == 1 })
	}
}

// silence makes one of us deaf; the other must find it dead.
func silence(who string) func(*play) {
	return func(p *play) {
		if who == "us" {
			p.us.mu.Lock()
			p.us.hold = true
			p.us.mu.Unlock()
			p.eventually("the peer gives us up", func() bool { return !contains(p.site.peer.Do("--list-sas", "--raw"), "list-sa event {row {") })
		}
		p.eventually("we give the peer up", func() bool { return p.us.count(ike.IKEDown) == 1 && p.failure() == ike.NoAnswer })
	}
}

// reboot takes our Core away without a word; another one calls, says that this
// is the first contact, and the peer forgets what was.
func reboot(p *play) {
	p.us.stop()
	p.us = newStation(p.T, p.site.host, ike.Config{Peers: []*ike.Peer{p.row.peer(p.site)}}, p.site.ours[:]...)
	p.initiate()
	p.eventually("a child after the reboot", func() bool { return p.us.count(ike.ChildUp) == 1 })
	p.traffic()
	p.same()
}

// move changes our address (RFC 4555).
func move(p *play) {
	from, to := p.site.ours[0], p.site.more[0]
	p.do(func(c *ike.Core, now time.Time) ike.Output { return c.AddressChange(now, from, to) })
	p.eventually("the move", func() bool { return p.us.count(ike.Moved) >= 1 })
	p.eventually("the peer follows", func() bool { return contains(p.site.peer.Do("--list-sas", "--raw"), "remote-host="+to.String()) })
	p.traffic()
	p.same()
	rekeyOnce("us", "child")(p)
}

// started has the peer end by a signal and start anew, without a word when it
// is KILL. Whoever called before calls again; then the two hold the same.
func started(signal string) func(*play) {
	return func(p *play) {
		p.site.peer.Signal(signal)
		p.site.peer.Again()
		if p.row.call == "us" {
			// It answers to nothing that we have: dead peer detection finds out.
			p.eventually("we give the peer up", func() bool { return p.us.count(ike.IKEDown) == 1 })
			p.initiate()
		} else if out, err := p.site.peer.Try("--initiate", "--child", "net", "--timeout", "20"); err != nil {
			p.Fatalf("the peer's call after the restart failed: %v\n%s", err, out)
		}
		p.eventually("a child after the restart", func() bool { return p.us.count(ike.ChildUp) == 2 })
		p.traffic()
		p.same()
	}
}

// deaf has the peer hear nothing for as long as it takes us to give it up; then
// it is there again, and we call.
func deaf(p *play) {
	p.site.peer.Signal("STOP")
	p.eventually("we give the peer up", func() bool { return p.us.count(ike.IKEDown) == 1 && p.failure() == ike.NoAnswer })
	p.site.peer.Signal("CONT")
	p.initiate()
	p.eventually("a child", func() bool { return p.us.count(ike.ChildUp) == 2 })
	p.traffic()
	p.same()
}

// theirMove changes the address of the peer, which has called, and tells us
// (RFC 4555).
func theirMove(p *play) {
	p.site.move()
	p.eventually("we follow", func() bool { return p.us.count(ike.Moved) >= 1 })
	p.traffic()
	p.same()
	rekeyOnce("us", "child")(p)
	rekeyOnce("peer", "ike")(p)
}

// ourLoss takes our address away where the peer has called: only the side that
// has called may move (RFC 4555 section 3.5), and we tell of no further
// addresses. So both give up, and we call from the address that is left.
func ourLoss(p *play) {
	from, to := p.site.ours[0], p.site.more[0]
	p.site.host.Sysctl("net.ipv4.conf.all.promote_secondaries", "1")
	p.site.host.Run("ip", "addr", "del", from.String()+"/24", "dev", "c0")
	defer p.site.host.Run("ip", "addr", "add", from.String()+"/24", "dev", "c0")
	p.do(func(c *ike.Core, now time.Time) ike.Output { return c.AddressChange(now, from, to) })
	p.eventually("we give the peer up", func() bool { return p.us.count(ike.IKEDown) == 1 && p.failure() == ike.NoAnswer })
	p.eventually("the peer gives us up", func() bool { return !contains(p.site.peer.Do("--list-sas", "--raw"), "list-sa event {row {") })
	if n := p.us.count(ike.Moved); n > 0 {
		p.Errorf("we have moved %d times", n)
	}
	p.initiateFrom(to)
	p.eventually("a child from the other address", func() bool { return p.us.count(ike.ChildUp) == 2 })
	p.traffic()
	p.same()
}

// anew waits for new IKE SAs of a peer that authenticates anew, each with its child.
func anew(p *play) {
	p.eventually("three IKE SAs, one after the other", func() bool { return p.us.count(ike.IKEUp) >= 3 && p.us.count(ike.ChildUp) >= 3 })
	p.traffic()
	p.same()
}
