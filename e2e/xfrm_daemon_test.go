package e2e

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/esp"
)

// file is the keys as a policy's key file has them, at ipfw's end.
func (k *xfrmKeys) file() (text string) {
	for way, name := range [2]string{"out", "in"} {
		for kind, key := range map[string][]byte{"encryption": k.encryption[way], "integrity": k.integrity[way]} {
			if len(key) > 0 {
				text += fmt.Sprintf("%s_%s = %s\n", kind, name, hex.EncodeToString(key))
			}
		}
	}
	return text
}

// policy is the row as a user writes it, with its keys in kernel.keys.
func (r xfrmRow) policy(k *xfrmKeys, keys string) string {
	ours, theirs := r.outer()
	_, remote := r.inner()
	encap := "none"
	if r.udp {
		encap = "udp"
	}
	cipher := ""
	if r.suite.Protocol == esp.ESP {
		cipher = fmt.Sprintf("  encapsulation = %q\n", encap)
	}
	manual := fmt.Sprintf("    integrity = %q\n", r.suite.Integrity.Name)
	if e := r.suite.Encryption.Name; e != "" {
		manual += fmt.Sprintf("    encryption = %q\n", e)
	}
	return fmt.Sprintf(protectAll, remote) + fmt.Sprintf(`
ipsec "peer" {
  mode            = %q
  protocol        = %q
  local_endpoint  = "%v"
  remote_endpoint = "%v"
%s  manual {
    spi_in   = "%#x"
    spi_out  = "%#x"
    key_file = %q
%s  }
}
`, r.mode, r.suite.Protocol, ours, theirs, cipher, k.spi[1], k.spi[0], keys, manual)
}

// The daemon, with keys set by hand in a policy, and the Linux kernel: every
// shape that a policy can write. Suites are TestXFRM's part.
func TestXFRMDaemon(t *testing.T) {
	m := newXFRMMatrix(t)
	lab.Need(t, "ping")
	rows := slices.DeleteFunc(xfrmRows(), func(r xfrmRow) bool {
		suite := cmp.Or(r.suite.Encryption.Name, "-") + "/" + r.suite.Integrity.Name
		return r.esn || r.ahAlign8 || suite != "aes-256-cbc/hmac-sha2-256-128" && suite != "-/hmac-sha2-512-256"
	})
	m.wire = newXFRMWire(t, m.kernel.Wire)
	for n, r := range rows {
		begun := time.Now()
		k := newXFRMKeys(r, n)
		m.wire.begin(r, k)
		if err := m.kernel.configure(r, k); err != nil {
			t.Errorf("%v: %v", r, err)
			continue
		}
		l := m.kernel.Lab()
		keys := l.File(fmt.Sprintf("%d.keys", n), k.file())
		d := m.host.IPFW(l.File(fmt.Sprintf("%d.hcl", n), r.policy(k, keys)))
		before := m.kernel.stat(t)
		var err error
		for _, c := range xfrmChecks {
			if c.name != "replay>" && c.name != "alter>" && c.name != "replay<" && c.name != "alter<" {
				if e := c.do(m, r, k); e != nil {
					err = errors.Join(err, fmt.Errorf("%s: %w", c.name, e))
				}
			}
		}
		// A manual SA keeps no replay window, as it may begin anew; the
		// kernel's does.
		err = errors.Join(err, m.kernel.faults(before, m.kernel.stat(t)), m.replayToKernel(r, k))
		if err != nil {
			t.Errorf("%v: %v\n%s", r, err, d.Ask("status"))
		} else {
			t.Logf("%v: ok, in %v", r, time.Since(begun).Round(time.Millisecond))
		}
		d.Kill()
	}
	t.Logf("%d rows", len(rows))
	if len(rows) < 15 {
		t.Error("that is too few")
	}
}
