package lab

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Charon is strongSwan's IKE daemon. In a host it does ESP itself
// (kernel-libipsec): tunnel mode, always in UDP. In a guest the kernel does.
type Charon struct {
	Dir  string // swanctl's: x509, x509ca, private, pubkey below it
	Pid  int    // of the daemon; 0 in a guest
	lab  *Lab
	name string
	uri  string // of the daemon's control socket
	mark int    // of the log

	within []string // what swanctl is started by, itself the last
	try    func(limit time.Duration, args ...string) (string, error)
	output func(from int) string
	start  func(args ...string) (wait func() string)
	launch func() // the daemon
	signal func(name string)
}

// charonConf is strongswan.conf. Nothing is read from /etc.
const charonConf = `charon {
  load_modular = yes
  install_routes = yes
  retransmit_timeout = 0.5
  retransmit_base = 1.5
  retransmit_tries = 4
  max_ikev1_exchanges = 0
  syslog {
    daemon {
      default = -1
    }
    auth {
      default = -1
    }
  }
  filelog {
    stderr {
      default = 1
      ike = 2
      cfg = 2
      chd = 2
      enc = 1
      flush_line = yes
    }
  }
  plugins {
    include %[1]s/plugins.conf
    vici {
      load = yes
      socket = unix://%[3]s
    }
  }
%[2]s
}
`

// charonPlugins are what the tests need; the rest would look for things in the
// machine's /etc.
const charonPlugins = "random nonce x509 revocation constraints pubkey pkcs1 pkcs7 pkcs8 pkcs12 sshkey pem openssl gcrypt " +
	"aes sha1 sha2 gmp curve25519 hmac gcm ctr chapoly kdf drbg mgf1 attr kernel-netlink socket-default eap-md5 eap-identity eap-tls"

// The releases of strongSwan that e2e/install.sh unpacks: 5.9.8, and one that
// has ML-KEM, 6.1.0 or later.
const (
	swanOld = "bookworm-strongswan"
	swanNew = "forky-strongswan"
)

// newCharon writes the configuration. settings are more lines for
// strongswan.conf's charon block. It gives the command that runs the daemon:
// the plugins' place is compiled in, so theirs is mounted over it.
func (l *Lab) newCharon(release, name, settings, plugins, vici string) (*Charon, []string) {
	l.Helper()
	swan, run := l.unpacked(release, "usr/lib/ipsec/charon", "/usr/lib/ipsec")
	c := &Charon{Dir: filepath.Join(l.Dir, name+"-swan"), lab: l, name: name, uri: "unix://" + vici}
	var list strings.Builder
	for p := range strings.FieldsSeq(plugins) {
		fmt.Fprintf(&list, "%s {\n  load = yes\n}\n", p)
	}
	l.File(name+"-swan/plugins.conf", list.String())
	conf := l.File(name+"-swan/strongswan.conf", fmt.Sprintf(charonConf, c.Dir, settings, vici))
	run = append([]string{"env", "SWANCTL_DIR=" + c.Dir, "STRONGSWAN_CONF=" + conf, "OPENSSL_CONF=/dev/null"}, run...)
	c.within = append(run[:len(run):len(run)], swan+"/usr/sbin/swanctl")
	mount := fmt.Sprintf("mount --bind %[1]s/usr/lib/ipsec /usr/lib/ipsec && ", swan)
	return c, []string{"sh", "-c", mount + "exec " + strings.Join(run, " ") + " /usr/lib/ipsec/charon"}
}

// ready waits until swanctl gets an answer. One that came while the daemon was
// starting has been seen to hang, so each try has an end of its own.
func (c *Charon) ready() *Charon {
	c.lab.Helper()
	for end := time.Now().Add(2 * Patience); ; time.Sleep(50 * time.Millisecond) {
		out, err := c.tryFor(Patience/4, "--stats")
		if err == nil {
			return c
		}
		if time.Now().After(end) {
			c.lab.Fatalf("charon is not ready: %v\n%s\n%s", err, out, c.Log())
		}
	}
}

// Charon starts the daemon in a host, with the host's own mounts and /run.
func (h *Host) Charon(settings string) *Charon {
	h.lab.Helper()
	return h.charon(swanOld, settings, charonPlugins+" kernel-libipsec")
}

// CharonKEM is Charon of a release that has ML-KEM (FIPS 203, RFC 9370).
func (h *Host) CharonKEM(settings string) *Charon {
	h.lab.Helper()
	return h.charon(swanNew, settings, charonPlugins+" kernel-libipsec")
}

// CharonESP is Charon that leaves ESP to the host's kernel, which must have it.
func (h *Host) CharonESP(settings string) *Charon {
	h.lab.Helper()
	return h.charon(swanOld, settings, charonPlugins)
}

