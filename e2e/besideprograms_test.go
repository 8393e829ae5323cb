//go:build guest

package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// passing are the ports that the rules of others let through.
var passing = []int{portOpen, portShut, portSealed}

// firewalld as its release has it, with a reverse path filter of IPv6. It reloads.
func TestBesideFirewalld(t *testing.T) {
	t.Parallel()
	b := besidePair(t)
	b.theirs = true
	p := b.server.Programs(suite())
	b.programs = p
	p.Run("dbus-uuidgen", "--ensure=/etc/machine-id")
	p.Start("dbus-daemon", "--system", "--nofork")
	b.Eventually(waitLong, "the bus is there", func() bool {
		_, err := p.Try(waitLong, "test", "-S", "/run/dbus/system_bus_socket")
		return err == nil
	})
	daemon := p.Start("firewalld", "--nofork", "--nopid")
	b.Eventually(3*waitLong, "firewalld runs", func() bool {
		out, _ := p.Try(waitLong, "firewall-cmd", "--state")
		return strings.TrimSpace(out) == "running"
	})
	for _, port := range passing {
		for _, proto := range []string{"tcp", "udp"} {
			p.Run("firewall-cmd", "--permanent", fmt.Sprintf("--add-port=%d/%s", port, proto))
		}
	}
	p.Run("firewall-cmd", "--permanent", "--add-service=ipsec")
	p.Run("firewall-cmd", "--reload")
	if out := p.Run("firewall-cmd", "--list-ports"); !strings.Contains(out, "7003/udp") {
		t.Fatalf("firewalld has not taken its ports: %q\n%s", out, daemon.Output())
	}
	b.run(
		change{"firewalld has reloaded", func() { p.Run("firewall-cmd", "--reload") }, false},
		change{"firewalld has reloaded completely", func() { p.Run("firewall-cmd", "--complete-reload") }, false},
	)
}

// ufw as its release has it, by the iptables of the release.
func TestBesideUFW(t *testing.T) {
	t.Parallel()
	b := besidePair(t)
	b.theirs = true
	p := b.server.Programs(suite())
	b.programs = p
	// Debian's installation copies these.
	p.Run("sh", "-c", "cp /usr/share/ufw/iptables/*.rules /usr/share/ufw/*.init /usr/share/ufw/ufw.conf /etc/ufw/")
	for _, port := range passing {
		p.Run("ufw", "allow", fmt.Sprint(port))
	}
	p.Run("ufw", "allow", "500,4500/udp")
	p.Run("ufw", "allow", "proto", "esp", "from", "any", "to", "any")
	p.Run("ufw", "--force", "enable")
	if out := p.Run("ufw", "status", "verbose"); !strings.Contains(out, "Status: active") || !strings.Contains(out, "deny (incoming)") {
		t.Fatalf("ufw: %s", out)
	}
	b.run(
		change{"ufw has reloaded", func() { p.Run("ufw", "reload") }, false},
		change{"ufw was disabled and enabled", func() { p.Run("ufw", "disable"); p.Run("ufw", "--force", "enable") }, false},
	)
}

// fail2ban as its release has it, with its action for nftables: a ban by its client.
func TestBesideFail2ban(t *testing.T) {
	t.Parallel()
	b := besidePair(t)
	b.theirs = true
	p := b.server.Programs(suite())
	b.programs = p
	p.File("/var/log/fail2ban.log", "")
	p.File("/var/log/app.log", "")
	p.File("/etc/fail2ban/jail.d/zz-test.local", fmt.Sprintf(`[DEFAULT]
banaction = nftables-multiport
[sshd]
enabled = false
[app]
enabled = true
backend = polling
filter = app
logpath = /var/log/app.log
port = %d
`, portTheirs))
	p.File("/etc/fail2ban/filter.d/app.local", "[Definition]\nfailregex = refused <HOST>$\n")
	daemon := p.Start("fail2ban-server", "-f", "start")
	b.Eventually(3*waitLong, "fail2ban runs", func() bool {
		if daemon.Wait(0) == nil {
			t.Fatalf("fail2ban ended:\n%s", daemon.Output())
		}
		out, _ := p.Try(waitLong, "fail2ban-client", "status", "app")
		return strings.Contains(out, "Banned")
	})
	ban := func(how string) {
		for _, addr := range []string{"10.77.0.2", "fd77::2"} {
			p.Run("fail2ban-client", "set", "app", how, addr)
		}
	}
	ban("banip")
	if rules := b.rules(); !strings.Contains(rules, "f2b") {
		t.Fatalf("fail2ban has no rules:\n%s", rules)
	}
	b.run(
		change{"the ban is over", func() { ban("unbanip"); b.theirs = false }, true},
		change{"banned again", func() { ban("banip"); b.theirs = true }, false},
	)
}

// wg-quick with the kernel's own WireGuard, and a strict reverse path filter.
func TestBesideKernelWireGuard(t *testing.T) {
	t.Parallel()
	lab.Need(t, "wg-quick", "wg", "curl")
	l := lab.New(t)
	h := l.Host("probe")
	if out, err := h.Try(waitLong, "ip", "link", "add", "wg0", "type", "wireguard"); err != nil {
		t.Skip("this kernel has not WireGuard (CONFIG_WIREGUARD): " + strings.TrimSpace(out))
	}
	wgQuick(t, os.DevNull)
}
