package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/esp"
)

// xfrmMatrix is the test's whole stage.
type xfrmMatrix struct {
	testing.TB
	host   *lab.Host
	kernel xfrmPeer
	ours   *xfrmSide
	wire   *xfrmWire
}

// xfrmCheck is one column: what is tried in each row. ">" opens at ipfw's
// side, "<" at the kernel's.
type xfrmCheck struct {
	name string
	do   func(m *xfrmMatrix, r xfrmRow, k *xfrmKeys) error
}

const (
	bigDatagram = 20000
	bulk        = 1 << 20
)

// xfrmChecks are the columns in their order. The three of replays and
// alterations come last, because they renew ipfw's inbound SA.
var xfrmChecks = []xfrmCheck{
	{"ping>", func(m *xfrmMatrix, r xfrmRow, _ *xfrmKeys) error { return m.ping(r, true, 56) }},
	{"ping<", func(m *xfrmMatrix, r xfrmRow, _ *xfrmKeys) error { return m.ping(r, false, 56) }},
	{"udp>", func(m *xfrmMatrix, r xfrmRow, _ *xfrmKeys) error { return m.transfer(r, true, "udp", 100) }},
	{"udp<", func(m *xfrmMatrix, r xfrmRow, _ *xfrmKeys) error { return m.transfer(r, false, "udp", 100) }},
	{"tcp>", func(m *xfrmMatrix, r xfrmRow, _ *xfrmKeys) error { return m.transfer(r, true, "tcp", bulk) }},
	{"tcp<", func(m *xfrmMatrix, r xfrmRow, _ *xfrmKeys) error { return m.transfer(r, false, "tcp", bulk) }},
	{"big>", func(m *xfrmMatrix, r xfrmRow, _ *xfrmKeys) error {
		return errors.Join(m.ping(r, true, 5000), m.transfer(r, true, "udp", bigDatagram))
	}},
	{"big<", func(m *xfrmMatrix, r xfrmRow, _ *xfrmKeys) error {
		return errors.Join(m.ping(r, false, 5000), m.transfer(r, false, "udp", bigDatagram))
	}},
	{"replay>", (*xfrmMatrix).replayToKernel},
	{"alter>", (*xfrmMatrix).alterToKernel},
	{"replay<", (*xfrmMatrix).replayToUs},
	{"alter<", (*xfrmMatrix).alterToUs},
	{"hidden", func(m *xfrmMatrix, _ xfrmRow, _ *xfrmKeys) error { return m.wire.passed() }},
}

