package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/e2e/lab"
)

// shutPolicy lets nothing in and everything out.
const shutPolicy = "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n"

// ends are the two hosts' addresses in both families, the client's first.
var ends = [][2]string{{"10.77.0.2", "10.77.0.1"}, {"fd77::2", "fd77::1"}}

// Two hosts that let nothing in reach each other when both call at a time: by TCP
// (RFC 9293 section 3.5, simultaneous open) and by UDP (RFC 5128 section 3.3).
func TestHolePunching(t *testing.T) { t.Parallel(); lab.EachOffload(t, tryHolePunching) }

func tryHolePunching(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	client.IPFW(l.File("client.hcl", shutPolicy))
	server.IPFW(l.File("server.hcl", shutPolicy))
	for _, pair := range ends {
		for _, network := range []string{"tcp", "udp"} {
			conns := make(chan error, 2)
			for i, h := range []*lab.Host{client, server} {
				go func() { conns <- h.Do(func() error { return punch(network, pair[i], pair[1-i]) }) }()
			}
			for range 2 {
				if err := <-conns; err != nil {
					t.Errorf("%s, %s: %v", network, pair[0], err)
				}
			}
		}
	}
}

// punch calls from port 7000 to port 7000 until what the other side says comes, and
// this side has been heard too.
func punch(network, from, to string) error {
	const port = "7000"
	end := time.Now().Add(waitLong)
	local, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(from, port))
	if err != nil {
		return err
	}
	d := net.Dialer{LocalAddr: local, Deadline: end, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) }), err)
	}}
	if network == "udp" {
		d.LocalAddr = &net.UDPAddr{IP: local.IP, Port: local.Port}
	}
	var c net.Conn
	for c == nil {
		if c, err = d.Dial(network, net.JoinHostPort(to, port)); err != nil && time.Now().After(end) {
			return err
		}
	}
	defer c.Close()
	said, b := "hello", make([]byte, 64)
	for time.Now().Before(end) {
		if _, err := c.Write([]byte(said)); err != nil && network == "tcp" {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			return err
		}
		n, err := c.Read(b)
		if err == nil {
			said = "heard you"
		}
		if err == nil && strings.Contains(string(b[:n]), "heard") {
			_, _ = c.Write([]byte(said)) // the other side may not know yet
			return nil
		}
	}
	return errors.New("nothing has come")
}

// What a host sends to a group or to everybody comes back to its own programs:
// that is no packet from outside, whatever policy says of those.
func TestOwnMulticastIsHeard(t *testing.T) { t.Parallel(); lab.EachOffload(t, tryOwnMulticast) }

func tryOwnMulticast(t *testing.T, _ string) {
	l, _, server := lab.Pair(t)
	server.Run("ip", "route", "add", "239.0.0.0/8", "dev", "s0")
	server.IPFW(l.File("policy.hcl", shutPolicy))
	for i, to := range []string{"239.1.1.1", "ff15::101%s0", "255.255.255.255", "10.77.0.255"} {
		t.Run(to, func(t *testing.T) {
			port := 5353 + i // a program that is just being started may still hold the last one
			group, _, six := strings.Cut(to, "%")
			network := "udp4"
			if six {
				network = "udp6"
			}
			var in, out *net.UDPConn
			if err := within(t, server, func() error {
				ip := net.ParseIP(group)
				dev, err := net.InterfaceByName("s0")
				if err != nil {
					return err
				}
				if ip.IsMulticast() {
					in, err = net.ListenMulticastUDP(network, dev, &net.UDPAddr{IP: ip, Port: port})
				} else {
					in, err = net.ListenUDP(network, &net.UDPAddr{IP: net.IPv4zero, Port: port})
				}
				if err != nil {
					return err
				}
				address := net.JoinHostPort(to, strconv.Itoa(port))
				c, err := (&net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
					return errors.Join(raw.Control(func(fd uintptr) {
						if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err == nil {
							err = unix.BindToDevice(int(fd), "s0")
						}
					}), err)
				}}).DialContext(context.Background(), network, address)
				if err == nil {
					out = c.(*net.UDPConn)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			defer out.Close()
			b := make([]byte, 64)
			for i := range 5 {
				want := fmt.Sprint("question ", i)
				if _, err := out.Write([]byte(want)); err != nil {
					t.Fatal(err)
				}
				if err := in.SetReadDeadline(time.Now().Add(waitLong)); err != nil {
					t.Fatal(err)
				}
				if n, err := in.Read(b); err != nil || string(b[:n]) != want {
					t.Fatalf("%d: %q, %v", i, b[:n], err)
				}
			}
		})
	}
}

// The first packet of a flow may be a super-packet of UDP (UDP_SEGMENT), which the
// kernel cuts up behind the queue, or before it where the device can do nothing.
func TestSuperPacketOpensAFlow(t *testing.T) { t.Parallel(); lab.EachOffload(t, trySuperPacket) }

func trySuperPacket(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	client.IPFW(l.File("client.hcl", shutPolicy))
	server.IPFW(l.File("server.hcl", shutPolicy+"rule \"in\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"udp\"\n  local_port = [7001, 7002]\n}\n"))
	const size, datagrams = 100, 10
	for port, off := range map[int]bool{7001: false, 7002: true} {
		if off {
			if err := client.Do(func() error { return switchOff("c0", segmentation, tcpSegmentation) }); err != nil {
				t.Fatal(err)
			}
		}
		var in *net.UDPConn
		if err := within(t, server, func() (err error) {
			in, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		var whole atomic.Int64
		go func() {
			b := make([]byte, 2*size*datagrams)
			for {
				n, err := in.Read(b)
				if err != nil {
					return
				}
				if n == size {
					whole.Add(1)
				}
			}
		}()
		for _, address := range addresses(port) {
			whole.Store(0)
			err := within(t, client, func() error {
				c, err := net.Dial("udp", address)
				if err != nil {
					return err
				}
				defer c.Close()
				raw, err := c.(*net.UDPConn).SyscallConn()
				if err != nil {
					return err
				}
				var set error
				if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) }); err != nil || set != nil {
					return errors.Join(err, set)
				}
				_, err = c.Write(make([]byte, size*datagrams))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			l.Eventually(waitLong, fmt.Sprintf("ten datagrams of one super-packet come to %s", address), func() bool { return whole.Load() == datagrams })
		}
	}
}

// What a device does for the kernel, as ETHTOOL_SGSO, ETHTOOL_STSO, ETHTOOL_STXCSUM and
// ETHTOOL_SGRO of linux/ethtool.h call it.
const (
	receiveOffload  = 0x2c
	segmentation    = 0x24
	tcpSegmentation = 0x1f
	txChecksums     = 0x17
)

// switchOff has the kernel do itself what a device would do, as `ethtool -K DEV gso off`.
func switchOff(dev string, features ...uint32) error { return setFeatures(dev, 0, features...) }

// setFeatures switches on (1) or off (0).
func setFeatures(dev string, on uint32, features ...uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, command := range features {
		value := [2]uint32{command, on}
		var request struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}
		copy(request.name[:], dev)
		request.data = unsafe.Pointer(&value)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("ethtool command %#x on %s: %w", command, dev, errno)
		}
	}
	return nil
}