func (h *Host) charon(release, settings, plugins string) *Charon {
	l := h.lab
	l.Helper()
	vici := filepath.Join(l.Dir, h.Name+"-vici")
	c, cmd := l.newCharon(release, h.Name, settings, plugins, vici)
	cmd[2] = "mount -t tmpfs tmpfs /run && " + cmd[2]
	within := c.within
	c.launch = func() {
		proc := h.Start(append([]string{"unshare", "-m"}, cmd...)...)
		c.Pid, c.mark = proc.Cmd.Process.Pid, 0
		c.within = append([]string{"nsenter", "-t", strconv.Itoa(c.Pid), "-m"}, within...)
		c.output = func(from int) string { return proc.Output()[from:] }
	}
	c.launch()
	c.try = h.Try
	c.signal = func(name string) { h.Run("kill", "-"+name, strconv.Itoa(c.Pid)) }
	c.start = func(args ...string) func() string {
		out := make(chan string, 1)
		go func() {
			s, _ := h.Try(time.Minute, args...)
			out <- s
		}()
		return func() string { return <-out }
	}
	return c.ready()
}

// Charon starts the daemon in a guest.
func (g *Guest) Charon(settings string) *Charon { g.lab.Helper(); return g.charon(swanOld, settings) }

// CharonKEM is Charon of a release that has ML-KEM.
func (g *Guest) CharonKEM(settings string) *Charon {
	g.lab.Helper()
	return g.charon(swanNew, settings)
}

func (g *Guest) charon(release, settings string) *Charon {
	l := g.lab
	l.Helper()
	const vici = "/run/vici"
	c, cmd := l.newCharon(release, g.Name, settings, charonPlugins, vici)
	c.launch = func() {
		log := g.Start(cmd...)
		c.mark = 0
		c.output = func(from int) string {
			out, _ := g.Try(time.Minute, "tail", "-c", "+"+strconv.Itoa(from+1), log)
			return out
		}
	}
	c.launch()
	c.try = g.Try
	c.signal = func(name string) { g.Run("sh", "-c", "kill -"+name+" $(cat /run/charon.pid)") }
	c.start = func(args ...string) func() string {
		file := g.Start(args...)
		return func() string {
			var out string
			l.Eventually(Patience, strings.Join(args, " ")+" has ended", func() bool {
				out, _ = g.Read(file)
				return strings.Contains(out, "packet loss")
			})
			return out
		}
	}
	return c.ready()
}

// Lab is the lab that the daemon is in.
func (c *Charon) Lab() *Lab { return c.lab }

// Signal sends the daemon a signal: KILL ends it without a word to its peers,
// TERM in the ordinary way, STOP makes it deaf until CONT.
func (c *Charon) Signal(name string) {
	c.lab.Helper()
	c.signal(name)
}

// Again starts the daemon anew, when a signal has ended it, with what Load gave
// it last.
func (c *Charon) Again() {
	c.lab.Helper()
	c.lab.Eventually(Patience, "the daemon has ended", func() bool {
		_, err := c.Try("--stats")
		return err != nil
	})
	c.launch()
	c.ready().Do("--load-all", "--noprompt")
}

// Try runs swanctl, where the daemon's files are. What it warns of as it looks
// for plugins is left out.
func (c *Charon) Try(args ...string) (string, error) { return c.tryFor(Patience, args...) }

func (c *Charon) tryFor(limit time.Duration, args ...string) (string, error) {
	out, err := c.try(limit, slices.Concat(c.within, args, []string{"--uri", c.uri})...)
	var keep strings.Builder
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "plugin '") {
			keep.WriteString(line)
		}
	}
	return keep.String(), err
}

// Do runs swanctl, which must succeed.
func (c *Charon) Do(args ...string) string {
	c.lab.Helper()
	out, err := c.Try(args...)
	if err != nil {
		c.lab.Fatalf("swanctl %s: %v\n%s\n%s", strings.Join(args, " "), err, out, c.Log())
	}
	return out
}

// Load replaces connections and secrets by those of swanctl.conf's text. What
// was logged before is forgotten.
func (c *Charon) Load(conf string) {
	c.lab.Helper()
	c.mark += len(c.output(c.mark))
	c.lab.File(c.name+"-swan/swanctl.conf", conf)
	c.Do("--load-all", "--clear", "--noprompt")
}

// Log is what the daemon has written since Load.
func (c *Charon) Log() string { return c.output(c.mark) }

// Ping pings once from the daemon's host.
func (c *Charon) Ping(from, to netip.Addr) error {
	_, err := c.try(10*time.Second, "ping", "-n", "-c", "1", "-W", "2", "-I", from.String(), to.String())
	return err
}

// PingFlood pings n times in quick order, and then more times. It gives a
// function that waits for the end and lists which of the n, from 1, got no
// answer.
func (c *Charon) PingFlood(from, to netip.Addr, n, more int) func() []int {
	wait := c.start("ping", "-n", "-i", "0.01", "-c", strconv.Itoa(n+more), "-W", "2", "-I", from.String(), to.String())
	return func() []int { return Unanswered(wait(), n) }
}

// Unanswered lists which of the first n packets, from 1, ping has printed no
// answer to. ping waits for the last of all no longer than two round trips, so
// some more should follow those that count.
func Unanswered(out string, n int) (lost []int) {
	for i := range n {
		if !strings.Contains(out, fmt.Sprintf("_seq=%d ", i+1)) {
			lost = append(lost, i+1)
		}
	}
	return lost
}