// newXFRMMatrix builds the stage, without ipfw.
func newXFRMMatrix(t *testing.T) *xfrmMatrix {
	t.Helper()
	l := lab.New(t)
	lab.Need(t, "ping")
	m := &xfrmMatrix{TB: t, host: l.Host("host"), kernel: newXFRMPeer(l)}
	m.kernel.Join(m.host, "eth0", []string{outerIPFW[0].String() + "/24", outerIPFW[1].String() + "/64"},
		[]string{outerKernel[0].String() + "/24", outerKernel[1].String() + "/64"})
	for f := range 2 {
		m.host.Run("ip", "addr", "add", innerIPFW[f].String(), "dev", "lo")
		m.host.Run("ip", "route", "add", innerKernel[f].String(), "via", outerKernel[f].String(), "src", innerIPFW[f].String())
		m.kernel.Run("ip", "route", "add", innerIPFW[f].String(), "via", outerIPFW[f].String(), "src", innerKernel[f].String())
	}
	if err := m.host.Do(func() error { return lab.Serve(7) }); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestXFRM holds ipfw against the Linux kernel's own IPsec, row by row: every
// suite, mode, pair of families, extended sequence numbers, UDP encapsulation
// and alignment. Everyday runs take rows that contain each pair of values;
// IPFW_MATRIX=all (make matrix) takes the whole product.
func TestXFRM(t *testing.T) {
	m := newXFRMMatrix(t)
	m.ours = newXFRMSide(t, m.host)
	m.wire = newXFRMWire(t, m.kernel.Wire)

	rows, which := xfrmRows(), "all rows"
	switch only := os.Getenv("IPFW_MATRIX"); only {
	case "":
		rows, which = pairwise(rows), "pairwise rows"
	case "all":
	default: // those rows whose line matches
		which = "rows that match " + only
		rows = slices.DeleteFunc(rows, func(r xfrmRow) bool { return !regexp.MustCompile(only).MatchString(r.String()) })
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 1, ' ', 0)
	fmt.Fprintf(w, "%s", strings.Join(xfrmDimensions[:], "\t"))
	for _, c := range xfrmChecks {
		fmt.Fprintf(w, "\t%s", c.name)
	}
	fmt.Fprintln(w, "\ttime")
	good, refused, bad := 0, 0, 0
	for n, r := range rows {
		begin := time.Now()
		cells, refusal, err := m.row(r, n)
		fmt.Fprintf(w, "%s\t%s\t%v\t%s\n", strings.Join(r.values(), "\t"), strings.Join(cells, "\t"), time.Since(begin).Round(time.Millisecond), refusal)
		switch {
		case err != nil:
			bad++
			t.Errorf("%v: %v\n%s\n%v\n%v", r, err, m.kernel.Run("ip", "-s", "xfrm", "state"), m.ours.in.Counters(), m.ours.out.Load().Counters())
		case refusal != "":
			refused++
		default:
			good++
		}
		if bad > 20 {
			t.Error("that is enough")
			break
		}
	}
	_ = w.Flush()
	t.Logf("%s: %d of %d; %d good, %d that the guest's kernel has not (its own words), %d bad\n%s",
		which, good+refused+bad, len(xfrmRows()), good, refused, bad, table.String())
}

// row tries everything in one row, and gives a cell for each check; or the
// kernel's word why it cannot do the row.
func (m *xfrmMatrix) row(r xfrmRow, n int) (cells []string, refusal string, err error) {
	k := newXFRMKeys(r, n)
	m.wire.begin(r, k)
	refused := m.kernel.configure(r, k)
	switch {
	case r.xfrmCannot() && refused == nil:
		return nil, "", errors.New("the kernel takes what it was thought not to have")
	case refused != nil:
		refusal = "kernel: " + refused.Error()
		for range xfrmChecks {
			cells = append(cells, "-")
		}
		if r.xfrmCannot() {
			refused = nil
		}
		return cells, refusal, refused
	}
	m.ours.configure(m.TB, r, k)
	before := m.kernel.stat(m.TB)
	for _, c := range xfrmChecks {
		if c.name == "replay>" {
			err = errors.Join(err, m.unhurt(before))
		}
		if e := c.do(m, r, k); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", c.name, e))
			cells = append(cells, "FAIL")
		} else {
			cells = append(cells, "ok")
		}
	}
	return cells, "", err
}

// unhurt says whether either side has refused anything.
func (m *xfrmMatrix) unhurt(before map[string]int) error {
	if err := m.kernel.faults(before, m.kernel.stat(m.TB)); err != nil {
		return fmt.Errorf("the kernel refused good packets: %w", err)
	}
	for _, sa := range []*esp.SA{m.ours.in, m.ours.out.Load()} {
		for f, n := range sa.Counters().Faults {
			if n != 0 {
				return fmt.Errorf("ipfw refused good packets: %v %d (%v)", esp.Fault(f), n, sa.Direction())
			}
		}
	}
	return nil
}

// ping asks once, from ipfw's side or from the kernel's.
func (m *xfrmMatrix) ping(r xfrmRow, ours bool, size int) error {
	from, to := r.inner()
	try := m.host.Try
	if !ours {
		from, to, try = to, from, m.kernel.Try
	}
	out, err := try(waitLong, "ping", "-n", "-c", "1", "-W", "3", "-s", fmt.Sprint(size), "-I", from.String(), to.String())
	if err != nil {
		return fmt.Errorf("ping of %d bytes: %w: %s", size, err, strings.Join(strings.Fields(out), " "))
	}
	return nil
}

// transfer sends to the echo server of the far side.
func (m *xfrmMatrix) transfer(r xfrmRow, ours bool, network string, size int) error {
	from, to := r.inner()
	x := lab.Transfer{Network: network, From: from, To: netip.AddrPortFrom(to, 7), Size: size, Limit: waitLong}
	var err error
	if ours {
		err = m.host.Do(x.Do)
	} else {
		x.From, x.To = to, netip.AddrPortFrom(from, 7)
		err = m.kernel.Transfer(x)
	}
	if err != nil {
		return fmt.Errorf("%v: %w", x, err)
	}
	return nil
}

