package e2e

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// tsharkFields are what tshark is asked of each packet. With ESP it sees two
// headers of IP and perhaps of UDP, outer first, and gives both.
var tsharkFields = []string{
	"esp.spi", "esp.sequence", "esp.pad_len", "esp.protocol", "esp.icv_good", "esp.icv_bad",
	"ah.spi", "ah.sequence", "ah.length", "ah.next_header", "ah.icv",
	"ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "ip.checksum.status",
	"udp.srcport", "udp.dstport", "udp.length", "udp.checksum.status", "udp.payload",
}

// tsharkRow is one packet and what tshark has to say of it.
type tsharkRow struct {
	suite     esp.Suite
	shape     peerShape
	sealed    []byte
	seq       int
	payload   []byte // what was protected, in UDP
	spi       uint32
	form      esp.WiresharkForm
	altered   bool
	decrypted bool // tshark can read it
	checked   bool // tshark can check its ICV
}

func (r *tsharkRow) String() string {
	return fmt.Sprintf("%s/%s/%s, %d bytes, altered %t", r.suite.Protocol, r.suite, r.shape, len(r.payload), r.altered)
}

// TestTshark seals in every suite and shape, hands tshark the packets in a
// capture and the keys as `ipfw sas --wireshark-keys` exports them, and wants
// back what was sealed: fields of the inner packet, and the word that the
// integrity value is good; or bad, of a packet altered on the way.
//
// tshark 4.0 has no ChaCha20-Poly1305 and no AES-GMAC in ESP, reads packets
// with extended sequence numbers without being able to check them, and of AH
// reads the header only.
func TestTshark(t *testing.T) {
	lab.Need(t, "tshark")
	tsharkReads(t, []string{"tshark"}, tsharkForm(t, "tshark"))
}

// TestTsharkReleases is TestTshark with the releases of Debian 12, 13 and 14: 4.0,
// 4.4 and 4.6. The later ones check integrity values with extended sequence numbers.
func TestTsharkReleases(t *testing.T) {
	for _, release := range []string{"bookworm", "trixie", "forky"} {
		t.Run(release, func(t *testing.T) {
			run := lab.New(t).Tshark(release)
			tsharkReads(t, run, tsharkForm(t, run...))
		})
	}
}

