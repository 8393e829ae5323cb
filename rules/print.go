package rules

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
	"github.com/zclconf/go-cty/cty"
)

// Print writes the whole policy as it is evaluated: locals resolved, ipfw's
// own rules included (and therefore essentials = false), defaults spelled out,
// paths absolute, secrets in their files. Load reads it back to a policy that
// prints the same bytes.
func (p *Policy) Print() []byte {
	w := &writer{}
	d := p.Engine.Default
	s := p.Settings
	w.open("policy")
	w.text("inbound", d[engine.In].String())
	w.text("outbound", d[engine.Out].String())
	w.text("forward", d[engine.Forward].String())
	w.raw("essentials", "false")
	w.text("on_failure", pick(s.FailOpen, "open", "closed"))
	w.text("offload", pick(s.Offload, "flow", "none"))
	w.text("clear_icmp_errors", pick(p.Engine.ClearErrors, "bypass", "discard"))
	w.text("half_open", pick(p.Engine.HalfOpen, "bypass", "discard"))
	w.raw("queue", strconv.Itoa(int(s.Queue)))
	w.raw("queues", strconv.Itoa(int(s.Queues)))
	w.text("mark_mask", fmt.Sprintf("0x%08x", s.MarkMask))
	w.text("log", s.Log.String())
	w.raw("log_rate", strconv.FormatUint(uint64(s.LogRate), 10))
	w.timeouts(p.Engine.Timeouts)
	w.close()
	for i := range p.rules {
		w.rule(&p.rules[i], p.Engine.HalfOpen)
	}
	for i := range p.IPsec {
		w.ipsec(&p.IPsec[i])
	}
	for i := range p.IKE {
		w.ike(&p.IKE[i])
	}
	for i := range p.Tests {
		w.test(&p.Tests[i])
	}
	return hclwrite.Format(bytes.TrimLeft(w.buf.Bytes(), "\n"))
}

// timeouts writes what a policy says of them, if it says anything.
func (w *writer) timeouts(t engine.Timeouts) {
	if t == (engine.Timeouts{}) {
		return
	}
	w.open("timeouts")
	for _, a := range timeoutArgs(&t) {
		if *a.at > 0 {
			w.text(a.name, formatDuration(*a.at))
		}
	}
	w.close()
}

func pick(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

// writer writes blocks; hclwrite.Format aligns them afterwards.
type writer struct {
	buf   bytes.Buffer
	depth int
}

// quote writes text as an HCL string.
func quote(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }

func (w *writer) open(kind string, labels ...string) {
	if w.depth == 0 {
		w.buf.WriteByte('\n')
	}
	w.buf.WriteString(kind)
	for _, l := range labels {
		w.buf.WriteString(" " + quote(l))
	}
	w.buf.WriteString(" {\n")
	w.depth++
}

func (w *writer) close() {
	w.buf.WriteString("}\n")
	w.depth--
}

func (w *writer) raw(arg, value string) { w.buf.WriteString(arg + " = " + value + "\n") }

func (w *writer) text(arg, value string) {
	if value != "" {
		w.raw(arg, quote(value))
	}
}

func (w *writer) flag(arg string, value bool) {
	if value {
		w.raw(arg, "true")
	}
}

// list writes values that are HCL already: one alone, several in brackets.
func (w *writer) list(arg string, values []string) {
	switch len(values) {
	case 0:
	case 1:
		w.raw(arg, values[0])
	default:
		w.raw(arg, "["+strings.Join(values, ", ")+"]")
	}
}

func (w *writer) texts(arg string, values []string) { w.list(arg, each(values, quote)) }

func each[T any](list []T, f func(T) string) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = f(v)
	}
	return out
}

