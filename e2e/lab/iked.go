package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// IKED is OpenIKED in a guest, with the kernel's ESP by PF_KEY: that has no AEAD
// ciphers, and OpenIKED no name there for HMAC-SHA2-256-128, so SAs with these
// are not made.
type IKED struct {
	guest *Guest
	log   string
}

// The releases of OpenIKED that e2e/install.sh unpacks: 7.2 and 7.4.
const (
	IKEDOld = "bookworm-openiked"
	IKEDNew = "trixie-openiked"
)

// IKED starts the daemon of a release with a configuration. files are more
// files below /etc/iked, by name.
func (g *Guest) IKED(release, conf string, files map[string]string) *IKED {
	l := g.lab
	l.Helper()
	l.File(g.Name+"-etc/iked.conf", conf)
	for name, text := range files {
		l.File(g.Name+"-etc/iked/"+name, text)
	}
	etc := filepath.Join(l.Dir, g.Name+"-etc")
	// All but the secrets is read by a user without rights.
	err := exec.Command("chmod", "-R", "a+rX", etc).Run()
	if err := errors.Join(err, os.Chmod(etc+"/iked.conf", 0o600), os.Chmod(etc+"/iked/private/local.key", 0o600)); err != nil {
		l.Fatal(err)
	}
	return g.IKEDFolder(release, etc)
}

// IKEDFolder is that with a folder whose content goes to /etc. As the daemon
// registers with PF_KEY the kernel looks for every algorithm that IPsec can have,
// and asks modprobe for each that it has not: some hundred runs of it, one after
// the other, before the daemon gets on. What the tests need is loaded, so the
// kernel is told to ask nobody.
func (g *Guest) IKEDFolder(release, folder string) *IKED {
	l := g.lab
	l.Helper()
	root, run := l.unpacked(release, "usr/sbin/iked")
	// Its paths are compiled in, and it wants a user: /etc becomes a copy. The
	// package brings the folders.
	g.Run("sh", "-c", fmt.Sprintf(`set -e
mkdir -p /run/etc /run/empty; cp -a /etc/. /run/etc; mount --bind /run/etc /etc
mkdir -p /etc/iked/private /etc/iked/pubkeys/fqdn /etc/iked/ca /etc/iked/certs /etc/iked/crls
echo '_iked:x:999:999::/run/empty:/bin/false' >>/etc/passwd; echo '_iked:x:999:' >>/etc/group
cp -r %[1]s/. /etc
modprobe -a -d %[2]s af_key cryptomgr crypto-stdrng
echo >/proc/sys/kernel/modprobe`, folder, filepath.Join(l.Dir, g.Name)))
	// Its processes run the program anew, by the name that they were called by.
	self := filepath.Join(l.Dir, g.Name+"-iked-run")
	l.File(g.Name+"-iked-run", fmt.Sprintf("#!/bin/sh\nexec %s --argv0 %s %s %s/usr/sbin/iked \"$@\"\n", run[0], self, strings.Join(run[1:], " "), root))
	if err := os.Chmod(self, 0o755); err != nil {
		l.Fatal(err)
	}
	d := &IKED{guest: g, log: g.Start(self, "-d", "-v")}
	for end := time.Now().Add(Patience); ; time.Sleep(200 * time.Millisecond) {
		out, err := g.Try(10*time.Second, append(run, filepath.Join(root, "usr/sbin/ikectl"), "show", "sa")...)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			l.Fatalf("iked is not ready: %s\n%s", out, d.Log())
		}
	}
	return d
}

// Log is what the daemon has written.
func (d *IKED) Log() string {
	out, _ := d.guest.Read(d.log)
	return out
}

// States are the SAs of the guest's kernel.
func (d *IKED) States() string {
	d.guest.lab.Helper()
	return d.guest.Run("ip", "xfrm", "state")
}
