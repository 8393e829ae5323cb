package host

import (
	"log/slog"

	systemd "github.com/coreos/go-systemd/v22/daemon"
)

// notifier tells the service manager how far we are (sd_notify(3)); without
// NOTIFY_SOCKET it says nothing.
type notifier struct{ log *slog.Logger }

func (n notifier) ready() { n.send(systemd.SdNotifyReady) }

func (n notifier) stopping() { n.send(systemd.SdNotifyStopping) }

// reloading needs the time of the clock that systemd compares with, for
// Type=notify-reload.
func (n notifier) reloading() {
	n.send(systemd.SdNotifyReloading + "\n" + systemd.SdNotifyMonotonicUsec())
}

func (n notifier) send(state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		n.log.Warn("cannot tell the service manager", "state", state, "error", err)
	}
}
