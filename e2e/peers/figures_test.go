package peers

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
)

// responderVariable makes this process a responder; set for that alone.
const responderVariable = "IPFW_PEERS_RESPONDER"

// responderPeer is how both responders know their callers: any identity, one
// secret, no child (RFC 6023), so that key exchange alone is measured.
func responderPeer() *ike.Peer {
	id, _ := ike.ParseIdentity("peer.example")
	p := ike.Proposal{Protocol: ike.ProtoIKE, Transforms: []ike.Transform{{Type: ike.TransformENCR, ID: ike.EncrAESGCM16, Bits: 128},
		{Type: ike.TransformPRF, ID: ike.PRFSHA256}, {Type: ike.TransformKE, ID: ike.KEX25519}}}
	return &ike.Peer{Name: "all", LocalID: id, PSK: []byte(secret), Proposals: []ike.Proposal{p}, DPD: -1}
}

// serveResponder is the responder's process.
func serveResponder() error {
	s, err := ike.Listen(ike.ServerConfig{Config: ike.Config{Peers: []*ike.Peer{responderPeer()},
		Rand: rand.Reader, Limits: ike.Limits{HalfOpenPerAddr: 1 << 20, CookieAfter: 1 << 20, HalfOpen: 1 << 20}}})
	if err != nil {
		return err
	}
	s.Run(context.Background(), 0)
	return errors.New("ended")
}

// cpuTime is what a process has used, of user and system time.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')'):]))
	var ticks int
	for _, f := range fields[12:14] { // utime, stime: proc(5)
		n, _ := strconv.Atoi(f)
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// BenchmarkResponder has our initiator call ipfw and strongSwan in turn, 16
// calls at a time, with pre-shared keys and X25519, and gives handshakes per
// second of the responder's processor time and of the clock.
func BenchmarkResponder(b *testing.B) {
	for _, who := range []string{"ipfw", "strongswan"} {
		b.Run(who, func(b *testing.B) {
			_, us, them := lab.Pair(b)
			var pid int
			if who == "ipfw" {
				self, err := os.Executable()
				if err != nil {
					b.Fatal(err)
				}
				pid = them.Start("env", responderVariable+"=1", self).Cmd.Process.Pid
				time.Sleep(500 * time.Millisecond)
			} else {
				c := them.Charon("  dos_protection = no\n  init_limit_half_open = 0\n  filelog {\n    stderr {\n      default = -1\n      ike = -1\n      cfg = -1\n      chd = -1\n      enc = -1\n    }\n  }\n")
				c.Load("connections {\n  all {\n    version = 2\n    unique = never\n    proposals = aes128gcm16-prfsha256-curve25519\n    local {\n      auth = psk\n      id = peer.example\n    }\n" +
					"    remote {\n      auth = psk\n    }\n  }\n}\nsecrets {\n  ike-all {\n    secret = \"" + secret + "\"\n  }\n}\n")
				pid = c.Pid
			}
			var peers []*ike.Peer
			for i := range b.N {
				p := responderPeer()
				p.Name = fmt.Sprint("p", i)
				p.LocalID, _ = ike.ParseIdentity(fmt.Sprintf("c%d.example", i))
				p.RemoteID, p.Childless, p.Endpoint = "peer.example", true, netip.MustParseAddrPort("10.77.0.1:500")
				p.Children = []*ike.Child{{Name: "net"}}
				peers = append(peers, p)
			}
			s := newStation(b, us, ike.Config{Peers: peers}, netip.MustParseAddr("10.77.0.2"))
			s.childless = true
			before := cpuTime(b, pid)
			b.ResetTimer()
			began, up := 0, 0
			for end := time.Now().Add(time.Minute); up < b.N; {
				for began < b.N && began-up < 16 {
					s.with(func(now time.Time) ike.Output {
						o, err := s.core.Initiate(now, ike.Call{Peer: peers[began].Name, Child: "net", Local: netip.MustParseAddrPort("10.77.0.2:0")})
						if err != nil {
							b.Error(err)
						}
						return o
					})
					began++
				}
				if up = s.up(); up < b.N && began-up == 16 {
					time.Sleep(100 * time.Microsecond)
				}
				if time.Now().After(end) {
					b.Fatalf("%d of %d calls were answered: %v", up, b.N, s.events())
				}
			}
			b.StopTimer()
			used := cpuTime(b, pid) - before
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "handshakes/s")
			b.ReportMetric(float64(b.N)/max(used.Seconds(), 0.01), "handshakes/s/core")
		})
	}
}

// up counts the IKE SAs that came up, without a copy of the log.
func (s *station) up() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.log {
		if e.Kind == ike.IKEUp {
			n++
		}
	}
	return n
}
