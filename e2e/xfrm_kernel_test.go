package e2e

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/esp"
)

// The two sides of the matrix. In tunnel mode what is protected has addresses
// of its own.
//
//	ipfw                                      kernel
//	10.88.0.1, fd88::1  ------- wire -------  10.88.0.2, fd88::2
//	10.89.0.1, fd89::1                        10.89.0.2, fd89::2   (on lo)
var (
	outerIPFW   = [2]netip.Addr{netip.MustParseAddr("10.88.0.1"), netip.MustParseAddr("fd88::1")}
	outerKernel = [2]netip.Addr{netip.MustParseAddr("10.88.0.2"), netip.MustParseAddr("fd88::2")}
	innerIPFW   = [2]netip.Addr{netip.MustParseAddr("10.89.0.1"), netip.MustParseAddr("fd89::1")}
	innerKernel = [2]netip.Addr{netip.MustParseAddr("10.89.0.2"), netip.MustParseAddr("fd89::2")}
)

func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// outer gives the addresses of the sealed packets, inner those of what is
// protected; ours first.
func (r xfrmRow) outer() (ours, theirs netip.Addr) {
	return outerIPFW[family(r.outer6)], outerKernel[family(r.outer6)]
}

func (r xfrmRow) inner() (ours, theirs netip.Addr) {
	if r.mode == esp.Transport {
		return r.outer()
	}
	return innerIPFW[family(r.inner6)], innerKernel[family(r.inner6)]
}

// xfrmKeys are the keys and SPIs of one row; [0] from ipfw to the kernel, [1]
// back.
type xfrmKeys struct {
	spi        [2]uint32
	encryption [2][]byte
	integrity  [2][]byte
}

// xfrmNames are what the kernel calls our algorithms.
var xfrmNames = map[string]string{
	"aes-128-gcm-16": "rfc4106(gcm(aes))", "aes-192-gcm-16": "rfc4106(gcm(aes))", "aes-256-gcm-16": "rfc4106(gcm(aes))",
	"chacha20-poly1305": "rfc7539esp(chacha20,poly1305)",
	"aes-128-gmac":      "rfc4543(gcm(aes))", "aes-192-gmac": "rfc4543(gcm(aes))", "aes-256-gmac": "rfc4543(gcm(aes))",
	"aes-128-cbc": "cbc(aes)", "aes-192-cbc": "cbc(aes)", "aes-256-cbc": "cbc(aes)",
	"aes-128-ctr": "rfc3686(ctr(aes))", "aes-192-ctr": "rfc3686(ctr(aes))", "aes-256-ctr": "rfc3686(ctr(aes))",
	"insecure-null":     "ecb(cipher_null)",
	"hmac-sha2-256-128": "hmac(sha256)", "hmac-sha2-384-192": "hmac(sha384)", "hmac-sha2-512-256": "hmac(sha512)",
	"hmac-sha1-96": "hmac(sha1)",
}

// xfrmCannot says that the kernel has no such suite: AES-GMAC in AH is an
// AEAD to it, and its AH takes none.
func (r xfrmRow) xfrmCannot() bool { return r.suite.Protocol == esp.AH && r.suite.Integrity.Counter }

// algorithms is the suite as `ip xfrm state` takes it.
func (r xfrmRow) algorithms(k *xfrmKeys, way int) string {
	e, i := r.suite.Encryption, r.suite.Integrity
	hexKey := func(b []byte) string {
		if len(b) == 0 {
			return `""`
		}
		return fmt.Sprintf("0x%x", b)
	}
	switch {
	case e.Combined():
		return fmt.Sprintf("aead %s %s %d", xfrmNames[e.Name], hexKey(k.encryption[way]), e.ICV*8)
	}
	auth := fmt.Sprintf("auth-trunc %s %s %d", xfrmNames[i.Name], hexKey(k.integrity[way]), i.ICV*8)
	if r.suite.Protocol == esp.AH {
		return auth
	}
	return fmt.Sprintf("enc %s %s %s", xfrmNames[e.Name], hexKey(k.encryption[way]), auth)
}

