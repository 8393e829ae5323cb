package rules

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// selectors are the arguments that make up an engine.Selector, in the order in
// which they are printed.
var selectors = []string{"protocol", "local_address", "local_port", "remote_address", "remote_port", "interface", "icmp_type", "dscp", "related_to"}

// selector reads the selectors of a rule. empty names those that are an empty
// list: nothing can match them. from says how the addresses were written.
func (k block) selector() (s engine.Selector, empty []string, from map[string]*addressArgument) {
	ok := true
	from = map[string]*addressArgument{"local_address": {}, "remote_address": {}}
	each := func(arg string, take func(item) bool) {
		items, set, good := k.list(arg)
		ok = ok && good
		if !set || len(items) == 1 && isText(items[0], "any") && arg != "interface" && arg != "dscp" && arg != "related_to" {
			return
		}
		if len(items) == 0 && good {
			empty = append(empty, arg)
		}
		for _, it := range items {
			ok = take(it) && ok
		}
	}
	each("protocol", into(k, &s.Protocols, parseProtocol))
	each("local_address", k.addresses(from["local_address"]))
	each("local_port", into(k, &s.LocalPorts, parsePorts))
	each("remote_address", k.addresses(from["remote_address"]))
	each("remote_port", into(k, &s.RemotePorts, parsePorts))
	each("interface", into(k, &s.Interfaces, parseInterface))
	each("dscp", into(k, &s.DSCP, parseDSCP))
	each("related_to", into(k, &s.RelatedTo, k.parseRelated))
	s.Local, s.Remote = from["local_address"].all(), from["remote_address"].all()
	for _, arg := range keys(from) {
		if from[arg].nothing() {
			empty = append(empty, arg)
		}
	}
	protocolsRead := ok || len(s.Protocols) > 0
	each("icmp_type", func(it item) bool {
		if !protocolsRead || !k.icmpProtocols(s) {
			return false
		}
		return k.icmp(it, &s)
	})
	if ok {
		k.checkPorts(s)
	}
	if k.has("icmp_type") && !k.icmpProtocols(s) {
		k.l.fail(k.at("icmp_type"), "Selectors do not fit", `icmp_type needs protocol = "icmp" or "icmpv6" (or both), and no other.`)
	}
	return s, empty, from
}

// into gives what parses one element and appends it to the list, if that does not
// hold it yet.
func into[T comparable](k block, list *[]T, parse func(string) (T, error)) func(item) bool {
	have := map[T]bool{}
	for _, v := range *list {
		have[v] = true
	}
	return func(it item) bool {
		s, isText := asText(it.v)
		if !isText {
			what := "true or false"
			if it.v.Type() == addressListType {
				what = "a list of addresses"
			}
			k.l.fail(it.r, "Wrong value", "A number or text is wanted here, not %s.", what)
			return false
		}
		v, err := parse(strings.TrimSpace(s))
		if err != nil {
			k.l.fail(it.r, "Wrong value", "%s.", upperFirst(err.Error()))
			return false
		}
		if !have[v] {
			have[v] = true
			*list = append(*list, v)
		}
		return true
	}
}

func isText(it item, s string) bool {
	t, ok := it.text()
	return ok && t == s
}

// checkPorts reports ports beside protocols that have none.
func (k block) checkPorts(s engine.Selector) {
	for _, arg := range []string{"local_port", "remote_port"} {
		if !k.has(arg) {
			continue
		}
		if len(s.Protocols) == 0 && (arg == "local_port" && s.LocalPorts != nil || arg == "remote_port" && s.RemotePorts != nil) {
			k.l.missing(k.at(arg), "Selectors do not fit", `%s needs a protocol that has ports: protocol = "tcp", "udp", "sctp" or "udplite", or a list of them.`, arg)
			continue
		}
		for _, p := range s.Protocols {
			if !hasPorts(p) {
				k.l.fail(k.at(arg), "Selectors do not fit", "%s does not go with protocol %q, which has no ports: write a rule of its own for it.", arg, packet.ProtocolName(p))
				break
			}
		}
	}
}

