package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// membership is how long the switches of these tests send a group to a port that
// has not reported it again.
const membership = 4 * time.Second

// A switch that listens to IGMP and MLD sends the streams of groups only to whom
// reports them when it asks. A host with a firewall hears it ask, and answers,
// so that its streams go on: with the versions of both protocols that have one
// group in a report and those that have many, and nothing else let out too.
func TestStreamThroughSnoopingSwitch(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"old", "new"} {
		t.Run(version, func(t *testing.T) { t.Parallel(); tryStreams(t, version) })
	}
}

func tryStreams(t *testing.T, version string) {
	l := lab.New(t)
	lab.Need(t, "nft")
	igmp, mld := "2", "1"
	if version == "new" {
		igmp, mld = "3", "2"
	}
	// Times of bridges are in hundredths of a second.
	hundredths := func(d time.Duration) string { return fmt.Sprint(d.Milliseconds() / 10) }
	sw := l.Host("switch")
	sw.Run("ip", "link", "add", "sw0", "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1",
		"mcast_igmp_version", igmp, "mcast_mld_version", mld, "mcast_query_interval", hundredths(time.Second),
		"mcast_query_response_interval", hundredths(time.Second), "mcast_startup_query_interval", hundredths(time.Second/2),
		"mcast_membership_interval", hundredths(membership))
	sw.Run("ip", "link", "set", "sw0", "up")
	plug := func(h *lab.Host, n int) {
		port := fmt.Sprintf("port%d", n)
		l.Join(h, "lan0", []string{fmt.Sprintf("192.0.2.%d/24", n), fmt.Sprintf("2001:db8::%d/64", n)}, sw, port, nil)
		sw.Run("ip", "link", "set", port, "master", "sw0")
		h.Run("ip", "route", "add", "239.0.0.0/8", "dev", "lan0")
	}
	var hosts []*streamed
	for _, outbound := range []string{"bypass", "discard"} {
		for _, way := range []string{"flow", "none"} {
			h := l.Host(outbound + "-" + way)
			plug(h, len(hosts)+1)
			d := h.IPFW(l.File(h.Name+".hcl", fmt.Sprintf(`policy {
  inbound  = "discard"
  outbound = %q
  offload  = %q
}
rule "stream" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  local_port = 5000
}
`, outbound, way)))
			hosts = append(hosts, &streamed{h: h, d: d})
		}
	}
	other := l.Host("other") // wants no group: shows that the switch does listen
	plug(other, 9)
	other.Run("nft", "-f", l.File("count.nft", `
table inet seen {
  counter streams { }
  chain pre { type filter hook prerouting priority 0; udp dport 5000 counter name streams; }
}
`))
	seen := func() string { return other.Run("nft", "list", "counter", "inet", "seen", "streams") }
	sender := l.Host("sender")
	plug(sender, 10)
	groups := []string{"239.1.1.1", "ff15::101"}
	for _, s := range hosts {
		for _, group := range groups {
			s.streams = append(s.streams, joinStream(t, s.h, group))
		}
	}
	for _, group := range groups {
		sendStream(t, sender, group)
	}
	// While it knows of no querier, a switch sends all to everybody.
	l.Eventually(waitLong, "the switch sends no stream to whom wants none", func() bool {
		before, begin := seen(), time.Now()
		for _, s := range hosts[0].streams {
			l.Eventually(waitLong, "the streams come", func() bool { return s.last().After(begin) })
		}
		return seen() == before
	})
	begin := time.Now()
	for _, s := range hosts {
		for i, group := range groups {
			l.Eventually(waitLong, s.h.Name+" hears what is sent to "+group+" after four times as long as the switch remembers", func() bool {
				return s.streams[i].last().Sub(begin) > 4*membership
			})
		}
		for _, rule := range []string{"essential-igmp-in", "essential-igmp-out", "essential-multicast-in", "essential-multicast-out"} {
			st := status(t, s.d)
			if packets, _, _ := st.rule(rule); packets == 0 {
				t.Errorf("%s: no packet by %s", s.h.Name, rule)
			}
		}
	}
}

// streamed is a host that has joined groups, with its firewall.
type streamed struct {
	h       *lab.Host
	d       *lab.Daemon
	streams []*stream
}

// stream is what a host hears of a group.
type stream struct{ sent atomic.Int64 }

// last is when the last datagram that it has heard was sent.
func (s *stream) last() time.Time { return time.Unix(0, s.sent.Load()) }

// joinStream joins a group by lan0 and hears what is sent to its port 5000.
func joinStream(t *testing.T, h *lab.Host, group string) *stream {
	t.Helper()
	s := new(stream)
	var u *net.UDPConn
	if err := within(t, h, func() error {
		dev, err := net.InterfaceByName("lan0")
		if err == nil {
			u, err = net.ListenMulticastUDP("udp", dev, &net.UDPAddr{IP: net.ParseIP(group), Port: 5000})
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	go func() {
		b := make([]byte, 64)
		for {
			n, err := u.Read(b)
			if err != nil {
				return
			}
			if n == 8 {
				s.sent.Store(int64(binary.BigEndian.Uint64(b)))
			}
		}
	}()
	return s
}

// sendStream sends the time to a group's port 5000, by lan0, ten times a second.
func sendStream(t *testing.T, h *lab.Host, group string) {
	t.Helper()
	var c net.Conn
	if err := within(t, h, func() (err error) {
		address := net.JoinHostPort(group, "5000")
		if strings.Contains(group, ":") {
			address = net.JoinHostPort(group+"%lan0", "5000")
		}
		c, err = net.Dial("udp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for tick := time.Tick(100 * time.Millisecond); ; <-tick {
			if _, err := c.Write(binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
}
