package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/rules"
)

func newShowCmd(a *app) *cobra.Command {
	var socket string
	var asJSON bool
	c := &cobra.Command{
		Use:   "show",
		Short: "Print the policy that the daemon enforces",
		Long: `Print the policy in force, as the daemon has read it: its files may have changed
since. It is printed as it is evaluated, with ipfw's own rules, as 'ipfw validate
--print' prints a file: to see what a reload would change, compare the two.

    diff <(ipfw show) <(ipfw validate --print /etc/ipfw)`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := a.client(socket)
			defer client.Close()
			p, err := client.Policy(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(p)
			}
			a.printf("%s", p.Text)
			a.warnf("%s, generation %d, loaded %s", strings.Join(p.Paths, " "), p.Generation, p.Loaded.Local().Format(time.DateTime))
			return nil
		},
	}
	socketFlag(c, &socket)
	jsonFlag(c, &asJSON)
	return c
}

// running loads the policy that the daemon enforces, with the places that its
// blocks had in the files.
func (a *app) running(ctx context.Context, socket string) (*rules.Policy, error) {
	client := a.client(socket)
	defer client.Close()
	text, err := client.Policy(ctx)
	if err != nil {
		return nil, err
	}
	p, diags := rules.Load([]string{"-"}, rules.LoadOptions{Stdin: strings.NewReader(text.Text)})
	if p == nil {
		return nil, fmt.Errorf("the policy in force cannot be read by this ipfw; the daemon may be another version: %w", diags.Err())
	}
	for i := range p.Engine.Rules {
		r := &p.Engine.Rules[i]
		r.Place = text.Places[r.Name]
		r.Essential = r.Place == ""
	}
	for i := range p.IPsec {
		p.IPsec[i].Place = text.IPsecPlaces[p.IPsec[i].Name]
	}
	for i := range p.IKE {
		p.IKE[i].Place = text.IKEPlaces[p.IKE[i].Name]
	}
	return p, nil
}

// completeBlocks completes the names of the ike and ipsec blocks in force.
func (a *app) completeBlocks(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	p, err := a.running(ctx, cmd.Flag("socket").Value.String())
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // no daemon, or not ours to ask
	}
	var names []string
	for i := range p.IKE {
		names = append(names, p.IKE[i].Name)
	}
	for i := range p.IPsec {
		if p.IPsec[i].IKE != "" {
			names = append(names, p.IPsec[i].Name)
		}
	}
	var out []string
	for _, n := range names {
		if strings.HasPrefix(n, word) {
			out = append(out, n)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}