func hasPorts(p uint8) bool {
	return p == packet.TCP || p == packet.UDP || p == packet.SCTP || p == packet.UDPLite
}

func isICMP(p uint8) bool { return p == packet.ICMP || p == packet.ICMPv6 }

// icmpProtocols reports whether the rule speaks of ICMP or ICMPv6 and nothing else.
func (k block) icmpProtocols(s engine.Selector) bool {
	for _, p := range s.Protocols {
		if !isICMP(p) {
			return false
		}
	}
	return len(s.Protocols) > 0
}

// parseProtocol reads an IANA protocol name or number.
func parseProtocol(s string) (uint8, error) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		return uint8(n), nil
	}
	if n, ok := packet.ProtocolNumber(strings.ToLower(s)); ok {
		return n, nil
	}
	names := []string{"icmpv6"}
	for n := range 256 {
		names = append(names, packet.ProtocolName(uint8(n)))
	}
	return 0, fmt.Errorf("there is no protocol %q: it is an IANA name or a number from 0 to 255%s", s, didYouMean(s, named(names)))
}

// named leaves out the names that are only numbers.
func named(list []string) []string {
	var out []string
	for _, s := range list {
		if strings.Trim(s, "0123456789") != "" {
			out = append(out, s)
		}
	}
	return out
}

// parseAddrRange reads an address, a CIDR block or a range "a-b".
func parseAddrRange(s string) (engine.AddrRange, error) {
	if from, to, ok := strings.Cut(s, "-"); ok {
		a, err1 := parseAddr(strings.TrimSpace(from))
		b, err2 := parseAddr(strings.TrimSpace(to))
		if err1 != nil && err2 != nil {
			_, err1 = parseAddr(s) // a word with a dash
		}
		if err := cmp.Or(err1, err2); err != nil {
			return engine.AddrRange{}, err
		}
		if a.Is4() != b.Is4() {
			return engine.AddrRange{}, fmt.Errorf("the range %q goes from IPv4 to IPv6: both ends are of one family", s)
		}
		if b.Less(a) {
			return engine.AddrRange{}, fmt.Errorf("the range %q goes backwards: write \"%s-%s\"", s, b, a)
		}
		return engine.AddrRange{First: a, Last: b}, nil
	}
	if strings.Contains(s, "/") {
		p, err := parsePrefix(s)
		return engine.AddrRange{First: p.Addr(), Last: lastAddr(p)}, err
	}
	a, err := parseAddr(s)
	return engine.AddrRange{First: a, Last: a}, err
}

func parseAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil && isHostName(s):
		return a, fmt.Errorf("%q is a name, and names are not looked up: write its addresses, as in 192.0.2.1 or 2001:db8::/32", s)
	case err != nil:
		return a, fmt.Errorf("%q is not an address: write 192.0.2.1, 2001:db8::1, 192.0.2.0/24 or 192.0.2.1-192.0.2.9", s)
	case a.Zone() != "":
		return a, fmt.Errorf("%q names a zone: write the address without it, and the interface as interface = %q", s, a.Zone())
	case a.Is4In6():
		return a, fmt.Errorf("%q is an IPv4 address in IPv6 clothes, which no packet carries: write %s", s, a.Unmap())
	}
	return a, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		host, bits, _ := strings.Cut(s, "/")
		if _, aerr := parseAddr(host); aerr != nil {
			return p, aerr
		}
		return p, fmt.Errorf("%q has a wrong prefix length %q: it is from 0 to 32 for IPv4 and from 0 to 128 for IPv6", s, bits)
	}
	if _, err := parseAddr(p.Addr().String()); err != nil {
		return p, err
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%q has bits behind the prefix length: write %s for the network or %s for the one address", s, p.Masked(), p.Addr())
	}
	return p, nil
}

