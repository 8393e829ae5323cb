package host

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"

	"github.com/ipfw/ipfw/nfq"
)

// Shut puts the table in force in the form that lets nothing pass but loopback
// and leaves it, as a daemon that was killed does, until the next one takes it
// over: for the time of a machine's start before ipfw runs. A policy that is
// not good shuts with the default queue and mark, because shut it has to be;
// the error says what is wrong with it all the same. A running daemon on the
// socket is an error, and nothing is changed; so is, without Force, that whoever
// runs this sits at this host over the network.
func Shut(o Options) error {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	socket, err := listenControl(o.Socket)
	if err != nil {
		return err
	}
	defer socket.Close()
	if !o.Force {
		var own []string
		kernel := lookAtKernel()
		for _, c := range kernel.ownSessions(os.Getpid(), o.SSHConnection) {
			if !c.Local.Addr().IsLoopback() {
				in := opening(c, "")
				own = append(own, fmt.Sprintf("%s %s %s", in.Dir, Protocol(in.Packet.Protocol), endsText(&in)))
			}
		}
		if err := wouldCut(own, "this", "no new session gets in until a daemon runs; say `ipfw shut --force` if you have another way in"); err != nil {
			return err
		}
	}
	first, bad := newLoader(o).load("")
	cfg := nfq.Config{Protect: true, Logger: o.Logger}
	if bad == nil {
		cfg = kernelConfig(first, runtime.GOMAXPROCS(0), o.Logger)
	}
	cfg.FailOpen = false
	err = nfq.Shut(cfg)
	if bad != nil {
		return errors.Join(bad, err)
	}
	return err
}

// Unshut removes the table that Shut or a daemon that is gone has left. The
// host is then as open as the rest of its rules make it. A running daemon on
// the socket is an error, and nothing is changed.
func Unshut(o Options) error {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	socket, err := listenControl(o.Socket)
	if err != nil {
		return err
	}
	defer socket.Close()
	return nfq.Remove(nfq.Config{})
}
