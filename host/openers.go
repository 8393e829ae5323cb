package host

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/nfq"
)

// openers remember in a file who had opened the TCP connections that were there
// at the last start. Connection tracking, which began then, may take the wrong
// side for it, and the sockets' counters do not tell any more once a firewall of
// this host has dropped something on its way out (see nfq.FindConnections). A
// connection is known again by its socket's cookie, which the kernel gives to no
// other until the next boot.
type openers struct {
	dir  string // empty: nothing is kept
	boot func() (string, error)
	log  *slog.Logger
}

// openersFile is what the file holds.
type openersFile struct {
	Boot        string            `json:"boot"`
	Connections map[uint64]string `json:"opened_by"` // by cookie: "local" or "remote"
}

func newOpeners(dir string, log *slog.Logger) *openers {
	return &openers{dir: dir, log: log, boot: bootID}
}

// bootID names the time since the machine's start, random(4).
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

func (o *openers) path() string { return filepath.Join(o.dir, "connections.json") }

// recall sets the openers of connections that the last run knew. A file that
// cannot be read changes nothing.
func (o *openers) recall(list []nfq.Connection) {
	if o.dir == "" || len(list) == 0 {
		return
	}
	known, err := o.read()
	if err != nil {
		o.log.Warn("who had opened the connections that were there at the last start is not known any more", "error", err)
		return
	}
	for i := range list {
		switch known[list[i].Cookie] {
		case "local":
			list[i].Opener = engine.OpenedByLocal
		case "remote":
			list[i].Opener = engine.OpenedByRemote
		}
	}
}

// read gives what the file says, nothing if it is from before the last boot.
func (o *openers) read() (map[uint64]string, error) {
	b, err := os.ReadFile(o.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	boot, err := o.boot()
	if err != nil {
		return nil, err
	}
	var f openersFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Boot != boot {
		return nil, nil
	}
	return f.Connections, nil
}

// keep writes what is known of the connections that are there.
func (o *openers) keep(list []nfq.Connection) {
	if o.dir == "" {
		return
	}
	err := o.write(list)
	if err != nil {
		o.log.Warn("who has opened the connections that are there is not kept: after a restart it may not be known", "error", err)
	}
}

func (o *openers) write(list []nfq.Connection) (err error) {
	f := openersFile{Connections: map[uint64]string{}}
	for _, c := range list {
		switch c.Opener {
		case engine.OpenedByLocal:
			f.Connections[c.Cookie] = "local"
		case engine.OpenedByRemote:
			f.Connections[c.Cookie] = "remote"
		}
	}
	if f.Boot, err = o.boot(); err != nil {
		return err
	}
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	return replaceFile(o.path(), append(b, '\n'))
}
