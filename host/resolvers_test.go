package host

import (
	"context"
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The host is told of a gateway's DNS servers by what it has, once for each
// change, and forgets them with the last child; where it has nothing, that is
// said, and nothing is written.
func TestResolvers(t *testing.T) {
	for _, row := range []struct {
		name    string
		has     string
		all     bool
		domains []string
		want    string
		told    int
	}{
		{"systemd-resolved, everything", "resolvectl", true, nil,
			"resolvectl dns ipfw0 10.1.0.53 fd10::53; resolvectl domain ipfw0 ~.; resolvectl revert ipfw0", 0},
		{"systemd-resolved, some networks", "resolvectl", false, nil,
			"resolvectl dns ipfw0 10.1.0.53 fd10::53; resolvectl revert ipfw0", 0},
		{"resolvconf, everything", "resolvconf", true, nil,
			"resolvconf -a tun.ipfw0 -m 0 -x <nameserver 10.1.0.53 nameserver fd10::53 >; resolvconf -d tun.ipfw0", 0},
		{"resolvconf, some networks", "resolvconf", false, nil, "resolvconf -d tun.ipfw0", 1},
		{"systemd-resolved, some networks, names", "resolvectl", false, []string{"corp.example", "lab.example"},
			"resolvectl dns ipfw0 10.1.0.53 fd10::53; resolvectl domain ipfw0 ~corp.example ~lab.example; resolvectl revert ipfw0", 0},
		{"systemd-resolved, everything, names", "resolvectl", true, []string{"corp.example"},
			"resolvectl dns ipfw0 10.1.0.53 fd10::53; resolvectl domain ipfw0 ~. ~corp.example; resolvectl revert ipfw0", 0},
		{"resolvconf, some networks, names", "resolvconf", false, []string{"corp.example"},
			"resolvconf -a tun.ipfw0 -p <search corp.example nameserver 10.1.0.53 nameserver fd10::53 >; resolvconf -d tun.ipfw0", 0},
		{"nothing", "", true, nil, "", 1},
	} {
		var mu sync.Mutex
		var did, told []string
		r := newResolvers("ipfw0", func(s string) { told = append(told, s) })
		r.run = func(_ context.Context, input string, args ...string) error {
			if args[0] != row.has {
				return &exec.Error{Name: args[0], Err: exec.ErrNotFound}
			}
			mu.Lock()
			defer mu.Unlock()
			s := strings.Join(args, " ")
			if input != "" {
				s += " <" + strings.ReplaceAll(input, "\n", " ") + ">"
			}
			did = append(did, s)
			return nil
		}
		wait := r.settled
		list := []netip.Addr{netip.MustParseAddr("10.1.0.53"), netip.MustParseAddr("fd10::53")}
		r.begin(1, servers{list, row.domains, row.all})
		wait()
		r.begin(2, servers{list, row.domains, row.all}) // its rekey
		r.end(1)
		wait()
		r.begin(3, servers{})
		r.end(3)
		wait()
		if slices.ContainsFunc(did, func(s string) bool { return strings.Contains(s, "revert") || strings.Contains(s, " -d") }) {
			t.Errorf("%s: taken back too early: %q", row.name, did)
		}
		r.stop()
		if got := strings.Join(did, "; "); got != row.want || len(told) != row.told {
			t.Errorf("%s: %q, told %q", row.name, got, told)
		}
	}
	// A program that fails is a sentence too.
	var told []string
	r := newResolvers("ipfw0", func(s string) { told = append(told, s) })
	r.run = func(context.Context, string, ...string) error { return errors.New("exit status 1: no") }
	r.begin(1, servers{[]netip.Addr{netip.MustParseAddr("10.1.0.53")}, nil, true})
	r.settled()
	r.stop()
	if len(told) != 1 || !strings.Contains(told[0], "10.1.0.53") {
		t.Errorf("%q", told)
	}
}
