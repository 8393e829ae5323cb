package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/host"
)

func newShutCmd(a *app) *cobra.Command {
	o := host.Options{Stdin: a.stdin}
	c := &cobra.Command{
		Use:   "shut [-c PATH]...",
		Short: "Let nothing in or out until the daemon starts",
		Long: `Put ipfw's table in force in the form that lets nothing pass but loopback, and
leave it to the daemon that starts next. A machine that runs this before its
network comes up leaks nothing while it starts; examples/systemd has the units:

    [Unit]
    Before=network-pre.target ipfw.service
    Wants=network-pre.target
    [Service]
    Type=oneshot
    ExecStart=/usr/sbin/ipfw shut

It takes neither queues nor UDP ports, so that nobody can be in its way.
The policy says only which queues and marks to use. If it is not good, the host
is shut all the same. 'ipfw open' is the way back without a daemon. From a session
over the network, such as ssh, it wants --force: no other gets in afterwards.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := needNetAdmin("it talks to the kernel's packet filter"); err != nil {
				return err
			}
			log, err := a.logger("text")
			if err != nil {
				return err
			}
			o.Logger, o.SSHConnection = log, host.FindSSH(a.getenv)
			err = host.Shut(o)
			var bad *host.PolicyError
			if errors.As(err, &bad) && bad.Diagnostics.Len() > 0 {
				bad.Diagnostics.WriteText(a.stderr, 0, false)
			}
			return err
		},
	}
	c.Flags().StringArrayVarP(&o.Paths, "config", "c", []string{defaultPolicy}, "policy: a file, a folder, - or profile:NAME; may be given again")
	c.RegisterFlagCompletionFunc("config", completePolicy)
	socketFlag(c, &o.Socket)
	c.Flags().BoolVar(&o.Force, "force", false, "shut even from a session over the network")
	return c
}

func newOpenCmd(a *app) *cobra.Command {
	var o host.Options
	c := &cobra.Command{
		Use:   "open",
		Short: "Remove the table that a daemon which is gone has left",
		Long: `Remove the table that 'ipfw shut', --stay-shut, or a daemon that was killed has
left. Nothing is filtered any more then. A running daemon is not touched: stop
it, and its table goes with it.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := needNetAdmin("it talks to the kernel's packet filter"); err != nil {
				return err
			}
			if err := host.Unshut(o); err != nil {
				return err
			}
			a.printf("The table is not there any more: ipfw filters nothing. `ipfw run` or its systemd unit is the way back.\n")
			return nil
		},
	}
	socketFlag(c, &o.Socket)
	return c
}