// batch is the row as lines for `ip -batch`.
func (r xfrmRow) batch(k *xfrmKeys) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("xfrm state flush")
	line("xfrm policy flush")
	for _, dir := range []string{"in", "out"} {
		for _, kind := range []int{135, 136} { // neighbours find each other in the clear
			line("xfrm policy add src ::/0 dst ::/0 proto ipv6-icmp type %d dir %s priority 1 action allow", kind, dir)
		}
	}
	o, i := [2]netip.Addr{}, [2]netip.Addr{}
	o[0], o[1] = r.outer()
	i[0], i[1] = r.inner()
	for way := range 2 {
		src, dst := way, 1-way
		extra := ""
		if r.esn {
			extra += " flag esn"
		}
		if r.suite.Protocol == esp.AH && !r.outer6 && !r.ahAlign8 {
			extra += " flag align4"
		}
		if r.udp {
			extra += " encap espinudp 4500 4500 0.0.0.0"
		}
		line("xfrm state add src %v dst %v proto %v spi %#x reqid 1 mode %v replay-window 128%s %s sel src %v dst %v",
			o[src], o[dst], r.suite.Protocol, k.spi[way], r.mode, extra, r.algorithms(k, way), i[src], i[dst])
		dir := "in"
		if way == 1 {
			dir = "out"
		}
		line("xfrm policy add src %v dst %v dir %s priority 9 tmpl src %v dst %v proto %v reqid 1 mode %v",
			i[src], i[dst], dir, o[src], o[dst], r.suite.Protocol, r.mode)
	}
	return b.String()
}

// xfrmPeer is the kernel's side.
type xfrmPeer struct{ *lab.Guest }

// newXFRMPeer boots a guest that serves port 7 and has sockets for ESP in UDP.
func newXFRMPeer(l *lab.Lab) xfrmPeer {
	g := xfrmPeer{l.Guest("kernel")}
	for f := range 2 {
		g.Run("ip", "addr", "add", innerKernel[f].String(), "dev", "lo")
	}
	g.Serve(7)
	if err := g.Encapsulate(4500); err != nil {
		l.Fatal(err)
	}
	return g
}

// configure puts a row in force; an error is the kernel's own words.
func (g xfrmPeer) configure(r xfrmRow, k *xfrmKeys) error {
	if r.xfrmCannot() { // iproute2 would not even ask
		o, p := r.outer()
		_, err := g.Tool("ah-aead", xfrmNames[r.suite.Integrity.Name], hex.EncodeToString(k.integrity[0]), o.String(), p.String(), r.mode.String())
		return err
	}
	out, err := g.Pipe(waitLong, r.batch(k), "ip", "-batch", "-")
	if err != nil {
		return fmt.Errorf("%s", strings.Join(strings.Fields(out), " "))
	}
	return nil
}

// ahAEAD asks the kernel for AH with an AEAD: algorithm, key, addresses, mode.
func ahAEAD(args []string) (string, error) {
	key, err := hex.DecodeString(args[1])
	if err != nil {
		return "", err
	}
	sa := &netlink.XfrmState{Proto: netlink.XFRM_PROTO_AH, Spi: 0x999, Src: net.ParseIP(args[2]), Dst: net.ParseIP(args[3]),
		Mode: netlink.XFRM_MODE_TRANSPORT, Aead: &netlink.XfrmStateAlgo{Name: args[0], Key: key, ICVLen: 128}}
	if args[4] == "tunnel" {
		sa.Mode = netlink.XFRM_MODE_TUNNEL
	}
	return "", netlink.XfrmStateAdd(sa)
}

// stat reads the kernel's counters of what it refused.
func (g xfrmPeer) stat(t testing.TB) map[string]int {
	t.Helper()
	out, err := g.Read("/proc/net/xfrm_stat")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]int{}
	f := strings.Fields(out)
	for i := 0; i+1 < len(f); i += 2 {
		m[f[i]], _ = strconv.Atoi(f[i+1])
	}
	return m
}

// refuses waits until a counter has grown by n since before, and says what has
// grown instead.
func (g xfrmPeer) refuses(t testing.TB, counter string, n int, before map[string]int) error {
	t.Helper()
	var now map[string]int
	for end := time.Now().Add(waitLong / 2); time.Now().Before(end); time.Sleep(3 * time.Millisecond) {
		if now = g.stat(t); now[counter] >= before[counter]+n {
			break
		}
	}
	var grown []string
	for name, v := range now {
		if v != before[name] {
			grown = append(grown, fmt.Sprintf("%s+%d", name, v-before[name]))
		}
	}
	if len(grown) != 1 || now[counter] != before[counter]+n {
		return fmt.Errorf("the kernel counted %v, want %s+%d", grown, counter, n)
	}
	return nil
}

// faults are the counters that no good packet may move. (Packets that come
// late from the row before have no state, or another one.)
func (g xfrmPeer) faults(before, after map[string]int) error {
	for name, v := range after {
		switch {
		case v == before[name]:
		case name == "XfrmInNoStates", name == "XfrmInNoPols", name == "XfrmInTmplMismatch", name == "XfrmOutStateInvalid", name == "XfrmOutNoStates":
		default:
			return fmt.Errorf("%s+%d", name, v-before[name])
		}
	}
	return nil
}
