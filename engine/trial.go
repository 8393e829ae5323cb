package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ipfw/ipfw/packet"
)

// Trial is a packet that a person wrote down in one line:
//
//	DIRECTION PROTOCOL SOURCE -> DESTINATION [words]
//
// with ports after a colon, or "any" in place of one that is not known, which a
// source may leave out, and an ICMP type after the protocol. Words are
// established, answer, protected [NAME], related RULE, fragment, on IFACE, spi N,
// dscp N, and of TCP the flags that are set, as in syn,ack.
type Trial struct {
	Dir         Direction
	Spec        packet.Spec
	Interface   string
	Established bool // a later packet of a flow this host has let through
	// Answer says that the packet answers, from a neighbour and in time, what this
	// host has asked a multicast group or everybody on the link.
	Answer    bool
	Fragment  bool // a later fragment of the packet
	Protected bool // it came out of an SA
	SA        string
	// RelatedTo is the rule that has let the flow pass which expects this one:
	// what the kernel's connection tracking would know. Empty: it is not expected.
	RelatedTo string
	// AnySource and AnyDestination say that a port is left open; AnyPort stands
	// for it.
	AnySource, AnyDestination bool
	// SawICMPType says that the line named an ICMP type.
	sawICMPType bool
	sawSPI      bool
	sawFlags    bool
}

// ParseTrial reads the line. Its errors say what was expected and where.
func ParseTrial(line string) (Trial, error) {
	words := strings.Fields(line)
	var t Trial
	if err := noDirection(line, words); err != nil {
		return t, err
	}
	if len(words) < 5 {
		return t, fmt.Errorf("%q is not a packet; write one as \"in tcp 203.0.113.9:40000 -> 198.51.100.10:443\"", line)
	}
	switch words[0] {
	case "in":
		t.Dir = In
	case "out":
		t.Dir = Out
	case "forward":
		t.Dir = Forward
	default:
		return t, fmt.Errorf("direction %q: want in, out or forward", words[0])
	}
	proto, ok := packet.ProtocolNumber(words[1])
	if !ok {
		return t, fmt.Errorf("protocol %q: want an IANA name such as tcp, udp, icmp, icmpv6, esp, or a number", words[1])
	}
	t.Spec.Protocol = proto
	rest := words[2:]
	isICMP := proto == packet.ICMP || proto == packet.ICMPv6
	if isICMP && rest[1] != "->" {
		if err := t.parseICMPType(rest[0]); err != nil {
			return t, err
		}
		rest = rest[1:]
	}
	if len(rest) < 3 || rest[1] != "->" {
		return t, fmt.Errorf("%q: want SOURCE -> DESTINATION after the protocol", line)
	}
	var err error
	if t.Spec.Src, t.Spec.SrcPort, t.AnySource, err = parseEnd(rest[0], proto, true); err != nil {
		return t, fmt.Errorf("source %w", err)
	}
	if t.Spec.Dst, t.Spec.DstPort, t.AnyDestination, err = parseEnd(rest[2], proto, false); err != nil {
		return t, fmt.Errorf("destination %w", err)
	}
	if t.Spec.Src.Is4() != t.Spec.Dst.Is4() {
		return t, fmt.Errorf("%s and %s are of different IP versions", t.Spec.Src, t.Spec.Dst)
	}
	if isICMP && (proto == packet.ICMP) != t.Spec.Src.Is4() {
		return t, fmt.Errorf("%s does not run over the IP version of %s", words[1], t.Spec.Src)
	}
	if isICMP && !t.sawICMPType {
		t.Spec.ICMPType = echoRequest
		if proto == packet.ICMPv6 {
			t.Spec.ICMPType = echoRequest6
		}
	}
	if proto == packet.TCP {
		t.Spec.TCPFlags = packet.SYN
	}
	if err := t.parseWords(rest[3:]); err != nil {
		return t, err
	}
	if (proto == packet.ESP || proto == packet.AH) && !t.sawSPI {
		t.Spec.SPI = 0x100 // the lowest that is not reserved, RFC 4303 section 2.1
	}
	if t.Established && t.Spec.Protocol == packet.TCP && !t.sawFlags {
		t.Spec.TCPFlags = packet.ACK
	}
	return t, nil
}

