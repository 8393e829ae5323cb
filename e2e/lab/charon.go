package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// peerPrograms is where e2e/install.sh unpacks IKE daemons of others. They are
// not installed: Debian's packages would start services and upgrade the
// machine's init.
const peerPrograms = "/var/cache/ipfw-e2e"

// Charon is strongSwan's IKE daemon in a host, with ESP in user space
// (kernel-libipsec): tunnel mode, always in UDP. Inner addresses of the host
// go to its loopback.
type Charon struct {
	Dir  string // swanctl's: x509, x509ca, private, pubkey below it
	lab  *Lab
	host *Host
	proc *Process
	mark int
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
      socket = unix://%[1]s/vici
    }
  }
%[2]s
}
`

// charonPlugins are what the tests need; the rest would look for things in the
// machine's /etc.
const charonPlugins = "random nonce x509 revocation constraints pubkey pkcs1 pkcs7 pkcs8 pkcs12 sshkey pem openssl gcrypt " +
	"aes sha1 sha2 gmp curve25519 hmac gcm ctr chapoly kdf drbg mgf1 attr kernel-libipsec kernel-netlink socket-default eap-md5 eap-identity"

// Charon starts the daemon. settings are more lines for strongswan.conf's
// charon block.
func (h *Host) Charon(settings string) *Charon {
	l := h.lab
	l.Helper()
	root := filepath.Join(peerPrograms, "strongswan")
	if _, err := os.Stat(filepath.Join(root, "usr/lib/ipsec/charon")); err != nil {
		Skip(l, "strongSwan is not unpacked in "+root+"; `make test` as root does it")
	}
	// The plugins' place is compiled in, so theirs is mounted over it, in a
	// mount namespace of the daemon's own.
	if err := os.MkdirAll("/usr/lib/ipsec", 0o755); err != nil {
		l.Fatal(err)
	}
	c := &Charon{Dir: filepath.Join(l.Dir, h.Name+"-swan"), lab: l, host: h}
	var plugins strings.Builder
	for p := range strings.FieldsSeq(charonPlugins) {
		fmt.Fprintf(&plugins, "%s {\n  load = yes\n}\n", p)
	}
	l.File(h.Name+"-swan/plugins.conf", plugins.String())
	conf := l.File(h.Name+"-swan/strongswan.conf", fmt.Sprintf(charonConf, c.Dir, settings))
	c.proc = h.Start("unshare", "-m", "sh", "-c", fmt.Sprintf(`
mount --bind %[1]s/usr/lib/ipsec /usr/lib/ipsec && mount -t tmpfs tmpfs /run &&
export STRONGSWAN_CONF=%[2]s LD_LIBRARY_PATH=/usr/lib/ipsec:%[1]s/usr/lib/x86_64-linux-gnu &&
exec /usr/lib/ipsec/charon`, root, conf))
	l.Eventually(20*time.Second, "charon is ready", func() bool {
		if c.proc.Wait(0) == nil {
			l.Fatalf("charon ended:\n%s", c.Log())
		}
		_, err := c.Try("--stats")
		return err == nil
	})
	return c
}

// Try runs swanctl, where the daemon's files are.
func (c *Charon) Try(args ...string) (string, error) {
	root := filepath.Join(peerPrograms, "strongswan")
	all := append([]string{"nsenter", "-t", strconv.Itoa(c.proc.Cmd.Process.Pid), "-m", "env", "SWANCTL_DIR=" + c.Dir,
		"STRONGSWAN_CONF=" + filepath.Join(c.Dir, "strongswan.conf"), "LD_LIBRARY_PATH=/usr/lib/ipsec", root + "/usr/sbin/swanctl"}, args...)
	return c.host.Try(30*time.Second, append(all, "--uri", "unix://"+c.Dir+"/vici")...)
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
	c.mark = len(c.proc.Output())
	c.lab.File(c.host.Name+"-swan/swanctl.conf", conf)
	c.Do("--load-all", "--clear", "--noprompt")
}

// Log is what the daemon has written since Load.
func (c *Charon) Log() string { return c.proc.Output()[c.mark:] }

// Process is the daemon's process.
func (c *Charon) Process() *Process { return c.proc }

// Ping pings once from the daemon's host.
func (c *Charon) Ping(from, to netip.Addr) (string, error) {
	return c.host.Try(10*time.Second, "ping", "-n", "-c", "1", "-W", "2", "-I", from.String(), to.String())
}

// PingFlood pings n times in quick order and counts what was lost.
func (c *Charon) PingFlood(from, to netip.Addr, n int) int {
	out, _ := c.host.Try(time.Minute, "ping", "-n", "-q", "-i", "0.01", "-c", strconv.Itoa(n), "-W", "2", "-I", from.String(), to.String())
	_, rest, _ := strings.Cut(out, "transmitted, ")
	var got int
	if _, err := fmt.Sscanf(rest, "%d received", &got); err != nil {
		return n
	}
	return n - got
}
