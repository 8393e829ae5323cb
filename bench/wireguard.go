package main

import (
	"bufio"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// wireguardModule is what the Go proxy is asked for.
const wireguardModule = "golang.zx2c4.com/wireguard@latest"

// wgSockets is where wireguard-go listens for its configuration.
const wgSockets = "/var/run/wireguard"

// The tunnel's own addresses, and its port.
const (
	wgClient, wgServer = "10.88.0.2", "10.88.0.1"
	wgPort             = 51820
)

// settled is how long a tunnel may take to come up.
const settled = 15 * time.Second

// upWireguard runs a wireguard-go on each host, with the tunnel between them.
func upWireguard(s *site) {
	program := s.b.wireguard(s.harness)
	type end struct {
		host               *lab.Host
		link, addr, remote string
		key                *ecdh.PrivateKey
	}
	ends := [2]end{
		{host: s.client, link: fmt.Sprintf("wg%dc", os.Getpid()), addr: wgClient, remote: "10.77.0.1"},
		{host: s.server, link: fmt.Sprintf("wg%ds", os.Getpid()), addr: wgServer, remote: "10.77.0.2"},
	}
	for i := range ends {
		var err error
		ends[i].key, err = ecdh.X25519().GenerateKey(rand.Reader)
		s.check(err, "key")
	}
	for i, e := range ends {
		peer := ends[1-i]
		socket := filepath.Join(wgSockets, e.link+".sock")
		s.Cleanup(func() { _ = os.Remove(socket) })
		e.host.Start("env", "WG_PROCESS_FOREGROUND=1", "LOG_LEVEL=error", program, e.link)
		s.lab.Eventually(settled, "wireguard-go listens", func() bool {
			c, err := net.Dial("unix", socket)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
		s.check(configure(socket, map[string]string{
			"private_key": hex.EncodeToString(e.key.Bytes()), "listen_port": fmt.Sprint(wgPort),
		}, map[string]string{
			"public_key": hex.EncodeToString(peer.key.PublicKey().Bytes()),
			"endpoint":   fmt.Sprintf("%s:%d", e.remote, wgPort), "allowed_ip": peer.addr + "/32",
		}), "wireguard-go's socket")
		e.host.Run("ip", "addr", "add", e.addr+"/24", "dev", e.link)
		e.host.Run("ip", "link", "set", e.link, "up")
	}
	s.target = wgServer
}

// configure speaks the cross-platform user space protocol of WireGuard.
func configure(socket string, device, peer map[string]string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(settled)); err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("set=1\n")
	for _, k := range []string{"private_key", "listen_port"} {
		fmt.Fprintf(&b, "%s=%s\n", k, device[k])
	}
	for _, k := range []string{"public_key", "endpoint", "allowed_ip"} { // the key begins the peer
		fmt.Fprintf(&b, "%s=%s\n", k, peer[k])
	}
	b.WriteString("\n")
	if _, err := c.Write([]byte(b.String())); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if answer = strings.TrimSpace(answer); answer != "errno=0" {
		return fmt.Errorf("refused: %s", answer)
	}
	return nil
}

// wireguard builds the program, once for all runs: `rm -r bench/out/cache`
// brings the newest.
func (b *bench) wireguard(h *harness) string {
	dir, err := filepath.Abs(filepath.Join(b.out, "cache"))
	h.check(err, "cache")
	path := filepath.Join(dir, "wireguard")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	fmt.Fprintln(b.log, "go install", wireguardModule)
	cmd := exec.Command("go", "install", wireguardModule)
	cmd.Dir = h.TempDir() // the module's own versions, not ours
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.Fatalf("go install %s: %v\n%s", wireguardModule, err, out)
	}
	return path
}

// randomHex makes a key of n bytes.
func randomHex(s *site, n int) string {
	b := make([]byte, n)
	_, err := rand.Read(b)
	s.check(err, "key")
	return hex.EncodeToString(b)
}