// noDirection is for a line that begins with the protocol or an address: it says what
// is missing, and how the line would be good.
func noDirection(line string, words []string) error {
	if len(words) == 0 || slices.Contains([]string{"in", "out", "forward"}, words[0]) {
		return nil
	}
	if _, ok := packet.ProtocolNumber(words[0]); ok && slices.Contains(words, "->") {
		return fmt.Errorf("%q does not say which way the packet goes: put in, out or forward before the protocol, as in \"in tcp 203.0.113.9:40000 -> 198.51.100.10:443\"", line)
	}
	if slices.Contains(words[:min(2, len(words))], "->") {
		return fmt.Errorf("%q says neither which way the packet goes nor its protocol: put both before the source, as in \"in tcp 203.0.113.9:40000 -> 198.51.100.10:443\"", line)
	}
	return nil
}

// parseICMPType reads a name, a number or "type/code".
func (t *Trial) parseICMPType(w string) error {
	t.sawICMPType = true
	if n, ok := packet.ICMPTypeNumber(t.Spec.Protocol, w); ok {
		t.Spec.ICMPType = n
		return nil
	}
	typ, code, both := strings.Cut(w, "/")
	n, err := strconv.ParseUint(typ, 10, 8)
	if err != nil {
		return fmt.Errorf("icmp type %q: want an IANA name such as echo-request, a number, or type/code", w)
	}
	t.Spec.ICMPType = uint8(n)
	if both {
		c, err := strconv.ParseUint(code, 10, 8)
		if err != nil {
			return fmt.Errorf("icmp code %q: want a number from 0 to 255", code)
		}
		t.Spec.ICMPCode = uint8(c)
	}
	return nil
}

// parseEnd reads an address, with a port where the protocol has ports; bare says
// that the port may be left out. Brackets may stand around an IPv4 address too, so that
// who makes lines out of addresses need not ask which family they are of.
func parseEnd(w string, proto uint8, bare bool) (a netip.Addr, port uint16, open bool, err error) {
	if in, after, ok := strings.Cut(strings.TrimPrefix(w, "["), "]"); ok && w[0] == '[' {
		if a, err := netip.ParseAddr(in); err == nil && a.Is4() {
			w = in + after
		}
	}
	if a, open, err = parseOpenEnd(w, proto, bare); open {
		return a, AnyPort, true, err
	}
	a, port, err = parseClosedEnd(w, proto)
	return a, port, false, err
}

func parseClosedEnd(w string, proto uint8) (netip.Addr, uint16, error) {
	if !hasPorts(proto) {
		a, err := netip.ParseAddr(strings.Trim(w, "[]"))
		if err != nil {
			if _, perr := netip.ParseAddrPort(w); perr == nil {
				return a, 0, fmt.Errorf("%q: protocol %s has no ports", w, packet.ProtocolName(proto))
			}
			return a, 0, fmt.Errorf("%q: want an IP address", w)
		}
		return plainAddr(a, w)
	}
	if ap, err := netip.ParseAddrPort(w); err == nil {
		a, _, err := plainAddr(ap.Addr(), w)
		return a, ap.Port(), err
	}
	host, name, ok := cutPort(w)
	if !ok {
		return netip.Addr{}, 0, fmt.Errorf("%q: want ADDRESS:PORT, an IPv6 address in brackets; any stands for a port that is not known", w)
	}
	port, ok := packet.ServicePort(name)
	if !ok {
		return netip.Addr{}, 0, fmt.Errorf("%q: port %q is neither a number up to 65535, nor an IANA service name, nor any", w, name)
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("%q: want an IP address before the port", w)
	}
	a, _, err = plainAddr(a, w)
	return a, port, err
}

func cutPort(w string) (host, port string, ok bool) {
	i := strings.LastIndexByte(w, ':')
	if i < 0 || strings.Count(w, ":") > 1 && !strings.HasSuffix(w[:i], "]") {
		return "", "", false
	}
	return w[:i], w[i+1:], true
}

