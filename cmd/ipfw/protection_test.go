package main

import (
	"encoding/json"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/rules"
)

// TestProtectionSeals holds what explain says of keys set by hand against what
// SAs with these keys do: length, addresses and SPI on the wire, and the longest
// packet that fits.
func TestProtectionSeals(t *testing.T) {
	workdir(t)
	for _, line := range []string{
		branchOut,
		"forward udp [2001:db8:1::5]:53 -> [2001:db8:2::9]:40000",
		"out tcp 198.51.100.1:40000 -> 192.0.2.7:445",
		"out icmp echo-request 198.51.100.1 -> 192.0.2.9",
	} {
		r := ipfw("explain", "-c", "branch.hcl", "--json", line)
		var got explanation
		if err := json.Unmarshal(r.stdout.Bytes(), &got); err != nil || got.Protection == nil || len(got.Protection.Forms) != 1 {
			t.Fatalf("%s: %v: %s%s", line, err, r.stdout.String(), r.stderr.String())
		}
		x := got.Protection
		p, diags := rules.Load([]string{"branch.hcl"}, rules.LoadOptions{})
		if diags.HasErrors() {
			t.Fatal(diags.Err())
		}
		trial, err := engine.ParseTrial(line)
		if err != nil {
			t.Fatal(err)
		}
		o, err := trial.Run(p.DryRun(engine.Options{}))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := p.FindIPsec(x.IPsec)
		_, conf, err := block.ManualSAs()
		if err != nil {
			t.Fatal(err)
		}
		if !conf.Src.IsValid() {
			conf.Src = o.Input.Packet.Src
		}
		sa, err := esp.New(conf)
		if err != nil {
			t.Fatal(err)
		}
		sealed, _, f := sa.Seal(nil, o.Input.Packet.Bytes, 0)
		form, src, dst := x.Forms[0], conf.Src.String(), conf.Dst.String()
		if f != esp.OK || len(sealed) != form.SealedLength || x.Source != src || x.Destination != dst || x.SPI != conf.SPI || form.Suite != conf.Suite.String() {
			t.Errorf("%s: %+v, but %v seals %d bytes (%v)", line, x, sa, len(sealed), f)
		}
		if n := form.InnerMTU; sa.SealedLen(n) > 1500 || sa.SealedLen(n+1) <= 1500 {
			t.Errorf("%s: inner MTU %d", line, n)
		}
	}
}