// tsharkForm is the form in which a tshark takes keys.
func tsharkForm(t *testing.T, run ...string) esp.WiresharkForm {
	t.Helper()
	out, err := exec.Command(run[0], append(run[1:], "--version")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	t.Log(first)
	if strings.Contains(first, " 4.0.") {
		return esp.Wireshark40
	}
	return esp.Wireshark44
}

func tsharkReads(t *testing.T, run []string, form esp.WiresharkForm) {
	t.Helper()
	var rows []*tsharkRow
	var keys strings.Builder
	lacking := map[string]int{}
	spi := uint32(0x1000)
	for _, suite := range peerSuites(t) {
		for _, shape := range peerShapes() {
			if shape.udp && suite.Protocol == esp.AH {
				continue // RFC 3948 is for ESP
			}
			spi++
			list, key, why := tsharkSeal(t, suite, shape, spi, form)
			if why != "" {
				lacking[why]++
			}
			rows = append(rows, list...)
			keys.WriteString(key)
		}
	}
	good, bad, read := 0, 0, 0
	for i, line := range runTshark(t, run, rows, keys.String()) {
		row := rows[i]
		if !row.check(t, line) {
			continue
		}
		switch {
		case row.checked && row.altered:
			bad++
		case row.checked:
			good++
		default:
			read++
		}
	}
	t.Logf("%d packets decrypted with a good integrity value, %d altered ones called bad, %d read without a check", good, bad, read)
	for why, n := range lacking {
		t.Logf("%d combinations: %s", n, why)
	}
	want := [3]int{1000, 250, 500}
	if form != esp.Wireshark40 { // what 4.0 only reads is checked
		want = [3]int{3500, 700, 0}
	}
	if good < want[0] || bad < want[1] || read < want[2] {
		t.Errorf("only %d good, %d bad, %d read", good, bad, read)
	}
}

// tsharkSeal makes the packets of one SA and its line in tshark's table; why
// says what tshark cannot do with them, "" if it can do all.
func tsharkSeal(t *testing.T, suite esp.Suite, shape peerShape, spi uint32, form esp.WiresharkForm) (rows []*tsharkRow, key, why string) {
	t.Helper()
	enc, mac := peerKeys(suite, byte(spi))
	c := shape.config(suite, enc, mac)
	c.SPI = spi
	sa := peerSA(t, c, esp.Out)
	row := tsharkRow{suite: suite, shape: shape, spi: spi, form: form, decrypted: suite.Protocol == esp.AH}
	line, err := sa.WiresharkKeys(form)
	switch {
	case suite.Protocol == esp.AH:
		if err == nil {
			t.Errorf("%s: keys for AH: %s", suite, line)
		}
		why = "of AH tshark reads the header only"
	case err != nil:
		why = err.Error()[strings.LastIndex(err.Error(), ": ")+2:]
	case shape.esn && form == esp.Wireshark40:
		row.decrypted = true
		why = "tshark cannot check an integrity value with an extended sequence number"
	default:
		row.decrypted, row.checked = true, true
	}
	if err == nil {
		key = line + "\n"
	}
	for i, size := range []int{0, 1, 13, 64, 1357} {
		clear := shape.packet(t, &c, size)
		sealed, _, f := sa.Seal(nil, clear, 0)
		if f != esp.OK {
			t.Fatalf("%s %s: %v", suite, shape, f)
		}
		r := row
		r.sealed, r.seq, r.payload = sealed, i+1, clear[len(clear)-size:]
		rows = append(rows, &r)
	}
	if row.checked {
		r := *rows[3]
		r.altered = true
		r.sealed = bytes.Clone(r.sealed)
		// A byte of the ICV, which tshark has no other use for, in half of
		// the SAs; one of the ciphertext in the others.
		at := len(r.sealed) - 2
		if spi%2 == 0 {
			at -= suite.ICV() + 24
		}
		r.sealed[at] ^= 0x10
		rows = append(rows, &r)
	}
	return rows, key, why
}

// runTshark gives tshark's line for each packet, the fields split at tabs.
func runTshark(t *testing.T, run []string, rows []*tsharkRow, keys string) (lines [][]string) {
	t.Helper()
	dir := t.TempDir()
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(65536, layers.LinkTypeRaw); err != nil {
		t.Fatal(err)
	}
	for i, r := range rows {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(r.sealed), Length: len(r.sealed)}
		if err := w.WritePacket(info, r.sealed); err != nil {
			t.Fatal(err)
		}
	}
	capture := filepath.Join(dir, "sealed.pcap")
	if err := os.WriteFile(capture, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	// The table of keys is a file of Wireshark's configuration.
	if err := os.WriteFile(filepath.Join(dir, "esp_sa"), []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-r", capture, "-T", "fields", "-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE",
		"-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"}
	for _, f := range tsharkFields {
		args = append(args, "-e", f)
	}
	cmd := exec.Command(run[0], append(run[1:len(run):len(run)], args...)...)
	cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+dir, "HOME="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.Bytes())
	}
	words := strings.NewReplacer("True", "1", "False", "0") // 4.4 writes out what 4.0 has as a digit
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.Split(words.Replace(strings.TrimSuffix(line, "\n")), "\t"))
	}
	if len(lines) != len(rows) {
		t.Fatalf("tshark saw %d of %d packets\n%s", len(lines), len(rows), stderr.Bytes())
	}
	return lines
}

