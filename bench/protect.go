package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/nfq"
	"github.com/ipfw/ipfw/packet"
)

// sealing is how two hosts protect everything between them, as one of them is
// told. The keys are set by hand and used for one run: a policy refuses such
// keys for the suites that are measured here, because a daemon that starts
// again would use a nonce twice (RFC 8221 section 3).
type sealing struct {
	Local, Remote netip.Addr
	SPIIn, SPIOut uint32
	KeyIn, KeyOut string // hexadecimal
	Encryption    string
	Encapsulated  bool // in UDP
}

// roleProtect (a sealing as JSON) is the daemon's packet path without the
// daemon: nfq, engine and esp, with one pair of SAs.
func roleProtect(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("need a sealing, in JSON")
	}
	var s sealing
	if err := json.Unmarshal([]byte(args[0]), &s); err != nil {
		return err
	}
	in, err := s.sa(esp.In)
	if err != nil {
		return err
	}
	outbound, err := s.sa(esp.Out)
	if err != nil {
		return err
	}
	sad := esp.NewSAD()
	if err := errors.Join(sad.Insert(in), sad.Insert(outbound)); err != nil {
		return err
	}
	fw, err := nfq.Open(s.kernel())
	if err != nil {
		return err
	}
	e := engine.New(&engine.Policy{Rules: []engine.Rule{{
		Name: "peer", Action: engine.Protect, With: "peer", In: true, Out: true,
		Selector: engine.Selector{Remote: []engine.AddrRange{{First: s.Remote, Last: s.Remote}}},
	}}}, engine.Options{
		SAD:      sad,
		Outbound: func(*engine.Rule, *engine.Input) *esp.SA { return outbound },
		IsLocal:  fw.IsLocal,
	})
	fmt.Fprintln(out, "ready")
	return errors.Join(fw.Run(ctx, judge{e, fw}), fw.Close(false))
}

// kernel is how the daemon would set the kernel up.
func (s *sealing) kernel() nfq.Config {
	return nfq.Config{Queues: runtime.GOMAXPROCS(0), Protect: true}
}

func (s *sealing) sa(d esp.Direction) (*esp.SA, error) {
	suite, err := esp.NewSuite(esp.ESP, s.Encryption, "")
	if err != nil {
		return nil, err
	}
	c := esp.Config{SPI: s.SPIIn, Direction: d, Mode: esp.Transport, Suite: suite, Src: s.Remote, Dst: s.Local, ESN: true, Owner: esp.Owner{Name: "peer"}}
	text := s.KeyIn
	if d == esp.Out {
		c.SPI, c.Src, c.Dst, text = s.SPIOut, s.Local, s.Remote, s.KeyOut
	}
	if s.Encapsulated {
		c.Encap = esp.Encap{SrcPort: 4500, DstPort: 4500}
	}
	key, err := hex.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if want := suite.Encryption.KeyMaterial(); len(key) < want {
		return nil, fmt.Errorf("%s needs %d bytes of key, got %d", s.Encryption, want, len(key))
	}
	c.EncryptionKey = esp.NewKey(key[:suite.Encryption.KeyMaterial()])
	return esp.New(c)
}

// judge is the daemon's handler without its events.
type judge struct {
	*engine.Engine
	fw *nfq.Firewall
}

// Handle implements nfq.Handler.
func (j judge) Handle(in *engine.Input, out *engine.Output, f packet.Fault) engine.Result {
	in.Now = j.fw.Now()
	if f != packet.OK {
		return j.Malformed(f)
	}
	return j.Process(in, out)
}

// upProtect runs that role on both hosts.
func upProtect(s *site, encryption string, encapsulated bool) {
	client := sealing{
		Local: netip.MustParseAddr("10.77.0.2"), Remote: netip.MustParseAddr("10.77.0.1"),
		SPIIn: 0x1001, SPIOut: 0x1002, KeyIn: randomHex(s, 64), KeyOut: randomHex(s, 64),
		Encryption: encryption, Encapsulated: encapsulated,
	}
	server := client
	server.Local, server.Remote = client.Remote, client.Local
	server.SPIIn, server.SPIOut = client.SPIOut, client.SPIIn
	server.KeyIn, server.KeyOut = client.KeyOut, client.KeyIn
	run := func(on *lab.Host, how sealing) {
		text, err := json.Marshal(how)
		s.check(err, "sealing")
		s.reader(on, "ready", s.b.self, "role", "protect", string(text))
	}
	run(s.client, client)
	run(s.server, server)
}