// lastAddr gives the highest address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32)
	return err == nil
}

// parsePorts reads a port, a range "8000-8099" or an IANA service name.
func parsePorts(s string) (engine.PortRange, error) {
	from, to, isRange := strings.Cut(s, "-")
	if a, err := strconv.ParseUint(strings.TrimSpace(from), 10, 32); err == nil {
		b := a
		if isRange {
			if b, err = strconv.ParseUint(strings.TrimSpace(to), 10, 32); err != nil {
				return engine.PortRange{}, fmt.Errorf("%q is not a range of ports: write \"8000-8099\"", s)
			}
		}
		switch {
		case a > 65535 || b > 65535:
			return engine.PortRange{}, fmt.Errorf("there is no port %d: ports go from 0 to 65535", max(a, b))
		case b < a:
			return engine.PortRange{}, fmt.Errorf("the range %q goes backwards: write \"%d-%d\"", s, b, a)
		}
		return engine.PortRange{First: uint16(a), Last: uint16(b)}, nil
	}
	if p, ok := packet.ServicePort(strings.ToLower(s)); ok {
		return engine.PortRange{First: p, Last: p}, nil
	}
	if first, last, ok := strings.Cut(s, ":"); ok && isNumber(first) && isNumber(last) { // as iptables and ufw write it
		return engine.PortRange{}, fmt.Errorf("%q is not a range of ports: write \"%s-%s\"", s, first, last)
	}
	if strings.Contains(s, ",") {
		return engine.PortRange{}, fmt.Errorf("%q is not a port: write several as a list, as in [80, 443]", s)
	}
	if below, ok := strings.CutPrefix(s, "-"); ok && isNumber(below) {
		return engine.PortRange{}, fmt.Errorf("there is no port %s: ports go from 0 to 65535", s)
	}
	if strings.HasPrefix(s, "-") || strings.Contains(s, ":") {
		return engine.PortRange{}, fmt.Errorf("%q is not a port: write a number, \"8000-8099\" or an IANA service name", s)
	}
	return engine.PortRange{}, fmt.Errorf("there is no service %q: a port is a number, \"8000-8099\" or an IANA service name%s", s, didYouMean(s, serviceNames()))
}

// serviceNames gives every service name there is, for suggestions.
var serviceNames = sync.OnceValue(func() []string {
	seen := map[string]bool{}
	for _, proto := range []uint8{packet.TCP, packet.UDP} {
		for p := range 65536 {
			seen[packet.ServiceName(uint16(p), proto)] = true
		}
	}
	delete(seen, "")
	return named(keys(seen))
})

// parseInterface reads an interface name or a pattern "wg*".
func parseInterface(s string) (string, error) {
	stem := strings.TrimSuffix(s, "*")
	switch {
	case s == "":
		return "", errors.New("an interface has a name")
	case strings.Contains(stem, "*") || strings.ContainsAny(stem, "?["):
		return "", fmt.Errorf("%q is not a pattern that interface takes: a star may stand at the end only, as in \"wg*\"", s)
	case strings.ContainsAny(stem, "/: \t\n") || stem == "." || stem == "..":
		return "", fmt.Errorf("%q cannot be the name of an interface", s)
	case len(stem) > 15:
		return "", fmt.Errorf("%q is too long for an interface: Linux allows 15 characters", s)
	}
	return s, nil
}

// dscpNames are the code points with a name. RFC 2474 (CS), RFC 2597 (AF),
// RFC 3246 (EF), RFC 5865 (VOICE-ADMIT), RFC 8622 (LE).
var dscpNames = func() map[string]uint8 {
	m := map[string]uint8{"default": 0, "le": 1, "voice-admit": 44, "ef": 46}
	for class := range uint8(8) {
		m[fmt.Sprintf("cs%d", class)] = class << 3
	}
	for class := uint8(1); class <= 4; class++ {
		for drop := uint8(1); drop <= 3; drop++ {
			m[fmt.Sprintf("af%d%d", class, drop)] = class<<3 | drop<<1
		}
	}
	return m
}()

