package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/host"
	"github.com/ipfw/ipfw/packet"
)

func newIKECmd(a *app) *cobra.Command {
	list := newIKEListCmd(a)
	c := &cobra.Command{
		Use:   "ike",
		Short: "The peers that keys are agreed on with: list, initiate, rekey, terminate",
		Long: `Peers agree on keys by IKEv2 when a packet needs them, and change them by
themselves. These commands do the same by hand. NAME is an ike block, with all
that belongs to it, or one ipsec block. Alone, "ipfw ike" lists the peers.`,
		Args: list.Args,
		RunE: list.RunE,
	}
	c.Flags().AddFlagSet(list.Flags())
	c.AddCommand(list,
		newIKEVerbCmd(a, "initiate", "Call a peer and agree on keys, without waiting for a packet"),
		newIKEVerbCmd(a, "rekey", "Change the keys of an ike block's IKE SA, or of an ipsec block"),
		newIKEVerbCmd(a, "terminate", "Give up what was agreed on with a peer; the next packet agrees anew"))
	return c
}

func newIKEListCmd(a *app) *cobra.Command {
	var socket string
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the peers that keys are agreed on with",
		Long: `List the IKE SAs: who the peer has proved to be, where it is, by what the
exchange is protected, and what was agreed on. Under TRANSCRIPT, "full" says that
both sides have authenticated both messages of IKE_SA_INIT, so that nobody on the
way has weakened what they agreed on; "own" that each did its own only, as peers
do that lack the other. Below are the pairs of SAs of each ipsec block, with what
they may carry, and the last failure of each peer with which nothing has come up
since. "ipfw sas" shows what the SAs have carried.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := a.client(socket)
			defer client.Close()
			if !asJSON {
				if _, err := a.printIKE(cmd.Context(), client); err != errNoPeers {
					return err
				}
				a.printf("No IKE SAs.\n")
				return nil
			}
			return client.IKESAs(cmd.Context(), func(s host.IKESA) error { return a.printJSON(s) })
		},
	}
	socketFlag(c, &socket)
	jsonFlag(c, &asJSON)
	return c
}

func newIKEVerbCmd(a *app, verb, short string) *cobra.Command {
	var socket string
	var asJSON bool
	wait := 70 * time.Second
	c := &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  wants(1, 1, "the NAME of an ike block or an ipsec block"),

		ValidArgsFunction: a.completeBlocks,
		RunE: func(cmd *cobra.Command, args []string) error {
			client := a.client(socket)
			defer client.Close()
			ctx, stop := context.WithCancel(cmd.Context())
			var told sync.WaitGroup
			defer told.Wait()
			defer stop()
			if verb == "initiate" && wait > 0 {
				told.Go(func() { a.tellSilence(ctx, client, args[0]) })
			}
			res, err := client.IKE(ctx, verb, host.IKERequest{Name: args[0], Wait: wait.Seconds()})
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(res)
			}
			a.printf("%s\n", res.Message)
			return nil
		},
	}
	socketFlag(c, &socket)
	jsonFlag(c, &asJSON)
	c.Flags().DurationVar(&wait, "wait", wait, "how long to wait for the outcome; 0: not at all")
	return c
}

// errNoPeers says that there is no IKE SA to print, and no failure.
var errNoPeers = errors.New("no IKE SAs")

// printIKE prints the IKE SAs, their children, and what has failed last. It gives in
// how many seconds each child will be rekeyed, by the SPIs of both directions.
func (a *app) printIKE(ctx context.Context, client *host.Client) (rekeys map[uint32]float64, err error) {
	t := textTable{head: []string{"PEER", "STATE", "REMOTE", "ID", "AGE", "REKEY IN", "TRANSCRIPT", "SUITE"}, right: "    11"}
	pairs := textTable{head: []string{"IPSEC", "PEER", "STATE", "MODE", "LOCAL", "REMOTE", "REKEY IN"}, right: "      1"}
	rekeys = map[uint32]float64{}
	err = client.IKESAs(ctx, func(s host.IKESA) error {
		color := style("")
		if s.State != "up" {
			color = yellow
		}
		name := s.Peer
		if name == "" {
			name = "(unknown)"
		}
		transcript, rekey := "", ""
		if s.State == "up" {
			rekey = age(s.Rekey)
			if transcript = "own"; s.FullTranscript {
				transcript = "full"
			}
		}
		t.add(color, name, s.State, s.Remote.String(), packet.Printable(s.RemoteID), age(s.Age), rekey, transcript, s.Suite)
		for _, c := range s.Children {
			state := c.State
			if c.State == "up" && !c.Using {
				state = "receives"
			}
			if c.State == "up" {
				rekeys[c.SPIIn], rekeys[c.SPIOut] = c.Rekey, c.Rekey
			}
			pairs.add(color, c.Name, name, state, c.Mode, strings.Join(c.Local, ", "), strings.Join(c.Remote, ", "), age(c.Rekey))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	status, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	var failed []host.IKEFailure
	if status.IKE != nil {
		failed = status.IKE.Failed
	}
	if len(t.rows)+len(failed) == 0 {
		return nil, errNoPeers
	}
	if len(t.rows) > 0 {
		t.print(a, len(t.head)-1)
	}
	if len(pairs.rows) > 0 {
		a.printf("\n")
		pairs.print(a, len(pairs.head)-1)
	}
	if len(failed) > 0 && len(t.rows) > 0 {
		a.printf("\n")
	}
	for i := range failed {
		what := "Failed "
		if failed[i].Failure == "" {
			what = "No answer, "
		}
		a.printf("%s\n", a.paint(yellow, what+age(failed[i].Ago)+" ago: "+packet.Printable(failed[i].Message)))
	}
	return rekeys, nil
}

// tellSilence tells on the standard error, until ctx ends, what the daemon knows of a
// peer's silence: it goes on asking for a minute.
func (a *app) tellSilence(ctx context.Context, client *host.Client, name string) {
	_ = client.Events(ctx, 0, true, func(e host.Event) error {
		if k := e.IKE; k != nil && k.What == "silent" && (k.Peer == name || k.Child == name) {
			a.warnf("%s", packet.Printable(e.Message))
		}
		return nil
	})
}
