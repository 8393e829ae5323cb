package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/e2e/lab"
)

// leaseHook is what the DHCP clients run when something happens: it says what,
// and sets the address.
const leaseHook = `#!/bin/sh
# udhcpc says what happened in its argument, dhcpcd in a variable
echo lease ${1:-$reason} $ip $new_ip_address $new_dhcp6_ia_na1_ia_addr1
[ "$1" != bound ] || ip addr replace "$ip/24" dev "$interface"
`

// startDHCPCD asks for an IPv6 address on c0, with the real dhcpcd, and gives
// what it says.
func startDHCPCD(l *lab.Lab, h *lab.Host) (said func() string) {
	l.Helper()
	lab.Need(l, "dhcpcd")
	hook := l.File(h.Name+"-hook", leaseHook)
	conf := l.File(h.Name+"-dhcpcd.conf", "ipv6only\nnoipv6rs\nduid\ninterface c0\nia_na 1\n")
	log := l.File(h.Name+"-dhcpcd.log", "")
	// What it keeps is in folders of its own, so that it begins as on a new host.
	// Its helpers may outlive it for a while: they must hold no pipe of the test's.
	h.Start("sh", "-ec", "chmod +x "+hook+`
for d in /run/dhcpcd /var/lib/dhcpcd; do mkdir -p $d; mount -t tmpfs none $d; done
exec dhcpcd -B -d -f `+conf+" -c "+hook+" c0 >"+log+" 2>&1")
	said = func() string {
		b, err := os.ReadFile(log)
		if err != nil {
			l.Fatal(err)
		}
		return string(b)
	}
	l.Cleanup(func() {
		if l.Failed() {
			l.Logf("dhcpcd said:\n%s", lastLines(said(), 30))
		}
	})
	return said
}

// renewal is how long udhcpc waits for an answer before it asks otherwise.
const renewal = 30 * time.Second

// startUDHCPC asks for an IPv4 address on c0, with the real udhcpc, and asks again
// after so many whole seconds.
func startUDHCPC(l *lab.Lab, h *lab.Host, again time.Duration) *lab.Process {
	l.Helper()
	lab.Need(l, "udhcpc")
	hook := l.File(h.Name+"-hook", leaseHook)
	h.Run("chmod", "+x", hook)
	return h.Start("udhcpc", "-f", "-i", "c0", "-s", hook, "-t", "100", "-T", fmt.Sprint(int(again.Seconds())))
}

// A DHCPv6 server listens on port 547 and sends from where it likes: from another
// port, from a global address. Its client gets an address all the same.
func TestDHCPv6ServerOfAnyPort(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ from, outbound string }{
		{"[fe80::5]:547", "bypass"}, {"[fe80::5]:40000", "bypass"}, {"[fe80::5]:40000", "discard"},
		{"[fd77::1]:40000", "discard"},
	} {
		t.Run(row.from+" "+row.outbound, func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			client, server := l.Host("client"), l.Host("server")
			l.Join(client, "c0", nil, server, "s0", []string{"fe80::5/64", "fd77::1/64"})
			client.Run("ip", "route", "add", "fd77::/64", "dev", "c0") // as a router advertisement would: the neighbours must find each other
			serveDHCPv6(t, server, netip.MustParseAddrPort(row.from))
			client.IPFW(l.File("policy.hcl", fmt.Sprintf("policy {\n  inbound = \"discard\"\n  outbound = %q\n}\n", row.outbound)))
			c := startDHCPCD(l, client)
			l.Eventually(waitLong, "dhcpcd has an address", func() bool { return strings.Contains(c(), "lease BOUND6 fd77::100") })
		})
	}
}