func plainAddr(a netip.Addr, w string) (netip.Addr, uint16, error) {
	if a.Zone() != "" {
		return a, 0, fmt.Errorf("%q: write the interface as \"on %s\", not as a zone", w, a.Zone())
	}
	if a.Is4In6() {
		return a, 0, fmt.Errorf("%q: write it as the IPv4 address %s", w, a.Unmap())
	}
	return a, 0, nil
}

// parseWords reads what follows the destination.
func (t *Trial) parseWords(words []string) error {
	next := func(i int, what string) (string, error) {
		if i+1 >= len(words) {
			return "", fmt.Errorf("%q must be followed by %s", words[i], what)
		}
		return words[i+1], nil
	}
	for i := 0; i < len(words); i++ {
		switch w := words[i]; w {
		case "established":
			t.Established = true
		case "answer":
			t.Answer = true
		case "fragment":
			t.Fragment = true
		case "protected":
			t.Protected = true
			if i+1 < len(words) && !isTrialWord(words[i+1]) {
				i++
				t.SA = words[i]
			}
		case "related":
			v, err := next(i, "the name of a rule")
			if err != nil {
				return err
			}
			for i += 2; i < len(words) && !isTrialWord(words[i]); i++ { // a name may have spaces
				v += " " + words[i]
			}
			t.RelatedTo = v
			i--
		case "on":
			v, err := next(i, "an interface name")
			if err != nil {
				return err
			}
			t.Interface = v
			i++
		case "spi", "dscp":
			v, err := next(i, "a number")
			if err != nil {
				return err
			}
			n, err := strconv.ParseUint(v, 0, 32)
			if err != nil || w == "dscp" && n > 63 {
				return fmt.Errorf("%s %q: want a number", w, v)
			}
			if w == "spi" {
				t.Spec.SPI, t.sawSPI = uint32(n), true
			} else {
				t.Spec.TOS = uint8(n) << 2
			}
			i++
		default:
			flags, ok := parseFlags(w)
			if !ok {
				return fmt.Errorf("word %q: want established, answer, protected [NAME], related RULE, fragment, on IFACE, spi N, dscp N, or of tcp the flags, as in syn,ack", w)
			}
			if t.Spec.Protocol != packet.TCP {
				return fmt.Errorf("%q is for tcp", w)
			}
			if !t.sawFlags {
				t.Spec.TCPFlags, t.sawFlags = 0, true
			}
			t.Spec.TCPFlags |= flags
		}
	}
	if t.sawSPI && t.Spec.Protocol != packet.ESP && t.Spec.Protocol != packet.AH {
		return errors.New("\"spi\" is for esp and ah")
	}
	if t.Answer && (t.Dir != In || t.Spec.Protocol != packet.UDP || t.Protected) {
		return errors.New("\"answer\" is for udp packets that come in, in the clear: they answer what this host has asked a multicast group or everybody on the link")
	}
	if t.Protected && t.Dir == Out {
		return errors.New("\"protected\" is for packets that come in")
	}
	return nil
}

// isTrialWord says whether a word after the destination has a meaning of its own.
func isTrialWord(w string) bool {
	switch w {
	case "established", "answer", "fragment", "protected", "related", "on", "spi", "dscp":
		return true
	}
	_, ok := parseFlags(w)
	return ok
}

// parseFlags reads names of flags (RFC 9293 section 3.1) with commas between. fin
// alone has ACK set too, as every segment has after the first.
func parseFlags(w string) (flags uint8, ok bool) {
	if w == "fin" {
		return packet.FIN | packet.ACK, true
	}
	for name := range strings.SplitSeq(w, ",") {
		switch name {
		case "fin":
			flags |= packet.FIN
		case "syn":
			flags |= packet.SYN
		case "rst":
			flags |= packet.RST
		case "psh":
			flags |= packet.PSH
		case "ack":
			flags |= packet.ACK
		case "urg":
			flags |= packet.URG
		case "ece":
			flags |= packet.ECE
		case "cwr":
			flags |= packet.CWR
		default:
			return 0, false
		}
	}
	return flags, true
}
