package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A workstation under the profile deny-web, with its real addresses:
//
//	workstation w0 ---- n0 net: the resolver, a server on the list, one that is not
func TestDenyWebProfile(t *testing.T) {
	t.Parallel()
	lab.EachOffload(t, tryDenyWebProfile)
}

func tryDenyWebProfile(t *testing.T, _ string) {
	l := lab.New(t)
	lab.Need(t, "nginx", "curl")
	workstation, world := l.Host("workstation"), l.Host("net")
	l.Join(workstation, "w0", []string{"192.0.2.7/24", "2001:db8::7/64"}, world, "n0", []string{"192.0.2.53/24", "2001:db8::53/64"})
	for _, a := range []string{"198.51.100.80/32", "198.51.100.99/32", "2001:db8:80::1/128", "2001:db8:99::1/128"} {
		world.Run("ip", "addr", "add", a, "dev", "lo")
	}
	workstation.Run("ip", "route", "add", "default", "via", "192.0.2.53")
	workstation.Run("ip", "-6", "route", "add", "default", "via", "2001:db8::53")
	startNginx(t, l, world, 80, 443)
	for _, port := range []int{53, 443} {
		udpEcho(t, world, port)
	}

	listed, others := []string{"198.51.100.80", "[2001:db8:80::1]"}, []string{"198.51.100.99", "[2001:db8:99::1]"}
	for _, host := range append(listed, others...) {
		if !opens(workstation, host, 80) || !udpAnswers(t, workstation, host+":443", 300) {
			t.Fatalf("%s does not answer without a firewall; the test would prove nothing", host)
		}
	}
	d := workstation.IPFW("profile:deny-web")
	for _, host := range listed {
		for _, port := range []int{80, 443} {
			if !opens(workstation, host, port) {
				t.Errorf("%s:%d is on the list, and cannot be reached", host, port)
			}
		}
		if !udpAnswers(t, workstation, host+":443", 300) {
			t.Errorf("QUIC to %s is on the list, and cannot be reached", host)
		}
	}
	for _, host := range others {
		for _, port := range []int{80, 443} {
			out, err := workstation.Try(waitLong, "curl", "-sSg", "-m", "60", fmt.Sprintf("http://%s:%d/", host, port))
			if err == nil {
				t.Errorf("%s:%d is not on the list, and answers", host, port)
			}
			// reject = true: the browser hears of it, and does not wait.
			if strings.Contains(out, "timed out") || !strings.Contains(out, "refused") && !strings.Contains(out, "connect") {
				t.Errorf("%s:%d: curl was not told: %s", host, port, out)
			}
		}
		if udpAnswers(t, workstation, host+":443", 3) {
			t.Errorf("QUIC to %s gets out", host)
		}
	}
	for _, resolver := range []string{"192.0.2.53:53", "[2001:db8::53]:53"} {
		if !udpAnswers(t, workstation, resolver, 300) {
			t.Errorf("the resolver %s cannot be reached", resolver)
		}
	}
	if udpAnswers(t, workstation, "198.51.100.99:53", 3) {
		t.Error("a resolver outside can be reached")
	}
	if status := d.Ask("status"); !strings.Contains(status, "no-web") {
		t.Errorf("status does not name the rule:\n%s", status)
	}
}

// udpEcho answers every datagram in the host.
func udpEcho(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	var conns []*net.UDPConn
	// Answers must come from the address that was asked, so each has a socket.
	out := h.Run("sh", "-c", "ip -o addr show scope global | awk '{print $4}'")
	for _, cidr := range strings.Fields(out) {
		ip, _, err := net.ParseCIDR(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if err := within(t, h, func() error {
			c, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip, Port: port})
			conns = append(conns, c)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range conns {
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := c.ReadFromUDP(buf)
				if err != nil {
					return
				}
				_, _ = c.WriteToUDP(buf[:n], from)
			}
		}()
	}
}

// udpAnswers sends a datagram from the host, so many times at the most, and says
// whether an answer comes.
func udpAnswers(t *testing.T, h *lab.Host, address string, tries int) bool {
	t.Helper()
	answered := false
	err := within(t, h, func() error {
		c, err := net.Dial("udp", address)
		if err != nil {
			return err
		}
		defer c.Close()
		for range tries {
			_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
			if _, err := c.Write([]byte("ping")); err != nil {
				continue // rejected
			}
			if n, err := c.Read(make([]byte, 16)); err == nil && n == 4 {
				answered = true
				return nil
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return answered
}
