package nfq

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// guard hears of every change to nftables and renews our table when somebody
// else has changed it: where the table cannot belong to us (before Linux 6.9),
// "nft flush ruleset", which many scripts begin with, would otherwise leave the
// host open with nobody the wiser.
type guard struct {
	conn *netlink.Conn
	done chan struct{}
}

// groupNftables is NFNLGRP_NFTABLES as a bit of sockaddr_nl's group mask.
const groupNftables = 1 << (unix.NFNLGRP_NFTABLES - 1)

func openGuard() (*guard, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: groupNftables})
	if err != nil {
		return nil, fmt.Errorf("nftables events: %w", privileged(err))
	}
	return &guard{conn: conn, done: make(chan struct{})}, nil
}

// renewAgain is how long the guard waits before it tries once more to renew a
// table that could not be renewed.
const renewAgain = time.Second

// watch calls news after each change to nftables, and renew after each change to
// the table by another socket than port's, and again until it succeeds; both
// after the loss of events, which may have been such a change.
func (g *guard) watch(table string, port uint32, news func(), renew func() error) {
	defer close(g.done)
	touched := false
	put := func() {
		var again time.Time
		if renew() != nil {
			again = time.Now().Add(renewAgain)
		}
		_ = g.conn.SetReadDeadline(again) // fails when it is closed, as Receive will
	}
	for {
		msgs, err := g.conn.Receive()
		switch {
		case isClosed(err):
			return
		case isTimeout(err):
			put()
			continue
		case err != nil:
			news()
			put()
			continue
		}
		for _, m := range msgs {
			switch {
			case m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN: // end of a transaction
				news()
				if touched {
					put()
				}
				touched = false
			case m.Header.PID != port && tableOf(m) == table:
				touched = true
			}
		}
	}
}

// tableOf gives the name of the table that an event is about. The attribute
// has number 1 (NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, ...) in all of them.
func tableOf(m netlink.Message) string {
	if len(m.Data) < sizeofNfgenmsg {
		return ""
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[sizeofNfgenmsg:])
	if err != nil {
		return ""
	}
	for _, a := range attrs {
		if a.Type&attrTypeMask == unix.NFTA_TABLE_NAME {
			return cString(a.Data)
		}
	}
	return ""
}

func (g *guard) close() error {
	err := g.conn.Close()
	<-g.done
	return err
}

// isTimeout says that nothing came until a deadline.
func isTimeout(err error) bool {
	var op *netlink.OpError
	return errors.As(err, &op) && op.Timeout()
}

// renew puts the table back as it was.
func (f *Firewall) renew() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	if err := f.install(&f.cfg, false); err != nil {
		f.notRenewed.Add(1)
		f.cfg.Logger.Error("somebody has changed the nftables table, and it cannot be renewed: THE HOST MAY BE OPEN",
			slog.String("table", f.cfg.Table), slog.Any("error", err))
		return err
	}
	f.renewed.Add(1)
	f.cfg.Logger.Debug("somebody has changed the nftables table; renewed", slog.String("table", f.cfg.Table))
	return nil
}