// serveDHCPv6 gives out the one address fd77::100 (RFC 8415), with answers from
// an address and port of the test's choice.
func serveDHCPv6(t *testing.T, h *lab.Host, from netip.AddrPort) {
	t.Helper()
	var in, out *net.UDPConn
	if err := within(t, h, func() error {
		dev, err := net.InterfaceByName("s0")
		if err != nil {
			return err
		}
		if in, err = net.ListenMulticastUDP("udp6", dev, &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: 547}); err != nil || from.Port() == 547 && from.Addr().IsLinkLocalUnicast() {
			out = in
			return err
		}
		if from.Addr().IsLinkLocalUnicast() {
			from = netip.AddrPortFrom(from.Addr().WithZone("s0"), from.Port())
		}
		beside := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
			return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }), err)
		}}
		c, err := beside.ListenPacket(t.Context(), "udp6", from.String())
		if err == nil {
			out = c.(*net.UDPConn)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	option := func(b []byte, code uint16, data []byte) []byte {
		b = binary.BigEndian.AppendUint16(b, code)
		b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
		return append(b, data...)
	}
	address := netip.MustParseAddr("fd77::100").As16()
	go func() {
		b := make([]byte, 1500)
		for {
			n, client, err := in.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n < 4 {
				continue
			}
			answer := []byte{7, b[1], b[2], b[3]} // REPLY, of the same transaction
			if b[0] == 1 {
				answer[0] = 2 // ADVERTISE, to a SOLICIT
			}
			answer = option(answer, 2, []byte{0, 3, 0, 1, 2, 0, 0, 0, 0, 5}) // the server's identifier
			for rest := b[4:n]; len(rest) >= 4; {
				code, size := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
				if len(rest) < 4+size {
					break
				}
				data := rest[4 : 4+size]
				rest = rest[4+size:]
				switch {
				case code == 1: // the client's identifier
					answer = option(answer, 1, data)
				case code == 3 && size >= 4: // IA_NA: the same number, T1, T2, an address
					ia := append(append([]byte{}, data[:4]...), 0, 0, 0x0e, 0x10, 0, 0, 0x15, 0x18)
					answer = option(answer, 3, option(ia, 5, append(address[:], 0, 0, 0x1c, 0x20, 0, 0, 0x1c, 0x20)))
				}
			}
			_, _ = out.WriteToUDPAddrPort(answer, client) // the client asks again
		}
	}()
}

// The same for DHCPv4, where clients read the first answers beside the firewall
// and those that renew an address by a socket.
func TestDHCPServerOfAnyPort(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		port     int
		outbound string
	}{{67, "bypass"}, {40000, "bypass"}, {40000, "discard"}} {
		t.Run(fmt.Sprint(row.port, " ", row.outbound), func(t *testing.T) {
			t.Parallel()
			l := lab.New(t)
			client, server := l.Host("client"), l.Host("server")
			l.Join(client, "c0", nil, server, "s0", []string{"10.77.0.1/24"})
			serveDHCP(t, server, row.port, func() string { out, _ := client.Try(waitLong, "cat", "/proc/net/udp"); return out })
			client.IPFW(l.File("policy.hcl", fmt.Sprintf("policy {\n  inbound = \"discard\"\n  outbound = %q\n}\n", row.outbound)))
			c := startUDHCPC(l, client, renewal)
			l.Eventually(waitLong, "udhcpc has an address", func() bool { return strings.Contains(c.Output(), "lease bound 10.77.0.100") })
			c.Signal(syscall.SIGUSR1)
			l.Eventually(waitLong, "it has renewed it", func() bool { return strings.Contains(c.Output(), "lease renew 10.77.0.100") })
		})
	}
}

// serveDHCP gives out the one address 10.77.0.100 (RFC 2131), with answers from a
// port of the test's choice. Who has it has to renew it by unicast, and gets one
// answer, when it has a socket for it in what listening says (proc_net_udp(5)).
func serveDHCP(t *testing.T, h *lab.Host, port int, listening func() string) {
	t.Helper()
	var all, own, out *net.UDPConn // to everybody, to its address, from the port
	broadcast := func(u *net.UDPConn) error {
		raw, err := u.SyscallConn()
		if err != nil {
			return err
		}
		var set error
		err = raw.Control(func(fd uintptr) {
			if set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1); set == nil {
				set = unix.BindToDevice(int(fd), "s0")
			}
		})
		return errors.Join(err, set)
	}
	if err := within(t, h, func() (err error) {
		if all, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
			return err
		}
		t.Cleanup(func() { all.Close() })
		if own, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: 67}); err != nil {
			return err
		}
		t.Cleanup(func() { own.Close() })
		if out = own; port != 67 {
			if out, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 77, 0, 1), Port: port}); err != nil {
				return err
			}
			t.Cleanup(func() { out.Close() })
		}
		return broadcast(out)
	}); err != nil {
		t.Fatal(err)
	}
	var leased atomic.Bool
	serve := func(in *net.UDPConn) {
		b := make([]byte, 1500)
		for {
			n, client, err := in.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n < 241 {
				continue
			}
			kind := byte(0)
			for rest := b[240:n]; len(rest) >= 3 && len(rest) >= 2+int(rest[1]); rest = rest[2+int(rest[1]):] {
				if rest[0] == 53 {
					kind = rest[2]
					break
				}
			}
			answer := append([]byte{}, b[:236]...)
			answer[0] = 2 // BOOTREPLY
			copy(answer[16:], []byte{10, 77, 0, 100})
			copy(answer[20:], []byte{10, 77, 0, 1})
			answer = append(answer, 99, 130, 83, 99, 53, 1, 5, 54, 4, 10, 77, 0, 1, 51, 4, 0, 0, 0x0e, 0x10, 1, 4, 255, 255, 255, 0, 255)
			to := netip.MustParseAddrPort("255.255.255.255:68")
			switch {
			case kind == 1: // DHCPDISCOVER
				answer[242] = 2 // DHCPOFFER
			case kind == 3 && in == own:
				// udhcpc opens the socket for the answer when it has asked; when it
				// gets none it asks everybody, and hears answers beside the firewall.
				for end := time.Now().Add(renewal); !strings.Contains(listening(), ":0044 ") && time.Now().Before(end); {
					time.Sleep(10 * time.Millisecond)
				}
				to = client
			case kind == 3 && !leased.Swap(true):
			default:
				continue
			}
			_, _ = out.WriteToUDPAddrPort(answer, to) // the client asks again
		}
	}
	go serve(all)
	go serve(own)
}