func (w *writer) rule(r *rule, halfOpen bool) {
	w.open("rule", r.Name)
	w.text("description", r.Description)
	if r.disabled {
		w.raw("enabled", "false")
	}
	w.flag("essential", r.Essential)
	w.text("action", r.Action.String())
	w.text("with", r.With)
	w.text("direction", sideWord(r.Rule))
	if r.OpenedBy != engine.OpenedByEither {
		w.text("opened_by", openerWords[r.OpenedBy])
	}
	values := map[string][]string{
		"protocol":       each(r.Protocols, func(n uint8) string { return numberOr(packet.ProtocolName(n)) }),
		"local_address":  r.addressWords("local_address", r.Local),
		"remote_address": r.addressWords("remote_address", r.Remote),
		"local_port":     each(r.LocalPorts, formatPorts),
		"remote_port":    each(r.RemotePorts, formatPorts),
		"interface":      each(r.Interfaces, quote),
		"icmp_type":      formatICMP(r.Selector),
		"dscp":           each(r.DSCP, func(n uint8) string { return numberOr(dscpName(n)) }),
		"related_to":     each(r.RelatedTo, quote),
	}
	for _, arg := range selectors {
		if contains(r.empty, arg) && len(values[arg]) == 0 {
			w.raw(arg, "[]")
		}
		w.list(arg, values[arg])
	}
	if r.HalfOpen || halfOpen && r.Action == engine.Bypass { // as far as it is not what the policy block says
		if r.HalfOpen != halfOpen {
			w.text("half_open", pick(r.HalfOpen, "bypass", "discard"))
		}
	}
	if r.AnswersMulticast > 0 {
		w.text("answers_multicast", formatDuration(r.AnswersMulticast))
	}
	w.flag("reject", r.Reject)
	w.flag("log", r.Log)
	w.flag("audit", r.Audit)
	if lim := r.Limit; lim != nil {
		w.open("limit")
		w.text("rate", formatRate(lim.Events, lim.Per))
		w.raw("burst", strconv.FormatUint(uint64(lim.Burst), 10))
		var per []string
		if lim.ByRemote {
			per = append(per, "remote_address")
		}
		if lim.ByLocal {
			per = append(per, "local_address")
		}
		w.texts("per", per)
		w.close()
	}
	w.close()
}

// addressWords gives the elements of an address selector, the files it names as
// such: a reload reads them again.
func (r *rule) addressWords(arg string, list []engine.AddrRange) (words []string) {
	var files []string
	if from := r.addresses[arg]; from != nil {
		list = from.written
		for _, f := range from.files {
			files = append(files, f.path)
		}
	}
	for _, a := range list {
		words = append(words, quote(a.String()))
	}
	for _, path := range files {
		words = append(words, "file("+quote(path)+")")
	}
	return words
}

// numberOr writes a name in quotes and a number without.
func numberOr(s string) string {
	if _, err := strconv.Atoi(s); err == nil {
		return s
	}
	return quote(s)
}

func formatPorts(p engine.PortRange) string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf(`"%d-%d"`, p.First, p.Last)
}

