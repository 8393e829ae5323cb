package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ipfw/ipfw/host"
)

func newEventsCmd(a *app) *cobra.Command {
	var socket string
	var asJSON, follow bool
	var back uint
	c := &cobra.Command{
		Use:   "events [-f]",
		Short: "Show what the daemon logged: packets, audits, SAs, reloads",
		Long: `Show the last events of the daemon, and with -f those that come: packets that
rules with 'log' or 'reject' matched, a few of those that are discarded otherwise
(see 'log' in the policy block), what 'audit' rules would have done,
malformed packets, reloads and their errors; and what an audit of IPsec wants to
see (RFC 4301, 4302, 4303): packets that it refused, such as replays, wrong
integrity values and clear text where policy wants it sealed, and SAs that came
and went. A packet is written as 'ipfw explain' takes it.

With -f, when the daemon stops, it says so, waits, and goes on with the next one.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := a.client(socket)
			defer client.Close()
			ctx, stop := a.signals(cmd.Context())
			defer stop()
			return a.events(ctx, client, back, follow, asJSON)
		},
	}
	socketFlag(c, &socket)
	jsonFlag(c, &asJSON)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	c.Flags().UintVarP(&back, "lines", "n", 20, "how many past events to show")
	return c
}

// restartWait is how long events -f waits before it looks for a daemon again.
const restartWait = 500 * time.Millisecond

// everything is more events than a daemon keeps: after a restart all are new.
const everything = 1 << 20

// events prints events. Followed, it outlives the daemon.
func (a *app) events(ctx context.Context, client *host.Client, back uint, follow, asJSON bool) error {
	var last uint64
	met, gone := false, false // a daemon has been met; it has gone since
	for {
		err := client.Events(ctx, back, follow, func(e host.Event) error {
			if gone {
				a.warnf("a daemon runs again")
			}
			met, gone = true, false
			if asJSON {
				return a.printJSON(e)
			}
			if last != 0 && e.Seq > last+1 {
				a.warnf("%d events lost: this reader was too slow", e.Seq-last-1)
			}
			last = e.Seq
			a.printf("%s  %s\n", e.Time.Local().Format("15:04:05.000"), a.eventText(&e))
			return a.written()
		})
		var api *host.APIError
		var none *host.NotRunningError
		switch {
		case !follow:
			return err
		case ctx.Err() != nil:
			return nil // Ctrl-C is how one stops following
		case a.written() != nil, errors.As(err, &api), errors.As(err, &none) && !met:
			return err
		}
		if met = true; !gone {
			a.warnf("the daemon has stopped; waiting for the next one (Ctrl-C ends this)")
		}
		gone, back, last = true, everything, 0
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(restartWait):
		}
	}
}

// eventText gives an event in one line, its verdict in colour.
func (a *app) eventText(e *host.Event) string {
	text := e.String()
	if rest, ok := strings.CutPrefix(text, e.Verdict+" "); ok && e.Verdict != "" {
		return a.paint(verdictStyleOf(e.Verdict), e.Verdict) + " " + rest
	}
	if e.IKE != nil && e.IKE.Failure != "" {
		return a.paint(yellow, text)
	}
	switch e.Kind {
	case host.KindBadPolicy, host.KindOverflow, host.KindTable, host.KindRollback, host.KindSuppressed, host.KindKeys, host.KindValidity, host.KindRoute, host.KindState, host.KindWarning:
		return a.paint(yellow, text)
	}
	return text
}
