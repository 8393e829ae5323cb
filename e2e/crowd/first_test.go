package crowd

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"golang.org/x/sys/unix"
)

// An application's first packet brings the keys about, and goes out sealed by
// them: how long that takes, from the first packet of an application to the
// first sealed one on the wire, and to the answer. Each time there is no IKE SA.
func TestFirstPacket(t *testing.T) {
	times := 5
	if figures() {
		times = 60
	}
	for _, row := range []struct {
		name  string
		ecdsa bool
		more  string
	}{
		{"psk x25519", false, "  key_exchange = [\"x25519\"]\n"},
		{"psk x25519+ml-kem-768", false, ""},
		{"ecdsa x25519", true, "  key_exchange = [\"x25519\"]\n"},
		{"ecdsa x25519+ml-kem-768", true, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			l, client, server := lab.Pair(t)
			l.RawKeys(true, "client", "server")
			key := "  public_keys = \"peers/\"\n  private_key = \"own.key\"\n"
			if !row.ecdsa {
				key = "  psk_file = \"psk\"\n"
			}
			daemons := map[string]*lab.Daemon{}
			for _, h := range []struct {
				*lab.Host
				name, peer, addr string
			}{{client, "client", "server", "10.77.0.1"}, {server, "server", "client", "10.77.0.2"}} {
				l.File(h.name+"/psk", secret+"\n")
				daemons[h.name] = h.IPFW(l.File(h.name+"/policy.hcl", fmt.Sprintf(`
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "all" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = %[3]q
}
ipsec "peer" {
  mode = "transport"
  ike  = "peer"
}
ike "peer" {
  remote_endpoint = %[3]q
  local_id        = "%[1]s"
  remote_id       = "%[2]s"
%[4]s%[5]s}
`, h.name, h.peer, h.addr, key, row.more)))
			}
			wire := sealedOn(t, client, "c0")
			var echo *net.UDPConn
			var listener net.Listener
			if err := server.Do(func() (err error) {
				if echo, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 7}); err == nil {
					listener, err = net.Listen("tcp4", ":7")
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer echo.Close()
			defer listener.Close()
			go func() {
				b := make([]byte, 100)
				for {
					n, from, err := echo.ReadFromUDP(b)
					if err != nil {
						return
					}
					_, _ = echo.WriteToUDP(b[:n], from)
				}
			}()
			for _, proto := range []string{"udp4", "tcp4"} {
				var first, answer []time.Duration
				for range times {
					l.Eventually(lab.Patience, "nothing is up", func() bool {
						daemons["client"].Ask("ike", "terminate", "peer")
						return daemons["client"].Ask("ike", "list", "--json")+daemons["server"].Ask("ike", "list", "--json") == ""
					})
					wire.forget()
					began := time.Now()
					if err := client.Do(func() error { return knock(proto) }); err != nil {
						t.Fatal(err)
					}
					answer = append(answer, time.Since(began))
					first = append(first, wire.first(t).Sub(began))
				}
				slices.Sort(first)
				slices.Sort(answer)
				if first[0] <= 0 || answer[0] < first[0] {
					t.Errorf("sealed after %v, answered after %v", first[0], answer[0])
				}
				t.Logf("%-24s %s: first sealed packet p50 %.1f p95 %.1f ms, answer p50 %.1f p95 %.1f ms (%d times)", row.name, proto[:3],
					ms(part(first, .5)), ms(part(first, .95)), ms(part(answer, .5)), ms(part(answer, .95)), times)
			}
		})
	}
}

