package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/host"
	"github.com/ipfw/ipfw/packet"
)

func newSAsCmd(a *app) *cobra.Command {
	var socket string
	var asJSON, verbose bool
	var keys string
	c := &cobra.Command{
		Use:   "sas",
		Short: "List the security associations that packets are sealed and opened with",
		Long: `List the peers that keys are agreed on with (IKE SAs), where there are any, and
the security associations of the daemon: each is one direction of protected
traffic under one key. REFUSED counts packets that an SA did not open or seal,
for whatever reason; -v says for which, and what rules an SA serves, its
sequence number, replay window and lifetime.

With --wireshark-keys it prints the keys of all SAs that Wireshark can read by,
as rows of its table "ESP SAs" (the file esp_sa in its profile's folder):

    (umask 077; sudo ipfw sas --wireshark-keys > esp_sa)

Rows of SAs with 64-bit sequence numbers have two columns that Wireshark 4.0 does
not take: for that write --wireshark-keys=4.0.

Only root gets them, and the daemon logs that somebody did. AH has no key to
read by; captures of suites that Wireshark does not know stay closed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := a.client(socket)
			defer client.Close()
			if keys != "" {
				k, err := a.wiresharkKeys(cmd, client, keys)
				if err != nil {
					return err
				}
				return a.printKeys(&k, asJSON)
			}
			var list []host.SA
			err := client.SAs(cmd.Context(), func(s host.SA) error {
				if asJSON {
					return a.printJSON(s)
				}
				list = append(list, s)
				return nil
			})
			if err != nil || asJSON {
				return err
			}
			rekeys, err := a.printIKE(cmd.Context(), client)
			if err == nil {
				a.printf("\n")
			} else if err != errNoPeers {
				return err
			}
			switch {
			case len(list) == 0:
				a.printf("No SAs.\n")
			case verbose:
				for i := range list {
					a.printSA(&list[i], rekeys)
				}
			default:
				a.printSAs(list)
			}
			return nil
		},
	}
	socketFlag(c, &socket)
	jsonFlag(c, &asJSON)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "show all there is to each SA")
	c.Flags().StringVar(&keys, "wireshark-keys", "", "print the keys instead, for Wireshark's table of ESP SAs (root only); =4.0: for Wireshark 4.0")
	c.Flags().Lookup("wireshark-keys").NoOptDefVal = wiresharkNow
	c.RegisterFlagCompletionFunc("wireshark-keys", cobra.FixedCompletions([]string{wiresharkNow, "4.0"}, cobra.ShellCompDirectiveNoFileComp))
	c.MarkFlagsMutuallyExclusive("verbose", "wireshark-keys")
	return c
}

// printSAs prints one line for each SA.
func (a *app) printSAs(list []host.SA) {
	t := textTable{head: []string{"IPSEC", "DIR", "KIND", "SPI", "PEER", "SUITE", "AGE", "PACKETS", "BYTES", "REFUSED"}, right: "      1111"}
	for _, s := range list {
		color, name := style(""), s.Name
		refused := refusedBy(&s)
		if refused > 0 {
			color = yellow
		}
		if s.Replaced {
			name += " (old)"
		}
		peer := s.Source.String()
		if s.Direction == "out" {
			peer = s.Destination.String()
		}
		t.add(color, name, s.Direction, kindOf(&s), spi(s.SPI), peer, s.Suite, age(s.Age), count(s.Packets), size(s.Bytes), count(refused))
	}
	t.print(a, len(t.head)-1)
}

// kindOf gives protocol and mode, "esp tunnel" or "esp/udp transport".
func kindOf(s *host.SA) string {
	if s.DestinationPort != 0 {
		return s.Protocol + "/udp " + s.Mode
	}
	return s.Protocol + " " + s.Mode
}

// refusedBy counts what an SA did not open or seal. Dummy packets were opened
// and thrown away, as they should be.
func refusedBy(s *host.SA) (n uint64) {
	for fault, times := range s.Faults {
		if fault != dummyFault {
			n += times
		}
	}
	return n
}

const dummyFault = "dummy"

func spi(n uint32) string { return fmt.Sprintf("0x%08x", n) }

// printSA prints all there is to an SA. rekeys say when IKE changes the keys of which.
func (a *app) printSA(s *host.SA, rekeys map[uint32]float64) {
	keys := "keys set by hand"
	if s.Keys != "manual" {
		keys = fmt.Sprintf("keys from %s %q", s.Keys, s.Peer)
	}
	a.printf("%s  %s, SPI %s, %s, %s\n", a.paint(bold, s.Name+" "+s.Direction), kindOf(s), spi(s.SPI), s.Suite, keys)
	line := func(name, format string, args ...any) { a.printf("  %-10s %s\n", name, fmt.Sprintf(format, args...)) }

	if s.Replaced {
		line("replaced", "it serves only what is still under way")
	}
	from, to := "any address", "any address of this host"
	if s.Source.IsValid() {
		from = s.Source.String()
	}
	if s.Destination.IsValid() {
		to = s.Destination.String()
	}
	udp := ""
	if s.DestinationPort != 0 {
		udp = fmt.Sprintf(", in UDP from port %d to port %d", s.SourcePort, s.DestinationPort)
	}
	line("addresses", "%s -> %s%s", from, to, udp)
	if s.RemoteID != "" {
		line("peer", "%s", packet.Printable(s.RemoteID))
	}
	if len(s.Local)+len(s.Remote) > 0 {
		line("selectors", "%s <-> %s", strings.Join(s.Local, ", "), strings.Join(s.Remote, ", "))
	}
	if len(s.Rules) > 0 {
		line("rules", "%s", strings.Join(s.Rules, ", "))
	}
	line("age", "%s, last used %s ago; %s", age(s.Age), age(s.Idle), leftOf(s, rekeys))
	dummies := ""
	if n := s.Faults[dummyFault]; n > 0 { // of RFC 4303 section 2.6
		dummies = ", and " + plural(n, "dummy packet")
	}
	line("carried", "%s, %s in the clear%s", plural(s.Packets, "packet"), size(s.Bytes), dummies)
	numbers := "32-bit sequential numbers" // by the names of RFC 9827
	if s.ESN {
		numbers = "partially transmitted 64-bit sequential numbers"
	}
	window := ""
	switch {
	case s.Direction == "out":
	case s.ReplayWindow == 0:
		window = "; replays are not looked for"
	default:
		window = fmt.Sprintf("; replay window of %s", plural(uint64(s.ReplayWindow), "packet"))
	}
	line("sequence", "%s; %s%s", count(s.Sequence), numbers, window)
	if s.PathMTU != 0 {
		line("path MTU", "%d bytes, as the network reported", s.PathMTU)
	}
	var why []string
	for _, fault := range slices.Sorted(maps.Keys(s.Faults)) {
		if fault != dummyFault {
			why = append(why, count(s.Faults[fault])+" "+fault)
		}
	}
	if s.Direction == "in" || len(why) > 0 {
		text := strings.Join(why, ", ")
		if s.Direction == "in" {
			text = plural(s.Replays, "replay") + ", " + plural(s.AuthFailures, "wrong integrity value")
			if len(why) > 0 {
				text += "; all: " + strings.Join(why, ", ")
			}
		}
		if len(why) > 0 {
			text = a.paint(yellow, text)
		}
		line("refused", "%s", text)
	}
	a.printf("\n")
}

// leftOf says when the SA's key is changed, and when its hard lifetime is over.
func leftOf(s *host.SA, rekeys map[uint32]float64) string {
	rekey, changes := rekeys[s.SPI]
	var ends []string
	if s.Expires != 0 {
		ends = append(ends, "in "+age(s.Expires))
	}
	if s.PacketsLeft != nil {
		ends = append(ends, "after "+plural(*s.PacketsLeft, "more packet"))
	}
	if s.BytesLeft != nil {
		ends = append(ends, "after "+size(*s.BytesLeft)+" more")
	}
	text := "ends " + strings.Join(ends, " or ")
	switch {
	case ends == nil && s.Keys == "manual":
		return "it has no end"
	case ends == nil && s.Replaced:
		text = "ends soon"
	case ends == nil:
		text = "IKE changes its key in time"
	}
	if changes && s.Keys != "manual" {
		when := "rekeyed in " + age(rekey)
		if rekey == 0 {
			when = "being rekeyed"
		}
		if ends == nil {
			return when
		}
		return when + ", " + text
	}
	return text
}

// wiresharkNow stands for the releases of Wireshark after 4.0.
const wiresharkNow = "current"

// wiresharkKeys asks for the keys, for root only: the daemon's own user could
// have them too, but should not by accident.
func (a *app) wiresharkKeys(cmd *cobra.Command, client *host.Client, release string) (host.WiresharkKeys, error) {
	if release != wiresharkNow && release != "4.0" {
		return host.WiresharkKeys{}, usagef("--wireshark-keys=%s: it is %s, which may be left out, or 4.0 for Wireshark 4.0", release, wiresharkNow)
	}
	if a.euid != 0 {
		return host.WiresharkKeys{}, errors.New("only root gets at keys: run this with sudo")
	}
	return client.WiresharkKeys(cmd.Context(), release)
}

// printKeys prints the keys, and to the standard error what they are.
func (a *app) printKeys(k *host.WiresharkKeys, asJSON bool) error {
	a.warnf("these are the keys in use: whoever has them can read and forge this host's protected traffic until they are changed")
	if asJSON {
		return a.printJSON(k)
	}
	for _, row := range k.Rows {
		a.printf("%s\n", row)
	}
	for _, left := range k.Left {
		a.warnf("no row for %s", left)
	}
	return nil
}