// A DHCP server's answers come from its own address, and go to everybody or to
// an address that is new: they are of no flow, and a server wants its rule for
// both directions, as explain says. With dnsmasq, udhcpc and dhcpcd.
func TestDHCPServerBehindIPFW(t *testing.T) {
	t.Parallel()
	lab.Need(t, "dnsmasq", "udhcpc", "dhcpcd")
	l := lab.New(t)
	server := l.Host("server")
	policy := func(direction string) string {
		return l.File("policy.hcl", fmt.Sprintf(`policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "dhcp-server" {
  action      = "bypass"
  direction   = %[1]q
  protocol    = "udp"
  local_port  = 67
  remote_port = 68
}
rule "dhcpv6-server" {
  action      = "bypass"
  direction   = %[1]q
  protocol    = "udp"
  local_port  = 547
  remote_port = 546
}
`, direction))
	}
	client := l.Host("client")
	l.Join(client, "c0", nil, server, "s0", []string{"10.77.0.1/24", "fd77::1/64"})
	d := server.IPFW(policy("in"))
	leases := l.File("leases", "")
	dnsmasq := server.Start("dnsmasq", "-k", "-C", "/dev/null", "--log-facility=-", "--log-dhcp", "--user=root", "--pid-file=", "--port=0", "--no-ping",
		"--interface=s0", "--bind-interfaces", "--dhcp-leasefile="+leases, "--dhcp-range=10.77.0.100,10.77.0.200", "--dhcp-range=fd77::100,fd77::200,64")
	l.Eventually(waitLong, "dnsmasq serves", func() bool {
		return strings.Contains(dnsmasq.Output(), "DHCPv6, IP range") && strings.Contains(dnsmasq.Output(), "DHCP, sockets bound")
	})
	four, six := startUDHCPC(l, client, time.Second), startDHCPCD(l, client)
	l.Eventually(waitLong, "requests are let in, and nothing leaves", func() bool {
		s := status(t, d)
		p4, _, _ := s.rule("dhcp-server")
		p6, _, _ := s.rule("dhcpv6-server")
		return p4 > 1 && p6 > 1 && s.Reasons["default"] > 3
	})
	for _, said := range []string{four.Output(), six()} {
		if strings.Contains(strings.ToLower(said), "lease bound") {
			t.Errorf("a lease without an answer:\n%s\n%s", said, d.Ask("status", "--all"))
		}
	}
	for _, packet := range []string{"in udp 0.0.0.0:68 -> 255.255.255.255:67", "in udp [fe80::9]:546 -> [ff02::1:2]:547"} {
		out := server.Run(lab.Binary(t), "explain", "-c", policy("in"), packet)
		if !strings.Contains(out, "do not belong to the flow: the rules for outbound traffic decide") {
			t.Errorf("explain promises answers:\n%s", out)
		}
	}
	policy("both")
	d.Ask("reload")
	l.Eventually(waitLong, "udhcpc has an address", func() bool { return strings.Contains(four.Output(), "lease bound 10.77.0.1") })
	l.Eventually(waitLong, "dhcpcd has an address", func() bool { return strings.Contains(six(), "lease BOUND6 fd77::1") })
}