// replayToKernel sends the kernel a packet that it has had.
func (m *xfrmMatrix) replayToKernel(r xfrmRow, k *xfrmKeys) error {
	// A capture that lags gives a packet that is older than the window. With
	// ESN that is no replay to the kernel but one of the next 2^32, whose
	// integrity value is wrong (RFC 4303, appendix A2.2): then the newer one.
	var last []byte
	for {
		frame, err := m.wire.lastSealed(0)
		if err != nil {
			return err
		}
		before := m.kernel.stat(m.TB)
		if err := m.wire.put(frame, m.wire.kernel); err != nil {
			return err
		}
		err = m.kernel.refuses(m.TB, "XfrmInStateSeqError", 1, before)
		if err == nil || !r.esn || bytes.Equal(frame, last) {
			return err
		}
		last = frame
	}
}

// alterToKernel sends the kernel a new packet altered on the way, in its
// sequence number, its data and its integrity value, and then as it was.
func (m *xfrmMatrix) alterToKernel(r xfrmRow, k *xfrmKeys) error {
	head, err := m.wire.lastSealed(0)
	if err != nil {
		return err
	}
	frame := append(head[:ethernet:ethernet], m.ours.probe(m.TB, r)...)
	before := m.kernel.stat(m.TB)
	for _, at := range r.alterations() {
		if err := m.wire.put(r.alter(frame, at), m.wire.kernel); err != nil {
			return err
		}
	}
	if err := m.kernel.refuses(m.TB, "XfrmInStateProtoError", 3, before); err != nil {
		return err
	}
	answers := m.wire.count(1)
	if err := m.wire.put(frame, m.wire.kernel); err != nil {
		return err
	}
	for end := time.Now().Add(waitLong / 2); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if m.wire.count(1) > answers {
			return nil
		}
	}
	return errors.New("the kernel does not take the packet as it was either")
}

// alterations are bytes of the sequence number, which goes up by that, of the
// data and of the integrity value, as xfrmRow.alter counts.
func (r xfrmRow) alterations() [3]int {
	if r.suite.Protocol == esp.AH {
		return [3]int{10, -20, 12 + r.suite.Integrity.IV + 3}
	}
	return [3]int{6, -r.suite.ICV() - 20, -2}
}

// replayToUs sends ipfw a packet that it has had.
func (m *xfrmMatrix) replayToUs(r xfrmRow, k *xfrmKeys) error {
	frame, err := m.wire.lastSealed(1)
	if err != nil {
		return err
	}
	// A last packet of what ran before may come in between: then once more.
	for n := uint64(1); ; n++ {
		packets := m.ours.in.Counters().Packets
		if err := m.wire.put(frame, m.wire.host); err != nil {
			return err
		}
		if m.ours.sees(esp.Replay, n, packets) {
			return nil
		}
		if c := m.ours.in.Counters(); c.Faults[esp.Replay] != n || n == 5 {
			return fmt.Errorf("ipfw counted %v, want %d replays", c, n)
		}
	}
}

// alterToUs sends ipfw a packet of the kernel's altered on the way, to an SA
// that has not seen it, then as it was, then again.
func (m *xfrmMatrix) alterToUs(r xfrmRow, k *xfrmKeys) error {
	frame, err := m.wire.lastSealed(1)
	if err != nil {
		return err
	}
	m.ours.renew(m.TB, r, k)
	for i, at := range r.alterations() {
		if err := m.wire.put(r.alter(frame, at), m.wire.host); err != nil {
			return err
		}
		if !m.ours.sees(esp.Unauthentic, uint64(i+1), 0) {
			return fmt.Errorf("altered at %d: ipfw counted %v, want %d unauthentic", at, m.ours.in.Counters(), i+1)
		}
	}
	if err := m.wire.put(frame, m.wire.host); err != nil {
		return err
	}
	if !m.ours.sees(esp.Unauthentic, 3, 1) {
		return fmt.Errorf("as it was: ipfw counted %v, want one packet", m.ours.in.Counters())
	}
	return nil
}