// check compares tshark's line with what was sealed.
func (r *tsharkRow) check(t *testing.T, line []string) bool {
	t.Helper()
	want := r.header()
	if !r.altered { // what an altered packet decrypts to is nobody's concern
		for field, value := range r.content() {
			want[field] = value
		}
	}
	ok := true
	for i, field := range tsharkFields {
		if w, known := want[field]; known && line[i] != w {
			t.Errorf("%s: %s is %q, want %q", r, field, line[i], w)
			ok = false
		}
	}
	return ok
}

// header is what tshark has to say of the IPsec header and the integrity value.
func (r *tsharkRow) header() map[string]string {
	want := map[string]string{}
	if r.suite.Protocol == esp.AH {
		front, align := 20, 4
		if r.shape.outer6 {
			front, align = 40, 8
		}
		n := 12 + r.suite.Integrity.IV + r.suite.ICV()
		n += (align - n%align) % align
		want["ah.spi"], want["ah.sequence"] = fmt.Sprintf("0x%08x", r.spi), strconv.Itoa(r.seq)
		want["ah.length"], want["ah.next_header"] = strconv.Itoa(n/4-2), strconv.Itoa(r.next())
		want["ah.icv"] = hex.EncodeToString(r.sealed[front+12 : front+n])
		return want
	}
	want["esp.spi"], want["esp.sequence"] = fmt.Sprintf("0x%08x", r.spi), strconv.Itoa(r.seq)
	if r.decrypted && !r.altered {
		want["esp.protocol"] = fmt.Sprintf("0x%02x", r.next())
	}
	if r.decrypted && !r.checked && r.shape.esn && !r.suite.Encryption.Combined() {
		want["esp.icv_good"], want["esp.icv_bad"] = "0", "0" // it is told not to check
	}
	if r.checked {
		want["esp.icv_good"], want["esp.icv_bad"] = "1", "0"
		if r.altered {
			want["esp.icv_good"], want["esp.icv_bad"] = "0", "1"
		}
	}
	return want
}

// next is the protocol number of what was protected.
func (r *tsharkRow) next() int {
	switch {
	case r.shape.mode == esp.Transport:
		return packet.UDP
	case r.shape.inner6:
		return packet.IPv6
	}
	return packet.IPv4
}

// content is what tshark has to say of IP and UDP, outside and inside.
func (r *tsharkRow) content() map[string]string {
	list := map[string][]string{}
	add := func(field, value string) { list[field] = append(list[field], value) }
	ip := func(v6 bool, src4, dst4, src6, dst6 string) {
		if v6 {
			add("ipv6.src", src6)
			add("ipv6.dst", dst6)
			return
		}
		add("ip.src", src4)
		add("ip.dst", dst4)
		add("ip.checksum.status", "1") // good
	}
	udp := func(src, dst, length int, checksum string, payload []byte) {
		add("udp.srcport", strconv.Itoa(src))
		add("udp.dstport", strconv.Itoa(dst))
		add("udp.length", strconv.Itoa(length))
		add("udp.checksum.status", checksum)
		if len(payload) > 0 {
			add("udp.payload", hex.EncodeToString(payload))
		}
	}
	ip(r.shape.outer6, "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")
	if r.shape.udp {
		front, checksum := 20, "3" // there is none: RFC 3948 section 2.1
		if r.shape.outer6 {
			front, checksum = 40, "1"
		}
		udp(4500, 4500, len(r.sealed)-front, checksum, r.sealed[front+8:])
	}
	if r.decrypted {
		if r.shape.mode == esp.Tunnel {
			ip(r.shape.inner6, "10.1.0.5", "10.2.0.9", "2001:db8:a::5", "2001:db8:b::9")
		}
		udp(40000, 7, 8+len(r.payload), "1", r.payload)
	}
	want := map[string]string{}
	for _, field := range tsharkFields {
		if strings.HasPrefix(field, "ip") || strings.HasPrefix(field, "udp") {
			want[field] = strings.Join(list[field], ",")
		}
	}
	return want
}
