package host

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"
)

// resolvers tell the host of the DNS servers that a gateway has named along with
// an address (`request_address`), for as long as there is one: by resolvectl
// where systemd-resolved is, else by resolvconf, as wg-quick does. Files are not
// written, because nobody would undo that after a crash; what these two know of
// a device goes with it.
//
// With a tunnel for everything the servers are asked for all names; with another
// one for the domains that the gateway has named (RFC 8598), or, by resolvectl
// alone, beside those that the host has.
type resolvers struct {
	device string
	tell   func(string)
	run    func(ctx context.Context, input string, args ...string) error // not found: exec.ErrNotFound

	mu     sync.Mutex
	wanted map[uint64]servers // by the child that they have come with
	now    servers            // in force
	busy   bool
	idle   sync.Cond
}

// servers is what the host is to be told.
type servers struct {
	list    []netip.Addr
	domains []string // that they are asked for
	all     bool     // they are asked for every name
}

func (s servers) same(o servers) bool {
	return slices.Equal(s.list, o.list) && slices.Equal(s.domains, o.domains) && s.all == o.all
}

// commandTime is how long a program may take to be told.
const commandTime = 10 * time.Second

func newResolvers(device string, tell func(string)) *resolvers {
	r := &resolvers{device: device, tell: tell, wanted: map[uint64]servers{}, run: func(ctx context.Context, input string, args ...string) error {
		c := exec.CommandContext(ctx, args[0], args[1:]...)
		c.Stdin = bytes.NewBufferString(input)
		out, err := c.CombinedOutput()
		if err != nil && len(out) > 0 {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(out[:min(len(out), 200)]))
		}
		return err
	}}
	r.idle.L = &r.mu
	return r
}

// begin and end take up and give back what has come with a child. They do not
// wait.
func (r *resolvers) begin(child uint64, s servers) {
	if len(s.list) > 0 {
		r.change(func() { r.wanted[child] = s })
	}
}

func (r *resolvers) end(child uint64) { r.change(func() { delete(r.wanted, child) }) }

func (r *resolvers) change(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	if !r.busy && !r.sum().same(r.now) {
		r.busy = true
		go r.settle()
	}
}

// sum is what all children together have brought, the oldest first. r.mu is held.
func (r *resolvers) sum() (s servers) {
	for _, id := range slices.Sorted(maps.Keys(r.wanted)) {
		for _, a := range r.wanted[id].list {
			if !slices.Contains(s.list, a) {
				s.list = append(s.list, a)
			}
		}
		for _, d := range r.wanted[id].domains {
			if !slices.Contains(s.domains, d) {
				s.domains = append(s.domains, d)
			}
		}
		s.all = s.all || r.wanted[id].all
	}
	return s
}

// settle tells the host until there is nothing new to tell.
func (r *resolvers) settle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		s := r.sum()
		if s.same(r.now) {
			r.busy = false
			r.idle.Broadcast()
			return
		}
		was := r.now
		r.now = s
		r.mu.Unlock()
		r.put(s, was)
		r.mu.Lock()
	}
}

// stop takes everything back and waits until that is done.
func (r *resolvers) stop() {
	r.change(func() { clear(r.wanted) })
	r.settled()
}

// settled waits until all is told.
func (r *resolvers) settled() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.busy {
		r.idle.Wait()
	}
}

// put tells the host what is new.
func (r *resolvers) put(s, was servers) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTime)
	defer cancel()
	err := r.byResolvectl(ctx, s, was)
	if err == nil {
		return
	}
	switch {
	case len(s.list) == 0:
		_ = r.run(ctx, "", "resolvconf", "-d", r.record()) // it knows of nothing, or forgets it
		return
	case s.all || len(s.domains) > 0:
		text, args := "", []string{"resolvconf", "-a", r.record(), "-m", "0", "-x"}
		if !s.all { // -p: asked for these alone, where the resolver knows to
			text, args = "search "+strings.Join(s.domains, " ")+"\n", []string{"resolvconf", "-a", r.record(), "-p"}
		}
		for _, a := range s.list {
			text += "nameserver " + a.String() + "\n"
		}
		if other := r.run(ctx, text, args...); other == nil {
			return
		}
	}
	r.tell(fmt.Sprintf("the gateway names the DNS servers %v, and this host cannot be told (%s): set them by hand if they are needed", s.list, err))
}

// record is what resolvconf knows the servers by. Debian's own puts those of tun
// before those of devices; openresolv's -m 0 -x, which it does not know, does as
// much.
func (r *resolvers) record() string { return "tun." + r.device }

func (r *resolvers) byResolvectl(ctx context.Context, s, was servers) error {
	if len(s.list) == 0 {
		return r.run(ctx, "", "resolvectl", "revert", r.device)
	}
	args := []string{"resolvectl", "dns", r.device}
	for _, a := range s.list {
		args = append(args, a.String())
	}
	if err := r.run(ctx, "", args...); err != nil {
		return err
	}
	args = []string{"resolvectl", "domain", r.device}
	if s.all {
		args = append(args, "~.")
	}
	for _, d := range s.domains { // ike has taken names only that are nothing but that
		args = append(args, "~"+d)
	}
	if len(args) == 3 {
		if !was.all && len(was.domains) == 0 {
			return nil
		}
		args = append(args, "") // forget those of before
	}
	return r.run(ctx, "", args...)
}