// knock sends a first packet and waits for the answer.
func knock(proto string) error {
	c, err := net.DialTimeout(proto, "10.77.0.1:7", 10*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if proto == "tcp4" {
		return c.(*net.TCPConn).SetLinger(0) // no goodbye, which would bring keys about again
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	if _, err := c.Write(b); err != nil {
		return err
	}
	_, err = c.Read(b)
	return err
}

// sniffer tells when the first sealed packet went by.
type sniffer struct{ seen chan time.Time }

// forget begins anew.
func (s *sniffer) forget() {
	select {
	case <-s.seen:
	default:
	}
}

// first gives it, by the kernel's clock.
func (s *sniffer) first(t *testing.T) (at time.Time) {
	t.Helper()
	select {
	case at = <-s.seen:
	case <-time.After(10 * time.Second):
		t.Fatal("no sealed packet was seen")
	}
	return at
}

// sealedOn listens on a device for ESP in UDP.
func sealedOn(t *testing.T, h *lab.Host, dev string) *sniffer {
	t.Helper()
	var fd int
	if err := h.Do(func() error {
		i, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all)); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000}); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index})
	}); err != nil {
		t.Fatal(err)
	}
	s, done := &sniffer{make(chan time.Time, 1)}, make(chan struct{})
	go func() {
		defer unix.Close(fd)
		b, oob := make([]byte, 2048), make([]byte, 128)
		for {
			n, noob, _, _, err := unix.Recvmsg(fd, b, oob, 0)
			select {
			case <-done:
				return
			default:
			}
			const udp = 14 + 20
			if err != nil || n < udp+12 || b[23] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[udp+2:]) != 4500 || binary.BigEndian.Uint32(b[udp+8:]) == 0 {
				continue
			}
			// The one control message is a struct timespec.
			if noob < unix.CmsgLen(16) {
				continue
			}
			at := oob[unix.CmsgLen(0):]
			sec, nsec := binary.NativeEndian.Uint64(at), binary.NativeEndian.Uint64(at[8:])
			select {
			case s.seen <- time.Unix(int64(sec), int64(nsec)):
			default: // not the first
			}
		}
	}()
	t.Cleanup(func() { close(done) })
	return s
}

// TestFirstPacketStrongSwan is what strongSwan's user space can be asked for:
// kernel-libipsec has no policies that trap packets, so its key exchange is
// begun by hand, and what swanctl takes to start and ask is told beside.
func TestFirstPacketStrongSwan(t *testing.T) {
	_, client, server := lab.Pair(t)
	// Tunnels between addresses behind the two: libipsec takes none for those
	// that IKE itself uses.
	client.Run("ip", "addr", "add", "10.89.0.2/32", "dev", "lo")
	server.Run("ip", "addr", "add", "10.89.0.1/32", "dev", "lo")
	conf := func(local, remote, localTS, remoteTS string) string {
		return fmt.Sprintf("connections {\n  peer {\n    version = 2\n    local_addrs = %s\n    remote_addrs = %s\n    proposals = aes128gcm16-prfsha256-curve25519\n"+
			"    local {\n      auth = psk\n      id = %[1]s\n    }\n    remote {\n      auth = psk\n      id = %[2]s\n    }\n    children {\n      net {\n        local_ts = %[4]s/32\n        remote_ts = %[5]s/32\n        esp_proposals = aes128gcm16\n      }\n    }\n  }\n}\n"+
			"secrets {\n  ike-all {\n    secret = %[3]q\n  }\n}\n", local, remote, secret, localTS, remoteTS)
	}
	a, b := client.Charon(""), server.Charon("")
	b.Load(conf("10.77.0.1", "10.77.0.2", "10.89.0.1", "10.89.0.2"))
	a.Load(conf("10.77.0.2", "10.77.0.1", "10.89.0.2", "10.89.0.1"))
	var took, bare []time.Duration
	times := 2
	if figures() {
		times = 30
	}
	for range times {
		began := time.Now()
		a.Do("--stats")
		bare = append(bare, time.Since(began))
		began = time.Now()
		out := a.Do("--initiate", "--child", "net")
		took = append(took, time.Since(began))
		if !strings.Contains(out, "completed successfully") {
			t.Fatal(out)
		}
		a.Do("--terminate", "--ike", "peer")
	}
	slices.Sort(took)
	slices.Sort(bare)
	t.Logf("strongSwan psk x25519: swanctl --initiate p50 %.1f p95 %.1f ms, of which swanctl itself p50 %.1f ms", ms(part(took, .5)), ms(part(took, .95)), ms(part(bare, .5)))
}