// A rule that rejects what goes out has programs hear of it at once, and not wait
// until their patience is over.
func TestRejectOutbound(t *testing.T) { t.Parallel(); lab.EachOffload(t, tryRejectOutbound) }

func tryRejectOutbound(t *testing.T, _ string) {
	lab.Need(t, "ping")
	l, client, _ := lab.Pair(t)
	client.IPFW(l.File("policy.hcl", shutPolicy+"rule \"out\" {\n  action    = \"discard\"\n  direction = \"out\"\n  reject    = true\n}\n"))
	for _, address := range addresses(7001) {
		for _, network := range []string{"tcp", "udp"} {
			err := client.Do(func() error {
				c, err := net.DialTimeout(network, address, waitLong)
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.SetDeadline(time.Now().Add(waitLong)); err != nil {
					return err
				}
				if _, err = c.Write([]byte("question")); err == nil {
					_, err = c.Read(make([]byte, 64))
				}
				return err
			})
			var said syscall.Errno
			if !errors.As(err, &said) || said == syscall.ETIMEDOUT || network == "tcp" && said != syscall.ECONNREFUSED {
				t.Errorf("%s to %s: %v", network, address, err)
			}
		}
	}
	for _, pair := range ends {
		if out, _ := client.Try(waitLong, "ping", "-c", "1", "-W", "60", pair[1]); !strings.Contains(out, "filtered") && !strings.Contains(out, "prohibited") {
			t.Errorf("ping %s:\n%s", pair[1], out)
		}
	}
}

// Packets that another program takes out of connection tracking, as busy DNS servers
// do, have flows all the same, and their answers pass. With dnsmasq.
func TestServerWithoutTracking(t *testing.T) { t.Parallel(); lab.EachOffload(t, tryWithoutTracking) }

func tryWithoutTracking(t *testing.T, _ string) {
	lab.Need(t, "dnsmasq", "nft")
	l, client, server := lab.Pair(t)
	server.Run("nft", "-f", l.File("notrack.nft", `
table inet untracked {
  chain pre { type filter hook prerouting priority raw; meta l4proto { tcp, udp } th dport 53 counter notrack; }
  chain out { type filter hook output priority raw; meta l4proto { tcp, udp } th sport 53 counter notrack; }
}
`))
	server.IPFW(l.File("policy.hcl", `policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "dns" {
  action     = "bypass"
  direction  = "in"
  protocol   = ["udp", "tcp"]
  local_port = 53
}
`))
	server.Start("dnsmasq", "-k", "-C", "/dev/null", "--log-facility=-", "--user=root", "--pid-file=", "--no-resolv", "--no-hosts",
		"--interface=s0", "--bind-interfaces", "--address=/example.org/192.0.2.7")
	for _, address := range addresses(53) {
		l.Eventually(waitLong, "dnsmasq listens at "+address, func() bool {
			return client.Do(func() error { return askDNS("tcp", address) }) == nil
		})
		for i := range 6 {
			network := []string{"udp", "udp", "tcp"}[i%3]
			if err := client.Do(func() error { return askDNS(network, address) }); err != nil {
				t.Errorf("%s, %s: %v", network, address, err)
			}
		}
	}
	if out := server.Run("nft", "list", "table", "inet", "untracked"); strings.Contains(out, "packets 0 ") {
		t.Errorf("packets were tracked:\n%s", out)
	}
}

// askDNS asks a server for the address of example.org, and again what UDP loses.
func askDNS(network, address string) error {
	end := time.Now().Add(waitLong)
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	question := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("example.org."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	b, err := question.Pack()
	if err != nil {
		return err
	}
	if network == "tcp" {
		b = append([]byte{byte(len(b) >> 8), byte(len(b))}, b...)
	}
	got := make([]byte, 1500)
	for {
		if _, err = c.Write(b); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		n, err := c.Read(got)
		if err != nil && time.Now().Before(end) && network == "udp" {
			continue
		}
		if err != nil {
			return err
		}
		answer := got[:n]
		if network == "tcp" {
			answer = got[min(2, n):n]
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			return err
		}
		if len(m.Answers) != 1 {
			return fmt.Errorf("%d answers: %v", len(m.Answers), m.RCode)
		}
		return nil
	}
}
