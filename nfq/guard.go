package nfq

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/ipfw/ipfw/packet"
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
// after the loss of events, which may have been such a change. renew hears who has
// changed what, "" if that is not known.
func (g *guard) watch(table string, port uint32, news func(), renew func(by string) error) {
	defer close(g.done)
	touched := tableChange{}
	by := ""
	ours := inFirstPIDNamespace()
	put := func() {
		var again time.Time
		if renew(by) != nil {
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
			by = ""
			put()
			continue
		}
		for _, m := range msgs {
			switch {
			case m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN: // end of a transaction
				news()
				if len(touched) > 0 {
					by = touched.by(m, ours)
					put()
				}
				clear(touched)
			case m.Header.PID != port && tableOf(m) == table:
				touched[m.Header.Type&0xff]++
			}
		}
	}
}

// tableChange counts, by type of message, what a transaction has done to the table.
type tableChange map[netlink.HeaderType]int

// by says in words who has done it, from the message that ends the transaction, and
// what. The kernel's number of the process is that of the first PID namespace; ours
// says whether that is ours.
func (c tableChange) by(end netlink.Message, ours bool) string {
	who := "a process that the kernel does not name"
	if len(end.Data) >= sizeofNfgenmsg {
		var pid uint32
		name := ""
		attributes(end.Data[sizeofNfgenmsg:], func(typ uint16, v []byte) {
			switch typ {
			case unix.NFTA_GEN_PROC_PID:
				pid = be32(v)
			case unix.NFTA_GEN_PROC_NAME:
				name = cString(v)
			}
		})
		if name != "" {
			where := ""
			if !ours {
				where = " outside this container"
			}
			who = fmt.Sprintf("%s (process %d%s)", packet.Printable(name), pid, where)
		}
	}
	if c[unix.NFT_MSG_DELTABLE] > 0 {
		return who + " deleted it"
	}
	var what []string
	for _, k := range []struct {
		typ       netlink.HeaderType
		did, noun string
	}{
		{unix.NFT_MSG_DELCHAIN, "deleted", "chain"}, {unix.NFT_MSG_DELRULE, "deleted", "rule"},
		{unix.NFT_MSG_NEWCHAIN, "made or changed", "chain"}, {unix.NFT_MSG_NEWRULE, "added", "rule"},
	} {
		switch n := c[k.typ]; {
		case n == 1:
			what = append(what, k.did+" 1 "+k.noun)
		case n > 1:
			what = append(what, fmt.Sprintf("%s %d %ss", k.did, n, k.noun))
		}
	}
	if what == nil {
		return who + " changed it"
	}
	return who + " " + strings.Join(what, " and ")
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

// renew puts the table back as it was; by is what is known of why.
func (f *Firewall) renew(by string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.changedBy.Store(&by)
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
