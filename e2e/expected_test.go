package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// What a helper of connection tracking expects (firewalld/firewalld#185 and #600,
// firehol/firehol#529), with the real programs, and ipfw in one of three places:
//
//	client (.2) -- lan0 router wan0 -- server (.2, .3)
type expecting struct {
	*lab.Lab
	t                      *testing.T
	client, router, server *lab.Host
	at                     *lab.Host // where ipfw runs
	daemon                 *lab.Daemon
	offload                string
	master, data           string // directions there: of who asks, and of the data
}

// helperTable are the lines of docs/policy.md.
const helperTable = `table inet helpers {
  ct helper tftp { type "tftp" protocol udp; }
  ct helper ftp { type "ftp" protocol tcp; }
  chain pre { type filter hook prerouting priority filter;
    udp dport 69 ct helper set "tftp"
    tcp dport 21 ct helper set "ftp"
  }
  chain out { type filter hook output priority filter;
    udp dport 69 ct helper set "tftp"
    tcp dport 21 ct helper set "ftp"
  }
}`

// expectFamily is the addresses of one family.
type expectFamily struct {
	name, flag             string
	client, server, second netip.Addr
}

var expectFamilies = []expectFamily{
	{"v4", "-4", netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.2"), netip.MustParseAddr("10.2.0.3")},
	{"v6", "-6", netip.MustParseAddr("fd01::2"), netip.MustParseAddr("fd02::2"), netip.MustParseAddr("fd02::3")},
}

func eachExpecting(t *testing.T, places string, f func(x *expecting)) {
	for _, place := range strings.Fields(places) {
		for _, offload := range []string{"flow", "none"} {
			t.Run(place+" "+offload, func(t *testing.T) {
				x := &expecting{Lab: lab.New(t), t: t, offload: offload}
				x.client, x.router, x.server = x.Host("client"), x.Host("router"), x.Host("server")
				x.Join(x.client, "c0", []string{"10.1.0.2/24", "fd01::2/64"}, x.router, "lan0", []string{"10.1.0.1/24", "fd01::1/64"})
				x.Join(x.server, "s0", []string{"10.2.0.2/24", "10.2.0.3/24", "fd02::2/64", "fd02::3/64"}, x.router, "wan0", []string{"10.2.0.1/24", "fd02::1/64"})
				x.router.Sysctl("net.ipv4.ip_forward", "1")
				x.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
				for h, via := range map[*lab.Host][]string{x.client: {"10.1.0.1", "fd01::1"}, x.server: {"10.2.0.1", "fd02::1"}} {
					for _, a := range via {
						h.Run("ip", "route", "add", "default", "via", a)
					}
				}
				x.at, x.master, x.data = x.client, "out", "both"
				switch place {
				case "router":
					x.at, x.master, x.data = x.router, "forward", "forward"
				case "server":
					x.at, x.master, x.data = x.server, "in", "both"
				}
				f(x)
			})
		}
	}
}

// policy lets somebody ask by rule "asks", and what is expected of a flow of rule
// related pass; "": nothing more.
func (x *expecting) policy(proto string, port int, related string) string {
	here := "remote_port"
	if x.master == "in" {
		here = "local_port"
	}
	opener := ""
	if x.master == "forward" {
		opener = "  opened_by = \"local\"\n  local_address = [\"10.1.0.0/24\", \"fd01::/64\"]\n"
	}
	p := fmt.Sprintf("policy {\n  inbound  = \"discard\"\n  outbound = \"discard\"\n  offload  = %q\n}\n", x.offload)
	p += fmt.Sprintf("rule \"asks\" {\n  action    = \"bypass\"\n  direction = %q\n%s  protocol  = %q\n  %s = %d\n}\n", x.master, opener, proto, here, port)
	p += fmt.Sprintf("rule \"other\" {\n  action    = \"bypass\"\n  direction = %q\n%s  protocol  = %q\n  %s = %d\n}\n", x.master, opener, proto, here, port+1)
	if related != "" {
		p += fmt.Sprintf("rule \"data\" {\n  action     = \"bypass\"\n  direction  = %q\n  protocol   = %q\n  related_to = %q\n}\n", x.data, proto, related)
	}
	return x.File("policy.hcl", p)
}

// reload puts another policy in force.
func (x *expecting) reload(proto string, port int, related string) {
	x.Helper()
	x.policy(proto, port, related)
	x.daemon.Ask("reload")
}

// discarded gives how many packets no rule has let through.
func (x *expecting) discarded() uint64 { return status(x.t, x.daemon).Reasons["default"] }

// refused runs a client until ipfw has discarded what it waits for.
func (x *expecting) refused(what, file string, args ...string) {
	x.t.Helper()
	before := x.discarded()
	p := x.client.Start(args...)
	x.Eventually(waitLong, what+": the data is discarded", func() bool { return x.discarded() > before })
	p.Kill()
	if b, err := os.ReadFile(file); err == nil && len(b) > 0 {
		x.t.Errorf("%s: %d bytes arrive", what, len(b))
	}
}

// arrives runs a client that must get the file.
func (x *expecting) arrives(what, file string, want []byte, args ...string) {
	x.t.Helper()
	out, err := x.client.Try(waitLong, args...)
	got, _ := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		x.t.Errorf("%s: %d bytes of %d arrive: %v %s\n%s\n%s", what, len(got), len(want), err, out, x.daemon.Ask("status"), x.daemon.Ask("flows"))
	}
	_ = os.Remove(file)
}

