package lab

import (
	"fmt"
	"strings"
	"time"
)

// Pluto is libreswan's IKE daemon in a guest, with the kernel's ESP.
type Pluto struct {
	guest *Guest
	log   string
	run   []string // starts a program
	libs  string   // of its programs
	old   bool     // of a release before 5
}

// The releases of libreswan that e2e/install.sh unpacks: 4.10 and 5.2.
const (
	PlutoOld = "bookworm-libreswan"
	PlutoNew = "trixie-libreswan"
)

// PlutoConfig is what the daemon is started with.
type PlutoConfig struct {
	Conns   map[string]string // lines of a conn section of ipsec.conf, by name
	Secrets string            // the text of ipsec.secrets
	Keys    []string          // files in PKCS #12 without a password: keys with their certificates
	CAs     []string          // files in PEM
}

// Pluto starts the daemon of a release.
func (g *Guest) Pluto(release string, c PlutoConfig) *Pluto {
	l := g.lab
	l.Helper()
	root, run := l.unpacked(release, "usr/libexec/ipsec/pluto")
	p := &Pluto{guest: g, run: run, libs: root + "/usr/libexec/ipsec/", old: release == PlutoOld}
	conf := "config setup\n    nssdir=/run/nss\n"
	for name, lines := range c.Conns {
		conf += fmt.Sprintf("conn %s\n    %s\n", name, strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n    "))
	}
	conf = l.File(g.Name+"-pluto/ipsec.conf", conf)
	secrets := l.File(g.Name+"-pluto/ipsec.secrets", c.Secrets)
	nss := func(tool string, args ...string) {
		l.Helper()
		g.Run(append(append(run[:len(run):len(run)], root+"/usr/bin/"+tool, "-d", "sql:/run/nss"), args...)...)
	}
	// It looks for its programs where they would be installed.
	g.Run("mount", "--bind", p.libs, "/usr/libexec/ipsec")
	g.Run("mkdir", "-p", "/run/pluto", "/run/nss")
	nss("certutil", "-N", "--empty-password")
	for _, f := range c.Keys {
		nss("pk12util", "-i", f, "-W", "")
	}
	for i, f := range c.CAs {
		nss("certutil", "-A", "-n", fmt.Sprint("ca", i), "-t", "CT,,", "-a", "-i", f)
	}
	p.log = g.Start(append(run[:len(run):len(run)], p.libs+"pluto", "--config", conf, "--nofork", "--stderrlog", "--rundir", "/run/pluto", "--secretsfile", secrets, "--nssdir", "/run/nss")...)
	for end := time.Now().Add(Patience); ; time.Sleep(200 * time.Millisecond) {
		out, err := p.Whack("--listen")
		if err == nil {
			break
		}
		if time.Now().After(end) {
			l.Fatalf("pluto is not ready: %s\n%s", out, p.Log())
		}
	}
	for name := range c.Conns {
		out, err := g.Try(Patience, append(run[:len(run):len(run)], p.libs+"addconn", "--ctlsocket", "/run/pluto/pluto.ctl", "--config", conf, name)...)
		if err != nil || strings.Contains(out, "failed") {
			l.Fatalf("addconn %s: %v\n%s\n%s", name, err, out, p.Log())
		}
	}
	return p
}

// Whack tells the daemon to do something.
func (p *Pluto) Whack(args ...string) (string, error) {
	all := append(p.run[:len(p.run):len(p.run)], p.libs+"whack", "--ctlsocket", "/run/pluto/pluto.ctl")
	return p.guest.Try(Patience, append(all, args...)...)
}

// RekeyChild has the daemon rekey the child of a connection.
func (p *Pluto) RekeyChild(name string) (string, error) {
	if p.old {
		return p.Whack("--rekey-ipsec", "--name", name)
	}
	return p.Whack("--rekey-child", "--name", name)
}

// Log is what the daemon has written.
func (p *Pluto) Log() string {
	out, _ := p.guest.Read(p.log)
	return out
}
