package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/host"
	"github.com/ipfw/ipfw/rules"
)

// The second half of the demo: one flow under IPsec.
//
//	     network namespace "client"           network namespace "server"
//	+---------------------------------+   +---------------------------------+
//	| a host with keys    10.0.0.7    |   |  10.0.0.2                       |
//	| one without         10.0.0.8    +---+  HTTP on 445, as an SMB server  |
//	| ipfw run -c client.hcl          |   |  ipfw run -c server.hcl         |
//	+---------------------------------+ * +---------------------------------+
//	                                    * every frame is caught here
//
// Each host has a key pair and the other's public key, made for this one run;
// they agree on keys by IKE when the first packet needs them, and it waits.
var (
	filesAddr  = netip.MustParseAddr("10.0.0.2")
	keyedAddr  = netip.MustParseAddr("10.0.0.7")
	barredAddr = netip.MustParseAddr("10.0.0.8")
)

const (
	filesPort = 445
	filesPath = "/payroll.txt"
)

// sealedPolicy protects one port. Both hosts have it, each from its side.
const sealedPolicy = `policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "smb" {
  action         = "protect"
  with           = "lan"
  direction      = "%s"
  protocol       = "tcp"
  %s
}

ipsec "lan" {
  mode          = "transport"
  ike           = "lan"
  encryption    = "aes-256-gcm-16"
  encapsulation = "none" # ESP itself on the cable, for all to see; two ipfw hosts would put it in UDP
}

ike "lan" {
  remote_endpoint = "%s"
  local_id        = "%s"
  private_key     = "%s.key"
  public_keys     = "peers/"
}
`

// sealedFlow is one request under IPsec and what everybody says about it; and
// what became of packets that imitate it.
type sealedFlow struct {
	From string `json:"from"` // address
	To   string `json:"to"`   // address and port

	// Expected is the verdict of the client's policy in a dry run, and the others by
	// what.
	Expected string `json:"expected"`
	Rule     string `json:"rule"`
	Place    string `json:"place"`
	Mode     string `json:"mode"`
	Suite    string `json:"suite"`

	// Through and Answer are what the network says, Took after how long.
	Through bool    `json:"through"`
	Answer  string  `json:"answer"`
	Took    float64 `json:"took_seconds"`

	// Clear is the request as the client wrote it, Wire the ESP packet that
	// carried it over the cable, from its SPI on; in hexadecimal.
	Clear    hexBytes `json:"clear"`
	Wire     hexBytes `json:"wire"`
	SPI      uint32   `json:"spi"`
	Sequence uint32   `json:"sequence"`

	// ESPPackets crossed the cable under the two SAs, and ClearPackets
	// between the two hosts without one.
	ESPPackets   uint64 `json:"esp_packets"`
	ClearPackets uint64 `json:"clear_packets"`
	// ClientSealed and those below are what the two daemons counted for it.
	ClientSealed uint64 `json:"client_sealed"`
	ClientOpened uint64 `json:"client_opened"`
	ServerSealed uint64 `json:"server_sealed"`
	ServerOpened uint64 `json:"server_opened"`

	// Refused are packets that imitate the flow.
	Refused []*refusal `json:"refused"`

	// Disagree says where dry run, cable and counters differ; empty: they
	// agree.
	Disagree []string `json:"disagree,omitempty"`

	// IKEPackets are those by which the hosts agreed on the keys.
	IKEPackets uint64 `json:"ike_packets"`

	client, server *rules.Policy
	keys           esp.Config // of the SA to the server; wiped by look
	frame          frame      // that carried the request
}

// refusal is something that must not get through.
type refusal struct {
	What    string  `json:"what"`
	Reason  string  `json:"reason"` // for which it has to be discarded
	Through bool    `json:"through"`
	Answer  string  `json:"answer"`
	Took    float64 `json:"took_seconds,omitempty"`
	// Packets is how many were sent, and Counted how many the daemon has
	// discarded for that reason meanwhile.
	Packets uint64 `json:"packets"`
	Counted uint64 `json:"counted"`
}

// hexBytes are bytes that JSON shows in hexadecimal.
type hexBytes []byte

// MarshalText gives two digits for each byte.
func (h hexBytes) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", []byte(h)), nil }

// newSealedFlow writes keys and policies for both hosts and asks the dry run.
func newSealedFlow(dir string) (*sealedFlow, error) {
	f := &sealedFlow{From: keyedAddr.String(), To: netip.AddrPortFrom(filesAddr, filesPort).String()}
	public := map[string][]byte{}
	for _, side := range []struct {
		policy                **rules.Policy
		name, dir, rule, peer string
	}{
		{&f.client, "client", "out", fmt.Sprintf("local_address  = %q\n  remote_address = %q\n  remote_port    = %d", keyedAddr, filesAddr, filesPort), filesAddr.String()},
		{&f.server, "server", "in", fmt.Sprintf("remote_address = %q\n  local_port     = %d", "10.0.0.0/24", filesPort), "10.0.0.0/24"},
	} {
		home := filepath.Join(dir, side.name)
		key, err := rawKey(home, side.name, "ed25519")
		if err != nil {
			return nil, err
		}
		public[side.name] = key
		policy := fmt.Sprintf(sealedPolicy, side.dir, side.rule, side.peer, side.name, side.name)
		path := filepath.Join(home, side.name+".hcl")
		if err := os.WriteFile(path, []byte(policy), 0o600); err != nil {
			return nil, err
		}
		p, diags := rules.Load([]string{path}, rules.LoadOptions{CheckFiles: true})
		if p == nil || diags.HasErrors() {
			return nil, fmt.Errorf("the demo's own policy: %w", diags.Err())
		}
		*side.policy = p
	}
	for name, other := range map[string]string{"client": "server", "server": "client"} {
		if err := os.WriteFile(filepath.Join(dir, name, "peers", other+".pub"), public[other], 0o644); err != nil {
			return nil, err
		}
	}
	return f, f.dryRun()
}

