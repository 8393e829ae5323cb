package main

import (
	"context"
	"errors"
	"strings"
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
do that lack the other. "ipfw sas" shows what the SAs of
each ipsec block have carried.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := a.client(socket)
			defer client.Close()
			if !asJSON {
				if err := a.printIKE(cmd.Context(), client); err != errNoPeers {
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
			res, err := client.IKE(cmd.Context(), verb, host.IKERequest{Name: args[0], Wait: wait.Seconds()})
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

// errNoPeers says that there is no IKE SA to print.
var errNoPeers = errors.New("no IKE SAs")

// printIKE prints a line for each IKE SA, and one for each of its children.
func (a *app) printIKE(ctx context.Context, client *host.Client) error {
	t := textTable{head: []string{"PEER", "STATE", "REMOTE", "ID", "AGE", "REKEY IN", "TRANSCRIPT", "SUITE"}, right: "    11"}
	err := client.IKESAs(ctx, func(s host.IKESA) error {
		color := style("")
		if s.State != "up" {
			color = yellow
		}
		name := s.Peer
		if name == "" {
			name = "(unknown)"
		}
		transcript := ""
		if s.State == "up" {
			if transcript = "own"; s.FullTranscript {
				transcript = "full"
			}
		}
		t.add(color, name, s.State, s.Remote.String(), packet.Printable(s.RemoteID), age(s.Age), age(s.Rekey), transcript, s.Suite)
		for _, c := range s.Children {
			state := c.State
			if c.State == "up" && !c.Using {
				state = "receives"
			}
			t.add(color, "  "+c.Name, state, c.Mode, strings.Join(c.Local, ", ")+" <-> "+strings.Join(c.Remote, ", "), "", age(c.Rekey), "", "")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(t.rows) == 0 {
		return errNoPeers
	}
	t.print(a, len(t.head)-1)
	return nil
}
