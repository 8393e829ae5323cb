package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/host"
)

func newFlowsCmd(a *app) *cobra.Command {
	var socket string
	var asJSON bool
	c := &cobra.Command{
		Use:   "flows",
		Short: "List the flows that the daemon lets through",
		Long: `List the flows that the daemon lets through now, each with the rule that let it
open. FROM is the side that opened it. The counts include what the kernel passes
by itself because the daemon has decided already (offload = "flow").`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := a.client(socket)
			defer client.Close()
			t := textTable{head: []string{"DIR", "PROTO", "FROM", "TO", "STATE", "PACKETS", "BYTES", "AGE", "RULE"}, right: "     111"}
			err := client.Flows(cmd.Context(), func(f host.Flow) error {
				if asJSON {
					return a.printJSON(f)
				}
				rule := f.Rule
				if rule == "" {
					rule = engine.DefaultNameOf(f.Direction)
				}
				t.add(verdictStyleOf(f.Verdict), f.Direction, f.Protocol.String(), f.Source.String(), f.Destination.String(), f.State,
					fmt.Sprintf("%s/%s", count(f.PacketsOut), count(f.PacketsIn)), size(f.BytesOut+f.BytesIn), age(f.Age), rule)
				return nil
			})
			if err != nil || asJSON {
				return err
			}
			if len(t.rows) == 0 {
				a.printf("No flows.\n")
				return nil
			}
			t.print(a, len(t.head)-1)
			return nil
		},
	}
	socketFlag(c, &socket)
	jsonFlag(c, &asJSON)
	return c
}