// serving is a folder with a file of n bytes.
func (x *expecting) serving(n int) (dir string, content []byte) {
	x.t.Helper()
	content = bytes.Repeat([]byte("0123456789"), n/10)
	path := x.File("served/file", string(content))
	dir = filepath.Dir(path)
	for _, p := range []string{dir, path} {
		if err := os.Chmod(p, 0o755); err != nil {
			x.t.Fatal(err)
		}
	}
	return dir, content
}

// serveTFTP runs in.tftpd. The processes that it makes for each file outlive it for a
// while: they must hold no pipe of the test's.
func (x *expecting) serveTFTP(dir string) {
	x.t.Helper()
	x.server.Start("sh", "-c", "exec in.tftpd -L -u root -s "+dir+" >/dev/null 2>&1")
	x.Eventually(waitLong, "in.tftpd serves both families", func() bool {
		out, _ := x.server.Try(waitLong, "cat", "/proc/net/udp", "/proc/net/udp6")
		return strings.Count(out, ":0045 ") == 2
	})
}

// tftp-hpa gets a file of in.tftpd, whose data comes from a port of its own.
func TestTFTP(t *testing.T) {
	lab.Need(t, "in.tftpd", "tftp", "nft")
	eachExpecting(t, "client router server", func(x *expecting) {
		dir, content := x.serving(3000)
		x.serveTFTP(dir)
		got := filepath.Join(x.Dir, "got")
		x.daemon = x.at.IPFW(x.policy("udp", 69, "asks"))
		for _, f := range expectFamilies {
			get := []string{"tftp", f.flag, "-m", "binary", f.server.String(), "-c", "get", "file", got}
			x.reload("udp", 69, "asks")
			x.refused(f.name+" without the helper", got, get...)
			x.at.Run("nft", helperTable)
			x.arrives(f.name, got, content, get...)
			x.reload("udp", 69, "")
			x.refused(f.name+" without the rule", got, get...)
			x.reload("udp", 69, "other")
			x.refused(f.name+" with a rule for what others expect", got, get...)
			x.at.Run("nft", "delete table inet helpers")
		}
	})
}

// FTP's data comes from the server (active) or goes to it (passive), with curl and
// pyftpdlib.
func TestFTP(t *testing.T) {
	lab.Need(t, "curl", "nft")
	needPyftpdlib(t)
	eachExpecting(t, "client router server", func(x *expecting) {
		dir, content := x.serving(300000)
		for _, f := range expectFamilies {
			s := x.server.Start("/usr/bin/python3", "-m", "pyftpdlib", "-i", f.server.String(), "-p", "21", "-d", dir)
			x.Eventually(waitLong, "an FTP server", func() bool { return strings.Contains(s.Output(), "starting FTP server") })
		}
		got := filepath.Join(x.Dir, "got")
		x.at.Run("nft", helperTable)
		x.daemon = x.at.IPFW(x.policy("tcp", 21, "asks"))
		for _, f := range expectFamilies {
			url := "ftp://" + netip.AddrPortFrom(f.server, 21).String() + "/file"
			passive := []string{"curl", "-sS", "-m", "100", "-o", got, url}
			active := append(passive[:len(passive):len(passive)], "-P", "-")
			x.reload("tcp", 21, "asks")
			x.arrives(f.name+" passive", got, content, passive...)
			x.arrives(f.name+" active", got, content, active...)
			x.reload("tcp", 21, "other")
			x.refused(f.name+" passive, expected by others", got, passive...)
			x.refused(f.name+" active, expected by others", got, active...)
		}
	})
}

// Behind a router that translates addresses, the kernel gives the data's destination
// back to the client before the policy is asked.
func TestTFTPBehindMasquerade(t *testing.T) {
	lab.Need(t, "in.tftpd", "tftp", "nft")
	eachExpecting(t, "router", func(x *expecting) {
		dir, content := x.serving(3000)
		x.serveTFTP(dir)
		x.router.Run("nft", `table inet masq { chain post { type nat hook postrouting priority srcnat; oifname "wan0" masquerade; }; }`)
		x.router.Run("nft", helperTable)
		got := filepath.Join(x.Dir, "got")
		x.daemon = x.at.IPFW(x.policy("udp", 69, "asks"))
		for _, f := range expectFamilies {
			x.arrives(f.name, got, content, "tftp", f.flag, "-m", "binary", f.server.String(), "-c", "get", "file", got)
		}
	})
}