// parseDSCP reads a code point by name or number.
func parseDSCP(s string) (uint8, error) {
	if n, err := strconv.ParseUint(s, 0, 8); err == nil && n < 64 {
		return uint8(n), nil
	}
	if n, ok := dscpNames[strings.ToLower(s)]; ok {
		return n, nil
	}
	return 0, fmt.Errorf("there is no DSCP %q: it is a number from 0 to 63, or a name such as cs1, af21 or ef%s", s, didYouMean(s, keys(dscpNames)))
}

// dscpName gives the name of a code point, or its number.
func dscpName(n uint8) string {
	for _, name := range keys(dscpNames) {
		if dscpNames[name] == n && name != "default" {
			return name
		}
	}
	return strconv.Itoa(int(n))
}

// icmp reads one icmp_type: a name, a number, or either with "/code". With
// both ICMP and ICMPv6 in the rule, only names that say the same in both are
// clear, and they stand for both.
func (k block) icmp(it item, s *engine.Selector) bool {
	text, _ := asText(it.v)
	typ, codeText, hasCode := strings.Cut(strings.TrimSpace(text), "/")
	code := int16(-1)
	if hasCode {
		n, err := strconv.ParseUint(codeText, 10, 8)
		if err != nil {
			k.l.fail(it.r, "Wrong value", "%q has a wrong code: a code is a number from 0 to 255, as in \"destination-unreachable/4\".", text)
			return false
		}
		code = int16(n)
	}
	if n, err := strconv.ParseUint(typ, 10, 8); err == nil {
		if len(s.Protocols) > 1 {
			k.l.fail(it.r, "Wrong value", "Type %s means one thing in ICMP and another in ICMPv6: write the name, or one rule for each protocol.", typ)
			return false
		}
		addICMP(s, engine.ICMPSel{Protocol: s.Protocols[0], Type: uint8(n), Code: code})
		return true
	}
	found := icmpByName(s.Protocols, strings.ToLower(typ))
	if len(found) == 0 {
		var names []string
		for _, p := range s.Protocols {
			for n := range 256 {
				names = append(names, packet.ICMPTypeName(p, uint8(n)))
			}
		}
		names = named(names)
		sort.Strings(names)
		k.l.fail(it.r, "Wrong value", "There is no %s type %q%s.", icmpWord(s.Protocols), typ, didYouMean(typ, names))
		return false
	}
	for _, f := range found {
		f.Code = code
		addICMP(s, f)
	}
	return true
}

// icmpByName gives the types of that name. What one protocol calls by an
// alias, and the other knows by the proper name only, is found in both.
func icmpByName(protocols []uint8, name string) (out []engine.ICMPSel) {
	names := []string{name}
	for i := 0; i < len(names); i++ {
		for _, p := range protocols {
			t, ok := packet.ICMPTypeNumber(p, names[i])
			if !ok {
				continue
			}
			sel := engine.ICMPSel{Protocol: p, Type: t, Code: -1}
			if !containsICMP(out, sel) {
				out = append(out, sel)
			}
			if n := packet.ICMPTypeName(p, t); !contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return out
}

func icmpWord(protocols []uint8) string {
	if len(protocols) > 1 {
		return "ICMP or ICMPv6"
	}
	if protocols[0] == packet.ICMPv6 {
		return "ICMPv6"
	}
	return "ICMP"
}

func containsICMP(list []engine.ICMPSel, s engine.ICMPSel) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func addICMP(s *engine.Selector, sel engine.ICMPSel) {
	if !containsICMP(s.ICMP, sel) {
		s.ICMP = append(s.ICMP, sel)
	}
}
