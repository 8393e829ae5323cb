package host

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// DefaultStateDir is where the daemon keeps what must outlive it.
const DefaultStateDir = "/var/lib/ipfw"

// numbers keeps the sequence numbers of SAs whose keys were set by hand in
// files, one for each SA, so that they go on where they were when the daemon
// comes back: a peer that looks for replays refuses a number it has seen.
//
// Outbound the file is ahead of the SA, inbound it may be behind by what came
// in the last second before a crash, which can then be played once more.
// Nothing is kept without a folder.
type numbers struct {
	dir     string
	log     *slog.Logger
	saved   map[[32]byte]uint64
	failing bool // it was said
}

// ahead is how many numbers an outbound SA may use before its file is written
// again; more than can be sent in the seconds between two looks.
const ahead = 1 << 23

func newNumbers(dir string, log *slog.Logger) *numbers {
	return &numbers{dir: dir, log: log, saved: map[[32]byte]uint64{}}
}

func (n *numbers) path(id [32]byte) string {
	return filepath.Join(n.dir, "sa-"+hex.EncodeToString(id[:16])+".seq")
}

// load gives the number that an SA goes on from, 0 for one that is new. A file
// that cannot be read is an error: going on from 0 may be what the far end
// takes for an attack.
func (n *numbers) load(id [32]byte) (uint64, error) {
	if n.dir == "" {
		return 0, nil
	}
	b, err := os.ReadFile(n.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("sequence number of the last run: %w", err)
	}
	seq, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s holds no sequence number: remove it, or give the SA new keys", n.path(id))
	}
	return seq, nil
}

// save writes where an SA is, if it has moved on.
func (n *numbers) save(id [32]byte, outbound bool, seq uint64) {
	if n.dir == "" {
		return
	}
	was, known := n.saved[id]
	if outbound {
		if known && seq+ahead/2 <= was {
			return
		}
		seq += ahead
	} else if seq == 0 || known && seq == was {
		return
	}
	n.write(id, seq)
}

func (n *numbers) write(id [32]byte, seq uint64) {
	tmp := n.path(id) + ".new"
	err := os.MkdirAll(n.dir, 0o700)
	if err == nil {
		err = os.WriteFile(tmp, fmt.Appendln(nil, seq), 0o600)
	}
	if err == nil {
		err = os.Rename(tmp, n.path(id))
	}
	if err != nil && !n.failing {
		n.log.Warn("sequence numbers of manual SAs are not kept: after a restart peers that look for replays may refuse what this host sends", "error", err)
	}
	n.failing = err != nil
	n.saved[id] = seq
}

// exact writes where an outbound SA has ended, which costs no numbers.
func (n *numbers) exact(id [32]byte, seq uint64) {
	if n.dir != "" && seq != 0 {
		n.write(id, seq)
	}
}
