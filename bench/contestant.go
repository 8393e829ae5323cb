package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// contestant is one way from the client to the server.
type contestant struct {
	name, what string
	protects   bool // what runs between the hosts is encrypted
	policy     bool // it has rules, whose number matters
	before     bool // by the build of -before
	up         func(*site)
}

// The names that bars and ratios refer to.
const (
	none       = "none"
	nft        = "nftables"
	cLoop      = "c-loop"
	cBatch     = "c-loop-batch"
	goCallback = "go-nfqueue"
	ipfwFlow   = "ipfw-flow"
	ipfwNone   = "ipfw-none"
	wireguard  = "wireguard-go"
	strongswan = "strongswan"
	ipfwNative = "ipfw-esp"
	ipfwUDP    = "ipfw-esp-udp"
	ipfwChaCha = "ipfw-chacha"
)

var contestants = withBefore([]contestant{
	{name: none, what: "no firewall", up: func(*site) {}},
	{name: nft, what: "a stateful nftables rule set with the same policy on the server", policy: true, up: upNft},
	{name: cLoop, what: "a bare C loop on an NFQUEUE of the server, for both directions: recvmmsg, a verdict for each packet", up: func(s *site) { upQueue(s, s.b.queueLoop) }},
	{name: cBatch, what: "the same with one batch verdict for what one recvmmsg brought", up: func(s *site) { upQueue(s, s.b.queueLoop, "-b") }},
	{name: goCallback, what: "go-nfqueue's callback loop in its place, super-packets taken whole, a verdict for each packet", up: func(s *site) { upQueue(s, s.b.self, "role", "go-nfqueue") }},
	{name: ipfwFlow, what: `ipfw on the server, offload = "flow"`, policy: true, up: func(s *site) { upIPFW(s, "flow") }},
	{name: ipfwNone, what: `ipfw on the server, offload = "none": every packet comes up`, policy: true, up: func(s *site) { upIPFW(s, "none") }},
	{name: wireguard, what: "wireguard-go on both hosts: ChaCha20-Poly1305 in UDP", protects: true, up: upWireguard},
	{name: strongswan, what: "strongSwan on both hosts, ESP in user space (kernel-libipsec): AES-GCM-128 in UDP, tunnel mode", protects: true, up: upStrongswan},
	{name: ipfwNative, what: "ipfw on both hosts, keys by IKE: ESP, AES-GCM-128, transport mode", protects: true, up: func(s *site) { upProtect(s, "aes-128-gcm-16", "none") }},
	{name: ipfwUDP, what: "the same in UDP", protects: true, up: func(s *site) { upProtect(s, "aes-128-gcm-16", "udp") }},
	{name: ipfwChaCha, what: "the same in UDP, with the cipher of WireGuard", protects: true, up: func(s *site) { upProtect(s, "chacha20-poly1305", "udp") }},
})

// site is two hosts, what runs on them, and one contestant between them.
type site struct {
	*harness
	b              *bench
	lab            *lab.Lab
	client, server *lab.Host
	rules          int
	target         string      // the server's address, by way of the contestant
	daemon         *lab.Daemon // ipfw on the server, if it is that
	policy         string      // its policy's file
}

// start makes the hosts with a web server and an iperf3 on the server, and lets
// the contestant in between.
func (s *site) start(c *contestant) {
	s.target = "10.77.0.1"
	s.lab, s.client, s.server = lab.Pair(s.harness)
	if c.before {
		s.client.Program, s.server.Program = s.b.before, s.b.before
	}
	// Ports of short connections must not run out (RFC 6056 section 3.2).
	s.client.Sysctl("net.ipv4.ip_local_port_range", "1024 65000")
	s.client.Sysctl("net.ipv4.tcp_tw_reuse", "1")
	s.server.Start("nginx", "-p", s.lab.Dir, "-e", "stderr", "-c", s.lab.File("nginx.conf", nginxConf(s.lab.Dir)))
	s.server.Start("iperf3", "-s", "-p", fmt.Sprint(iperfPort))
	c.up(s)
	s.lab.Eventually(lab.Patience, c.name+" lets a request through", func() bool {
		out, err := s.client.Try(10*time.Second, s.b.self, "role", "connect", s.web(), "1", "1")
		return err == nil && strings.Contains(out, `"failed":0`)
	})
}

// web is where the web server is, by way of the contestant.
func (s *site) web() string { return fmt.Sprintf("%s:%d", s.target, webPort) }

func nginxConf(dir string) string {
	return fmt.Sprintf(`daemon off;
master_process off;
pid %[1]s/nginx.pid;
error_log stderr crit;
worker_rlimit_nofile 65536;
events { worker_connections 16384; }
http {
	access_log off;
	keepalive_requests 100000000;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server { listen 80 backlog=4096; location / { return 200 "ok\n"; } }
}
`, dir)
}

// upNft loads the rules by nft.
func upNft(s *site) { s.server.Run("nft", "-f", s.lab.File("rules.nft", nftPolicy(s.rules))) }

// upQueue runs a program that accepts what the queue brings.
func upQueue(s *site, program string, args ...string) {
	args = append([]string{program}, append(args, fmt.Sprint(benchQueue))...)
	s.reader(s.server, "ready", args...)
	queueEverything(s.harness, s.server.NS, benchQueue)
}

// upIPFW runs the daemon as a user would.
func upIPFW(s *site, offload string) {
	s.policy = s.lab.File("policy.hcl", ipfwPolicy(s.rules, offload))
	s.daemon = s.daemonOn(s.server, s.policy)
}

// daemonOn runs a daemon that is stopped in the ordinary way.
func (s *site) daemonOn(on *lab.Host, policy string) *lab.Daemon {
	d := on.IPFW(policy)
	s.Cleanup(func() {
		d.Signal(syscall.SIGTERM)
		_ = d.Wait(5 * time.Second)
	})
	return d
}

// reader is a program in the background whose output is read line by line.
type reader struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

// reader starts a program, and waits for the line that says it is ready.
func (s *site) reader(on *lab.Host, ready string, args ...string) *reader {
	s.Helper()
	r := &reader{cmd: on.Command(context.Background(), args...)}
	r.cmd.Stderr = os.Stderr
	out, err := r.cmd.StdoutPipe()
	s.check(err, args[0])
	r.lines = bufio.NewScanner(out)
	s.check(r.cmd.Start(), args[0])
	s.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	})
	for r.lines.Scan() {
		if r.lines.Text() == ready {
			return r
		}
	}
	s.Fatalf("%s ended before it was ready", strings.Join(args, " "))
	return nil
}

// line is the next line that the program prints.
func (r *reader) line(s *site) string {
	late := time.AfterFunc(10*time.Second, func() { _ = r.cmd.Process.Kill() })
	defer late.Stop()
	if !r.lines.Scan() {
		s.Fatalf("%s has nothing more to say", strings.Join(r.cmd.Args, " "))
	}
	return strings.TrimSpace(r.lines.Text())
}

// find gives the contestant of a name.
func find(name string) *contestant {
	return &contestants[slices.IndexFunc(contestants, func(c contestant) bool { return c.name == name })]
}
