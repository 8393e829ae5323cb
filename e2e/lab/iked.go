package lab

import (
	"fmt"
	"path/filepath"
	"time"
)

// IKED is OpenIKED in a guest. On Linux it installs no SA to send by, so it is
// a peer for the key exchange only.
type IKED struct {
	guest *Guest
	log   string
}

// IKED starts the daemon with a configuration. files are more files below
// /etc/iked, by name. It takes about ten seconds until it answers.
func (g *Guest) IKED(conf string, files map[string]string) *IKED {
	l := g.lab
	l.Helper()
	root, run := l.unpacked("bookworm-openiked", "usr/sbin/iked")
	dir := filepath.Join(l.Dir, g.Name+"-iked")
	l.File(g.Name+"-iked/iked.conf", conf)
	for name, text := range files {
		l.File(g.Name+"-iked/"+name, text)
	}
	// Its paths are compiled in, and it wants a user: /etc becomes a copy.
	g.Run("sh", "-c", fmt.Sprintf(`set -e
mkdir -p /run/etc /run/empty; cp -a /etc/. /run/etc; mount --bind /run/etc /etc
mkdir -p /etc/iked/private /etc/iked/pubkeys/fqdn /etc/iked/ca /etc/iked/certs /etc/iked/crls
echo '_iked:x:999:999::/run/empty:/bin/false' >>/etc/passwd; echo '_iked:x:999:' >>/etc/group
cp -r %[1]s/. /etc/iked; mv /etc/iked/iked.conf /etc/; chmod 600 /etc/iked.conf
chmod -R a+rX /etc/iked; chmod 600 /etc/iked/private/*
modprobe -d %[2]s af_key`, dir, filepath.Join(l.Dir, g.Name)))
	d := &IKED{guest: g, log: g.Start(append(run, filepath.Join(root, "usr/sbin/iked"), "-d", "-v")...)}
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(200 * time.Millisecond) {
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