// A client has asked, and its server has not answered yet. Nobody else gets in, nor
// the server by a second port.
func TestExpectedIsOneFlow(t *testing.T) {
	lab.Need(t, "nft")
	eachExpecting(t, "client router", func(x *expecting) {
		x.at.Run("nft", helperTable)
		x.daemon = x.at.IPFW(x.policy("udp", 69, "asks"))
		for _, f := range expectFamilies {
			open := func(h *lab.Host, a netip.Addr, port uint16) *net.UDPConn {
				x.t.Helper()
				var c *net.UDPConn
				if err := within(x.t, h, func() (err error) {
					c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
					return err
				}); err != nil {
					x.t.Fatal(err)
				}
				x.t.Cleanup(func() { c.Close() })
				return c
			}
			asks, server := open(x.client, f.client, 4000), open(x.server, f.server, 69)
			stranger, early, first, second := open(x.server, f.second, 69), open(x.server, f.server, 5000), open(x.server, f.server, 5001), open(x.server, f.server, 5002)
			send := func(from *net.UDPConn, what string) {
				x.t.Helper()
				if _, err := from.WriteToUDPAddrPort([]byte(what), netip.AddrPortFrom(f.client, 4000)); err != nil {
					x.t.Fatal(err)
				}
			}
			discards := func(from *net.UDPConn, what string) {
				x.t.Helper()
				before := x.discarded()
				x.Eventually(waitLong, f.name+": "+what+" is discarded", func() bool { send(from, what); return x.discarded() > before })
			}
			discards(early, "the server, unasked")
			// A request to read a file (RFC 1350 section 5).
			if _, err := asks.WriteToUDPAddrPort([]byte("\x00\x01file\x00octet\x00"), netip.AddrPortFrom(f.server, 69)); err != nil {
				x.t.Fatal(err)
			}
			if err := server.SetReadDeadline(time.Now().Add(waitLong)); err != nil {
				x.t.Fatal(err)
			}
			if _, _, err := server.ReadFromUDPAddrPort(make([]byte, 100)); err != nil {
				x.t.Fatal(err)
			}
			discards(stranger, "a stranger")
			send(first, "the server")
			b := make([]byte, 100)
			if err := asks.SetReadDeadline(time.Now().Add(waitLong)); err != nil {
				x.t.Fatal(err)
			}
			if n, from, err := asks.ReadFromUDPAddrPort(b); err != nil || from.Port() != 5001 {
				x.t.Fatalf("%q from %v: %v", b[:n], from, err)
			}
			discards(second, "the server by a second port")
			discards(stranger, "a stranger, later")
		}
	})
}

// A transfer goes on when the daemon is started anew: who expected it the kernel
// still knows.
func TestExpectedGoesOn(t *testing.T) {
	lab.Need(t, "curl", "nft")
	needPyftpdlib(t)
	eachExpecting(t, "client router", func(x *expecting) {
		dir, content := x.serving(24 << 20)
		s := x.server.Start("/usr/bin/python3", "-m", "pyftpdlib", "-i", "10.2.0.2", "-p", "21", "-d", dir)
		x.Eventually(waitLong, "an FTP server", func() bool { return strings.Contains(s.Output(), "starting FTP server") })
		got := filepath.Join(x.Dir, "got")
		x.at.Run("nft", helperTable)
		policy := x.policy("tcp", 21, "asks")
		x.daemon = x.at.IPFW(policy)
		curl := x.client.Start("curl", "-sS", "-m", "110", "--limit-rate", "4M", "-o", got, "-P", "-", "ftp://10.2.0.2/file")
		x.Eventually(waitLong, "the transfer runs", func() bool {
			f, err := os.Stat(got)
			return err == nil && f.Size() > 0
		})
		x.daemon.Signal(syscall.SIGTERM)
		if err := x.daemon.Wait(waitLong); err != nil {
			x.t.Fatal(err)
		}
		x.daemon = x.at.IPFW(policy)
		x.Eventually(waitLong, "the transfer comes up", func() bool {
			s := status(x.t, x.daemon)
			packets, _, _ := s.rule("data")
			return packets > 0
		})
		if err := curl.Wait(waitLong); err != nil {
			x.t.Errorf("curl: %v %s\n%s", err, curl.Output(), x.daemon.Ask("status"))
		}
		if b, err := os.ReadFile(got); err != nil || !bytes.Equal(b, content) {
			x.t.Errorf("%d bytes of %d arrive: %v", len(b), len(content), err)
		}
	})
}

func needPyftpdlib(t *testing.T) {
	t.Helper()
	if err := exec.Command("/usr/bin/python3", "-c", "import pyftpdlib").Run(); err != nil {
		lab.Skip(t, "python3-pyftpdlib is not installed; `make test` as root installs it")
	}
}
