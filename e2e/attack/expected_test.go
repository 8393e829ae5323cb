package attack

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A stranger has a service of the host say what a helper reads as an FTP server's
// offer of a port (another program's rules set the helper too widely), and then comes
// to that port, which is shut. It opens for whom the policy's rule for FTP has let in.
func TestExpectedByAnotherRule(t *testing.T) {
	a := attack(t, "G26", offPath, "an echo that a helper takes for FTP, then the port it names")
	lab.Need(t, "nft")
	for _, offload := range []string{"flow", "none"} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+offload, v, func(t *testing.T, v *family) {
				l, stranger, host := lab.Pair(t)
				to := netip.MustParseAddr(map[string]string{"v4": "10.77.0.1", "v6": "fd77::1"}[v.name])
				host.Run("nft", `table inet other {
					ct helper ftp { type "ftp" protocol tcp; }
					chain pre { type filter hook prerouting priority filter; tcp dport { 21, 9021 } ct helper set "ftp"; }
				}`)
				echoLines(t, host, 21)
				echoLines(t, host, 9021)
				reached := countConnections(t, host, 9999)
				host.IPFW(l.File("policy.hcl", fmt.Sprintf(`policy {
  inbound  = "discard"
  outbound = "bypass"
  offload  = %q
}
rule "echo" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 9021
}
rule "ftp" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 21
}
rule "ftp-data" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  related_to = "ftp"
}
`, offload)))
				dial := func(port uint16, limit time.Duration) (c net.Conn, err error) {
					err = stranger.Do(func() (err error) {
						c, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, port).String(), limit)
						return err
					})
					if err == nil {
						t.Cleanup(func() { c.Close() })
					}
					return c, err
				}
				offer := func(port uint16) { // RFC 2428 section 3
					c, err := dial(port, lab.Patience)
					if err != nil {
						t.Fatal(err)
					}
					if err := c.SetDeadline(time.Now().Add(lab.Patience)); err != nil {
						t.Fatal(err)
					}
					r := bufio.NewReader(c)
					for _, line := range []string{"220 ready\r\n", "229 Entering Extended Passive Mode (|||9999|)\r\n"} {
						if _, err := io.WriteString(c, line); err != nil {
							t.Fatal(err)
						}
						if got, err := r.ReadString('\n'); err != nil || got != line {
							t.Fatalf("%q comes back: %v", got, err)
						}
					}
				}
				offer(9021)
				if _, err := dial(9999, 2*time.Second); err == nil || reached.Load() > 0 {
					t.Errorf("%d connections reach a shut port: %v", reached.Load(), err)
				}
				a.saw(v.name+" "+offload, "connections to the shut port: %d", reached.Load())
				offer(21) // what the policy means
				if _, err := dial(9999, lab.Patience); err != nil {
					t.Errorf("what FTP expects does not pass: %v", err)
				}
			})
		}
	}
}

// echoLines sends back each line, on every address of a host.
func echoLines(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	listen(t, h, port, func(c net.Conn) {
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if _, err := io.WriteString(c, line); err != nil {
				return
			}
		}
	})
}

// countConnections counts who reaches a port.
func countConnections(t *testing.T, h *lab.Host, port int) *atomic.Int64 {
	t.Helper()
	n := new(atomic.Int64)
	listen(t, h, port, func(net.Conn) { n.Add(1) })
	return n
}

func listen(t *testing.T, h *lab.Host, port int, serve func(net.Conn)) {
	t.Helper()
	var s net.Listener
	if err := h.Do(func() (err error) { s, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
}
