package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Pluto is libreswan's IKE daemon in a guest, with the kernel's ESP.
type Pluto struct {
	guest *Guest
	log   string
	env   []string
	libs  string // of its programs
}

// Pluto starts the daemon with one connection: lines of a conn section of
// ipsec.conf, and the text of ipsec.secrets.
func (g *Guest) Pluto(name, conn, secrets string) *Pluto {
	l := g.lab
	l.Helper()
	root := filepath.Join(peerPrograms, "libreswan/usr")
	if _, err := os.Stat(filepath.Join(root, "libexec/ipsec/pluto")); err != nil {
		Skip(l, "libreswan is not unpacked in "+root+"; `make test` as root does it")
	}
	// The place of its programs is compiled in; theirs is mounted over it.
	if err := os.MkdirAll("/usr/libexec/ipsec", 0o755); err != nil {
		l.Fatal(err)
	}
	conf := l.File(g.Name+"-pluto/ipsec.conf", fmt.Sprintf("config setup\n    nssdir=/run/nss\nconn %s\n    %s\n", name, strings.ReplaceAll(strings.TrimSpace(conn), "\n", "\n    ")))
	file := l.File(g.Name+"-pluto/ipsec.secrets", secrets)
	p := &Pluto{guest: g, libs: root + "/libexec/ipsec/", env: []string{"env", "LD_LIBRARY_PATH=" + root + "/lib/x86_64-linux-gnu"}}
	g.Run("sh", "-c", "mount --bind "+root+"/libexec/ipsec /usr/libexec/ipsec && mkdir -p /run/pluto /run/nss && "+root+"/bin/certutil -N --empty-password -d sql:/run/nss")
	p.log = g.Start(append(p.env, p.libs+"pluto", "--config", conf, "--nofork", "--stderrlog", "--rundir", "/run/pluto", "--secretsfile", file, "--nssdir", "/run/nss")...)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		out, err := p.Whack("--listen")
		if err == nil {
			break
		}
		if time.Now().After(end) {
			l.Fatalf("pluto is not ready: %s\n%s", out, p.Log())
		}
	}
	g.Run(append(p.env, p.libs+"addconn", "--ctlsocket", "/run/pluto/pluto.ctl", "--config", conf, name)...)
	return p
}

// Whack tells the daemon to do something.
func (p *Pluto) Whack(args ...string) (string, error) {
	all := append(p.env[:len(p.env):len(p.env)], p.libs+"whack", "--ctlsocket", "/run/pluto/pluto.ctl")
	return p.guest.Try(30*time.Second, append(all, args...)...)
}

// Log is what the daemon has written.
func (p *Pluto) Log() string {
	out, _ := p.guest.Read(p.log)
	return out
}
