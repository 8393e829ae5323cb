package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A client closes its half, and the server answers long after what remembers the
// connection has a time for (kubernetes/kubernetes#32551, linkerd/linkerd2#3605),
// with all times short. The server itself may open nothing.
func TestHalfClosedConnections(t *testing.T) {
	const policy = "policy {\n  inbound  = \"discard\"\n  outbound = \"discard\"\n  offload  = %q\n  timeouts {\n    tcp_half_closed = %q\n  }\n}\nrule \"web\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"tcp\"\n  local_port = 80\n}\n"
	for _, row := range []struct {
		offload, said string
		answered      bool
	}{{"flow", "1h", true}, {"none", "1h", true}, {"flow", "5s", false}, {"none", "5s", false}} {
		t.Run(row.offload+" "+row.said, func(t *testing.T) {
			l, client, server := lab.Pair(t)
			for _, s := range []string{"fin_wait", "close_wait", "last_ack", "unacknowledged"} {
				server.Sysctl("net.netfilter.nf_conntrack_tcp_timeout_"+s, "2")
			}
			d := server.IPFW(l.File("server.hcl", fmt.Sprintf(policy, row.offload, row.said)))
			answer := make(chan struct{})
			if err := server.Do(func() error { return lateServer(answer) }); err != nil {
				t.Fatal(err)
			}
			dialer := net.Dialer{Timeout: time.Second, KeepAlive: -1} // what keeps alive opens anew what is forgotten
			var open []net.Conn
			for _, to := range []string{"10.77.0.1:80", "[fd77::1]:80"} {
				var c net.Conn
				l.Eventually(waitLong, "a connection to "+to, func() bool { // an IPv6 address is not at once one to connect to
					err := client.Do(func() (err error) { c, err = dialer.Dial("tcp", to); return err })
					return err == nil
				})
				defer c.Close()
				if _, err := io.WriteString(c, "a question"); err != nil {
					t.Fatal(err)
				}
				if err := c.(*net.TCPConn).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				open = append(open, c)
			}
			// A FIN that is not acknowledged is sent again, and may open the flow anew.
			l.Eventually(waitLong, "both halves closed and acknowledged", func() bool {
				return strings.Count(client.Run("ss", "-Htn", "state", "fin-wait-2"), ":80") == 2
			})
			// Until both have forgotten the connections, or the kernel has, which it tells
			// the daemon: while either remembers, it is known who has opened them.
			var flows, tracked string
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("flows: %s\nconnection tracking: %s", flows, tracked)
				}
			})
			l.Eventually(waitLong, "an end of what the kernel or ipfw remembers", func() bool {
				flows = d.Ask("flows", "--json")
				tracked = server.Run("cat", "/proc/net/nf_conntrack")
				if !row.answered {
					return !strings.Contains(flows, "tcp") && !strings.Contains(tracked, "tcp")
				}
				return strings.Count(flows, "fin-wait") == 2 && !strings.Contains(flows, `"offloaded"`)
			})
			close(answer)
			for _, c := range open {
				limit := waitLong
				if !row.answered {
					limit = 2 * time.Second
				}
				if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(c)
				if string(got) == "an answer" != row.answered || row.answered && err != nil {
					t.Errorf("%s: %q, %v", c.RemoteAddr(), got, err)
				}
			}
		})
	}
}

// lateServer answers on port 80 who has closed its half, when it is told to.
func lateServer(answer <-chan struct{}) error {
	config := net.ListenConfig{KeepAlive: -1}
	s, err := config.Listen(context.Background(), "tcp", ":80")
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := s.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.ReadAll(c); err != nil && !errors.Is(err, io.EOF) {
					return
				}
				<-answer
				_, _ = io.WriteString(c, "an answer") // the client tells whether it came
			}()
		}
	}()
	return nil
}