// dryRun asks both policies about the request, and the server's about a packet
// in the clear.
func (f *sealedFlow) dryRun() error {
	var first error
	ask := func(p *rules.Policy, line string) engine.Outcome {
		var o engine.Outcome
		t, err := engine.ParseTrial(line)
		if err == nil {
			o, err = t.Run(p.DryRun(engine.Options{}))
		}
		if err != nil && first == nil {
			first = err
		}
		return o
	}
	o := ask(f.client, fmt.Sprintf("out tcp %s:40000 -> %s syn", f.From, f.To))
	f.Expected = o.Verdict.String()
	if o.Rule != nil {
		f.Rule, f.Place = o.Rule.Name, filepath.Base(o.Rule.Place)
	}
	if x := protectionOf(f.client, &o, 1500); x != nil && x.Seals && len(x.Forms) > 0 { // with and without UDP, one suite
		f.Mode, f.Suite = x.Protocol+" "+x.Mode, x.Forms[0].Suite
	} else {
		f.differ("the dry run does not say that the request leaves sealed")
	}
	if o := ask(f.server, fmt.Sprintf("in tcp %s:40000 -> %s syn protected lan", f.From, f.To)); o.Result.Verdict != engine.Protect {
		f.differ("the dry run says that the server discards the sealed request: %s", o.Result.Reason)
	}
	if o := ask(f.server, fmt.Sprintf("in tcp %s:40000 -> %s syn", barredAddr, f.To)); o.Result.Reason != engine.ReasonClear {
		f.differ("the dry run says of clear text %s, want %s", o.Result.Reason, engine.ReasonClear)
	}
	return first
}

func (f *sealedFlow) differ(format string, args ...any) {
	f.Disagree = append(f.Disagree, fmt.Sprintf(format, args...))
}

// demoSealed runs the second half; the keys and policies are in dir.
func demoSealed(ctx context.Context, dir string, show *screen) (*sealedFlow, error) {
	f, err := newSealedFlow(dir)
	if err != nil {
		return nil, err
	}
	lab, err := newLab([]netip.Addr{keyedAddr, barredAddr}, []netip.Addr{filesAddr})
	if err != nil {
		return nil, err
	}
	defer lab.close()
	servers, err := startServers(lab.server, filesPort)
	if err != nil {
		return nil, err
	}
	defer servers.close()
	var daemons [2]*demoDaemon // client, server
	for i, n := range []*namespace{lab.client, lab.server} {
		name := [...]string{"client", "server"}[i]
		policy := filepath.Join(dir, name, name+".hcl")
		if daemons[i], err = startDaemon(ctx, n, policy, policy+".sock"); err != nil {
			return nil, err
		}
		defer daemons[i].stop()
	}
	cable, err := openWire(lab.server)
	if err != nil {
		return nil, err
	}
	defer cable.close()
	show.beginSealed(f, daemons[0].status, daemons[1].status)

	if err := f.request(ctx, lab, servers, cable, daemons); err != nil {
		return nil, err
	}
	show.sealedRow(f)
	if err := f.refuse(ctx, lab, servers, cable, daemons[1].client, show.refusedRow); err != nil {
		return nil, err
	}
	show.endSealed(f)
	return f, nil
}

// request sends the request and looks at it from all sides.
func (f *sealedFlow) request(ctx context.Context, lab *lab, servers *servers, cable *wire, daemons [2]*demoDaemon) error {
	var written recorder
	p := &probe{From: f.From, To: f.To, Expected: f.Expected, port: filesPort, path: filesPath, wrap: written.wrap}
	begin := time.Now()
	answer, err := servers.get(ctx, lab.client, p)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f.Took, f.Through, f.Answer = time.Since(begin).Seconds(), err == nil, answer
	if err != nil {
		f.Answer = shortReason(err)
		f.differ("the dry run says %s, the network says %s", f.Expected, f.Answer)
	}
	st, err := arrived(ctx, daemons)
	if err != nil {
		return err
	}
	frames, err := cable.frames()
	if err != nil {
		return err
	}
	f.Clear = written.bytes()
	if f.keys, err = keysOf(ctx, daemons[1].client); err != nil {
		f.differ("%s", err)
	} else {
		f.look(frames)
	}
	f.count(&st[0], &st[1])
	return nil
}

// arrived gives the counters of both daemons when what one has sealed the other
// has opened, or as they are in the end: on a busy machine packets are under way
// for longer than counters have to stand still.
func arrived(ctx context.Context, daemons [2]*demoDaemon) (st [2]host.Status, err error) {
	for deadline := time.Now().Add(demoPatience); ; {
		for i, d := range daemons {
			if st[i], err = settled(ctx, d.client); err != nil {
				return st, err
			}
			if err := reasonsAddUp(&st[i]); err != nil {
				return st, err
			}
		}
		a, b := &st[0].Queue, &st[1].Queue
		if a.Sealed == b.Opened && b.Sealed == a.Opened || time.Now().After(deadline) {
			return st, nil
		}
	}
}

// recorder keeps what is written to a connection.
type recorder struct {
	mu  sync.Mutex
	buf []byte
}

func (r *recorder) wrap(c net.Conn) net.Conn { return &recorded{c, r} }

func (r *recorder) bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.buf)
}

// recorded is a connection with a recorder.
type recorded struct {
	net.Conn
	r *recorder
}

// Write records, then writes.
func (c *recorded) Write(b []byte) (int, error) {
	c.r.mu.Lock()
	c.r.buf = append(c.r.buf, b...)
	c.r.mu.Unlock()
	return c.Conn.Write(b)
}