// formatICMP writes ICMP types by name where there is one. In a rule for both
// protocols there always is, and it stands for both: it is written once.
func formatICMP(s engine.Selector) []string {
	var out []string
	for _, t := range s.ICMP {
		name := packet.ICMPTypeName(t.Protocol, t.Type)
		if t.Code >= 0 {
			name += "/" + strconv.Itoa(int(t.Code))
		}
		if v := numberOr(name); !contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

func (w *writer) ipsec(s *IPsec) {
	w.open("ipsec", s.Name)
	w.text("mode", pick(s.Tunnel, "tunnel", "transport"))
	w.text("protocol", pick(s.AH, "ah", "esp"))
	w.text("ike", s.IKE)
	w.addr("local_endpoint", s.LocalEndpoint)
	w.addr("remote_endpoint", s.RemoteEndpoint)
	w.text("encapsulation", s.Encap.String())
	w.texts("encryption", s.Encryption)
	w.texts("integrity", s.Integrity)
	w.texts("key_exchange", s.KeyExchange)
	w.raw("replay_window", strconv.Itoa(s.ReplayWindow))
	w.raw("esn", strconv.FormatBool(s.ESN))
	if s.Lifetime > 0 {
		w.text("lifetime", formatDuration(s.Lifetime))
	}
	if s.LifetimeBytes > 0 {
		w.text("lifetime_bytes", formatSize(s.LifetimeBytes))
	}
	if s.LifetimePackets > 0 {
		w.raw("lifetime_packets", strconv.FormatUint(s.LifetimePackets, 10))
	}
	if s.TFC > 0 {
		w.raw("tfc_padding", strconv.Itoa(s.TFC))
	}
	if s.Dummies > 0 {
		w.text("dummy_packets", formatRate(s.Dummies, s.DummiesPer))
	}
	if s.Tunnel {
		w.outer(&s.Outer)
	}
	if m := s.Manual; m != nil {
		w.open("manual")
		w.text("spi_in", fmt.Sprintf("0x%x", m.SPIIn))
		w.text("spi_out", fmt.Sprintf("0x%x", m.SPIOut))
		w.text("encryption", m.Encryption)
		w.text("integrity", m.Integrity)
		w.text("key_file", m.KeyFile)
		w.close()
	}
	w.close()
}

func (w *writer) outer(o *esp.Outer) {
	w.open("outer")
	w.text("df", dfWords[o.DF])
	if o.SetDSCP {
		w.raw("dscp", numberOr(dscpName(o.DSCP)))
	} else {
		w.text("dscp", "copy")
	}
	w.raw("ecn", strconv.FormatBool(!o.NoECN))
	if o.TTL > 0 {
		w.raw("ttl", strconv.Itoa(int(o.TTL)))
	}
	w.flag("copy_flow_label", o.CopyFlowLabel)
	w.close()
}

func (w *writer) addr(arg string, a netip.Addr) {
	if a.IsValid() {
		w.text(arg, a.String())
	}
}

func (w *writer) ike(i *IKE) {
	w.open("ike", i.Name)
	w.addr("local_endpoint", i.LocalEndpoint)
	w.texts("remote_endpoint", each(i.Remote, func(e Endpoint) string {
		if e.Name != "" {
			return e.Name
		}
		return e.Range.String()
	}))
	w.text("local_id", i.LocalID)
	w.text("remote_id", i.RemoteID)
	w.text("certificate", i.Certificate)
	w.text("public_keys", i.PublicKeys)
	w.text("private_key", i.PrivateKey)
	w.text("ca", i.CA)
	w.text("crl", i.CRL)
	if i.EAP {
		w.text("remote_auth", remoteAuths[1])
	}
	w.text("psk_file", i.PSKFile)
	w.text("ppk_file", i.PPKFile)
	w.text("ppk_id", i.PPKID)
	w.flag("ppk_required", i.PPKRequired)
	w.texts("pool", each(i.Pool, netip.Prefix.String))
	w.texts("dns", each(i.DNS, netip.Addr.String))
	w.texts("dns_domains", i.DNSDomains)
	w.flag("request_address", i.RequestAddress)
	w.raw("mobike", strconv.FormatBool(i.MOBIKE))
	w.text("full_transcript_auth", i.FullTranscript.String())
	w.raw("max_sas_per_identity", strconv.Itoa(i.MaxSAsPerIdentity))
	w.texts("encryption", i.Encryption)
	w.texts("integrity", i.Integrity)
	w.texts("prf", i.PRF)
	w.texts("key_exchange", i.KeyExchange)
	if i.Lifetime > 0 {
		w.text("lifetime", formatDuration(i.Lifetime))
	}
	if i.DeadPeerDetection > 0 {
		w.text("dead_peer_detection", formatDuration(i.DeadPeerDetection))
	}
	if i.RetransmitTimeout > 0 {
		w.text("retransmit_timeout", formatDuration(i.RetransmitTimeout))
	}
	if i.RetransmitBase > 0 {
		w.raw("retransmit_base", formatNumber(i.RetransmitBase))
	}
	if i.RetransmitTries > 0 {
		w.raw("retransmit_tries", strconv.Itoa(i.RetransmitTries))
	}
	w.text("initiate", i.Initiate.String())
	w.close()
}

func (w *writer) test(t *Test) {
	w.open("test", t.Name)
	for _, e := range t.Expects {
		w.open("expect", e.Verdict.String())
		if len(e.Packets) == 1 {
			w.text("packet", e.Packets[0])
		} else {
			w.texts("packets", e.Packets)
		}
		w.text("rule", e.Rule)
		w.close()
	}
	w.close()
}
